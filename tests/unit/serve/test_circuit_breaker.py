"""The circuit breaker: replicas that refuse are left alone for a moment; requests that fit are never refused."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.serve.gateway.circuit_breaker import MAX_PAUSE_S, PAUSE_FRACTION, CircuitBreaker
from raylens.serve.messages import Description, Embeddings, Item, ModelIdentity, Refusal, ReplicaReport, Text

IDENTITY = ModelIdentity("a", 1, "digest", 4, 16, 32, 1.0, "t", "p")


class Replicas:
    """Replicas that accept requests of fewer than ``room`` items."""

    def __init__(self, room: int, wait_s: float = 2.0) -> None:
        self.room, self.wait_s = room, wait_s
        self.asked: list[int] = []

    async def embed(
        self, items: Sequence[Item], digest: str | None = None, *, bulk: bool = False
    ) -> Embeddings | Refusal:
        del digest, bulk
        self.asked.append(len(items))
        if len(items) < self.room:
            return Embeddings(IDENTITY, [])
        return Refusal("overloaded", "full", retry_after_s=self.wait_s, report=ReplicaReport("one", {}, {}))

    async def describe(self) -> Description:
        return Description(IDENTITY, {})

    async def probe(self) -> Refusal | None:
        return None


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def ask(breaker: CircuitBreaker, count: int, *, bulk: bool = False) -> Embeddings | Refusal:
    return asyncio.run(breaker.embed([Text("a")] * count, bulk=bulk))


def test_a_refusal_speaks_for_those_that_come_in_the_next_moment() -> None:
    replicas, clock = Replicas(room=1), Clock()
    breaker = CircuitBreaker(replicas, clock)
    first = ask(breaker, 1)
    for _ in range(20):
        again = ask(breaker, 1)
    assert replicas.asked == [1]
    assert isinstance(first, Refusal)
    assert isinstance(again, Refusal)
    assert (again.code, again.retry_after_s) == (first.code, first.retry_after_s)
    assert first.report is not None
    assert again.report is None, "it would be counted twice"
    clock.now += PAUSE_FRACTION * replicas.wait_s
    replicas.room = 9
    assert isinstance(ask(breaker, 1), Embeddings)


def test_the_pause_has_a_bound() -> None:
    replicas, clock = Replicas(room=1, wait_s=1e6), Clock()
    breaker = CircuitBreaker(replicas, clock)
    ask(breaker, 1)
    clock.now += MAX_PAUSE_S
    ask(breaker, 1)
    assert len(replicas.asked) == 2


def test_a_refusal_without_a_wait_stops_nothing() -> None:
    replicas = Replicas(room=1, wait_s=0.0)
    breaker = CircuitBreaker(replicas, Clock())
    for _ in range(3):
        ask(breaker, 1)
    assert len(replicas.asked) == 3


@pytest.mark.parametrize(("refused", "later", "asked"), [(True, False, True), (False, True, False)])
def test_bulk_work_waits_for_urgent_work_and_not_the_other_way_round(refused: bool, later: bool, asked: bool) -> None:
    replicas = Replicas(room=1)
    breaker = CircuitBreaker(replicas, Clock())
    ask(breaker, 1, bulk=refused)
    ask(breaker, 1, bulk=later)
    assert (len(replicas.asked) == 2) is asked


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.booleans())))
def test_what_has_room_is_never_kept_from_it_by_a_larger_request(steps: list[tuple[int, int, bool]]) -> None:
    replicas = Replicas(room=40)
    breaker = CircuitBreaker(replicas, Clock())
    for count, room, bulk in steps:
        replicas.room = min(replicas.room, room)  # within one moment it only gets fuller
        answer = ask(breaker, count, bulk=bulk)
        assert isinstance(answer, Embeddings) is (count < replicas.room)
