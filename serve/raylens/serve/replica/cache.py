"""Embeddings that are known already, and those that are being computed: nothing is computed twice at a time."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from raylens.serve.messages import Embedded, Failed

__all__ = ["EmbeddingCache"]

ItemT = TypeVar("ItemT")
Outcome = Embedded | Failed
OVERHEAD = 300
"""Bytes of an entry beside its vector: key, array header, dictionary."""


class EmbeddingCache(Generic[ItemT]):
    """The least recently used embeddings leave when there are too many; of one version of one tower.

    Args:
        compute: items to outcomes, in order.
        key: an item's content; equal keys have equal embeddings.
        max_bytes: of the vectors that are kept; 0 keeps none, and still computes an item once for all that wait for it.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[ItemT]], Awaitable[Sequence[Outcome]]],
        key: Callable[[ItemT], bytes],
        max_bytes: int,
    ) -> None:
        self._compute = compute
        self._key = key
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, Embedded] = OrderedDict()
        self._begun: dict[bytes, asyncio.Future[Outcome | None]] = {}
        self.hits = 0
        self.misses = 0

    async def embed(self, items: Sequence[ItemT]) -> list[Outcome]:
        """Outcomes in the order of the items.

        Raises what ``compute`` raises; who waits for an item whose first caller failed or left computes it anew.
        """
        keys = [self._key(item) for item in items]
        found: dict[int, Outcome] = {}
        awaited: dict[int, asyncio.Future[Outcome | None]] = {}
        mine: list[int] = []
        for place, key in enumerate(keys):
            if key in self._kept:
                self._kept.move_to_end(key)
                found[place] = self._kept[key]
            elif key in self._begun:
                awaited[place] = self._begun[key]
            else:
                self._begun[key] = asyncio.get_running_loop().create_future()
                mine.append(place)
        self.hits += len(items) - len(mine)
        self.misses += len(mine)
        if mine:
            outcomes = await self._lead([items[place] for place in mine], [keys[place] for place in mine])
            found |= zip(mine, outcomes, strict=True)
        gone = []
        for place, future in awaited.items():
            outcome = await asyncio.shield(future)  # its owner is another request: leaving must not cancel it
            if outcome is None:
                gone.append(place)
            else:
                found[place] = outcome
        if gone:
            found |= zip(gone, await self.embed([items[place] for place in gone]), strict=True)
        return [found[place] for place in range(len(items))]

    async def _lead(self, items: Sequence[ItemT], keys: Sequence[bytes]) -> Sequence[Outcome]:
        futures = [self._begun[key] for key in keys]
        outcomes: Sequence[Outcome | None] = [None] * len(items)
        try:
            computed = await self._compute(items)
            outcomes = computed
        finally:
            for key, future, outcome in zip(keys, futures, outcomes, strict=True):
                del self._begun[key]
                if not future.done():
                    future.set_result(outcome)
                if isinstance(outcome, Embedded):
                    self._keep(key, outcome)
        return computed

    def _keep(self, key: bytes, outcome: Embedded) -> None:
        size = outcome.vector_D.nbytes + OVERHEAD
        if size > self._max_bytes:
            return
        self._kept[key] = outcome
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.vector_D.nbytes + OVERHEAD
