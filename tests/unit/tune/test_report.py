"""The page of a sweep: what is drawn where, what it says, and that any record makes one."""

import math
import re
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from raylens.config import DataConfig, EvaluationConfig, RunConfig, SourceConfig
from raylens.report.axis import Axis
from raylens.report.numbers import value_text
from raylens.report.theme import LEVELS
from raylens.tune.comparable import Point, cleaned
from raylens.tune.config import BudgetConfig, SearchConfig, SweepConfig
from raylens.tune.domain import Domain
from raylens.tune.report import importance, render_report
from raylens.tune.report.figures import keys_of_heat, parts_of_plane, sides, track_of
from raylens.tune.report.view import MOST_DRAWN, SweepView, axis_of
from raylens.tune.trials import SweepRecord, TrialCopy, TrialEvaluation, TrialRecord
from tests.helpers.html_pages import check_page, figures_of, marks_of

LOSS, RECALL = "validation_loss", "image_to_text_recall_1"
RUN = RunConfig(
    name="plain", global_batch=128, data=DataConfig(train=(SourceConfig(uri="data/train"),)),
    evaluation=EvaluationConfig(pairs=SourceConfig(uri="data/validation")),
)  # fmt: skip
EVIL = "</title><script>alert('x')</script>$\\frac font-family: x; \" & #0a0b10"
ODD_VALUES = [None, True, 1.5, [1, 2], {"a": {"b": EVIL}}, EVIL, "long " * 40, "long " * 40 + "and another"]
SPACE = {
    "optim.peak_lr": Domain(log_uniform=(1e-4, 1e-1)),
    "objective.temperature": Domain(log_uniform=(0.01, 0.3)),
    "optim.schedule.kind": Domain(choice=["cosine", "constant"]),
    "optim.schedule.end": Domain(choice=[0.0, 0.1], when={"optim.schedule.kind": ["cosine"]}),
    "model.odd": Domain(choice=ODD_VALUES),
    "optim.schedule.warmup_steps": Domain(log_integer=(1, 100)),
}


@pytest.fixture(scope="module", autouse=True)
def _few_rounds() -> Iterator[None]:
    """What importances are is tested elsewhere; here they only have to be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "ROUNDS", 4)
        yield


def sweep(metric: str = LOSS, space: dict[str, Domain] = SPACE, **more: object) -> SweepConfig:
    return SweepConfig.model_validate({"name": "tuned", "run": RUN, "metric": metric, "space": space, **more})


def measured(samples: int, value: float | None, metric: str = LOSS) -> TrialEvaluation:
    metrics = {} if value is None else {metric: value}
    return TrialEvaluation(step=samples // 128, samples=samples, seconds=1.0, metrics=metrics)


def trial(number: int, values: dict[str, Any], curve: Sequence[TrialEvaluation] = (), **more: object) -> TrialRecord:
    return TrialRecord.model_validate({"number": number, "values": values, "curve": list(curve), **more})


def trials(config: SweepConfig, count: int) -> list[TrialRecord]:
    """One in three is trained to 3,000 samples, others are stopped at 1,000; the learning rate should be 0.003."""
    space = config.space_of(100)
    found = []
    for number in range(count):
        values = space.draw((3, number))
        loss = 1.0 + abs(math.log10(values["optim.peak_lr"] / 0.003)) + number / 1e4
        whole = number % 3 == 0
        curve = [measured(at, loss + 1000 / at, config.metric) for at in (1000, 2000, 3000)[: 3 if whole else 1]]
        state = "finished" if whole else "stopped"
        found.append(trial(number, values, curve, state=state, note="" if whole else "not among the best third"))
    return found


def record(of: Sequence[TrialRecord] = (), **more: object) -> SweepRecord:
    return SweepRecord.model_validate({"state": "finished", "run_samples": 3000, "trials": list(of), **more})


# Axes


@given(st.floats(1e-6, 1e6), st.floats(1.1, 1e6), st.floats(0, 1))
def test_a_logarithmic_axis_has_ratios_as_distances(low: float, ratio: float, share: float) -> None:
    axis = axis_of(Domain(log_uniform=(low, low * ratio)))
    assert axis.place(low * ratio**share) == pytest.approx(share, abs=1e-6)
    for tick in axis.ticks():
        assert 0 <= tick.place <= 1
    assert 2 <= len(axis.ticks()) <= 12


def test_a_list_has_equal_distances_numbers_in_order_and_distinct_texts() -> None:
    axis = axis_of(Domain(choice=[3, 1, 2]))
    assert [axis.place(value) for value in (1, 2, 3)] == pytest.approx([1 / 6, 0.5, 5 / 6])
    assert axis.place(4) is None
    assert axis.numeric
    odd = axis_of(Domain(choice=ODD_VALUES))
    assert not odd.numeric
    texts = [tick.text for tick in odd.ticks()]
    assert len(set(texts)) == len(ODD_VALUES)
    assert max(map(len, texts)) < 20
    assert [odd.place(value) for value in ODD_VALUES] == pytest.approx([(at + 0.5) / 8 for at in range(8)])


# Figures


def scatters(page: str) -> list[dict[str, ElementTree.Element]]:
    """Marks of the plots of each key, in their order."""
    return [marks_of(one) for one in figures_of(page) if one.attrib["viewBox"] == "0 0 344 232"]


def at(mark: ElementTree.Element, axis: str) -> float:
    return float(mark.attrib[axis])


def test_points_lie_at_their_values() -> None:
    rows = trials(sweep(), 9)
    view = SweepView(rows, LOSS, "min", SPACE)
    page = render_report(sweep(), record(rows))
    check_page(page)
    marks = [scatters(page)[0][view.says(row)] for row in rows]
    places = [view.axes["optim.peak_lr"].place(row.values["optim.peak_lr"]) for row in rows]
    heights = [view.metric_axis.place(row.value(LOSS)) for row in rows]
    for axis, wanted in (("x", places), ("y", heights)):
        # On one straight line: the place decides alone.
        drawn = np.array([at(mark, axis) for mark in marks])
        slope, left = np.polyfit(np.array(wanted, float), drawn, 1)
        assert (slope > 100) if axis == "x" else (slope < -100)
        np.testing.assert_allclose(left + slope * np.array(wanted, float), drawn, atol=0.02)
    styles = {row.state: mark.attrib["style"] for row, mark in zip(rows, marks, strict=True) if row is not view.best}
    assert "fill: var(--blue)" in styles["finished"]
    assert "fill: var(--paper)" in styles["stopped"]
    assert "fill: var(--orange)" in marks[rows.index(view.best)].attrib["style"]  # type: ignore[arg-type]


def test_what_diverged_or_failed_is_at_the_worse_edge() -> None:
    rows = trials(sweep(), 20)
    rows[1] = rows[1].with_(curve=[measured(1000, 1e9)])
    rows[2] = rows[2].with_(curve=[], state="failed", note="the loss was no number")
    page = render_report(sweep(), record(rows))
    marks = scatters(page)[0]
    far, failed = marks["t001, stopped: 1,000,000,000 at 1k samples"], marks["t002, failed"]
    assert at(far, "y") == at(failed, "y") == min(at(mark, "y") for mark in marks.values() if "y" in mark.attrib)
    assert "19 trials; 1 far worse at the edge (triangles); 1 failed without a value at the edge (crosses)." in page
    assert "the loss was no number" in page


@pytest.mark.parametrize("metric", [LOSS, RECALL])
def test_the_best_is_the_lowest_loss_or_the_highest_recall(metric: str) -> None:
    values = [{"optim.peak_lr": 0.001 * (number + 1)} for number in range(3)]
    rows = [
        trial(n, values[n], [measured(3000, value, metric)], state="finished")
        for n, value in enumerate((0.2, 0.4, 0.3))
    ]
    page = render_report(sweep(metric, {"optim.peak_lr": SPACE["optim.peak_lr"]}), record(rows))
    assert f"<h2>Best: t00{0 if metric == LOSS else 1}</h2>" in page
    view = SweepView(rows, metric, sweep(metric).goal, {})
    assert [view.level(value) for value in (0.2, 0.4)] == ([6, 0] if metric == LOSS else [0, 6])
    assert view.level(0.3) == LEVELS // 2


def test_learning_curves_end_where_their_trial_ended() -> None:
    config = sweep()
    rows = trials(config, 4)
    rows[0] = rows[0].with_(copies=[TrialCopy(at=2, of="t003", step=7, samples=2000, values={"optim.peak_lr": 0.002})])
    page = render_report(config, record(rows))
    marks = {title[:4]: mark for title, mark in marks_of(figures_of(page)[0]).items()}
    # Trial 3 has three points, of the copy two and one, of the stopped trials one each.
    lines = {name: mark.findall("path")[0].attrib["d"].count("L") for name, mark in marks.items()}
    assert lines == {"t000": 1, "t001": 0, "t002": 0, "t003": 2}
    ends = {name: max(at(use, "x") for use in mark.iter("use")) for name, mark in marks.items()}
    assert ends["t001"] == ends["t002"] < ends["t000"] == ends["t003"]
    assert "These trials continued from another trial" in check_page(page).words


def test_lines_of_parallel_coordinates_have_gaps_where_a_key_does_not_apply() -> None:
    space = {"a": Domain(uniform=(0, 10)), "b": Domain(choice=["x", "y"]), "c": Domain(log_uniform=(1, 100))}
    rows = [trial(n, {"a": 2.5, "c": 10.0}, [measured(9, value)]) for n, value in enumerate((0.0, 4.0))]
    view = SweepView(rows, LOSS, "min", space)
    places = track_of(view, view.points[0]).places
    assert places[:3] == [0.25, None, pytest.approx(0.5)]
    assert places[3] == view.metric_axis.place(0.0)


@given(
    st.lists(st.tuples(st.floats(1e-4, 1e-1), st.sampled_from([1, 2, 3]), st.floats(-5, 5)), min_size=1, max_size=60)
)
def test_cells_have_the_median_of_the_trials_in_them(drawn: list[tuple[float, int, float]]) -> None:
    points = [Point(trial(n, {}), {"x": x, "y": y}, value) for n, (x, y, value) in enumerate(drawn)]
    points.append(Point(trial(len(drawn), {}), {"x": 1e-2}, 99.0))
    axes = Axis(1e-4, 1e-1, logarithmic=True), axis_of(Domain(choice=[1, 2, 3]))
    parts = parts_of_plane(points, ("x", "y"), axes)
    count = sides(len(points))
    assert 3 <= count <= 8
    assert sum(cell.trials for cell in parts) == len(drawn)
    for cell in parts:
        inside = [
            value
            for x, y, value in drawn
            if y == cell.row + 1
            and min(count - 1, int((math.log(x) - math.log(1e-4)) / math.log(1e3) * count)) == cell.column
        ]
        assert cell.trials == len(inside)
        assert cell.median == pytest.approx(median(inside))


def test_the_map_is_of_temperature_and_rate_or_of_the_numbers_that_matter_most() -> None:
    numbers = {f"optim.{name}": Domain(uniform=(0, 1)) for name in "abc"}
    names = {"kind": Domain(choice=["x", "y"])}
    assert keys_of_heat(SweepView([], LOSS, "min", SPACE), None) == ("optim.peak_lr", "objective.temperature")
    assert keys_of_heat(SweepView([], LOSS, "min", names | numbers), None) == ("optim.a", "optim.b")
    rows = [
        trial(n, {"kind": "x", **{key: (7 * n * at % 20) / 20 for at, key in enumerate(numbers, 1)}},
              [measured(9, float(7 * n * 3 % 20))])
        for n in range(20)
    ]  # fmt: skip
    found = importance.importances(rows, LOSS, names | numbers)
    assert (keys_of_heat(SweepView(rows, LOSS, "min", names | numbers), found) or ("",))[0] == "optim.c"
    assert keys_of_heat(SweepView([], LOSS, "min", {"optim.a": numbers["optim.a"], **names}), None) is None
    page = render_report(sweep(space={"optim.beta1": Domain(uniform=(0.8, 0.9))}), record())
    assert "There is no heat map: fewer than two searched keys are numbers." in page


def test_the_map_compares_after_equally_many_samples() -> None:
    config = sweep()
    page = render_report(config, record(trials(config, 40)))
    assert "by their values at 1,000 samples. Points are trials (40)" in page
    assert "reached, here 40 of 40" in page
    assert re.search(r"Intervals above 0: optim.peak_lr 0.[0-9]{2} \(0.[0-9]{2} to [01].[0-9]{2}\)", page)
    (heat,) = (one for one in figures_of(page) if one.attrib["viewBox"] == "0 0 700 440")
    dots = [mark for title, mark in marks_of(heat).items() if re.match(r"t\d{3}: ", title)]
    assert len(dots) == 40
    assert sum("var(--orange)" in mark.attrib["style"] for mark in dots) == 1


# Words


def test_facts_and_commands() -> None:
    config = sweep(
        budget=BudgetConfig(trials=24, hours=2.0, samples=100_000, gpu_hours=3.0), storage="s3://bucket/my sweeps/",
        search=SearchConfig(kind="tpe"),
    )  # fmt: skip
    rows = [one.with_(seconds=1800.0, gpus=2) for one in trials(config, 3)]
    shape = check_page(
        render_report(config, record(rows, state="stopped", why="its budget is used up", seconds=3600.0))
    )
    for said in (
        "3 (1 finished, 2 stopped)", "stopped: its budget is used up", "1 h 0 min",
        "asha: 1 in 3 trials is promoted at each rung",
        "tpe (tree-structured Parzen estimator) after 10 random ones, seed 0",
        # Both that were stopped lack 2,000 of 3,000 samples.
        "4,000 samples, 44% of training all 3 to the end",
        "3 configurations of 24; 1 of 2 hours; 5,000 of 100,000 samples; 3 of 3 GPU hours",
        "raylens train best.yaml", "raylens sweep promote 's3://bucket/my sweeps/tuned' NAME@staging",
        "raylens sweep resume 's3://bucket/my sweeps/tuned'", "not comparable", "with one seed",
        "No other configuration was trained as long",
    ):  # fmt: skip
        assert said in shape.words, said


def test_repeats_have_an_interval_and_a_verdict() -> None:
    config = sweep(repeats=3)
    rows = [
        trial(n, {"optim.peak_lr": 0.01}, [measured(3000, n + repeat / 100)], state="finished", repeat=repeat)
        for n in (1, 2)
        for repeat in range(3)
    ]
    words = check_page(render_report(config, record(rows))).words
    assert "mean of 3 seeds, 95% interval 0.9852 to 1.035" in words
    assert "t001 and the runner-up t002 differ by more than chance" in words
    assert "Best: t001, t001r1, t001r2" in words


def test_copies_are_a_table() -> None:
    config = sweep(scheduler={"kind": "pbt"})
    copy = TrialCopy(at=1, of="t001", step=7, samples=1000, values={"optim.peak_lr": 0.0123})
    rows = trials(config, 3)
    rows[0] = rows[0].with_(copies=[copy])
    words = check_page(render_report(config, record(rows))).words
    assert "optim.peak_lr = 0.0123" in words
    assert "Copies began with weights that were trained with other settings" in words


def test_without_trials_or_values_the_page_says_so() -> None:
    config = sweep()
    for rows in ([], [trial(0, {})], [one.with_(curve=[], state="failed", note=EVIL) for one in trials(config, 9)]):
        words = check_page(render_report(config, record(rows, run_samples=0, state="running"))).words
        assert "No trial has a value of validation_loss yet" in words
        assert "raylens train best.yaml" not in words
    assert "There are no trials yet." in render_report(config, record())


def test_of_many_trials_the_best_is_drawn_and_all_are_in_the_table() -> None:
    config = sweep()
    rows = trials(config, 500)
    page = render_report(config, record(rows))
    shape = check_page(page)
    assert all(f">{one.name}" in page for one in rows)
    view = SweepView(rows, LOSS, "min", SPACE)
    assert MOST_DRAWN - 1 <= len(view.drawn) <= MOST_DRAWN
    assert f"{len(view.drawn)} of 500 trials are drawn" in shape.words
    assert "440 more" in shape.words
    assert len(page) < 1_500_000
    assert {id(view.best), id(max(rows, key=lambda one: one.value(LOSS) or 0))} <= {id(one.trial) for one in view.drawn}


# Whatever comes


def test_odd_values_have_a_text() -> None:
    assert [value_text(value) for value in ODD_VALUES[:4]] == ["null", "true", "1.5", "[1, 2]"]
    assert value_text(EVIL) == EVIL


NUMBERS = st.none() | st.floats(0, 10) | st.sampled_from([0.5, 1e9, -1e99, math.inf, math.nan])


@st.composite
def odd_trials(draw: st.DrawFn) -> TrialRecord:
    space = sweep().space_of(100)
    values = space.draw((draw(st.integers(0, 99)),)) | draw(
        st.dictionaries(
            st.sampled_from([*SPACE, EVIL]), st.sampled_from([*ODD_VALUES, "cosine", 0, -1, 1e-3]), max_size=2
        )
    )
    curve = [
        measured(draw(st.integers(0, 4)) * 1000, draw(NUMBERS), draw(st.sampled_from([LOSS, LOSS, RECALL])))
        for _ in range(draw(st.integers(0, 4)))
    ]
    copies = [
        TrialCopy(at=at, of=EVIL, step=1, samples=1000 * at, values={EVIL: EVIL})
        for at in range(draw(st.sampled_from([0, 0, 0, 3])))
    ]
    state = draw(st.sampled_from(["waiting", "running", "stopped", "finished", "failed"]))
    return trial(draw(st.integers(0, 30)), values, curve, copies=copies, state=state, note=EVIL, gpus=1, seconds=9.0)


@given(st.lists(odd_trials(), max_size=14), st.sampled_from([LOSS, RECALL]))
@example([], LOSS)
@example([trial(n, {}, [measured(1000, 1.0)], state="finished") for n in range(9)], LOSS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_record_makes_a_page(rows: list[TrialRecord], metric: str) -> None:
    config = sweep(metric)
    one = record(rows, why=EVIL, run_samples=3000)
    page = render_report(config, one)
    check_page(page)
    assert "<script" not in page
    assert not re.search(r">(nan|inf|NaN|None)<", page)
    assert render_report(config, one) == page
    assert all(math.isfinite(v) for t in cleaned(one).trials for m in t.curve for v in m.metrics.values())
