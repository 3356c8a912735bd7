"""Figures of an evaluation and of a step, each against another way to compute it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from raylens.config import (
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TextTransformerConfig,
    VisionTransformerConfig,
    validated,
)
from raylens.estimate.flops import ModelFlops, model_costs, peak_flops
from raylens.evaluate import ClassList
from raylens.evaluate.metrics import Metric
from raylens.models import DualEncoder
from raylens.objectives import contrastive_loss, sigmoid_loss, triplet_loss
from raylens.train.engine.tower_stats import TowerMonitor
from raylens.train.evaluation.metrics import Rows, batch_loss, pair_metrics, zero_shot_accuracy

MODEL = ModelConfig(
    embed_dim=8,
    image=VisionTransformerConfig(size=16, patch=8, width=16, layers=1, heads=2),
    text=TextTransformerConfig(context=8, vocab=600, width=16, layers=1, heads=2),
)


def vectors(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(rows, 8, generator=draw, dtype=torch.float64) for _ in range(2))
    return functional.normalize(image, dim=1), functional.normalize(text, dim=1)


@given(st.sampled_from([2, 5, 256, 300, 600]), st.floats(1.0, 100.0), st.floats(-12.0, 5.0), st.integers(0, 2**31))
def test_losses_are_those_of_training(rows: int, scale: float, bias: float, seed: int) -> None:
    image_BD, text_BD = vectors(rows, seed)
    log_scale = torch.tensor(scale, dtype=torch.float64).log()
    trained = {
        "softmax": contrastive_loss(image_BD, text_BD, log_scale),
        "sigmoid": sigmoid_loss(image_BD, text_BD, log_scale, torch.tensor(bias, dtype=torch.float64)),
        "triplet": triplet_loss(image_BD, text_BD, margin=0.3),
    }
    for kind, loss in trained.items():
        objective = ObjectiveConfig.model_validate({"kind": kind, "margin": 0.3})
        assert batch_loss(image_BD, text_BD, objective, scale, bias) == pytest.approx(float(loss), rel=1e-9)


def rows_of(count: int, parts: int) -> list[Rows]:
    image, text = (one.float().numpy() for one in vectors(count, 1))
    key = np.arange(count) % 5
    return [
        Rows(
            tuple((0, at) for at in range(part, count, parts)),
            {"image": image[part::parts], "text": text[part::parts], "text_key": key[part::parts]},
        )
        for part in range(parts)
    ]


def test_it_does_not_matter_which_worker_had_what() -> None:
    objective = ObjectiveConfig()
    found = [pair_metrics(Rows.join(rows_of(50, parts)), objective, 2.0, None, 20) for parts in (1, 2, 7)]
    assert found[0] == found[1] == found[2]
    image, text = (one.float().double() for one in vectors(50, 1))
    whole = [batch_loss(image[at : at + 20], text[at : at + 20], objective, np.exp(2.0), None) for at in (0, 20)]
    assert found[0][0] == Metric("validation_loss", found[0][0].value, "min")
    assert found[0][0].value == pytest.approx(np.mean(whole))
    assert pair_metrics(Rows((), {}), objective, 2.0, None, 20) == []


def test_zero_shot_is_the_nearest_mean_of_prompts() -> None:
    classes = ClassList("two", ("left", "right"), ("{}", "a {}"))
    prompts = Rows(tuple((0, at) for at in range(4)), {"text": np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]])})
    images = Rows(
        ((0, 0), (0, 1), (1, 0)), {"image": np.array([[1.0, 0], [0, 1], [0.1, 0.9]]), "label": np.array([0, 1, 0])}
    )
    assert zero_shot_accuracy(images, prompts, classes) == pytest.approx(2 / 3)
    assert zero_shot_accuracy(Rows((), {}), prompts, classes) is None


def test_operations_are_three_times_those_of_a_forward_pass() -> None:
    def run(**towers: object) -> RunConfig:
        values = {"name": "r", "data": {"train": "x"}, "model": MODEL.model_dump(), "towers": towers}
        return validated(RunConfig, values)

    counted = model_costs(MODEL, 5)
    assert ModelFlops(run(), None).of_pair(5.2) == pytest.approx(3e9 * (counted.image_gflops + counted.text_gflops))
    locked = ModelFlops(run(lock_image=True), None).of_pair(5.0)
    assert locked == pytest.approx(1e9 * (counted.image_gflops + 3 * counted.text_gflops))


@pytest.mark.parametrize(
    ("name", "peak"), [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA A100-SXM4-40GB", 312e12), ("GeForce", None)]
)
def test_peaks_are_known_by_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_norms_and_cosines_are_those_of_the_step() -> None:
    model = DualEncoder(MODEL, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    watched = TowerMonitor(model, torch.device("cpu"))
    pixels = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8)
    ids = torch.tensor([[5, 1, 0, 0]] * 3 + [[7, 8, 9, 1]] * 3)
    outputs = []
    model.visual.register_forward_hook(lambda _, __, output: outputs.append(output.detach()))
    with torch.no_grad():
        embedded = model(pixels, ids)
    watched.captions(ids.numpy().astype(np.int32))
    watched.pairs(embedded)
    figures = watched.tower_stats()
    assert figures.image_norm == pytest.approx(float(outputs[0].norm(dim=1).mean()))
    assert figures.tokens == 3.0
    assert figures.memory_bytes > 10e6
    cosines = (embedded.image_BD @ embedded.text_BD.T).numpy()
    edges = np.linspace(-1, 1, 41)
    own = np.eye(6, dtype=bool)
    for found, values in ((figures.positive_cosines, cosines[own]), (figures.negative_cosines, cosines[~own])):
        assert found == tuple(np.histogram(values, edges)[0])
