"""The page of a sweep: what is drawn where, what it says, and that any record makes one."""

import math
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from statistics import median
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from raylens.config import DataConfig, EvaluationConfig, RunConfig, SourceConfig
from raylens.report.axis import Scale, metric_scale, scale_of, value_text
from raylens.tune.comparable import Point, cleaned
from raylens.tune.config import BudgetConfig, SearchConfig, SweepConfig
from raylens.tune.domain import Domain
from raylens.tune.report import importance
from raylens.tune.report.heat import cells, keys_of_heat, parts
from raylens.tune.report.parallel import HEIGHT, TOP, pieces
from raylens.tune.report.report import render_report
from raylens.tune.report.scatter import key_frame
from raylens.tune.report.view import LEVELS, MOST_DRAWN, Shown
from raylens.tune.trials import Copied, Measured, SweepRecord, TrialRecord

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


def measured(samples: int, value: float | None, metric: str = LOSS) -> Measured:
    metrics = {} if value is None else {metric: value}
    return Measured(step=samples // 128, samples=samples, seconds=1.0, metrics=metrics)


def trial(number: int, values: dict[str, Any], curve: Sequence[Measured] = (), **more: object) -> TrialRecord:
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


class Shape(HTMLParser):
    """Elements and text of a page, with a check that every tag is closed where it should be and loads nothing."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        for name, value in attrs:
            assert not name.startswith(("on", "src", "href", "action", "data")), (tag, name)
            assert "url(" not in (value or "") or tag not in ("path", "rect", "circle", "text"), (tag, name, value)

    def handle_data(self, data: str) -> None:
        self.words += data

    def of_class(self, tag: str, *kinds: str) -> list[dict[str, str]]:
        return [
            each for name, each in self.elements if name == tag and set(kinds) <= set(each.get("class", "").split())
        ]


def check_page(page: str) -> Shape:
    shape = Shape(page)
    tags = {tag for tag, _ in shape.elements}
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & tags
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"@import|url\(|http|#0a0b", style)
    assert "default-src 'none'" in page
    for tag, each in shape.elements:
        if tag in ("path", "rect", "circle", "text"):
            assert "nan" not in (each.get("d", "") + each.get("x", "") + each.get("y", "") + each.get("cx", ""))
            assert "inf" not in each.get("d", "")
        if each.get("role") == "img":
            assert len(each["aria-label"]) > 5
    return shape


# Axes


@given(st.floats(1e-6, 1e6), st.floats(1.1, 1e6), st.floats(0, 1))
def test_a_logarithmic_axis_has_ratios_as_distances(low: float, ratio: float, share: float) -> None:
    scale = scale_of(Domain(log_uniform=(low, low * ratio)))
    assert scale.place(low * ratio**share) == pytest.approx(share, abs=1e-6)
    for tick in scale.ticks():
        assert 0 <= tick.place <= 1
    assert 2 <= len(scale.ticks()) <= 12


def test_a_list_has_equal_distances_numbers_in_order_and_distinct_texts() -> None:
    scale = scale_of(Domain(choice=[3, 1, 2]))
    assert [scale.place(value) for value in (1, 2, 3)] == pytest.approx([1 / 6, 0.5, 5 / 6])
    assert scale.place(4) is None
    assert scale.numeric
    odd = scale_of(Domain(choice=ODD_VALUES))
    assert not odd.numeric
    texts = [tick.text for tick in odd.ticks()]
    assert len(set(texts)) == len(ODD_VALUES)
    assert max(map(len, texts)) < 20
    assert [odd.place(value) for value in ODD_VALUES] == pytest.approx([(at + 0.5) / 8 for at in range(8)])


def test_values_of_an_axis_are_where_they_should_be_and_others_are_at_its_end() -> None:
    scale = Scale(2.0, 4.0)
    assert [scale.place(value) for value in (2, 3.5, 9, -1, None, "x", math.nan)] == [0, 0.75, 1, 0, None, None, None]
    assert Scale(1.0, 10.0, logarithmic=True).place(-1.0) is None
    assert [tick.text for tick in Scale(1, 3, whole=True).ticks()] == ["1", "2", "3"]


@pytest.mark.parametrize("lower", [True, False])
def test_one_far_value_does_not_squeeze_the_others(lower: bool) -> None:
    values = [1.0 + place / 10 for place in range(20)]
    far = 1e6 if lower else -1e6
    scale = metric_scale([*values, far], lower)
    assert [scale.low, scale.high] == pytest.approx([0.924, 2.976])
    # What is far better than the rest is what one is looking for.
    assert metric_scale([*values, far], not lower).place(far) == pytest.approx(0.037 if far < 0 else 0.963, abs=2e-3)


# Figures


def test_points_lie_at_their_values() -> None:
    config = sweep()
    rows = trials(config, 9)
    shown = Shown(rows, LOSS, "min", SPACE)
    frame = key_frame(shown, "optim.peak_lr")
    page = check_page(render_report(config, record(rows)))
    circles = {(each["cx"], each["cy"]): each["class"] for each in page.of_class("circle", "dot") if "cy" in each}
    low, high = shown.metric_scale.low, shown.metric_scale.high
    for one in rows:
        value = one.value(LOSS)
        assert value is not None
        x = frame.left + frame.width * math.log10(one.values["optim.peak_lr"] / 1e-4) / 3
        y = frame.top + frame.height * (high - value) / (high - low)
        assert shown.best is not None
        state = "best" if one.name == shown.best.name else one.state
        assert circles[f"{x:.1f}", f"{y:.1f}"] == f"dot {state}"


def test_what_diverged_or_failed_is_at_the_worse_edge() -> None:
    config = sweep()
    rows = trials(config, 20)
    rows[1] = rows[1].with_(curve=[measured(1000, 1e9)])
    rows[2] = rows[2].with_(curve=[], state="failed", note="the loss was no number")
    page = render_report(config, record(rows))
    shape = check_page(page)
    frame = key_frame(Shown(rows, LOSS, "min", SPACE), "optim.peak_lr")
    triangle, cross = (next(iter(shape.of_class("path", kind)[1:]))["d"] for kind in ("stopped", "cross"))
    assert [float(each) for each in re.findall(r"[\d.]+", triangle)[:2]][1] == pytest.approx(frame.top)
    assert [float(each) for each in re.findall(r"[\d.]+", cross)[:2]][1] == pytest.approx(frame.top)
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
    shown = Shown(rows, metric, sweep(metric).goal, {})
    assert [shown.level(value) for value in (0.2, 0.4)] == ([6, 0] if metric == LOSS else [0, 6])
    assert shown.level(0.3) == LEVELS // 2


def test_learning_curves_end_where_their_trial_ended() -> None:
    config = sweep()
    rows = trials(config, 4)
    rows[0] = rows[0].with_(copies=[Copied(at=2, of="t003", step=7, samples=2000, values={"optim.peak_lr": 0.002})])
    shape = check_page(render_report(config, record(rows)))
    curves = shape.of_class("path", "line")[:2]
    # Trial 3 has three points, of the copy two and one, of the stopped trials one each.
    assert sorted(each["d"].count("L") for each in curves) == [1, 2]
    ends = [float(each["cx"]) for each in shape.of_class("circle", "end", "stopped")]
    width, left = 1064.0 - 84, 62
    assert ends == pytest.approx([left + width * 1000 / 3060] * 2, abs=0.06)
    assert "Trials that went on from another one" in shape.words


def test_lines_of_parallel_coordinates_have_gaps_where_a_key_does_not_apply() -> None:
    scales = [("a", Scale(0, 10)), ("b", Scale(values=("x", "y"))), ("c", Scale(1, 100, logarithmic=True))]
    point = Point(trial(0, {}), {"a": 2.5, "c": 10}, 3.0)
    assert pieces(point, scales, Scale(0, 4), (0, 100, 200, 300)) == [
        [(0, TOP + 0.75 * HEIGHT)],
        [(200, TOP + 0.5 * HEIGHT), (300, TOP + 0.25 * HEIGHT)],
    ]


@given(
    st.lists(st.tuples(st.floats(1e-4, 1e-1), st.sampled_from([1, 2, 3]), st.floats(-5, 5)), min_size=1, max_size=60)
)
def test_cells_have_the_median_of_the_trials_in_them(drawn: list[tuple[float, int, float]]) -> None:
    points = [Point(trial(n, {}), {"x": x, "y": y}, value) for n, (x, y, value) in enumerate(drawn)]
    points.append(Point(trial(len(drawn), {}), {"x": 1e-2}, 99.0))
    found = cells(points, "x", "y", Scale(1e-4, 1e-1, logarithmic=True), scale_of(Domain(choice=[1, 2, 3])))
    count = parts(len(points))
    assert 3 <= count <= 8
    assert sum(cell.trials for cell in found) == len(drawn)
    for cell in found:
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
    assert keys_of_heat(Shown([], LOSS, "min", SPACE), None) == ("optim.peak_lr", "objective.temperature")
    assert keys_of_heat(Shown([], LOSS, "min", names | numbers), None) == ("optim.a", "optim.b")
    rows = [
        trial(n, {"kind": "x", **{key: (7 * n * at % 20) / 20 for at, key in enumerate(numbers, 1)}},
              [measured(9, float(7 * n * 3 % 20))])
        for n in range(20)
    ]  # fmt: skip
    found = importance.importances(rows, LOSS, names | numbers)
    assert (keys_of_heat(Shown(rows, LOSS, "min", names | numbers), found) or ("",))[0] == "optim.c"
    assert keys_of_heat(Shown([], LOSS, "min", {"optim.a": numbers["optim.a"], **names}), None) is None
    page = render_report(sweep(space={"optim.beta1": Domain(uniform=(0.8, 0.9))}), record())
    assert "There is no heat map: fewer than two searched keys are numbers." in page


def test_the_map_compares_after_equally_many_samples() -> None:
    config = sweep()
    page = render_report(config, record(trials(config, 40)))
    assert "by their values at 1,000 samples; points are trials (40)" in page
    assert "reached, here 40 of 40" in page
    assert re.search(r"Intervals above 0: optim.peak_lr 0.[0-9]{2} \(0.[0-9]{2} to [01].[0-9]{2}\)", page)
    assert len(check_page(page).of_class("circle", "over", "best")) == 1


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
        "asha: one in 3 goes on at each rung",
        "tpe (tree-structured Parzen estimator) after 10 random ones, seed 0",
        # Both that were stopped lack 2,000 of 3,000 samples.
        "4,000 samples, 44% of training all 3 to the end",
        "3 configurations of 24; 1 of 2 hours; 5,000 of 100,000 samples; 3 of 3 GPU hours",
        "raylens train best.yaml", "raylens sweep promote 's3://bucket/my sweeps/tuned' NAME@staging",
        "raylens sweep resume 's3://bucket/my sweeps/tuned'", "not comparable", "with one seed",
        "Nothing was trained as far as the best",
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
    copy = Copied(at=1, of="t001", step=7, samples=1000, values={"optim.peak_lr": 0.0123})
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
    shown = Shown(rows, LOSS, "min", SPACE)
    assert MOST_DRAWN - 1 <= len(shown.drawn) <= MOST_DRAWN
    assert f"Of 500 trials {len(shown.drawn)} are drawn" in shape.words
    assert "440 more" in shape.words
    assert len(page) < 1_500_000
    assert {id(shown.best), id(max(rows, key=lambda one: one.value(LOSS) or 0))} <= {
        id(one.trial) for one in shown.drawn
    }


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
        Copied(at=at, of=EVIL, step=1, samples=1000 * at, values={EVIL: EVIL})
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
