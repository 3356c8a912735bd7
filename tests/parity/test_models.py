"""The same weights in raylens and in the packages that people have: the same embeddings, and the same files back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from raylens.errors import BundleError
from raylens.inputs import Tokenizer
from raylens.interop import Foreign, read_foreign, write_foreign
from raylens.models import DualEncoder
from tests.parity.peers import hf_model, open_clip, openclip_model, vocabulary_file

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
SMALL_VIT = {"image_size": 64, "patch_size": 16, "width": 128, "layers": 3}
SMALL_RESNET = {"image_size": 64, "patch_size": None, "width": 16, "layers": [1, 2, 1, 1]}
WIDE_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
VIT_B32 = {"image_size": 224, "patch_size": 32, "width": 768, "layers": 12}
RN50 = {"image_size": 224, "patch_size": None, "width": 64, "layers": [3, 4, 6, 3]}
TOLERANCE = 1e-5
"""Relative distance of embeddings in fp32."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(vocabulary_file())


def inputs(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random pixels ``[4, S, S, 3]`` and ids ``[4, 77]`` with the end token at different places."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 49406, (4, 77))
    for row, end in zip(ids, (76, 1, 9, 30), strict=True):
        row[0], row[end], row[end + 1 :] = 49406, 49407, 0
    return torch.from_numpy(rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8)), torch.from_numpy(ids)


def normalised(pixels_BSSC: Tensor) -> Tensor:
    scaled = pixels_BSSC.permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def ours(found: Foreign) -> DualEncoder:
    model = DualEncoder(found.config, end_id=49407, mean=found.preprocess.mean, std=found.preprocess.std)
    model.load_state_dict(dict(found.weights))
    return model.eval()


def distance(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


@torch.no_grad()
def compare(found: Foreign, theirs: Any) -> None:
    pixels, ids = inputs(found.config.image.size)
    image_BD, text_BD, log_scale, _ = ours(found)(pixels, ids)
    assert distance(image_BD, theirs.encode_image(normalised(pixels), normalize=True)) < TOLERANCE
    assert distance(text_BD, theirs.encode_text(ids, normalize=True)) < TOLERANCE
    assert log_scale == 3.0


def saved(model: Any, path: Path, config: dict[str, Any] | None = None) -> Path:
    """A folder as OpenCLIP keeps it, or a bare file of weights."""
    if config is None:
        torch.save(model.state_dict(), path / "weights.pt")
        return path / "weights.pt"
    import json

    safetensors.torch.save_file(dict(model.state_dict()), path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return path


@pytest.mark.parametrize("vision", [SMALL_VIT, SMALL_RESNET, VIT_B32, RN50], ids=["vit", "resnet", "B/32", "RN50"])
@pytest.mark.parametrize("quick", [True, False], ids=["quick", "exact"])
def test_openclip_folders(tmp_path: Path, vision: dict[str, Any], quick: bool) -> None:
    text = TEXT if vision["width"] in (128, 16) else WIDE_TEXT
    theirs = openclip_model(64 * (1 + vision["width"] // 64), vision, text, quick_gelu=quick)
    config = {"embed_dim": theirs.text_projection.shape[1], "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick}
    compare(read_foreign(saved(theirs, tmp_path, config)), theirs)


@pytest.mark.parametrize("vision", [SMALL_VIT, SMALL_RESNET], ids=["vit", "resnet"])
class TestOpenAI:
    def test_state_dicts(self, tmp_path: Path, vision: dict[str, Any]) -> None:
        theirs = openclip_model(64, vision, TEXT, quick_gelu=True)
        path = saved(theirs, tmp_path)
        with pytest.raises(BundleError, match="does not say which activation"):
            read_foreign(path)
        compare(read_foreign(path, activation="quick_gelu"), theirs)
        described = {"input_resolution": torch.tensor(64), "context_length": torch.tensor(77)}
        torch.save({**theirs.state_dict(), **described}, path)
        found = read_foreign(path)
        assert found.format == "openai"
        compare(found, theirs)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
    def test_torchscript_archives(self, tmp_path: Path, vision: dict[str, Any]) -> None:
        theirs = openclip_model(64, vision, TEXT, quick_gelu=True)
        theirs.output_dict = False
        pixels, ids = inputs(64)
        torch.jit.trace(theirs, (normalised(pixels), ids), check_trace=False).save(str(tmp_path / "archive.pt"))
        found = read_foreign(tmp_path / "archive.pt")
        assert found.format == "openai"
        compare(found, theirs)
        half = {name: tensor.half() for name, tensor in theirs.state_dict().items()}
        theirs.load_state_dict(half)
        compare(read_foreign(saved(theirs, tmp_path), activation="quick_gelu"), theirs)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_huggingface_folders(tmp_path: Path, activation: str) -> None:
    towers = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**towers, "image_size": 64, "patch_size": 16, "hidden_act": activation}
    theirs = hf_model(vision, {**towers, "hidden_act": activation, "eos_token_id": 49407}, projection_dim=48)
    compare_hf(theirs, tmp_path, activation)


def test_the_huggingface_model_at_full_width(tmp_path: Path) -> None:
    """All of ViT-B/32's sizes are defaults, which its configuration file leaves out."""
    compare_hf(hf_model({}, {"eos_token_id": 49407}), tmp_path, "quick_gelu")


def compare_hf(theirs: Any, tmp_path: Path, activation: str) -> None:
    theirs.save_pretrained(tmp_path)
    found = read_foreign(tmp_path)
    assert found.config.activation == activation
    pixels, ids = inputs(found.config.image.size)
    with torch.no_grad():
        image_BD, text_BD, *_ = ours(found)(pixels, ids)
        out = theirs(input_ids=ids, pixel_values=normalised(pixels))
    assert distance(image_BD, out.image_embeds) < TOLERANCE
    assert distance(text_BD, out.text_embeds) < TOLERANCE


@pytest.mark.parametrize("form", ["openclip", "hf", "openai"])
@pytest.mark.parametrize("vision", [SMALL_VIT, SMALL_RESNET], ids=["vit", "resnet"])
def test_round_trips_are_bit_exact(tmp_path: Path, vision: dict[str, Any], form: str, tokenizer: Tokenizer) -> None:
    theirs = openclip_model(64, vision, TEXT, quick_gelu=True)
    bundle = read_foreign(saved(theirs, tmp_path), activation="quick_gelu").bundle(tokenizer, "test")
    target = tmp_path / "exported"
    if form == "hf" and vision is SMALL_RESNET:
        with pytest.raises(BundleError, match="no towers of kind 'resnet'"):
            write_foreign(bundle, target, form)
        return
    write_foreign(bundle, target, form)
    found = read_foreign(target)
    assert found.config == bundle.config
    assert {name: tensor.numpy().tobytes() for name, tensor in found.weights.items()} == {
        name: tensor.numpy().tobytes() for name, tensor in bundle.weights.items()
    }
    if form != "openai":
        assert found.tokenizer is not None
        assert (
            found.tokenizer(["it's a Café &amp; 12 dogs"], 77)[0].tolist()
            == tokenizer(["it's a Café &amp; 12 dogs"], 77)[0].tolist()
        )


def test_their_programs_read_what_is_written(tmp_path: Path, tokenizer: Tokenizer) -> None:
    theirs = openclip_model(64, SMALL_VIT, TEXT, quick_gelu=True)
    bundle = read_foreign(saved(theirs, tmp_path), activation="quick_gelu").bundle(tokenizer, "test")
    pixels, ids = inputs(64)
    with torch.no_grad():
        expected = theirs.encode_image(normalised(pixels)), theirs.encode_text(ids)
        write_foreign(bundle, tmp_path / "openclip", "openclip")
        model = open_clip().create_model(f"local-dir:{tmp_path / 'openclip'}").eval()
        assert distance(model.encode_image(normalised(pixels)), expected[0]) < TOLERANCE
        assert distance(model.encode_text(ids), expected[1]) < TOLERANCE

        from transformers import AutoTokenizer, CLIPModel

        write_foreign(bundle, tmp_path / "hf", "hf")
        theirs_again: Any = CLIPModel.from_pretrained(tmp_path / "hf")
        model = theirs_again.eval()
        out = model(input_ids=ids, pixel_values=normalised(pixels))
        assert distance(out.image_embeds, torch.nn.functional.normalize(expected[0], dim=-1)) < TOLERANCE
        assert distance(out.text_embeds, torch.nn.functional.normalize(expected[1], dim=-1)) < TOLERANCE
        marked = AutoTokenizer.from_pretrained(tmp_path / "hf")("a photo of a dog").input_ids
        assert marked == [number for number in tokenizer(["a photo of a dog"], 77)[0][0].tolist() if number]


def test_positions_are_interpolated_as_openclip_does(tmp_path: Path) -> None:
    theirs = openclip_model(64, SMALL_VIT, TEXT, quick_gelu=True)
    found = read_foreign(saved(theirs, tmp_path), activation="quick_gelu").resized(96)
    larger = openclip_model(64, {**SMALL_VIT, "image_size": 96}, TEXT, quick_gelu=True)
    state = dict(theirs.state_dict())
    open_clip().model.resize_pos_embed(state, larger)
    larger.load_state_dict(state)
    compare(found, larger)
    assert found.notes == ("positions interpolated from 64 to 96 pixels",)
