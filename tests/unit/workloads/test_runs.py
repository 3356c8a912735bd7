"""``raylens runs``: what it prints of runs in a folder, the page that it writes, and how it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from raylens.config import DataConfig, RunConfig, SourceConfig, dump_yaml
from raylens.errors import ConfigError, NotFoundError, RaylensError, TrainingError
from raylens.storage import Store, open_store
from raylens.workloads.cli.runs import app

CONFIG = RunConfig(name="digits", global_batch=128, data=DataConfig(train=(SourceConfig(uri="data/train"),)))


def put(storage: Store, name: str, *, lr: float = 1e-3, steps: int = 50, **config: Any) -> Store:
    run = storage / name
    changed = CONFIG.model_copy(
        update={"name": name, "optim": CONFIG.optim.model_copy(update={"peak_lr": lr})} | config
    )
    records = [
        {
            "step": step, "samples_seen": 128 * step, "loss": 5.0 - 40 * lr * step, "logit_scale": 14.5, "lr": lr,
            "grad_norm": 1.0, "samples_per_second": 600.0, "skipped": 0, "sample_hashes": ["ab" * 16] * 10,
        }
        for step in range(10, steps + 1, 10)
    ]  # fmt: skip
    evaluations = [
        {"step": step, "validation_loss": 4.0 + abs(step - 30) / 10, "frank": step / 100, "goals": {"frank": "max"}}
        for step in (20, 30, 40)
    ] + [{"step": 50, "odd": 1.5}]
    events = [
        {"time": f"2026-03-01T10:{minute:02}:00.000+00:00", "event": event, "step": step, "text": text}
        for minute, event, step, text in (
            (0, "started", 0, "2 workers, 50 steps"), (1, "warning", 10, "[bold]slow[/bold] data"),
            (2, "failed", 50, "out of disk"),
        )
    ]  # fmt: skip
    for file, rows in (("metrics", records), ("evaluations", evaluations), ("events", events)):
        if rows:
            run.write(f"{file}.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    run.write("config.yaml", dump_yaml(changed).encode())
    run.write(f"checkpoints/step-{steps:08d}/checkpoint.json", b"{}")
    return run


@pytest.fixture
def storage(tmp_path: Path) -> Store:
    storage = open_store(tmp_path / "runs")
    put(storage, "digits")
    put(storage, "hotter", lr=2e-3)
    return storage


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def printed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(kind: type[RaylensError], *arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code != 0
    assert type(result.exception) is kind, result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


def row(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if re.match(rf"│ {re.escape(start)} ", line))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_list_has_a_row_a_run(storage: Store) -> None:
    text = printed("list", storage.uri)
    news = "2026-03-01 10:02:00 failed at step 50: out of disk"
    assert row(text, "digits") == ["digits", "failed", "50 of 50", "3", "600", "50", news]
    assert row(text, "hotter")[3] == "1"
    rows = json.loads(printed("list", storage.uri, "--json"))
    assert [(one["name"], one["state"], one["loss"], one["checkpoint"]) for one in rows] == [
        ("digits", "failed", 3.0, 50),
        ("hotter", "failed", 1.0, 50),
    ]


def test_one_run_is_shown_by_its_folder_or_by_its_name(storage: Store) -> None:
    text = printed("show", storage.uri, "hotter")
    assert text == printed("show", f"{storage.uri}/hotter")
    assert row(text, "optim.peak_lr") == ["optim.peak_lr", "0.002", str(CONFIG.optim.peak_lr)]
    assert row(text, "logit_scale") == ["logit_scale", "14.5"]
    assert row(text, "validation_loss") == ["validation_loss", "4", "30", "5"]
    assert row(text, "frank") == ["frank", "0.4", "40", "0.4"]
    assert row(text, "odd") == ["odd", "–", "–", "1.5"]
    assert row(text, "Skipped steps") == ["Skipped steps", "0"]
    assert "checkpoints at steps 50" in text
    assert "warning at step 10: [bold]slow[/bold] data" in text
    assert "sample_hashes" not in text
    shown = json.loads(printed("show", storage.uri, "hotter", "--json"))
    assert shown["changed"]["optim.peak_lr"] == "0.002"
    assert shown["evaluations"] == {
        "frank": {"goal": "max", "best": 0.4, "step": 40, "last": 0.4},
        "odd": {"goal": None, "best": None, "step": None, "last": 1.5},
        "validation_loss": {"goal": "min", "best": 4.0, "step": 30, "last": 5.0},
    }
    assert shown["record"]["step"] == 50
    assert len(shown["events"]) == 3


def test_the_page_with_curves_can_be_had_at_any_time(storage: Store, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    printed("show", storage.uri, "hotter", "--out", page)
    assert page.read_text(encoding="utf-8").count("<svg") >= 5
    assert "[bold]slow[/bold] data" in page.read_text(encoding="utf-8")
    assert "does not exist" in refused(ConfigError, "show", storage.uri, "hotter", "--out", tmp_path / "no" / "x")


def test_the_last_events_are_enough(storage: Store) -> None:
    many = [{"time": "", "event": "checkpointed", "step": step, "text": ""} for step in range(1, 31)]
    (storage / "digits").write("events.jsonl", "".join(json.dumps(one) + "\n" for one in many).encode())
    text = printed("show", storage.uri, "digits")
    assert [int(step) for step in re.findall(r"checkpointed at step (\d+)", text)] == list(range(21, 31))


def test_an_older_run_shows_what_it_had(storage: Store) -> None:
    (storage / "old").write("config.yaml", b"name: old\nlong_gone: 7\nnan: .nan\n")
    text = printed("show", storage.uri, "old")
    assert "unknown key 'long_gone'" in text
    assert row(text, "long_gone") == ["long_gone", "7"]
    assert "no records yet" in text
    shown = json.loads(printed("show", storage.uri, "old", "--json"))
    assert (shown["changed"], shown["record"], shown["config"]["nan"]) == (None, None, None)


def test_runs_are_compared_in_tables_and_on_a_page(storage: Store, tmp_path: Path) -> None:
    out = tmp_path / "compare.html"
    runs = [f"{storage.uri}/{name}" for name in ("digits", "hotter")]
    text = printed("compare", *runs, "--out", out)
    assert row(text, "optim.peak_lr") == ["optim.peak_lr", "0.001", "0.002"]
    assert row(text, "last loss") == ["last loss", "3", "1"]
    assert row(text, "best validation_loss") == ["best validation_loss", "4 at step 30", "4 at step 30"]
    assert row(text, "best frank") == ["best frank", "0.4 at step 40", "0.4 at step 40"]
    assert row(text, "last odd") == ["last odd", "1.5", "1.5"]
    assert "best odd" not in text
    assert not re.search(r"│ (name|storage|seed) ", text)
    page = out.read_text()
    assert re.findall(r"<h3>(.*?)</h3>", page) == [
        "loss", "logit scale", "learning rate", "pairs per second", "frank", "odd", "validation_loss",
    ]  # fmt: skip
    assert page.count("<svg viewBox") == 7
    assert "frank against samples seen; higher is better" in page
    assert "validation_loss against samples seen; lower is better" in page
    assert re.search(r"odd against samples seen(?!;)", page)
    assert not re.search(r"<script|<link|<img|\ssrc|@import|https?:|href=\"[^#]", page)
    again = json.loads(printed("compare", *runs, "--out", out, "--json"))
    assert again["settings"] == {"optim.peak_lr": ["0.001", "0.002"]}
    assert again["figures"]["last loss"] == ["3", "1"]
    assert out.read_text() == page


def test_lines_of_a_comparison_are_told_apart(storage: Store, tmp_path: Path) -> None:
    """Ten runs have ten legends, eight colours and then dashes; two of one name are named by their folders."""
    other = open_store(tmp_path / "more")
    put(other, "digits", seed=1)
    names = [f"run-{number}" for number in range(8)]
    for number, name in enumerate(names):
        put(other, name, lr=1e-3 / (number + 1))
    out = tmp_path / "compare.html"
    printed(
        "compare",
        f"{storage.uri}/digits",
        f"{other.uri}/digits",
        *(f"{other.uri}/{name}" for name in names),
        "--out",
        out,
    )
    page = out.read_text()
    legend = page[page.index('<ul class="legend above">') : page.index('<div class="panels">')]
    strokes = re.findall(r'stroke="var\((--\w+)\)" stroke-width="3" stroke-dasharray="([^"]*)"', legend)
    assert len(strokes) == len(set(strokes)) == 10
    assert len(re.findall(r"runs/digits", legend)) == len(re.findall(r"more/digits", legend)) == 1


def test_equal_settings_are_said_to_be(storage: Store, tmp_path: Path) -> None:
    put(storage, "twin")
    text = printed("compare", f"{storage.uri}/digits", f"{storage.uri}/twin", "--out", tmp_path / "c.html")
    assert "the runs have equal settings" in text
    assert "The runs have equal settings." in (tmp_path / "c.html").read_text()


def test_what_cannot_be_looked_at_is_refused(storage: Store, tmp_path: Path) -> None:
    digits, out = f"{storage.uri}/digits", tmp_path / "c.html"
    (storage / "new").write("config.yaml", dump_yaml(CONFIG).encode())
    assert "no training runs" in refused(NotFoundError, "list", tmp_path / "empty")
    assert "raylens runs show" in refused(NotFoundError, "list", digits)
    assert "no config.yaml" in refused(NotFoundError, "show", storage.uri, "gone")
    assert "no config.yaml" in refused(NotFoundError, "compare", digits, f"{storage.uri}/gone", "--out", out)
    assert "two runs or more" in refused(ConfigError, "compare", digits, "--out", out)
    assert "named twice" in refused(ConfigError, "compare", digits, digits, "--out", out)
    assert "has no records" in refused(TrainingError, "compare", digits, f"{storage.uri}/new", "--out", out)
    assert "is a folder" in refused(ConfigError, "compare", digits, f"{storage.uri}/hotter", "--out", tmp_path)
    assert not out.exists()
