"""Replicas that have no room are not asked again at once: their processors are for what they have accepted."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from raylens.serve.messages import Description, Embedder, Embeddings, Item, Refusal

__all__ = ["CircuitBreaker"]

PAUSE_FRACTION = 0.1
"""Of the work that a replica has in line when it refuses: so much of it is done before it is asked again."""
MAX_PAUSE_S = 0.5


@dataclass(frozen=True)
class _Closed:
    until: float
    items: int
    """Requests of fewer may still fit."""
    refusal: Refusal


class CircuitBreaker:
    """An `Embedder` in front of replicas, for one gateway.

    To carry a request to a replica and its refusal back costs more than to embed a text. Under a load of three times
    what a service can take, refusals alone halved what it answered; now one in several finds out, for all.

    The pause is a small part of what the replica has in line, so that the line never runs dry: what can be computed is.

    Args:
        replicas: what is asked.
        clock: seconds, monotonic.
    """

    def __init__(self, replicas: Embedder, clock: Callable[[], float] = time.monotonic) -> None:
        self._replicas, self._clock = replicas, clock
        self._closed: dict[bool, _Closed] = {}
        """For urgent work, and for bulk."""

    async def embed(
        self, items: Sequence[Item], digest: str | None = None, *, bulk: bool = False
    ) -> Embeddings | Refusal:
        """See `Embedder`."""
        closed = self._closed.get(bulk)
        if closed is not None and self._clock() < closed.until and len(items) >= closed.items:
            return closed.refusal
        answer = await self._replicas.embed(items, digest, bulk=bulk)
        if isinstance(answer, Refusal) and answer.code == "overloaded":
            self._close(len(items), answer, bulk)
        return answer

    def _close(self, items: int, refusal: Refusal, bulk: bool) -> None:
        pause = min(PAUSE_FRACTION * refusal.retry_after_s, MAX_PAUSE_S)
        # The report has been heard with the answer that brought it.
        closed = _Closed(self._clock() + pause, items, replace(refusal, report=None))
        for kind in (True,) if bulk else (True, False):  # what is not urgent is not let in before what is
            self._closed[kind] = closed

    async def describe(self) -> Description:
        """See `Embedder`."""
        return await self._replicas.describe()

    async def probe(self) -> Refusal | None:
        """See `Embedder`."""
        return await self._replicas.probe()
