"""The plan: any topology and any interruption give the same global batches; mixtures keep their weights."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from raylens.data.bijection import Ints
from raylens.data.order import FixedChunkOrder, Order, RowGroupOrder
from raylens.data.plan import Located, Plan, shares_of, step_hashes
from raylens.data.verify import Topology, deal_batches, verify
from raylens.errors import ConfigError, CursorError

BATCH = 24  # shared equally by 1, 2, 3 and 4 workers


def even(samples: int, name: str = "a", size: int | None = None) -> FixedChunkOrder:
    return FixedChunkOrder(samples, name, 5, 4, 3, size or samples)


def row_groups(samples: int, name: str = "b") -> RowGroupOrder:
    bounds = np.unique(np.append(np.arange(0, samples, 7), samples))
    return RowGroupOrder(samples, name, 5, 4, 3, samples, bounds)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    sizes = draw(st.lists(st.integers(1, 300), min_size=1, max_size=3))
    orders: list[Order] = [
        (even if draw(st.booleans()) else row_groups)(size, f"set {number}") for number, size in enumerate(sizes)
    ]
    weights = draw(st.lists(st.floats(0.1, 10), min_size=len(sizes), max_size=len(sizes)))
    return Plan(tuple(orders), shares_of(weights, 12) if len(sizes) > 1 else (1,), draw(st.integers(0, 2**32 - 1)))


def global_batches(plan: Plan, workers: int, start: int, stop: int) -> list[list[int]]:
    """Of each step, in the order of the ranks."""
    return [np.concatenate(hands).tolist() for hands in deal_batches(plan, BATCH, workers, start, stop)]


@settings(max_examples=40)
@given(plans(), st.lists(st.tuples(st.integers(0, 30), st.sampled_from([1, 2, 3, 4, 6])), max_size=4), st.data())
def test_any_workers_and_any_interruptions_give_the_same_batches(
    plan: Plan, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    steps = 31
    whole = global_batches(plan, 1, 0, steps)
    assert whole == [list(range(step * BATCH, (step + 1) * BATCH)) for step in range(steps)]
    stretches = sorted(dict(changes).items())
    pieces = [(0, data.draw(st.sampled_from([1, 2, 3, 4]))), *[change for change in stretches if change[0] > 0]]
    again = [
        batch
        for (start, workers), (stop, _) in pairwise([*pieces, (steps, 1)])
        for batch in global_batches(plan, workers, start, stop)
    ]
    assert again == whole


@settings(max_examples=40)
@given(plans())
def test_each_data_set_goes_through_its_epochs(plan: Plan) -> None:
    """After whole cycles, every epoch but the one under way has had each sample once."""
    located = plan.locate(np.arange(-(-1000 // plan.cycle) * plan.cycle))
    for number, order in enumerate(plan.orders):
        here = located.source == number
        epochs, samples = located.epoch[here], located.sample[here]
        for epoch in range(int(epochs.max()) + 1):
            found = samples[epochs == epoch]
            assert len(np.unique(found)) == len(found)
            if epoch < epochs.max():
                assert len(found) == order.samples


@settings(max_examples=12)
@given(plans())
def test_verify_proves_and_audits(plan: Plan) -> None:
    steps = 40
    result = verify(plan, BATCH, [Topology(((0, 1),)), Topology(((0, 4), (13, 2), (20, 3)))], steps)
    assert result.steps == steps
    assert len(set(result.hashes)) == steps
    located = plan.locate(np.arange(steps * BATCH))
    expected = step_hashes(plan.ids(located), located.epoch, steps)
    assert result.hashes == tuple(f"{int(word):016x}" for word in expected)
    if len(plan.orders) == 1:
        assert result.epochs == (steps * BATCH // plan.orders[0].samples,)


class Forgetful(FixedChunkOrder):
    """An order with a fault: one sample takes another's place."""

    def sample_at(self, positions: Ints) -> Ints:
        found = super().sample_at(positions)
        return np.where(found == 3, 4, found)


def test_the_audit_finds_a_repeated_sample() -> None:
    plan = Plan((Forgetful(100, "a", 1, 4, 3, 100),))
    with pytest.raises(CursorError, match="epoch 0: sample 4"):
        verify(plan, 10, [Topology(((0, 1),))], 10)


class Wandering(Plan):
    """A plan with a fault: what stands at a position follows from how many are asked for."""

    def locate(self, positions: Ints) -> Located:
        return super().locate(positions + (len(positions) == 5))


def test_verify_finds_a_difference() -> None:
    plan = Wandering((even(100),))
    with pytest.raises(CursorError, match=r"step 1: 2 workers .* 1 workers \(.* of 10 steps"):
        verify(plan, 10, [Topology(((0, 1),)), Topology(((0, 2),))], 10)


@given(st.integers(20, 300), st.integers(2, 20), st.integers(0, 3))
def test_a_dropped_end_keeps_epochs_apart(samples: int, batch: int, epoch: int) -> None:
    size = samples // batch * batch
    plan = Plan((even(samples, size=size),))
    steps = plan.locate(np.arange(epoch * size, (epoch + 1) * size)).epoch.reshape(-1, batch)
    assert (steps == epoch).all()
    assert set(plan.locate(np.arange((epoch + 1) * size, (epoch + 1) * size + batch)).epoch.tolist()) == {epoch + 1}


def test_other_epochs_drop_other_samples() -> None:
    plan = Plan((even(100, size=90),))
    left = [set(range(100)) - set(plan.locate(np.arange(e * 90, e * 90 + 90)).sample.tolist()) for e in range(4)]
    assert all(len(one) == 10 for one in left)
    assert len(set().union(*left)) > 20


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=6), st.integers(1, 2000))
def test_shares_follow_the_weights(weights: list[float], places: int) -> None:
    assume(min(weights) / sum(weights) > 4 / 16_384)
    shares = shares_of(weights, places)
    total = sum(shares)
    assert total >= places
    for weight, share in zip(weights, shares, strict=True):
        assert share >= 1
        assert abs(share - weight / sum(weights) * total) <= 1 + len(weights)


def test_a_mixture_keeps_its_weights_in_every_cycle() -> None:
    plan = Plan((even(50), even(3000, "c")), shares_of([1, 3], 64))
    source = plan.locate(np.arange(64 * 30)).source.reshape(30, 64)
    assert (source == 0).sum(axis=1).tolist() == [16] * 30
    assert len({tuple(row) for row in source.tolist()}) == 30  # deal_batches otherwise in each


def test_a_weight_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"weight = 1e-09 is less than 2\.4e-04"):
        shares_of([1.0, 1e-9], 1024)


@given(st.permutations(range(12)), st.integers(0, 5))
def test_hashes_know_samples_and_epochs_but_not_the_order(order: list[int], epoch: int) -> None:
    ids, epochs = np.arange(12), np.full(12, epoch)
    (base,) = step_hashes(ids, epochs, 1)
    assert step_hashes(ids[order], epochs, 1)[0] == base
    assert step_hashes(ids + 1, epochs, 1)[0] != base
    assert step_hashes(ids, epochs + 1, 1)[0] != base
    halves = step_hashes(ids[order], epochs, 2)
    assert (int(halves[0]) + int(halves[1])) % 2**64 == int(base)
