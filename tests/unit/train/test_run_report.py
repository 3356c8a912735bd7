"""A training run's folder, read back: how it stands, and the page about it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from raylens.config import DataConfig, ResNetConfig, RunConfig, SourceConfig, dump_yaml, flatten
from raylens.errors import ConfigError, NotFoundError, TrainingError
from raylens.storage import Store, open_store
from raylens.train.loop.metrics import StepMetrics
from raylens.train.loop.stats import TowerStats
from raylens.train.runs import listing
from raylens.train.runs.events import event_text, state_of, wall_seconds, wanted_steps
from raylens.train.runs.listing import UNREADABLE, list_runs
from raylens.train.runs.report import render_training_report, run_facts, write_training_report
from raylens.train.runs.run_dir import RunFiles
from raylens.train.runs.scores import best_row
from raylens.train.runs.settings import changes, differing
from tests.helpers.html_pages import check_page

CONFIG = RunConfig(name="plain", global_batch=128, data=DataConfig(train=(SourceConfig(uri="data/train"),)))


def record(step: int, **more: object) -> dict[str, Any]:
    plain = StepMetrics(
        step=step, samples_seen=128 * step, loss=4.85 * math.exp(-step / 200), logit_scale=14.3 + step / 100,
        grad_norm=1.5, lr=1e-3, samples_per_second=600.0 + step, substituted=0, truncated=0, skipped=0, data_wait=0.1,
        data_cores=1.5, bound="device", first_batch_seconds=2.0 if step == 10 else None, sample_hashes=("ab",) * 10,
        **asdict(TowerStats()),
    )  # fmt: skip
    return plain.as_dict() | more


def cosines(step: int) -> dict[str, Any]:
    positive, negative = [0] * 40, [0] * 40
    positive[20 + step // 50], negative[20] = 128, 128 * 127
    return {"positive_cosines": positive, "negative_cosines": negative, "image_norm": 9.5, "text_norm": 7.25}


def event(minute: int, what: str, step: int | None = None, text: str = "") -> dict[str, Any]:
    return {"time": f"2026-03-01T10:{minute:02}:00.000+00:00", "event": what, "step": step, "text": text}


RECORDS = [record(step, **cosines(step)) for step in range(10, 501, 10)]
GOALS = {"validation_loss": "min", "zero_shot_frank": "max"}
EVALUATIONS = [
    {"step": step, "validation_loss": 4.0 - step / 200, "zero_shot_frank": step / 1000, "goals": GOALS}
    for step in (100, 300, 200)
]
EVENTS = [
    event(0, "started", 0, "2 workers, 500 steps"), event(5, "restarting", 240, "a worker was lost"),
    event(6, "started", 200, "2 workers, 500 steps"), event(30, "finished", 500),
]  # fmt: skip


def lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def put(
    store: Store,
    records: Sequence[Mapping[str, Any]] = RECORDS,
    evaluations: Sequence[Mapping[str, Any]] = (),
    events: Sequence[Mapping[str, Any]] = (),
    checkpoints: Sequence[int] = (),
    config: str | None = None,
) -> Store:
    store.write("config.yaml", (dump_yaml(CONFIG) if config is None else config).encode())
    for name, rows in (("metrics", records), ("evaluations", evaluations), ("events", events)):
        if rows:
            store.write(f"{name}.jsonl", lines(rows))
    for step in checkpoints:
        store.write(f"checkpoints/step-{step:08d}/checkpoint.json", b"{}")
    return store


# The folder


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    run = RunFiles.read(put(open_store(tmp_path / "plain"), RECORDS, EVALUATIONS, EVENTS, (400, 500)))
    assert (run.name, run.state, run.last_step, run.global_batch) == ("plain", "finished", 500, 128)
    assert [row["step"] for row in run.evaluations] == [100, 200, 300]
    assert run.metrics == ["validation_loss", "zero_shot_frank"]
    assert list(run.checkpoints) == [400, 500]
    assert run.samples_at(run.evaluations[1]) == 200 * 128
    assert wanted_steps(run.events) == 500


def test_repeated_steps_count_once(tmp_path: Path) -> None:
    rows = [record(10, loss=3.0), record(20, loss=2.0), record(10, loss=1.0)]
    run = RunFiles.read(put(open_store(tmp_path / "again"), rows))
    assert [(row["step"], row["loss"]) for row in run.records] == [(10, 1.0), (20, 2.0)]


def test_counts_are_summed_over_the_starts_of_the_workers() -> None:
    rows = [
        record(10, skipped=1), record(20, skipped=3), record(30, skipped=3, first_batch_seconds=1.0),
        record(40, skipped=4), record(50, skipped=2),
    ]  # fmt: skip
    run = RunFiles("r", "r", {}, rows)
    assert run.total("skipped") == 3 + 4 + 2
    assert run.total("broken") is None


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nothing .*config\.yaml"):
        RunFiles.read(open_store(tmp_path / "nothing"))


@pytest.mark.parametrize("step", [None, "7", 1.5, True])
def test_a_record_without_a_whole_step_is_refused(tmp_path: Path, step: object) -> None:
    store = put(open_store(tmp_path / "odd"), [{"step": step, "loss": 1.0}])
    with pytest.raises(TrainingError, match=rf"metrics\.jsonl.*step is {step!r}"):
        RunFiles.read(store)


def test_a_list_has_every_run_and_none_hides_the_others(tmp_path: Path) -> None:
    storage = open_store(tmp_path)
    put(storage / "done", RECORDS, EVALUATIONS, EVENTS, (500,))
    put(storage / "new", [])
    put(storage / "old", config="name: old\nlong_gone: 1\n")
    put(storage / "broken", []).write("metrics.jsonl", b'{"step": 1}\n{"st')
    storage.write("registry/digits/1/config.yaml", b"a: 1\n")
    runs = {run.name: run for run in list_runs(storage)}
    assert list(runs) == ["broken", "done", "new", "old"]
    done = RunFiles.read(storage / "done").summary()
    assert runs["done"] == done
    assert (done.step, done.steps, done.checkpoint, done.state) == (500, 500, 500, "finished")
    assert done.last_event == "2026-03-01 10:30:00 finished at step 500"
    assert (runs["new"].state, runs["new"].step, runs["old"].step) == ("unknown", None, 500)
    assert runs["broken"].state == UNREADABLE
    assert "line 2 is damaged" in runs["broken"].last_event


@pytest.mark.parametrize("tail", [5, 100, 2_000, 10_000_000])
def test_the_end_of_the_records_is_enough_for_a_list(
    tmp_path: Path, tail: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "TAIL", tail)
    put(open_store(tmp_path) / "done", RECORDS, EVALUATIONS, EVENTS)
    assert list_runs(open_store(tmp_path)) == [RunFiles.read(open_store(tmp_path) / "done").summary()]


# The events

STARTED = event(0, "started", 0, "2 workers, 500 steps")


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "unknown"),
        ([STARTED], "unfinished"),
        ([STARTED, event(1, "failed", 5, "out of memory")], "failed"),
        ([STARTED, event(1, "interrupted", 5)], "interrupted"),
        ([STARTED, event(1, "stopping", 20), event(2, "finished", 20)], "interrupted"),
        ([STARTED, event(1, "stopping", 500), event(2, "finished", 500)], "finished"),
        ([STARTED, event(1, "stopping", 20), event(2, "finished", 20), STARTED, event(3, "finished", 500)], "finished"),
        ([STARTED, event(1, "failed", 5), STARTED, event(2, "checkpointed", 10)], "unfinished"),
    ],
)
def test_the_events_say_how_a_run_stands(events: list[dict[str, Any]], state: str) -> None:
    assert state_of(events) == state


def test_the_time_between_two_starts_does_not_count() -> None:
    assert wall_seconds(EVENTS) == 30 * 60
    # Died without a word after minute 3, and was started again at minute 40.
    silent = [STARTED, event(3, "checkpointed", 10), event(40, "started", 10), event(45, "finished", 500)]
    assert wall_seconds(silent) == (3 + 5) * 60
    told = [STARTED, event(3, "failed", 10, "disk"), event(40, "started", 10), event(45, "finished", 500)]
    assert wall_seconds(told) == (3 + 5) * 60
    assert wall_seconds([STARTED]) is None
    assert wall_seconds([{"step": None, "time": "soon"}] * 2) is None


def test_news_are_told_in_a_line() -> None:
    assert event_text(EVENTS[1]) == "2026-03-01 10:05:00 restarting at step 240: a worker was lost"
    assert event_text({"time": "soon", "step": None}) == "soon event"


# The settings


def test_changes_are_what_the_defaults_do_not_have() -> None:
    assert {change.key for change in changes(CONFIG.model_dump(mode="json"))} >= {"name", "global_batch"}
    changed = CONFIG.model_copy(
        update={"seed": 7, "model": CONFIG.model.model_copy(update={"image": ResNetConfig(width=32)})}
    )
    found = {change.key: (change.value, change.default) for change in changes(changed.model_dump(mode="json"))}
    assert found["seed"] == ("7", "0")
    assert found["model.image.kind"] == ("resnet", "vit")
    assert found["model.image.width"][0] == "32"
    assert found["data.train.0.uri"] == ("data/train", None)
    assert not any(key.startswith(("optim.", "length.", "model.text.")) for key in found)


def test_settings_of_another_version_are_no_changes() -> None:
    with pytest.raises(ConfigError, match="unknown key 'long_gone'"):
        changes(CONFIG.model_dump(mode="json") | {"long_gone": 1})


def test_runs_differ_in_what_is_not_equal() -> None:
    one = {"seed": 0, "optim": {"lr": 0.1, "kind": "adamw"}, "data": [{"uri": "a"}]}
    other = {"seed": 0, "optim": {"lr": 0.2, "kind": "adamw"}, "data": [{"uri": "a"}, {"uri": "b"}], "ema": None}
    assert differing([one, other]) == {"optim.lr": ["0.1", "0.2"], "data.1.uri": [None, "b"], "ema": [None, "null"]}
    assert differing([one, one, one]) == {}


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1, max_size=3), TREES, max_size=4))
def test_equal_settings_never_differ(tree: dict[str, Any]) -> None:
    assert differing([tree, json.loads(json.dumps(tree))]) == {}
    assert all(isinstance(value, str) for value in flatten(tree).values())


# The scores


def test_the_best_value_goes_by_the_goal() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "frank": 2.0, "r1": 0.5},
        {"step": 2, "frank": 1.0, "r1": None},
        {"step": 3, "r1": 0.4},
    ]
    assert (best_row(rows, "frank", "max"), best_row(rows, "frank", "min")) == (rows[0], rows[1])
    assert best_row(rows, "r1", "max") == rows[0]
    assert best_row(rows, "nothing", "max") is best_row(rows, "frank", None) is None


def test_a_goal_is_what_was_written_down_or_known_of_the_whole_name(tmp_path: Path) -> None:
    new = {"step": 1, "frank": 0.5, "zero_shot_loss": 0.5, "goals": {"frank": "max", "zero_shot_loss": "max"}}
    old = {"step": 1, "validation_loss": 2.0, "zero_shot_frank": 0.5, "text_to_image_recall_5": 0.5, "frank": 1.0}
    run = RunFiles.read(put(open_store(tmp_path / "new"), evaluations=[new]))
    assert {metric: run.goal(metric) for metric in run.metrics} == {"frank": "max", "zero_shot_loss": "max"}
    run = RunFiles.read(put(open_store(tmp_path / "old"), evaluations=[old, old | {"step": 2, "frank": 2.0}]))
    assert {metric: run.goal(metric) for metric in run.metrics} == {
        "frank": None, "text_to_image_recall_5": "max", "validation_loss": "min", "zero_shot_frank": "max",
    }  # fmt: skip
    page = render_training_report(run)
    assert page.count('class="number best"') == 3  # and none of what nothing is known of


# The page


def test_the_report_says_what_happened(tmp_path: Path) -> None:
    store = put(open_store(tmp_path / "plain"), RECORDS, EVALUATIONS, EVENTS, (400, 500))
    run = RunFiles.read(store)
    assert run_facts(run) == {
        "State": "finished", "Steps": "500 of 500", "Samples seen": "64,000", "Wall-clock time": "30 min 0 s",
        "Pairs per second": "855 (median)", "Restarts": "1", "Skipped steps": "0", "Replaced samples": "0",
        "Captions cut": "0", "Checkpoints": "2, newest at step 500",
    }  # fmt: skip
    write_training_report(store)
    page = store.read_text("training.html")
    shape = check_page(page)
    for words in (
        "ln(128) = 4.85", "norms of embeddings", "a worker was lost", "zero_shot_frank", "step 10", "step 260",
        "step 500", "optim.peak_lr", "with changed ones in bold",
    ):  # fmt: skip
        assert words in shape.words, words
    assert 'class="number best">0.3<' in page
    assert 'class="number best">2.5<' in page
    assert page == render_training_report(RunFiles.read(store))


def test_the_line_of_nothing_learned_is_the_softmax_loss_only() -> None:
    run = RunFiles("r", "r", {"global_batch": 128}, RECORDS)
    assert "nothing learned" in render_training_report(run)
    assert "nothing learned" not in render_training_report(
        replace(run, config={"global_batch": 128, "objective": {"kind": "sigmoid"}})
    )
    assert "nothing learned" not in render_training_report(replace(run, config={}))


def test_the_report_disarms_what_it_is_given() -> None:
    evil = '<script>alert("1")</script><img src=http://a.b/c>$x^$'
    rows = [{"step": 1, "loss": 1.0, evil: 1.0}]
    told = [{"time": evil, "event": evil, "step": evil, "text": evil}]
    run = RunFiles(evil, evil, {"name": evil, evil: {evil: evil}}, rows, [{"step": 1, evil: 0.5}], told, [1])
    page = render_training_report(run)
    shape = check_page(page)
    assert shape.words.count("<script>alert") >= 5
    assert evil in unescape(page)


def test_an_older_run_says_that_its_settings_are_not_known() -> None:
    page = render_training_report(RunFiles("old", "old", {"name": "old", "long_gone": 1}, RECORDS))
    assert "unknown key &#39;long_gone&#39;" in page
    assert "with changed ones in bold" not in page


KEYS = (*record(10), *cosines(10), "epoch", "seconds", "memory_bytes", "mfu", "else")
ODD = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400)
    | st.lists(st.integers(-1, 9) | st.none() | st.floats(), max_size=40) | st.just([1] * 40)
)  # fmt: skip


@st.composite
def odd_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    whole = draw(st.lists(st.integers(0, 2**40), max_size=4))
    return [{**draw(st.dictionaries(st.sampled_from(KEYS), ODD, max_size=8)), "step": step} for step in whole]


@given(records=odd_rows(), evaluations=odd_rows(), events=odd_rows())
@example([], [], [])
@example([{"step": 0}], [{"step": 0}], [{"step": None}])
@example([{"step": 1, "loss": 1.0}], [], [{"step": 1, "time": None, "event": ["x"], "text": {}}])
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
def test_odd_records_make_a_page(
    tmp_path: Path,
    records: list[dict[str, Any]],
    evaluations: list[dict[str, Any]],
    events: list[dict[str, Any]],
) -> None:
    store = open_store(tmp_path / "odd")
    for name in ("metrics.jsonl", "evaluations.jsonl", "events.jsonl"):
        store.delete(name)
    run = RunFiles.read(put(store, records, evaluations, events))
    page = render_training_report(run)
    check_page(page)
    assert ("The run has no records." in page) == (not records)
    assert page == render_training_report(run)
    # With "name" the files say the same in a list; what JSON cannot tell apart (NaN) makes no figure.
    (listed,) = list_runs(open_store(tmp_path))
    assert listed == run.summary()
