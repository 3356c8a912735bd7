"""The plan is a bijection in every epoch, and a pure function of its keys."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.data.plan import Plan, permute
from raylens.errors import CursorError

SIZES = st.integers(1, 3000)
RUNS = st.integers(1, 40)


@given(SIZES, RUNS, RUNS, st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_each_epoch_has_every_sample_once(samples: int, length: int, runs: int, seed: int, epoch: int) -> None:
    plan = Plan(samples, "digest", seed, length, runs)
    order = plan.sample_at(np.arange(epoch * samples, (epoch + 1) * samples))
    assert np.array_equal(np.sort(order), np.arange(samples))


@given(SIZES, RUNS, RUNS, st.data())
def test_any_slice_is_the_same_as_the_whole(samples: int, length: int, runs: int, data: st.DataObject) -> None:
    plan = Plan(samples, "digest", 1, length, runs)
    positions = np.arange(3 * samples)
    start = data.draw(st.integers(0, 3 * samples - 1))
    stop = data.draw(st.integers(start + 1, 3 * samples))
    assert np.array_equal(plan.sample_at(positions)[start:stop], plan.sample_at(positions[start:stop]))


@given(st.integers(1, 5000), st.integers(0, 2**63))
def test_permute_is_a_bijection(size: int, key: int) -> None:
    values = np.arange(size)
    assert np.array_equal(np.sort(permute(values, size, np.full(size, key, dtype=np.uint64))), values)


@given(SIZES, RUNS, RUNS, st.integers(0, 3))
def test_units_tile_the_positions(samples: int, length: int, runs: int, epoch: int) -> None:
    plan = Plan(samples, "digest", 0, length, runs)
    spans = [plan.unit_span(epoch * plan.units_per_epoch + unit) for unit in range(plan.units_per_epoch)]
    assert spans[0][0] == epoch * samples
    assert spans[-1][1] == (epoch + 1) * samples
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(plan.unit_of(start) == plan.unit_of(stop - 1) for start, stop in spans)


@given(st.integers(100, 3000), st.integers(2, 32), st.integers(2, 32))
def test_a_unit_reads_few_runs(samples: int, length: int, runs: int) -> None:
    """Every unit is made of at most one run more than planned, split where the data set's end joins its beginning."""
    plan = Plan(samples, "digest", 7, length, runs)
    for unit in {0, plan.units_per_epoch // 2, plan.units_per_epoch - 1}:
        ordered = np.sort(plan.sample_at(np.arange(*plan.unit_span(unit))))
        pieces = 1 + int((np.diff(ordered) != 1).sum())
        assert pieces <= runs + 2


@pytest.mark.parametrize("change", ["manifest", "seed", "run_length", "runs_per_unit", "epoch"])
def test_every_key_changes_the_order(change: str) -> None:
    keys = {"samples": 1000, "manifest": "a", "seed": 1, "run_length": 8, "runs_per_unit": 8}
    positions = np.arange(1000)
    base = Plan(**keys).sample_at(positions)  # type: ignore[arg-type]
    other = keys if change == "epoch" else {**keys, change: "b" if change == "manifest" else 2}
    changed = Plan(**other).sample_at(positions + 1000 * (change == "epoch"))  # type: ignore[arg-type]
    assert (base != changed).mean() > 0.9


def test_order_is_pinned() -> None:
    """Changing the order breaks every resume: if this fails on purpose, raise `Plan.VERSION`."""
    plan = Plan(1000, "0" * 64, 42, 8, 4)
    assert plan.sample_at(np.array([0, 1, 2, 999, 1000, 123_456_789])).tolist() == PINNED


PINNED = [507, 505, 767, 248, 311, 726]


def test_the_mix_is_even() -> None:
    """First places of many epochs are uniform over the samples (chi-squared, 99.99%)."""
    plan = Plan(64, "digest", 3, 4, 4)
    counts = Counter(plan.sample_at(np.arange(6400) * 64).tolist())
    chi2 = sum((counts[sample] - 100) ** 2 / 100 for sample in range(64))
    assert chi2 < 120  # 63 degrees of freedom


@pytest.mark.parametrize("field", ["samples", "run_length", "runs_per_unit"])
def test_an_empty_plan_is_refused(field: str) -> None:
    keys = {"samples": 10, "manifest": "a", "seed": 1, "run_length": 2, "runs_per_unit": 2, field: 0}
    with pytest.raises(CursorError, match=f"{field} = 0"):
        Plan(**keys)  # type: ignore[arg-type]
