"""What a model costs, against counts written out by hand."""

import json

import pytest

from raylens.config import ModelConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.estimate.flops import model_costs
from raylens.estimate.throughput import throughput
from raylens.workloads.pages.model_profile import profile_text

SMALL = ModelConfig(
    embed_dim=16,
    image=VisionTransformerConfig(size=32, patch=16, width=32, layers=2, heads=2),
    text=TextTransformerConfig(context=12, vocab=600, width=24, layers=1, heads=2),
)


def test_operations_and_parameters_are_those_of_the_formulas() -> None:
    found = model_costs(SMALL, tokens=7)
    W, T = 32, 5  # four patches and the class token
    block = 2 * T * 12 * W * W + 2 * 2 * T * T * W
    last = 2 * (2 * T + 10) * W * W + 2 * 2 * T * W  # keys and values of all, the rest of one token
    image = 2 * 4 * 3 * 16 * 16 * W + block + last + 2 * W * 16
    assert found.image_gflops * 1e9 == image
    W, T = 24, 7
    assert found.text_gflops * 1e9 == 2 * (2 * T + 10) * W * W + 2 * 2 * T * W + 2 * W * 16
    per_block = 12 * 32 * 32 + 13 * 32
    assert found.image_parameters == 3 * 16 * 16 * 32 + 32 + 5 * 32 + 2 * per_block + 4 * 32 + 32 * 16
    assert 10_000 < found.training_bytes < 1_000_000


def test_memory_grows_with_the_tokens_and_not_with_the_weights() -> None:
    wide = SMALL.model_copy(
        update={"text": TextTransformerConfig(context=12, vocab=60_000, width=24, layers=1, heads=2)}
    )
    assert (
        model_costs(wide, 7).training_bytes
        == model_costs(SMALL, 7).training_bytes
        < model_costs(SMALL, 12).training_bytes
    )


def test_throughput_is_measured() -> None:
    found = throughput(SMALL, batch=4, tokens=7)
    assert 0 < found.training < found.forward
    assert "CPU" in found.device or found.device


def test_the_page_names_both_towers() -> None:
    lines = list(profile_text("vit_ti16", 1, 16, measure=False, as_json=False))
    assert "image tower" in lines[0]
    assert any("MiB a pair" in line for line in lines)
    (line,) = profile_text("vit_ti16", 1, 999, measure=False, as_json=True)
    assert json.loads(line)["tokens"] == 77


@pytest.mark.parametrize(
    "image",
    [
        {"kind": "resnet", "size": 32, "blocks": [1, 1, 1, 1], "width": 8},
        {"size": 32, "patch": 16, "width": 32, "heads": 2},
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        {"kind": "cbow", "context": 12, "vocab": 600, "width": 16},
        {"context": 12, "vocab": 600, "width": 16, "heads": 2},
    ],
)
def test_every_kind_of_tower_is_counted(image: dict[str, object], text: dict[str, object]) -> None:
    """Of a ResNet's 32 pixels one by one are left, of which BatchNorm has no statistics: as when a run begins."""
    found = model_costs(ModelConfig.model_validate({"embed_dim": 16, "image": image, "text": text}), 8)
    assert found.image_gflops > 0
    assert found.text_gflops >= 0
    assert found.training_bytes > 0
