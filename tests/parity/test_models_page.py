"""docs/models.md does what it says: its commands and its code run on small checkpoints of the names that it uses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.parity.peers import hf_model, openclip_model, vocabulary_file

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
VISION = {"image_size": 64, "patch_size": 16, "width": 128, "layers": 2}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}


def checkpoints(folder: Path) -> None:
    vocabulary = folder / "bpe_simple_vocab_16e6.txt.gz"
    vocabulary.write_bytes(vocabulary_file().read_bytes())
    theirs = openclip_model(64, VISION, TEXT, quick_gelu=True)
    torch.save({**theirs.state_dict(), "input_resolution": torch.tensor(64)}, folder / "ViT-B-32.pt")
    from raylens.inputs import Tokenizer

    tokenizer = Tokenizer.from_file(vocabulary).to_json()
    (folder / "laion2b_s34b_b79k").mkdir()
    weights = folder / "laion2b_s34b_b79k" / "open_clip_model.safetensors"
    safetensors.torch.save_file(dict(openclip_model(64, VISION, TEXT).state_dict()), weights)
    config = {"model_cfg": {"embed_dim": 64, "vision_cfg": VISION, "text_cfg": TEXT}, "preprocess_cfg": {}}
    (weights.parent / "open_clip_config.json").write_text(json.dumps(config))
    towers = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    hf = hf_model({**towers, "image_size": 64, "patch_size": 16}, {**towers, "eos_token_id": 49407}, projection_dim=32)
    hf.save_pretrained(folder / "clip-vit-base-patch32")
    for name in ("laion2b_s34b_b79k", "clip-vit-base-patch32"):
        (folder / name / "tokenizer.json").write_text(tokenizer)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints(tmp_path)
    section = PAGE.read_text(encoding="utf-8").split("## Bring your own checkpoint")[1].split("\n## ")[0]
    commands, code = re.findall(r"```\w*\n(.*?)```", section, re.DOTALL)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path, env={**os.environ, "PATH": path, "COLUMNS": "160"}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    for words in ("laion@1 in registry: read as openclip", "b32@1 in registry: read as openai", "hf@1", "b32@2"):
        assert words in ran.stdout
    assert "note: positions interpolated from 64 to 96 pixels" in ran.stdout
    assert "b32@1 as hf in b32-hf" in ran.stdout
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {})
