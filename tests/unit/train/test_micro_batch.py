"""What fits is measured: on real towers, and on files as Linux has them."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raylens.config import ModelConfig, RunConfig, TextTransformerConfig, VisionTransformerConfig, validated
from raylens.errors import TrainingError
from raylens.models import DualEncoder
from raylens.train.engine.forward import build_forward
from raylens.train.engine.micro_batch import BACKWARD, bytes_per_pair, fitting_micro_batch, free_memory, largest_divisor

CPU = torch.device("cpu")


@given(st.integers(1, 5000), st.floats(0, 1e4))
def test_the_largest_divisor_is_one(batch: int, limit: float) -> None:
    found = largest_divisor(batch, limit)
    assert batch % found == 0
    assert found <= limit or found == 1
    assert not any(batch % n == 0 and n <= limit for n in range(found + 1, batch + 1))


def config(checkpointed: bool = False, **model: int) -> RunConfig:
    image = VisionTransformerConfig(size=32, patch=8, width=32, layers=model.get("layers", 2), heads=2)
    text = TextTransformerConfig(context=20, vocab=600, width=32, layers=2, heads=2)
    return validated(
        RunConfig,
        {
            "name": "m",
            "global_batch": 64,
            "scale": {"workers": 1},
            "data": {"train": "x"},
            "model": ModelConfig(embed_dim=16, image=image, text=text).model_dump(),
            "towers": {"checkpoint_blocks": checkpointed},
        },
    )


def measured(of: RunConfig) -> float:
    model = DualEncoder(of.model, end_id=599, mean=(0.5,) * 3, std=(0.5,) * 3)
    return bytes_per_pair(build_forward(model, of), of, CPU)


def test_a_pair_costs_what_its_activations_take() -> None:
    # Of the attention block alone: qkv and its input, 17 image tokens and 20 of text, width 32, fp32, two blocks.
    least = BACKWARD * 2 * (17 + 20) * 32 * 4 * 4
    found = measured(config())
    assert least < found < 20 * least
    assert measured(config(layers=6)) > 1.5 * found
    assert measured(config(checkpointed=True)) < 0.9 * found


def test_the_probe_leaves_no_trace() -> None:
    of = config()
    model = DualEncoder(of.model, end_id=599, mean=(0.5,) * 3, std=(0.5,) * 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert fitting_micro_batch(build_forward(model, of), of, CPU, sharing=1) == 64  # so small a model fits whole
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_free_memory_is_the_containers(tmp_path: Path) -> None:
    proc = tmp_path / "meminfo"
    proc.write_text("MemTotal: 4000 kB\nMemAvailable: 3000 kB\n")
    assert free_memory(proc, tmp_path) == 3000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(proc, tmp_path) == 3000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert free_memory(proc, tmp_path) == 600_000
    proc.write_text("nothing\n")
    with pytest.raises(TrainingError, match=r"set scale\.micro_batch"):
        free_memory(proc, tmp_path)
