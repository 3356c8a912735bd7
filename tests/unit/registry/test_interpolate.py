"""Models between two others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from raylens.config import ModelConfig, ResNetConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.errors import BundleError, ConfigError
from raylens.inputs import Preprocess, Tokenizer
from raylens.models import DualEncoder
from raylens.registry import Bundle, Interpolation, Lineage, Registry, interpolate
from raylens.workloads.cli.app import app

TEXT = TextTransformerConfig(context=8, vocab=600, width=16, layers=1, heads=2)
CONFIG = ModelConfig(
    embed_dim=8, image=VisionTransformerConfig(size=16, patch=8, width=16, layers=1, heads=2), text=TEXT
)
TOKENIZER = Tokenizer.train(["a red cat", "a blue dog"], 540)


def bundle(seed: int, config: ModelConfig = CONFIG, tokenizer: Tokenizer = TOKENIZER) -> Bundle:
    torch.manual_seed(seed)
    preprocess = Preprocess(size=config.image.size)
    model = DualEncoder(config, end_id=tokenizer.end_id, mean=preprocess.mean, std=preprocess.std)
    for buffer in model.buffers():
        buffer.add_(seed)
    return Bundle(config, model.state_dict(), tokenizer, preprocess, Lineage(objective="softmax", step=seed))


@given(st.floats(0.0, 1.0), st.integers(0, 2**31))
def test_weights_are_between(alpha: float, seed: int) -> None:
    base, tuned = bundle(seed), bundle(seed + 1)
    found = interpolate(base, tuned, alpha)
    for name, tensor in found.weights.items():
        first, second = (one.weights[name].numpy().astype(np.float64) for one in (base, tuned))
        expected = ((1.0 - alpha) * first + alpha * second).astype(np.float32)
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=2e-7, atol=1e-9)


def test_the_ends_are_the_two_models_and_the_lineage_names_them() -> None:
    base, tuned = bundle(1), bundle(2)
    for alpha, end in ((0.0, base), (1.0, tuned)):
        found = interpolate(base, tuned, alpha)
        assert found.digest() == end.digest()
    between = Interpolation(base=base.digest(), tuned=tuned.digest(), alpha=0.25)
    assert interpolate(base, tuned, 0.25).lineage == Lineage(objective="softmax", interpolated=between)


def test_counts_are_those_of_the_second() -> None:
    config = ModelConfig(embed_dim=8, image=ResNetConfig(size=32, width=8, blocks=(1, 1, 1, 1)), text=TEXT)
    base, tuned = bundle(3, config), bundle(7, config)
    counts = {name: tensor for name, tensor in interpolate(base, tuned, 0.5).weights.items() if "num_batches" in name}
    assert counts
    assert all(int(tensor) == 7 for tensor in counts.values())


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (bundle(2, CONFIG.model_copy(update={"activation": "gelu"})), "model.activation was 'quick_gelu', is now"),
        (
            bundle(2, CONFIG.model_copy(update={"image": CONFIG.image.model_copy(update={"size": 24})})),
            "model.image.size was 16, is now 24",
        ),
        (bundle(2, tokenizer=Tokenizer.train(["something else"] * 3, 540)), "the tokenizers are not the same"),
        (replace(bundle(2), preprocess=Preprocess(size=16, mean=(0.5, 0.5, 0.5))), "preprocess.mean was"),
    ],
)
def test_other_models_are_refused(other: Bundle, words: str) -> None:
    with pytest.raises(BundleError, match="differ in nothing but their weights") as caught:
        interpolate(bundle(1), other, 0.5)
    assert words in str(caught.value)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_shares_out_of_range_are_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="it must be from 0"):
        interpolate(bundle(1), bundle(2), alpha)


def test_the_command_registers_a_version_for_each_share(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    registry.publish("base", bundle(1))
    registry.publish("tuned", bundle(2))
    arguments = ["models", "interpolate", "base", "tuned", "wise", "--registry", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, "--alpha", "0.25", "--alpha", "1"])
    assert result.output.splitlines() == [
        "wise@1  0.75 of base@1, 0.25 of tuned@1",
        "wise@2  0 of base@1, 1 of tuned@1",
    ]
    assert registry.resolve("wise@2").digest == registry.resolve("tuned").digest
    assert CliRunner().invoke(app, [*arguments, "--alpha", "2"]).exit_code != 0
    assert len(registry.versions("wise")) == 2
