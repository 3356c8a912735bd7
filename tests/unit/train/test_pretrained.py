"""Runs that begin with a model, at its image size or another."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raylens.config import ModelConfig, RunConfig, TextTransformerConfig, VisionTransformerConfig, validated
from raylens.errors import ConfigError
from raylens.inputs import Preprocess, Tokenizer
from raylens.interop import read_foreign, write_foreign
from raylens.messages import quiet
from raylens.models import DualEncoder
from raylens.registry import Bundle, Registry
from raylens.storage import Store
from raylens.train.run.prepare import prepare
from raylens.train.run.pretrained import load_pretrained
from raylens.train.run.worker import build_model

CONFIG = ModelConfig(
    embed_dim=8,
    image=VisionTransformerConfig(size=32, patch=8, width=16, layers=2, heads=2),
    text=TextTransformerConfig(context=8, vocab=600, width=16, layers=1, heads=2),
)
TOKENIZER = Tokenizer.train(["a red cat", "a blue dog"] * 2, 540)
TABLE = "visual.positional_embedding"


@pytest.fixture
def trained(tmp_path: Path) -> Bundle:
    preprocess = Preprocess(size=32)
    model = DualEncoder(CONFIG, end_id=TOKENIZER.end_id, mean=preprocess.mean, std=preprocess.std)
    bundle = Bundle(CONFIG, model.state_dict(), TOKENIZER, preprocess)
    Registry(str(tmp_path / "registry")).publish("base", bundle)
    return bundle


def run_at(tmp_path: Path, size: int, **model: object) -> RunConfig:
    tree = CONFIG.model_dump() | model
    tree["image"] = tree["image"] | {"size": size}
    values = {"name": "tuned", "storage": str(tmp_path), "data": {"train": "x"}, "start_from": "base@1", "model": tree}
    return validated(RunConfig, values)


def test_the_same_size_is_the_same_model(tmp_path: Path, trained: Bundle) -> None:
    assert load_pretrained(run_at(tmp_path, 32)).digest() == trained.digest()


@pytest.mark.parametrize("size", [48, 16])
def test_another_size_interpolates_the_positions_alone(tmp_path: Path, trained: Bundle, size: int) -> None:
    config = run_at(tmp_path, size)
    bundle = load_pretrained(config)
    assert (bundle.config, bundle.preprocess.size) == (config.model, size)
    for name, tensor in bundle.weights.items():
        if name != TABLE:
            assert torch.equal(tensor, trained.weights[name])
    # Pillow's bicubic, which is antialiased as well, a channel at a time.
    table = trained.weights[TABLE].numpy()
    cells = size // 8
    assert np.array_equal(bundle.weights[TABLE][0].numpy(), table[0])
    for channel in range(16):
        grid = Image.fromarray(table[1:, channel].reshape(4, 4).astype(np.float32))
        expected = np.asarray(grid.resize((cells, cells), Image.Resampling.BICUBIC))
        found = bundle.weights[TABLE][1:, channel].numpy().reshape(cells, cells)
        np.testing.assert_allclose(found, expected, atol=2e-6)
    model = build_model(config, TOKENIZER, Preprocess(size=size))
    pixels = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    assert model.encode_image(pixels).shape == (2, 8)


def test_any_other_difference_is_refused(tmp_path: Path, trained: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"'base@1' .*: model\.embed_dim was 8, is now 4$"):
        load_pretrained(run_at(tmp_path, 48, embed_dim=4))
    with pytest.raises(ConfigError, match=r"must be a multiple of the model's patch, 8"):
        load_pretrained(run_at(tmp_path, 48).model_copy(update={"model": _at(50)}))


@pytest.mark.parametrize("size", [32, 48])
def test_a_foreign_model_s_normalisation_and_tokenizer_are_the_run_s(
    tmp_path: Path, trained: Bundle, make_shards: Callable[..., Store], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CLIPModel as Hugging Face stores it, normalised as SigLIP is and not as CLIP."""
    # On a cluster it is Ray's; here the shards are indexed in this process.
    monkeypatch.setattr("raylens.train.run.data_lock.ray_map", lambda items, function: map(function, items))
    folder = tmp_path / "hf"
    write_foreign(trained, folder, "hf")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        json.dumps(processor | {"image_mean": [0.5, 0.25, 0.5], "image_std": [0.5, 0.5, 0.75]})
    )
    Registry(str(tmp_path / "registry")).publish("foreign", read_foreign(folder).bundle(None, "hf"))
    config = run_at(tmp_path, size)
    config = config.model_copy(
        update={
            "start_from": "foreign@1",
            "global_batch": 4,
            "data": config.data.model_validate({"train": make_shards(8).uri}),
        }
    )
    for _ in ("the first start", "a resumed one"):
        ready = prepare(config, quiet)
        assert ready.preprocess == Preprocess(size=size, mean=(0.5, 0.25, 0.5), std=(0.5, 0.5, 0.75))
        assert ready.tokenizer.to_json() == TOKENIZER.to_json()
    model = build_model(config, ready.tokenizer, ready.preprocess).eval()
    expected = load_pretrained(config)
    tower = DualEncoder(config.model, end_id=TOKENIZER.end_id, mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    tower.load_state_dict(dict(expected.weights))
    pixels = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    normalised = (pixels.float() / 255 - torch.tensor([0.5, 0.25, 0.5])) / torch.tensor([0.5, 0.5, 0.75])
    with torch.no_grad():
        plain = tower.visual(normalised.permute(0, 3, 1, 2))
        assert torch.allclose(model.encode_image(pixels), torch.nn.functional.normalize(plain, dim=-1), atol=1e-5)


def _at(size: int) -> ModelConfig:
    return CONFIG.model_copy(update={"image": CONFIG.image.model_copy(update={"size": size})})
