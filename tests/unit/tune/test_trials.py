"""What a sweep knows of its trials, and which of them is the best."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raylens.errors import NotFoundError, TrainingError
from raylens.storage import open_store
from raylens.tune.config import BudgetConfig
from raylens.tune.monitor import add_evaluation, exhausted_part
from raylens.tune.results import configurations, ranked, verdict
from raylens.tune.trials import SweepRecord, TrialEvaluation, TrialRecord, read_sweep, write_sweep

LOSS = "validation_loss"


def trial(number: int, *values: float, state: str = "finished", repeat: int = 0, **others: Any) -> TrialRecord:
    curve = [
        TrialEvaluation(step=10 * at, samples=1000 * at, seconds=at, metrics={LOSS: value})
        for at, value in enumerate(values, 1)
    ]
    return TrialRecord(number=number, repeat=repeat, values={"lr": number}, state=state, curve=curve, **others)


def result(step: int, loss: float, **others: Any) -> dict[str, Any]:
    return {"steps": step, "samples": 100 * step, "of_steps": 40, "run": "s-t000", LOSS: loss, **others}


def test_results_become_a_curve_and_a_step_told_twice_is_one_point() -> None:
    record = TrialRecord(number=0, values={})
    for step, loss in ((10, 4.0), (20, 3.0), (30, 2.0), (20, 3.1), (40, 1.0)):
        record = add_evaluation(record, result(step, loss), {"a": 1}, [LOSS, "other"], float(step))
    assert [(one.step, one.metrics) for one in record.curve] == [
        (10, {LOSS: 4.0}),
        (20, {LOSS: 3.1}),
        (40, {LOSS: 1.0}),
    ]
    assert (record.state, record.run, record.samples, record.seconds) == ("finished", "s-t000", 4000, 40.0)
    assert record.values == {"a": 1}


def test_a_copy_keeps_its_own_past_and_counts_what_it_trained_itself() -> None:
    record = TrialRecord(number=0, values={"lr": 1})
    record = add_evaluation(record, result(10, 5.0), {"lr": 1}, [LOSS], 1.0)
    copied = {"run": "s-t000-ab", "copied_of": "t001", "copied_step": 30, "copied_samples": 3000}
    for step in (40, 50):
        record = add_evaluation(record, result(step, 2.0, **copied), {"lr": 2}, [LOSS], 2.0)
    assert [one.step for one in record.curve] == [10, 40, 50]
    assert [(one.of, one.step, one.values) for one in record.copies] == [("t001", 30, {"lr": 2})]
    assert record.samples == 1000 + (5000 - 3000)
    # A second copy, of a state that lies further back.
    again = {"run": "s-t000-cd", "copied_of": "t002", "copied_step": 20, "copied_samples": 2000}
    record = add_evaluation(record, result(30, 1.5, **again), {"lr": 3}, [LOSS], 3.0)
    assert [one.step for one in record.curve] == [10, 40, 50, 30]
    assert record.samples == 1000 + 2000 + 1000


def test_a_record_is_read_as_it_was_written_and_damage_is_named(tmp_path: Any) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(NotFoundError, match="is not a sweep"):
        read_sweep(store)
    record = SweepRecord(trials=[trial(0, 3.0, 2.0), trial(1, state="failed", note="[x] no")], why="why")
    write_sweep(store, record)
    assert read_sweep(store) == record
    store.write("sweep.json", b'{"trials": [{"number": "x"}]}')
    with pytest.raises(TrainingError, match=r"sweep\.json is damaged"):
        read_sweep(store)


def test_a_budget_is_used_up_by_what_was_used() -> None:
    record = SweepRecord(seconds=3600.0, trials=[trial(0, 3.0, 2.0, seconds=1800.0, gpus=4)])
    assert exhausted_part(BudgetConfig(), record) == ""
    assert exhausted_part(BudgetConfig(hours=1.0), record) == "budget.hours = 1 is used up"
    assert exhausted_part(BudgetConfig(samples=2001, hours=1.01), record) == ""
    assert exhausted_part(BudgetConfig(samples=2000), record) == "budget.samples = 2000 is used up"
    assert exhausted_part(BudgetConfig(gpu_hours=2.0), record) == "budget.gpu_hours = 2 is used up"


def test_what_was_trained_to_the_end_goes_before_better_values_of_less() -> None:
    trials = [
        trial(0, 3.0, 2.5),
        trial(1, 1.0, state="stopped"),
        trial(2, 3.0, 2.0),
        trial(3, state="failed"),
        trial(4, 2.0, 1.5, state="stopped"),
    ]
    assert [one.number for one in ranked(trials, LOSS, "min")] == [2, 0, 4, 1]
    shuffled = random.Random(0).sample(trials, len(trials))
    assert [one.number for one in ranked(shuffled, LOSS, "min")] == [2, 0, 4, 1]
    assert [one.number for one in configurations(shuffled, LOSS, "min")] == [0, 1, 2, 3, 4]


VALUES = st.lists(st.integers(-100, 100).map(float), min_size=2, max_size=6)


@given(VALUES, VALUES)
def test_the_verdict_is_welchs_test(first: list[float], second: list[float]) -> None:
    trials = [trial(0, value, repeat=at) for at, value in enumerate(first)]
    trials += [trial(1, value, repeat=at) for at, value in enumerate(second)]
    found = verdict(trials, LOSS, "min")
    assert found is not None
    assert found.second is not None
    best = ranked(trials, LOSS, "min")[0]
    assert best.mean == pytest.approx(min(sum(first) / len(first), sum(second) / len(second)))
    if len(set(first)) > 1 and len(set(second)) > 1:  # scipy warns of what has no spread
        a, b = (first, second) if best.number == 0 else (second, first)
        assert found.p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, nan_ok=True)
    low, high = best.interval or (0.0, 0.0)
    results = best.results
    if len(set(results)) > 1:
        expected = stats.t.interval(0.95, len(results) - 1, loc=best.mean or 0.0, scale=stats.sem(results))
        assert (low, high) == pytest.approx(expected)


def test_nothing_is_told_apart_from_one_run_each() -> None:
    found = verdict([trial(0, 1.0), trial(1, 2.0)], LOSS, "min")
    assert found is not None
    assert found.distinguishable is None
    assert "trained once each" in found.text
    alone = verdict([trial(0, 1.0, 2.0), trial(1, 2.0, state="stopped")], LOSS, "min")
    assert alone is not None
    assert alone.second is None
    assert verdict([], LOSS, "min") is None
    clear = verdict([trial(n, n + 0.01 * r, repeat=r) for n in (0, 1) for r in range(3)], LOSS, "min")
    assert clear is not None
    assert clear.distinguishable is True
    close = verdict([trial(n, 0.01 * n + r, repeat=r) for n in (0, 1) for r in range(3)], LOSS, "min")
    assert close is not None
    assert close.distinguishable is False
    assert "do not differ significantly" in close.text
