"""The picture of a run's rates, from the command line."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from raylens.config import RunConfig, apply_overrides, validated
from raylens.errors import ConfigError
from raylens.workloads.cli.app import app
from raylens.workloads.pages.schedule import plot_schedule, schedule_figure
from raylens.workloads.recipes import RECIPES

Curve = NDArray[np.float64]
LENGTH = ["length.epochs=null", "length.samples_seen=12800000"]


def config(*changes: str) -> RunConfig:
    return validated(RunConfig, apply_overrides(RECIPES["vit_b32"]().model_dump(mode="json"), [*LENGTH, *changes]))


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_the_command_writes_a_picture_and_starts_nothing(tmp_path: Path) -> None:
    target = tmp_path / "rates.png"
    changes = [part for one in LENGTH for part in ("--set", one)]
    result = CliRunner().invoke(app, ["train", "vit_b32", *changes, "--plot-schedule", str(target)])
    assert result.exit_code == 0, result.output
    assert size_of(target) == (800, 400)
    assert [path.name for path in tmp_path.iterdir()] == ["rates.png"]


def test_a_scheduled_temperature_has_a_curve_of_its_own(tmp_path: Path) -> None:
    target = tmp_path / "rates.png"
    plot_schedule(config("objective.learn_scale=false", "objective.end_temperature=0.01"), target)
    assert size_of(target) == (800, 640)


def lines(*changes: str) -> dict[str, tuple[Curve, Curve]]:
    """By label, steps and rates."""
    (axes, *_) = schedule_figure(config(*changes)).axes
    return {
        str(one.get_label()): (np.asarray(one.get_xdata()), np.asarray(one.get_ydata())) for one in axes.get_lines()
    }


def rates(found: tuple[Curve, Curve]) -> Curve:
    return found[1]


def test_a_run_without_groups_has_one_curve_with_the_optimiser_s_values() -> None:
    (label,) = found = lines("optim.schedule.warmup_steps=100", "optim.peak_lr=0.01")
    steps, values = found[label]
    assert label == "all"
    assert (steps[0], steps[-1]) == (0, 390)
    cosine = 0.005 * (1 + np.cos(np.pi * (steps - 100) / (391 - 100)))
    np.testing.assert_allclose(values, np.where(steps < 100, 0.01 * (steps + 1) / 100, cosine))


def test_parts_with_a_rate_of_their_own_have_curves_of_their_own() -> None:
    found = lines(
        "optim.groups.image.lr_factor=0.1",
        "optim.groups.logit_scale={lr_factor: 2.0, schedule: {kind: constant, warmup_steps: 0}}",
        "optim.schedule.warmup_steps=0",
    )
    assert found.keys() == {"image", "text", "temperature"}
    np.testing.assert_allclose(rates(found["image"]), 0.1 * rates(found["text"]))
    np.testing.assert_allclose(rates(found["temperature"]), 2 * 5e-4)


def test_layers_that_learn_more_slowly_are_drawn() -> None:
    found = lines("optim.layer_decay=0.7", "model.text.layers=6", "optim.schedule.warmup_steps=0")
    assert set(found) == {
        "temperature, image (behind its blocks), text (behind its blocks)",
        "image (last block), text (last block)",
        "image (first block)",
        "image (before its blocks)",
        "text (first block)",
        "text (before its blocks)",
    }
    peak = rates(found["temperature, image (behind its blocks), text (behind its blocks)"])
    assert peak[0] == 5e-4
    for label, depth in (
        ("image (last block), text (last block)", 1),
        ("image (first block)", 12),
        ("image (before its blocks)", 13),
        ("text (first block)", 6),
        ("text (before its blocks)", 7),
    ):
        np.testing.assert_allclose(rates(found[label]), 0.7**depth * peak, err_msg=label)


def test_towers_of_one_block_and_of_stages_and_locked_ones() -> None:
    found = lines("optim.layer_decay=0.5", "model.text.layers=1", "towers.lock_image=true")
    assert set(found) == {
        "temperature, text (behind its blocks)",
        "text (its block)",
        "text (before its blocks)",
    }
    resnet = "model.image={kind: resnet, blocks: [1, 1, 1, 1], width: 8}"
    found = lines("optim.layer_decay=0.5", resnet, "model.text={kind: cbow}", "optim.schedule.warmup_steps=0")
    assert [rates(one)[0] for one in found.values()] == pytest.approx([5e-4 / 2**depth for depth in (0, 1, 4, 5)])


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.png, \.svg, \.pdf"):
        plot_schedule(config(), tmp_path / "rates.gif")
    with pytest.raises(ConfigError, match="there is no folder"):
        plot_schedule(config(), tmp_path / "nowhere" / "rates.png")


def test_epochs_need_the_data_set_s_size(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.tar").write_bytes(bytes(10240))
    changes = [f"data.train={tmp_path / 'data'}", f"storage={tmp_path}", "length.epochs=2", "length.samples_seen=null"]
    with pytest.raises(ConfigError, match=r"length\.epochs = 2: .* is not indexed"):
        plot_schedule(config(*changes), tmp_path / "rates.png")
