"""The order of a data set is a bijection in every epoch, and a pure function of its keys."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.data.bijection import permute, uniforms
from raylens.data.order import FixedChunkOrder, Order, RowGroupOrder
from raylens.errors import CursorError

SIZES = st.integers(1, 3000)
RUNS = st.integers(1, 40)


@st.composite
def orders(draw: st.DrawFn) -> Order:
    """Either kind, with or without a dropped end."""
    samples, seed = draw(SIZES), draw(st.integers(0, 2**32 - 1))
    batch = draw(st.integers(1, samples))
    size = samples // batch * batch
    length, runs = draw(RUNS), draw(RUNS)
    if draw(st.booleans()):
        return FixedChunkOrder(samples, "digest", seed, length, runs, size)
    cuts = draw(st.sets(st.integers(1, samples), max_size=60)) - {samples}
    bounds = np.array([0, *sorted(cuts), samples])
    return RowGroupOrder(samples, f"digest {sorted(cuts)}", seed, length, runs, size, bounds)


@given(orders(), st.integers(0, 5))
def test_each_epoch_has_no_sample_twice_and_misses_only_what_is_dropped(order: Order, epoch: int) -> None:
    found = order.sample_at(np.arange(epoch * order.epoch_size, (epoch + 1) * order.epoch_size))
    assert len(np.unique(found)) == order.epoch_size
    assert found.min() >= 0
    assert found.max() < order.samples


@given(orders(), st.data())
def test_any_slice_is_the_same_as_the_whole(order: Order, data: st.DataObject) -> None:
    positions = np.arange(3 * order.epoch_size)
    start = data.draw(st.integers(0, len(positions) - 1))
    stop = data.draw(st.integers(start + 1, len(positions)))
    assert np.array_equal(order.sample_at(positions)[start:stop], order.sample_at(positions[start:stop]))


@given(st.integers(1, 5000), st.integers(0, 2**63))
def test_permute_is_a_bijection(size: int, key: int) -> None:
    values = np.arange(size)
    assert np.array_equal(np.sort(permute(values, size, np.full(size, key, dtype=np.uint64))), values)


@given(orders(), st.integers(0, 3))
def test_units_tile_the_positions(order: Order, epoch: int) -> None:
    spans = [order.block_span(epoch * order.blocks_per_epoch + block) for block in range(order.blocks_per_epoch)]
    assert spans[0][0] == epoch * order.epoch_size
    assert spans[-1][1] == (epoch + 1) * order.epoch_size
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    for number, (start, stop) in enumerate(spans):
        for position in {start, stop - 1} if start < stop else ():
            assert order.block_of(position) == epoch * order.blocks_per_epoch + number


@given(st.integers(100, 3000), st.integers(2, 32), st.integers(2, 32))
def test_a_block_reads_few_chunks(samples: int, length: int, runs: int) -> None:
    """Every block is made of at most one run more than planned, split where the data set's end joins its beginning."""
    order = FixedChunkOrder(samples, "digest", 7, length, runs, samples)
    for block in {0, order.blocks_per_epoch // 2, order.blocks_per_epoch - 1}:
        ordered = np.sort(order.sample_at(np.arange(*order.block_span(block))))
        pieces = 1 + int((np.diff(ordered) != 1).sum())
        assert pieces <= runs + 2


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 8), st.integers(0, 3))
def test_a_block_of_row_groups_is_whole_row_groups(lengths: list[int], runs: int, epoch: int) -> None:
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    order = RowGroupOrder(int(bounds[-1]), f"digest {lengths}", 7, 1, runs, int(bounds[-1]), bounds)
    for block in range(order.blocks_per_epoch):
        found = set(order.sample_at(np.arange(*order.block_span(epoch * order.blocks_per_epoch + block))).tolist())
        whole = [set(range(start, stop)) for start, stop in pairwise(bounds.tolist()) if start in found]
        assert len(whole) <= runs
        assert found == set().union(*whole)


@pytest.mark.parametrize("change", ["manifest", "seed", "chunk_size", "chunks_per_block", "epoch"])
def test_every_key_changes_the_order(change: str) -> None:
    keys = {"samples": 1000, "manifest": "a", "seed": 1, "chunk_size": 8, "chunks_per_block": 8, "epoch_size": 1000}
    positions = np.arange(1000)
    base = FixedChunkOrder(**keys).sample_at(positions)  # type: ignore[arg-type]
    other = keys if change == "epoch" else {**keys, change: "b" if change == "manifest" else 2}
    changed = FixedChunkOrder(**other).sample_at(positions + 1000 * (change == "epoch"))  # type: ignore[arg-type]
    assert (base != changed).mean() > 0.9


def test_order_and_draws_are_pinned() -> None:
    """Changing either breaks every resume: if this fails on purpose, raise `VERSION`."""
    even = FixedChunkOrder(1000, "0" * 64, 42, 8, 4, 1000)
    row_groups = RowGroupOrder(1000, "0" * 64, 42, 8, 4, 1000, np.arange(0, 1001, 100))
    positions = np.array([0, 1, 2, 999, 1000, 123_456_789])
    assert even.sample_at(positions).tolist() == PINNED
    assert row_groups.sample_at(positions).tolist() == PINNED_ROW_GROUPS
    keys = even.draw_keys(np.array([0, 0, 1]), np.array([0, 1, 0]))
    assert keys.tolist() == PINNED_KEYS
    assert uniforms(keys, 4)[0].tolist() == pytest.approx(PINNED_DRAWS, abs=1e-15)


PINNED = [453, 290, 291, 61, 304, 753]
PINNED_ROW_GROUPS = [144, 20, 779, 658, 52, 939]
PINNED_KEYS = [9509145595356846037, 814911565164639540, 16477049584337403143]
PINNED_DRAWS = [0.8909822668739522, 0.3595958843041731, 0.39981964879904064, 0.19759985682371106]


def test_the_mix_is_even() -> None:
    """First places of many epochs are uniform over the samples (chi-squared, 99.99%)."""
    order = FixedChunkOrder(64, "digest", 3, 4, 4, 64)
    counts = Counter(order.sample_at(np.arange(6400) * 64).tolist())
    chi2 = sum((counts[sample] - 100) ** 2 / 100 for sample in range(64))
    assert chi2 < 120  # 63 degrees of freedom


@given(st.integers(0, 2**64 - 1))
def test_draws_are_even_and_independent(key: int) -> None:
    keys = np.uint64(key) + np.arange(4000, dtype=np.uint64)
    values = uniforms(keys, 4)
    assert values.min() >= 0.0
    assert values.max() < 1.0
    assert np.abs(values.mean(axis=0) - 0.5).max() < 0.5 / np.sqrt(12 * 4000) * 12  # six standard errors and more
    assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 6.5 / np.sqrt(4000)


@pytest.mark.parametrize("field", ["samples", "chunk_size", "chunks_per_block", "epoch_size"])
def test_an_empty_order_is_refused(field: str) -> None:
    keys = {
        "samples": 10,
        "manifest": "a",
        "seed": 1,
        "chunk_size": 2,
        "chunks_per_block": 2,
        "epoch_size": 1,
        field: 0,
    }
    with pytest.raises(CursorError, match=f"{field} = 0"):
        FixedChunkOrder(**keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("bounds", [[0, 5], [1, 10], [0, 5, 5, 10], [0, 7, 3, 10]])
def test_runs_with_gaps_are_refused(bounds: list[int]) -> None:
    with pytest.raises(CursorError, match="row group bounds"):
        RowGroupOrder(10, "a", 1, 2, 2, 10, np.array(bounds))
