"""The work-conserving batcher: order, exactly one answer each, no idle device, overload, isolation, cancellation."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raylens.errors import OverloadedError, ServingError
from raylens.serve.replica.batcher import Batcher
from raylens.serve.replica.device import Device

# A request: when it comes (turns of the event loop after the one before), for which tower, the sizes of its items.
REQUESTS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["text", "image"]), st.lists(st.integers(1, 77), max_size=9)),
    min_size=1,
    max_size=12,
)


class Gate:
    """A compute function that keeps its batches, and waits in front of each until it is opened."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        if is_open:
            self.opened.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.entered.release()
        assert self.opened.wait(timeout=60)
        if any(item < 0 for item in items):
            raise ValueError(f"bad batch {items}")
        return [item * item for item in items]

    async def running(self) -> None:
        """Until a batch has reached the device."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=60)


async def submit(batcher: Batcher[int, int], items: Sequence[int]) -> list[int | BaseException]:
    with batcher.reserve(len(items)) as reservation:
        return await reservation.run(items)


def run(scenario: Callable[[Device], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        device = Device()
        try:
            await scenario(device)
        finally:
            await device.close()

    asyncio.run(whole())


def make(device: Device, gate: Gate, *, max_batch: int = 4, capacity: int = 1000) -> Batcher[int, int]:
    return Batcher(device, gate, max_batch=max_batch, capacity=capacity, size=abs)


async def settle() -> None:
    """Let every task reach its next wait."""
    for _ in range(10):
        await asyncio.sleep(0)


@given(requests=REQUESTS, max_batch=st.integers(1, 6))
@settings(max_examples=60)
def test_every_item_is_answered_once_in_order_and_the_device_never_idles(
    requests: list[tuple[int, str, list[int]]], max_batch: int
) -> None:
    async def scenario(device: Device) -> None:
        gates = {"text": Gate(is_open=True), "image": Gate(is_open=True)}
        batchers = {name: make(device, gate, max_batch=max_batch) for name, gate in gates.items()}
        tasks = []
        for turns, name, items in requests:
            tasks.append(asyncio.create_task(submit(batchers[name], items)))
            for _ in range(turns):
                await asyncio.sleep(0)
                assert device.busy or not any(batcher.waiting for batcher in batchers.values())
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            assert device.busy or not any(batcher.waiting for batcher in batchers.values())
        for task, (_, _, items) in zip(tasks, requests, strict=True):
            assert task.result() == [item * item for item in items]
        for name, gate in gates.items():
            computed = [item for batch in gate.batches for item in batch]
            assert sorted(computed) == sorted(item for _, tower, items in requests if tower == name for item in items)
            assert all(0 < len(batch) <= max_batch for batch in gate.batches)
            assert batchers[name].pending == 0

    run(scenario)


def test_a_free_device_takes_what_waits_from_all_requests_at_once() -> None:
    async def scenario(device: Device) -> None:
        gate = Gate()
        batcher = make(device, gate, max_batch=4)
        tasks = [asyncio.create_task(submit(batcher, [1]))]
        await gate.running()
        tasks += [asyncio.create_task(submit(batcher, items)) for items in ([2, 2], [2], [2, 2])]
        await settle()
        assert batcher.waiting == 5
        gate.opened.set()
        await asyncio.gather(*tasks)
        assert gate.batches == [[1], [2, 2, 2, 2], [2]]

    run(scenario)


def test_the_oldest_goes_with_those_of_its_size() -> None:
    async def scenario(device: Device) -> None:
        gate = Gate()
        batcher = make(device, gate, max_batch=3)
        tasks = [asyncio.create_task(submit(batcher, [1]))]
        await gate.running()
        tasks.append(asyncio.create_task(submit(batcher, [70, 5, 71, 6, 30, 69])))
        await settle()
        gate.opened.set()
        assert (await asyncio.gather(*tasks))[1] == [4900, 25, 5041, 36, 900, 4761]
        assert [sorted(batch) for batch in gate.batches] == [[1], [69, 70, 71], [5, 6, 30]]

    run(scenario)


def test_towers_take_turns_by_their_oldest_item() -> None:
    async def scenario(device: Device) -> None:
        texts, images, order = Gate(), Gate(is_open=True), list[str]()

        def text(items: list[int]) -> list[int]:
            order.append("text")
            return texts(items)

        def image(items: list[int]) -> list[int]:
            order.append("image")
            return images(items)

        text_batcher: Batcher[int, int] = Batcher(device, text, max_batch=1, capacity=9)
        image_batcher: Batcher[int, int] = Batcher(device, image, max_batch=1, capacity=9)
        tasks = [asyncio.create_task(submit(text_batcher, [1]))]
        await texts.running()
        for batcher in (image_batcher, text_batcher, image_batcher):
            tasks.append(asyncio.create_task(submit(batcher, [2])))
            await settle()
        texts.opened.set()
        await asyncio.gather(*tasks)
        assert order == ["text", "image", "text", "image"]

    run(scenario)


def test_a_full_queue_refuses_and_has_room_again_afterwards() -> None:
    async def scenario(device: Device) -> None:
        gate = Gate()
        batcher = make(device, gate, capacity=5)
        first = asyncio.create_task(submit(batcher, [1, 2, 3, 4]))
        await gate.running()
        with pytest.raises(OverloadedError, match="4 of 5"):
            await submit(batcher, [5, 6])
        second = asyncio.create_task(submit(batcher, [5]))
        gate.opened.set()
        assert await first == [1, 4, 9, 16]
        assert await second == [25]
        assert batcher.pending == 0
        assert await submit(batcher, [1, 2, 3, 4, 5]) == [1, 4, 9, 16, 25]

    run(scenario)


def test_no_more_items_than_reserved_places() -> None:
    async def scenario(device: Device) -> None:
        batcher = make(device, Gate(is_open=True))
        with batcher.reserve(2) as reservation:
            assert await reservation.run([3]) == [9]
            with pytest.raises(ServingError, match=r"2 items.*1"):
                await reservation.run([4, 5])

    run(scenario)


@given(rows=st.lists(st.lists(st.integers(1, 9).map(lambda n: n if n < 9 else -1), min_size=1, max_size=4), max_size=8))
@settings(max_examples=40)
def test_a_failing_batch_fails_its_own_items_only(rows: list[list[int]]) -> None:
    async def scenario(device: Device) -> None:
        gate = Gate(is_open=True)
        batcher = make(device, gate, max_batch=2)
        answers = await asyncio.gather(*(submit(batcher, items) for items in rows))
        failed = sum(len(batch) for batch in gate.batches if any(item < 0 for item in batch))
        assert sum(isinstance(one, ValueError) for answer in answers for one in answer) == failed
        for items, answer in zip(rows, answers, strict=True):
            for item, one in zip(items, answer, strict=True):
                assert isinstance(one, ValueError) or (one == item * item and item > 0)
        assert await submit(batcher, [3]) == [9]

    run(scenario)


def test_a_batch_with_too_few_results_fails() -> None:
    async def scenario(device: Device) -> None:
        batcher: Batcher[int, int] = Batcher(device, lambda items: items[1:], max_batch=4, capacity=4)
        [one, two] = await submit(batcher, [1, 2])
        assert isinstance(one, ServingError)
        assert "2 items has 1" in str(two)

    run(scenario)


def test_cancelled_items_leave_the_line_and_give_their_places_back() -> None:
    async def scenario(device: Device) -> None:
        gate = Gate()
        batcher = make(device, gate, max_batch=4, capacity=9)
        running = asyncio.create_task(submit(batcher, [1]))
        await gate.running()
        cancelled = asyncio.create_task(submit(batcher, [2, 2, 2]))
        kept = asyncio.create_task(submit(batcher, [3, 3, 3, 3]))
        await settle()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert batcher.pending == 5
        gate.opened.set()
        assert await running == [1]
        assert await kept == [9, 9, 9, 9]
        assert gate.batches == [[1], [3, 3, 3, 3]]

    run(scenario)


def test_a_request_cancelled_on_the_device_disturbs_nobody() -> None:
    async def scenario(device: Device) -> None:
        gate = Gate()
        batcher = make(device, gate)
        cancelled = asyncio.create_task(submit(batcher, [2]))
        await gate.running()
        cancelled.cancel()
        waiting = asyncio.create_task(submit(batcher, [3]))
        await settle()
        gate.opened.set()
        assert await waiting == [9]
        assert cancelled.cancelled()

    run(scenario)


def test_closing_finishes_what_runs_and_answers_what_waits() -> None:
    async def scenario(device: Device) -> None:
        gate = Gate()
        batcher = make(device, gate, max_batch=1)
        running = asyncio.create_task(submit(batcher, [2]))
        await gate.running()
        waiting = asyncio.create_task(submit(batcher, [3]))
        await settle()
        closing = asyncio.create_task(device.close())
        [error] = await waiting
        assert isinstance(error, ServingError)
        gate.opened.set()
        await closing
        assert await running == [4]
        with pytest.raises(ServingError, match="shutting down"):
            await submit(batcher, [4])
        assert gate.batches == [[2]]

    run(scenario)


def test_lanes_share_what_waits_and_never_idle() -> None:
    async def scenario() -> None:
        device = Device(lanes=2)
        gate = Gate()
        batcher = make(device, gate, max_batch=4)
        first = asyncio.create_task(submit(batcher, [1]))
        await gate.running()
        assert batcher.waiting == 0
        more = asyncio.create_task(submit(batcher, [2, 2, 2]))
        await gate.running()
        assert device.busy
        assert batcher.waiting == 0
        last = asyncio.create_task(submit(batcher, [3] * 6))
        await settle()
        assert batcher.waiting == 6
        gate.opened.set()
        await asyncio.gather(first, more, last)
        assert gate.batches[:2] == [[1], [2, 2, 2]]
        assert sorted(map(len, gate.batches[2:])) in ([2, 4], [3, 3])
        await device.close()

    asyncio.run(scenario())


def test_what_comes_alone_has_all_cores() -> None:
    seen: list[tuple[int, int]] = []

    def compute(items: list[int]) -> list[int]:
        seen.append((len(items), torch.get_num_threads()))
        time.sleep(0.05)
        return items

    async def scenario() -> None:
        device = Device(lanes=3)
        batcher: Batcher[int, int] = Batcher(device, compute, max_batch=8, capacity=100)
        await submit(batcher, [1])
        await asyncio.gather(submit(batcher, [1, 2, 3, 4, 5, 6]))
        await device.close()

    asyncio.run(scenario())
    assert seen[0] == (1, 3)
    assert sorted(seen[1:]) == [(2, 1)] * 3


def test_a_probe_asks_every_lane_and_one_that_hangs_is_noticed() -> None:
    async def scenario() -> None:
        device = Device(lanes=2)
        short, hangs = Gate(), Gate()
        first = asyncio.create_task(submit(make(device, short), [1]))
        await short.running()
        second = asyncio.create_task(submit(make(device, hangs), [2]))
        await hangs.running()
        short.opened.set()
        await first
        asked: list[str] = []
        probe = asyncio.create_task(device.run_in_lanes(lambda: asked.append(threading.current_thread().name)))
        while not asked:
            await asyncio.sleep(0)
        assert not probe.done(), "the first lane answers for itself alone"
        hangs.opened.set()
        await asyncio.gather(probe, second)
        assert len(set(asked)) == 2
        await device.close()

    asyncio.run(scenario())


def test_no_batch_is_given_to_a_lane_that_is_probed() -> None:
    async def scenario() -> None:
        device = Device(lanes=2)
        slow, entered = threading.Event(), threading.Semaphore(0)

        def compute() -> None:
            entered.release()
            if threading.current_thread().name.startswith("raylens-lane-0"):
                assert slow.wait(timeout=60)

        probe = asyncio.create_task(device.run_in_lanes(compute))
        for _ in range(device.lanes):
            assert await asyncio.to_thread(entered.acquire, timeout=60)
        gate = Gate(is_open=True)
        assert await submit(make(device, gate), [3]) == [9]  # in the other lane
        assert not probe.done()
        slow.set()
        await probe
        await device.close()
        with pytest.raises(ServingError, match="shutting down"):
            await device.run_in_lanes(compute)

    asyncio.run(scenario())


def test_a_lane_whose_probe_nobody_waits_for_any_more_is_not_free() -> None:
    async def scenario() -> None:
        device = Device()
        slow, entered = threading.Event(), threading.Event()

        def compute() -> None:
            entered.set()
            assert slow.wait(timeout=60)

        probe = asyncio.create_task(device.run_in_lanes(compute))
        assert await asyncio.to_thread(entered.wait, 60)
        probe.cancel()
        await settle()
        assert probe.cancelled()
        assert device.busy
        slow.set()
        await device.close()

    asyncio.run(scenario())
