"""The picture of a run's rates, from the command line."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from raylens.config import RunConfig, apply_overrides, validated
from raylens.errors import ConfigError
from raylens.workloads.cli.app import app
from raylens.workloads.recipes import RECIPES
from raylens.workloads.schedule_plot import plot_schedule

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
