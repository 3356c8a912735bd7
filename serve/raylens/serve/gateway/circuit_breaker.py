"""A circuit breaker: overloaded replicas are not called again at once, so that they compute what they accepted."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from raylens.serve.messages import Description, Embedder, Embeddings, Item, Refusal

__all__ = ["CircuitBreaker"]

PAUSE_FRACTION = 0.1
"""Fraction of a refusing replica's queue that is computed before the replica is called again."""
MAX_PAUSE_S = 0.5


@dataclass(frozen=True)
class _Open:
    until: float
    items: int
    """Size of the refused request; smaller ones may still fit."""
    refusal: Refusal


class CircuitBreaker:
    """An `Embedder` of one gateway in front of replicas, which answers for them while they are overloaded.

    Carrying a request to a replica and its refusal back costs more than embedding a text: at three times the capacity
    of a service, refusals alone halved its throughput. After a refusal, requests of the same size or larger are refused
    here for a pause, which is a small part of the replica's queue, so that the queue never runs empty.

    Args:
        replicas: the replicas behind it.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, replicas: Embedder, clock: Callable[[], float] = time.monotonic) -> None:
        self._replicas, self._clock = replicas, clock
        self._open: dict[bool, _Open] = {}
        """The open circuits, by whether the work is bulk."""

    async def embed(
        self, items: Sequence[Item], digest: str | None = None, *, bulk: bool = False
    ) -> Embeddings | Refusal:
        """Implement `Embedder.embed`: refuse at once while the circuit is open, else call a replica."""
        circuit = self._open.get(bulk)
        if circuit is not None and self._clock() < circuit.until and len(items) >= circuit.items:
            return circuit.refusal
        answer = await self._replicas.embed(items, digest, bulk=bulk)
        if isinstance(answer, Refusal) and answer.code == "overloaded":
            self._trip(len(items), answer, bulk)
        return answer

    def _trip(self, items: int, refusal: Refusal, bulk: bool) -> None:
        pause = min(PAUSE_FRACTION * refusal.retry_after_s, MAX_PAUSE_S)
        # Without the report, which would be counted twice.
        circuit = _Open(self._clock() + pause, items, replace(refusal, report=None))
        for kind in (True,) if bulk else (True, False):  # bulk work is not let in before interactive work
            self._open[kind] = circuit

    async def describe(self) -> Description:
        """Implement `Embedder.describe`: call a replica."""
        return await self._replicas.describe()

    async def probe(self) -> Refusal | None:
        """Implement `Embedder.probe`: call a replica."""
        return await self._replicas.probe()
