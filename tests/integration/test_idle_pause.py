"""Ray Data's executor for real: it rests while nobody asks, wakes when somebody does, and ends when it is told to."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raylens.data import idle_pause
from raylens.data.block_source import counted, task_number
from raylens.data.idle_pause import LONGEST_SECONDS, WAITED_SECONDS, IdlePause, with_idle_pause
from raylens.data.stream import execution_options
from raylens.ray_internals import ThreadedMetadataFetcher

ROWS, BLOCK_BYTES, STORE_BYTES = 64, 1 << 20, 8 << 20
AN_HOUR = 3600.0

pytestmark = pytest.mark.usefixtures("cluster")


class Watched(IdlePause):
    """Lets a test look at the executor of its own process, and at how often it came around."""

    made: "list[Watched]" = []  # noqa: RUF012 (of all instances)
    executor: Any = None

    def before_execution_starts(self, executor: Any) -> None:
        self.made.append(self)
        self.executor = executor
        super().before_execution_starts(executor)


@pytest.fixture(autouse=True)
def forget_executors() -> Iterator[None]:
    yield
    Watched.made.clear()


def numbered(blocks: int) -> Any:
    """Blocks of a MiB that say which they are, in order; few of them fit into what the data set may hold."""

    def make(_: pa.Table) -> dict[str, np.ndarray[Any, Any]]:
        number = task_number()
        filler = np.full((ROWS, BLOCK_BYTES // ROWS), number, dtype=np.uint8)
        return {"number": np.full(ROWS, number), "filler": filler}

    dataset = counted(blocks).map_batches(make, batch_size=None, batch_format="pyarrow")
    dataset.context.execution_options = execution_options()
    dataset.context.execution_options.resource_limits = dataset.context.execution_options.resource_limits.copy(
        object_store_memory=STORE_BYTES
    )
    return dataset


def watched(blocks: int) -> Any:
    dataset = numbered(blocks)
    dataset.context.custom_execution_callback_classes = [Watched]
    return dataset


def taken(dataset: Any) -> Generator[Any, None, None]:
    """Batches as a worker takes them; closed, it ends the executor."""
    batches: Generator[Any, None, None] = iter(dataset.iter_batches(batch_size=ROWS, batch_format="numpy"))
    return batches


def numbers(batches: Iterator[Any]) -> list[int]:
    return [int(batch["number"][0]) for batch in batches]


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def stands(one: Watched) -> bool:
    """Whether it has not come around for so long that it would have, but for the hour that it was told to wait."""
    before = one.turns
    time.sleep(1.0)
    return one.turns == before


def test_it_does_not_spin_while_the_consumer_holds_still_and_loses_nothing() -> None:
    blocks = 40
    with closing(taken(watched(blocks))) as batches:
        first = next(batches)
        (one,) = Watched.made
        began = time.perf_counter()
        time.sleep(3.0)
        held, turns = time.perf_counter() - began, one.turns
        assert one.executor.is_alive(), "all was made: nothing is held back, so this test shows nothing"
        # A turn that does something, some short pauses behind each, and between two turns that do nothing a long pause
        # or a long turn. However busy the machine is, there are no more of them; a loop that spins makes hundreds a
        # second.
        assert turns <= 10 * blocks + held / min(LONGEST_SECONDS, WAITED_SECONDS)
        assert [int(first["number"][0]), *numbers(batches)] == list(range(blocks))


def test_a_full_stream_is_looked_at_some_times_a_second() -> None:
    with closing(taken(watched(200))) as batches:
        next(batches)
        (one,) = Watched.made
        # Full: it waits as long as it ever does.
        wait_for(lambda: one._pacer._next == LONGEST_SECONDS)
        before, began = one.turns, time.perf_counter()
        time.sleep(3.0)
        assert one.executor.is_alive()
        assert one.turns - before <= (time.perf_counter() - began) / WAITED_SECONDS + 20


@pytest.fixture
def an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor for whose blocks nobody waits, and that is not woken, would wait for an hour."""
    for name in ("FIRST_SECONDS", "LONGEST_SECONDS"):
        monkeypatch.setattr(idle_pause, name, AN_HOUR)


@pytest.mark.usefixtures("an_hour")
def test_a_consumer_that_takes_a_block_wakes_it() -> None:
    dataset = watched(200)
    iterator, _, executor = dataset.iterator()._to_ref_bundle_iterator()
    # One by one, nothing ahead: what wakes the executor is this call alone.
    next(iterator)
    (one,) = Watched.made
    for _ in range(3):
        wait_for(lambda: stands(one))
        before = one.turns
        next(iterator)
        wait_for(lambda before=before: one.turns > before)  # type: ignore[misc]
    executor.shutdown(force=True)


@pytest.mark.usefixtures("an_hour")
def test_the_end_is_not_waited_for() -> None:
    iterator, _, executor = watched(200).iterator()._to_ref_bundle_iterator()
    next(iterator)
    (one,) = Watched.made
    wait_for(lambda: stands(one))
    assert executor.is_alive()
    executor.shutdown(force=True)
    executor.join(timeout=60)
    assert not executor.is_alive()


def test_several_executors_in_one_process_do_not_hold_each_other_up() -> None:
    found: list[list[int]] = [[] for _ in range(3)]

    def work(place: int) -> None:
        found[place] = numbers(taken(watched(20)))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
        assert not thread.is_alive()
    assert found == [list(range(20))] * len(found)
    assert len(Watched.made) == len(found)


def test_the_process_that_deals_out_is_told_too() -> None:
    (shard,) = with_idle_pause(numbered(20)).streaming_split(1, equal=True)
    assert shard.get_context().custom_execution_callback_classes == [IdlePause]
    assert numbers(shard.iter_batches(batch_size=ROWS, batch_format="numpy")) == list(range(20))


def test_ray_has_what_the_pause_is_made_from() -> None:
    """As of Ray 2.60. What is renamed in there would only cost the pause its point, and nothing would fail."""
    batches = taken(watched(20))
    next(batches)
    (one,) = Watched.made
    executor = one.executor
    operator, output = executor._output_node
    assert output.get_output_blocking.__name__ == "take_and_wake"
    assert executor.shutdown.__name__ == "wake_and_shut_down"
    assert isinstance(output.num_waiting_consumers, int)
    assert output is executor._topology[operator]
    assert isinstance(executor._metadata_fetcher, ThreadedMetadataFetcher)
    assert isinstance(executor._metadata_fetcher._fifos, dict)
    assert numbers(batches) == list(range(1, 20))
    assert one._woken.is_set()  # set by each taking, and cleared by turns: there are none after the last
    for each, state in executor._topology.items():
        counts = each.metrics
        assert counts.num_outputs_taken == 20
        assert state.inputs_done_called
        assert each.has_completed()
        assert each.num_active_tasks() == 0
        if each.input_dependencies:
            assert counts.num_inputs_received == counts.num_tasks_submitted == counts.num_tasks_finished == 20
            assert counts.num_task_outputs_generated == 20
