"""``raylens sweep`` and its kin: files, pages, the terminal, and messages for mistakes; no Ray runs."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from raylens.config import dump_yaml
from raylens.errors import ConfigError
from raylens.storage import open_store
from raylens.tune import SweepConfig
from raylens.tune.paths import STOP, SWEEP_SETTINGS
from raylens.tune.trials import SweepRecord, write_sweep
from raylens.workloads.cli.app import app
from raylens.workloads.pages.sweep_terminal import SweepTerminal, headline, time_left
from raylens.workloads.recipes.sweeps import SWEEPS
from raylens.workloads.sweeps import configure_sweep
from tests.unit.tune.test_trials import trial

LOSS = "validation_loss"
FILE = {
    "name": "mine",
    "recipe": "digits",
    "changes": {"evaluation.pairs": "pairs", "evaluation.every_steps": 10, "optim.schedule.kind": "linear"},
    "space": {"optim.peak_lr": {"log_uniform": ["1e-4", "1e-2"]}, "optim.beta1": [0.9, 0.95]},
}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["sweep", *arguments])


def error_of(outcome: Any) -> str:
    """The command line's own handler prints it; the runner keeps the exception."""
    assert isinstance(outcome.exception, ConfigError | Exception), outcome.output
    return str(outcome.exception)


def stored(tmp_path: Path, name: str = "s", *trials: Any, **record: Any) -> str:
    store = open_store(str(tmp_path)) / name
    tree = SWEEPS["digits"]().model_dump(mode="json") | {"name": name, "metric": LOSS}
    SWEEP_SETTINGS.claim(store, SweepConfig.model_validate(tree))
    write_sweep(store, SweepRecord(trials=list(trials), **record))
    return str(tmp_path / name)


def test_a_file_names_a_recipe_and_single_keys(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(FILE))
    config = configure_sweep(str(path), ["budget.trials=3", "run.optim.beta2=0.9"])
    assert config.run.optim.schedule.kind == "linear"
    assert config.run.optim.schedule.warmup_steps == 40  # the recipe's: a kind does not take its siblings with it
    assert (config.run.optim.beta2, config.budget.trials) == (0.9, 3)
    assert config.space["optim.peak_lr"].log_uniform == (1e-4, 1e-2)
    again = tmp_path / "again.yaml"
    again.write_text(dump_yaml(config))
    assert configure_sweep(str(again)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "digit"}, "unknown recipe 'digit'"),
        ({"changes": [1]}, "write keys and values"),
        ({"recipe": None}, "give `run`, or `recipe` with `changes`"),
        ({"run": {}}, "give `run`, or `recipe` with `changes`"),
        ({"changes": {"optim.peek": 1, "evaluation.pairs": "x"}}, r"unknown key 'run\.optim\.peek'"),
        ({"spase": {}}, r"unknown key 'spase' \(did you mean 'space'\?\)"),
        ({"space": {"optim.peak_lr": {"log_uniform": [2, 1]}}}, "is reversed"),
        ({"budget": {"trials": 0}}, r"budget\.trials = 0"),
        ({"metric": "accuracy"}, "is not measured by run.evaluation: it measures validation_loss"),
        ({"changes": {}}, "it measures nothing: set run.evaluation.pairs"),
    ],
)
def test_a_file_with_a_mistake_gets_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(FILE | change))
    with pytest.raises(ConfigError, match=message) as caught:
        configure_sweep(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_sweep_is_named(tmp_path: Path) -> None:
    assert "unknown sweep 'digit'; sweeps: digits" in error_of(run("digit"))
    assert "cannot read" in error_of(run(str(tmp_path / "none.yaml")))
    assert "is not a sweep, it has no sweep.yaml" in error_of(run("show", str(tmp_path)))
    assert "is not a sweep" in error_of(run("resume", str(tmp_path)))
    assert "is not a sweep" in error_of(run("stop", str(tmp_path)))
    assert "no sweeps in" in error_of(run("list", str(tmp_path)))
    uri = stored(tmp_path)
    assert "cannot be compared alone" in error_of(run("compare", uri))
    assert "write NAME or NAME@ALIAS" in error_of(run("promote", uri, "@x"))
    assert "has no trial with a value of validation_loss yet: 0 trials, none started" in error_of(
        run("promote", uri, "x")
    )


def test_the_space_is_checked_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylens.cluster.session", lambda *_: pytest.fail("Ray was started"))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(FILE | {"space": {"optim.peek_lr": [1]}}))
    assert "did you mean 'peak_lr'" in error_of(run(str(path)))


def test_print_config_prints_a_file_that_is_the_same_sweep(tmp_path: Path) -> None:
    shown = run("digits", "--print-config", "--set", "name=other")
    assert shown.exit_code == 0
    path = tmp_path / "other.yaml"
    path.write_text(shown.stdout)
    assert configure_sweep(str(path)) == SWEEPS["digits"]().model_copy(update={"name": "other"})


def test_pages_have_the_best_first_and_text_as_it_is(tmp_path: Path) -> None:
    trials = [
        trial(0, 3.0, 2.0),
        trial(1, 3.0, 1.0),
        trial(2, state="failed", note="[/x] no memory"),
        trial(3, state="waiting"),
    ]
    uri = stored(tmp_path, "s", *trials, state="finished", seconds=90.0)
    shown = run("show", uri)
    assert shown.exit_code == 0
    assert shown.stdout.index("t001") < shown.stdout.index("t000") < shown.stdout.index("t002")
    assert "[/x] no memory" in shown.stdout
    assert "trained once each" in shown.stdout
    found = json.loads(run("show", uri, "--json").stdout)
    assert (found["best"], found["state"], len(found["trials"])) == ("t001", "finished", 4)
    listed = json.loads(run("list", str(tmp_path), "--json").stdout)
    assert listed == [{"name": "s", "state": "finished", "trials": 4, "metric": LOSS, "best": "1", "note": ""}]
    (tmp_path / "s" / "sweep.json").write_text("{")
    assert json.loads(run("list", str(tmp_path), "--json").stdout)[0]["state"] == "unreadable"


def test_the_page_with_plots_is_written_of_a_sweep_as_it_is(tmp_path: Path) -> None:
    uri = stored(tmp_path, "s", trial(0, 3.0, 2.0))
    out = tmp_path / "page.html"
    assert run("show", uri, "--out", str(out)).exit_code == 0
    assert "<svg" in out.read_text()
    assert "is a folder" in error_of(run("show", uri, "--out", str(tmp_path)))


def test_sweeps_are_compared_by_what_they_found_and_used(tmp_path: Path) -> None:
    first = stored(tmp_path, "a", trial(0, 3.0, 2.0))
    second = stored(tmp_path, "b", *(trial(0, value, repeat=at) for at, value in enumerate((1.0, 1.2))))
    shown = run("compare", first, second)
    assert shown.exit_code == 0
    table = json.loads(run("compare", first, second, "--json").stdout)
    columns = list(table.values())
    assert [column[f"best {LOSS}"] for column in columns] == ["2", "1.1"]
    assert columns[0]["interval (95%)"] == "–"
    assert columns[1]["interval (95%)"].startswith("-0.17")


def test_a_request_to_stop_is_left_for_whoever_runs_the_sweep(tmp_path: Path) -> None:
    uri = stored(tmp_path)
    assert "will end within seconds" in run("stop", uri).stdout
    assert (tmp_path / "s" / STOP).exists()
    done = stored(tmp_path, "done", state="finished")
    assert "has finished already" in run("stop", done).stdout
    assert not (tmp_path / "done" / STOP).exists()


def test_the_terminal_tells_the_best_the_budget_and_the_time_left() -> None:
    config = SWEEPS["digits"]().model_copy(update={"metric": LOSS})
    config = config.model_copy(update={"budget": config.budget.model_copy(update={"trials": 4, "hours": 1.0})})
    record = SweepRecord(
        seconds=900.0, trials=[trial(0, 3.0, 2.0), trial(1, 1.0, state="stopped"), trial(2, state="running")]
    )
    assert time_left(config, record) == 900.0
    text = headline(config, record)
    assert "best validation_loss 2: t000 (lr 0)" in text
    assert "25% of budget.hours" in text
    assert text.endswith("about 15 min 0 s left")
    assert time_left(config, SweepRecord()) is None
    plain = io.StringIO()
    with SweepTerminal(config, Console(file=plain, width=200)) as terminal:
        terminal.say("[bold] is text")
        terminal.tell(record)
    assert "[bold] is text" in plain.getvalue()
    assert "1 running" in plain.getvalue()
    live = io.StringIO()
    with SweepTerminal(config, Console(file=live, width=200, force_terminal=True)) as terminal:
        terminal.tell(record)
    assert "t000" in live.getvalue()


def test_help_teaches() -> None:
    shown = run("--help").stdout
    assert all(name in shown for name in ("resume", "list", "show", "compare", "stop", "promote"))
    assert "raylens sweep digits" in run("run", "--help").stdout
