"""Which keys matter: against metrics of which it is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylens.tune.comparable import comparable
from raylens.tune.domain import Domain
from raylens.tune.report import importance
from raylens.tune.report.importance import importances
from raylens.tune.space import Space
from raylens.tune.trials import TrialCopy, TrialEvaluation, TrialRecord

METRIC = "validation_loss"
SPACE = {
    "optim.peak_lr": Domain(log_uniform=(1e-5, 1e-1)),
    "optim.schedule.kind": Domain(choice=["cosine", "linear", "constant"]),
    "optim.schedule.end": Domain(choice=[0.0, 0.1], when={"optim.schedule.kind": ["cosine", "linear"]}),
    "optim.beta1": Domain(uniform=(0.8, 0.95)),
}


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the forests, where their spread is not what is tested."""
    monkeypatch.setattr(importance, "ROUNDS", 12)


def measured(samples: int, value: float | None) -> TrialEvaluation:
    metrics = {} if value is None else {METRIC: value}
    return TrialEvaluation(step=samples // 10, samples=samples, seconds=1.0, metrics=metrics)


def trial(number: int, values: dict[str, object], *curve: float | None, **more: object) -> TrialRecord:
    points = [measured(100 * (place + 1), value) for place, value in enumerate(curve)]
    return TrialRecord.model_validate({"number": number, "values": values, "curve": points, **more})


def drawn(count: int, space: dict[str, Domain] = SPACE) -> list[dict[str, object]]:
    return [Space(space).draw((7, number)) for number in range(count)]


def rate(values: dict[str, object]) -> float:
    return float(np.log10(float(values["optim.peak_lr"])))  # type: ignore[arg-type]


def test_the_key_that_decides_comes_first_and_one_without_influence_is_around_zero() -> None:
    trials = [trial(number, values, rate(values)) for number, values in enumerate(drawn(60))]
    found = importances(trials, METRIC, SPACE)
    assert found is not None
    first, *others = found.keys
    assert first.key == "optim.peak_lr"
    assert 0.75 < first.low < first.mean < first.high < 1.2
    for one in others:
        assert one.low <= 0.02
        assert abs(one.mean) < 0.03
        assert one.low <= one.mean <= one.high


def test_shares_of_two_keys_are_those_of_the_variance() -> None:
    """Of y = 2a + b with a and b uniform, four fifths of the variance go with a; ranks change that little."""
    space = {"a": Domain(uniform=(0, 1)), "b": Domain(uniform=(0, 1)), "c": Domain(uniform=(0, 1))}
    values = drawn(300, space)
    trials = [trial(n, one, 2 * float(one["a"]) + float(one["b"])) for n, one in enumerate(values)]  # type: ignore[arg-type]
    found = importances(trials, METRIC, space)
    assert found is not None
    means = {one.key: one.mean for one in found.keys}
    assert list(means) == ["a", "b", "c"]
    assert means["a"] == pytest.approx(0.8, abs=0.12)
    assert means["b"] == pytest.approx(0.2, abs=0.08)
    assert means["c"] == pytest.approx(0.0, abs=0.01)


def test_a_list_of_names_counts_as_one_key_and_takes_the_credit_of_its_condition() -> None:
    """Whether end applies tells the schedule's kind, of which alone the metric depends."""
    effect = {"cosine": 0.0, "linear": 0.1, "constant": 1.0}
    random = np.random.default_rng(0)
    trials = [
        trial(n, one, effect[str(one["optim.schedule.kind"])] + 0.02 * random.normal())
        for n, one in enumerate(drawn(60))
    ]
    found = importances(trials, METRIC, SPACE)
    assert found is not None
    first, *others = found.keys
    assert first.key == "optim.schedule.kind"
    assert first.low > 0.5
    assert all(abs(one.mean) < 0.05 for one in others)


def test_one_diverged_trial_does_not_decide() -> None:
    values = drawn(40)
    curves = [rate(one) for one in values]
    curves[3] = 1e9
    found = importances([trial(n, one, curves[n]) for n, one in enumerate(values)], METRIC, SPACE)
    assert found is not None
    assert found.keys[0].key == "optim.peak_lr"
    assert found.keys[0].low > 0.5


def test_equal_input_gives_equal_numbers_and_another_seed_others(few_rounds: None) -> None:
    trials = [trial(number, values, rate(values)) for number, values in enumerate(drawn(12))]
    found = importances(trials, METRIC, SPACE)
    assert importances(trials, METRIC, SPACE) == found
    assert importances(trials, METRIC, SPACE, seed=1) != found


def test_too_few_trials_or_nothing_that_varies_say_nothing(few_rounds: None) -> None:
    values = drawn(8)
    assert importances([], METRIC, SPACE) is None
    assert importances([trial(n, one, rate(one)) for n, one in enumerate(values[:7])], METRIC, SPACE) is None
    assert importances([trial(n, one, 1.0) for n, one in enumerate(values)], METRIC, SPACE) is None
    assert importances([trial(n, values[0], float(n)) for n in range(8)], METRIC, SPACE) is None
    assert importances([trial(n, one, None) for n, one in enumerate(values)], METRIC, SPACE) is None
    assert importances([trial(n, one, rate(one)) for n, one in enumerate(values)], METRIC, SPACE) is not None
    # Eight trials of two configurations are two configurations.
    repeats = [trial(n % 2, values[n % 2], float(n), repeat=n // 2) for n in range(8)]
    assert importances(repeats, METRIC, SPACE) is None


def test_a_key_that_never_varies_is_left_out(few_rounds: None) -> None:
    trials = [trial(n, {**one, "optim.beta1": 0.9}, rate(one)) for n, one in enumerate(drawn(12))]
    found = importances(trials, METRIC, SPACE)
    assert found is not None
    assert "optim.beta1" not in {one.key for one in found.keys}


def test_trials_are_compared_where_two_thirds_have_been() -> None:
    """Twelve trials: all reach 100, nine 200, seven 300; two thirds are eight."""
    lengths = [3] * 7 + [2] * 2 + [1] * 3
    trials = [trial(n, {}, *(float(10 * n + at) for at in range(length))) for n, length in enumerate(lengths)]
    found = comparable(trials, METRIC)
    assert found is not None
    assert (found.samples, len(found.points), found.known) == (200, 9, 12)
    # The value there, not the newest.
    assert [point.metric for point in found.points] == [10.0 * n + 1 for n in range(9)]


def test_trials_without_a_value_do_not_count_and_the_newest_up_to_there_does() -> None:
    trials = [trial(n, {}, 1.0, None, float(n)) for n in range(8)]
    trials[0] = trial(0, {}, 5.0, 6.0, 7.0).with_(curve=[measured(100, 5.0), measured(250, 6.0), measured(350, 7.0)])
    trials += [trial(n, {}, None) for n in range(8, 30)]
    found = comparable(trials, METRIC)
    assert found is not None
    assert (found.samples, found.known) == (300, 8)
    assert [point.metric for point in found.points] == [6.0, *(float(n) for n in range(1, 8))]


def test_copies_change_the_settings_of_what_was_measured() -> None:
    """Settings of before the first copy are not kept, so what was measured with them is left out."""
    copies = [
        TrialCopy(at=1, of="t000", step=1, samples=100, values={"x": 1}),
        TrialCopy(at=2, of="t000", step=2, samples=200, values={"x": 2}),
    ]
    trials = [trial(n, {"x": 2}, 1.0, 2.0, 3.0, copies=copies) for n in range(8)]
    late = comparable(trials, METRIC)
    assert late is not None
    assert {(point.values["x"], point.metric) for point in late.points} == {(2, 3.0)}
    shorter = [trial(n, {"x": 2}, 1.0, 2.0, copies=copies) for n in range(8)]
    middle = comparable(shorter, METRIC)
    assert middle is not None
    assert {(point.values["x"], point.metric) for point in middle.points} == {(1, 2.0)}
    assert comparable([trial(n, {"x": 2}, 1.0, copies=copies) for n in range(8)], METRIC) is None


@given(st.lists(st.integers(0, 4), max_size=20))
@settings(deadline=None)
def test_no_larger_number_of_samples_would_do(lengths: list[int]) -> None:
    trials = [trial(n, {}, *(float(at) for at in range(length))) for n, length in enumerate(lengths)]
    having = [length for length in lengths if length]
    enough = max(8, -(-2 * len(having) // 3))
    want = max((at for at in range(1, 5) if sum(length >= at for length in having) >= enough), default=None)
    found = comparable(trials, METRIC)
    assert (found and found.samples) == (want and 100 * want)
    if found is not None and want is not None:
        assert [point.trial.number for point in found.points] == [n for n, each in enumerate(lengths) if each >= want]
