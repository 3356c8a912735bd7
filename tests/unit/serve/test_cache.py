"""The cache: embeddings that are known or being computed are not computed again."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.serve.messages import Embedded, Failed
from raylens.serve.replica.cache import OVERHEAD, EmbeddingCache

SIZE = 4 * 4 + OVERHEAD


class Work:
    """Computes words, slowly, and counts."""

    def __init__(self, *, pause: float = 0.0) -> None:
        self.counts: Counter[str] = Counter()
        self.pause = pause
        self.error: Exception | None = None

    async def __call__(self, items: Sequence[str]) -> Sequence[Embedded | Failed]:
        self.counts.update(items)
        await asyncio.sleep(self.pause)
        if self.error is not None:
            raise self.error
        return [Failed("bad", item) if item.startswith("bad") else _vector(item) for item in items]


def _vector(item: str) -> Embedded:
    return Embedded(np.full(4, len(item), dtype=np.float32), tokens=len(item))


def cache_of(work: Work, entries: int = 100) -> EmbeddingCache[str]:
    return EmbeddingCache(work, str.encode, entries * SIZE)


words = st.lists(st.sampled_from(["a", "bb", "ccc", "bad", "dddd", "eeeee"]), max_size=6)


@given(requests=st.lists(words, max_size=8), entries=st.integers(0, 4), together=st.booleans())
def test_any_requests_are_answered_in_order(requests: list[list[str]], entries: int, together: bool) -> None:
    work = Work()
    cache = cache_of(work, entries)

    async def all_of_them() -> list[list[Embedded | Failed]]:
        if together:
            return list(await asyncio.gather(*map(cache.embed, requests)))
        return [await cache.embed(one) for one in requests]

    for asked, outcomes in zip(requests, asyncio.run(all_of_them()), strict=True):
        for item, outcome in zip(asked, outcomes, strict=True):
            if item == "bad":
                assert outcome == Failed("bad", "bad")
            else:
                assert isinstance(outcome, Embedded)
                assert outcome.vector_D[0] == outcome.tokens == len(item)
    assert cache._bytes == len(cache._kept) * SIZE <= entries * SIZE
    assert not cache._computing
    assert cache.hits + cache.misses >= sum(map(len, requests))


def test_at_the_same_time_an_item_is_computed_once() -> None:
    work = Work(pause=0.02)
    cache = cache_of(work)

    async def scene() -> None:
        await asyncio.gather(*(cache.embed(["a", "bb", "a"]) for _ in range(20)))

    asyncio.run(scene())
    assert work.counts == {"a": 1, "bb": 1}


def test_the_least_recently_used_leaves() -> None:
    work = Work()
    cache = cache_of(work, 2)

    async def scene() -> None:
        for asked in (["a"], ["bb"], ["a"], ["ccc"], ["a"], ["bb"]):
            await cache.embed(asked)

    asyncio.run(scene())
    assert work.counts == {"a": 1, "bb": 2, "ccc": 1}


def test_who_waits_outlives_a_caller_that_leaves_or_fails() -> None:
    work = Work(pause=0.05)
    cache = cache_of(work)

    async def leaves() -> Sequence[Embedded | Failed]:
        first = asyncio.create_task(cache.embed(["a"]))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(cache.embed(["bb", "a"]))
        await asyncio.sleep(0.01)
        first.cancel()
        return await second

    [_, found] = asyncio.run(leaves())
    assert isinstance(found, Embedded)
    assert work.counts == {"a": 2, "bb": 1}

    async def fails() -> None:
        work.error = RuntimeError("no room")
        one, other = await asyncio.gather(cache.embed(["ccc"]), cache.embed(["ccc"]), return_exceptions=True)
        assert isinstance(one, RuntimeError)
        assert isinstance(other, RuntimeError)  # it asked again, and heard the same
        work.error = None
        await cache.embed(["ccc"])

    asyncio.run(fails())
    assert work.counts["ccc"] == 3
    assert not cache._computing


def test_a_waiter_that_leaves_disturbs_nobody() -> None:
    work = Work(pause=0.05)
    cache = cache_of(work)

    async def scene() -> None:
        first = asyncio.create_task(cache.embed(["a"]))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(cache.embed(["a"]))
        await asyncio.sleep(0.01)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first

    asyncio.run(scene())
    assert work.counts == {"a": 1}
