"""A cache of embeddings that also shares those being computed: equal items are never computed twice at a time."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from raylens.serve.messages import Embedded, Failed

__all__ = ["EmbeddingCache"]

ItemT = TypeVar("ItemT")
Outcome = Embedded | Failed
OVERHEAD = 300
"""Bytes of an entry beside its vector: its key, the array's header and its share of the dictionary."""


class EmbeddingCache(Generic[ItemT]):
    """An LRU cache of the embeddings of one version of one tower.

    Args:
        compute: turns items into outcomes, in order.
        key: returns a key of an item's content; items with equal keys have equal embeddings.
        max_bytes: size of the cache; with 0, nothing is kept; an item is still computed once for all that wait.
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
        self._computing: dict[bytes, asyncio.Future[Outcome | None]] = {}
        self.hits = 0
        self.misses = 0

    async def embed(self, items: Sequence[ItemT]) -> list[Outcome]:
        """Return outcomes in the order of the items.

        It raises what ``compute`` raises. If the call that computes an item fails or is cancelled, the others that wait
        for the item compute it anew.
        """
        keys = [self._key(item) for item in items]
        outcomes: dict[int, Outcome] = {}
        awaited: dict[int, asyncio.Future[Outcome | None]] = {}
        missing: list[int] = []
        for index, key in enumerate(keys):
            if key in self._kept:
                self._kept.move_to_end(key)
                outcomes[index] = self._kept[key]
            elif key in self._computing:
                awaited[index] = self._computing[key]
            else:
                self._computing[key] = asyncio.get_running_loop().create_future()
                missing.append(index)
        self.hits += len(items) - len(missing)
        self.misses += len(missing)
        if missing:
            computed = await self._compute_missing(
                [items[index] for index in missing], [keys[index] for index in missing]
            )
            outcomes |= zip(missing, computed, strict=True)
        abandoned = []
        for index, future in awaited.items():
            outcome = await asyncio.shield(future)  # another request owns it: cancelling this one must not cancel it
            if outcome is None:
                abandoned.append(index)
            else:
                outcomes[index] = outcome
        if abandoned:
            outcomes |= zip(abandoned, await self.embed([items[index] for index in abandoned]), strict=True)
        return [outcomes[index] for index in range(len(items))]

    async def _compute_missing(self, items: Sequence[ItemT], keys: Sequence[bytes]) -> Sequence[Outcome]:
        futures = [self._computing[key] for key in keys]
        outcomes: Sequence[Outcome | None] = [None] * len(items)
        try:
            computed = await self._compute(items)
            outcomes = computed
        finally:
            for key, future, outcome in zip(keys, futures, outcomes, strict=True):
                del self._computing[key]
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
