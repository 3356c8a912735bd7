"""Byte pair encoding learned from counts of words (Sennrich et al. 2016), so that a corpus is read only once.

The ``tokenizers`` library trains from texts; words that were counted on many machines would have to be spelled out
again as often as they stand there.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

__all__ = ["learn_merges"]

Pair = tuple[str, str]
RAREST = 2
"""A pair that stands in the corpus less often is not worth a token."""


def learn_merges(words: Mapping[tuple[str, ...], int], count: int) -> list[Pair]:
    """The ``count`` most frequent pairs, each after the merges before it; fewer if none is frequent enough.

    Args:
        words: how often each word stands in the corpus, as its symbols.
        count: merges wanted.

    Ties go to the pair that is first in the order of its symbols, so that the result depends on the counts alone.
    """
    corpus = _Corpus(words)
    heap = [(-total, pair) for pair, total in corpus.pairs.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < count:
        total, pair = heapq.heappop(heap)
        if -total != corpus.pairs[pair]:  # its count has changed since: the right entry is in the heap too
            continue
        if -total < RAREST:
            break
        merges.append(pair)
        for other in corpus.merge(pair):
            heapq.heappush(heap, (-corpus.pairs[other], other))
    return merges


class _Corpus:
    """The words as they are after the merges so far, and where each pair stands in them."""

    def __init__(self, words: Mapping[tuple[str, ...], int]) -> None:
        self._texts, self._times = [list(word) for word in words], list(words.values())
        self.pairs: Counter[Pair] = Counter()
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)
        for at, text in enumerate(self._texts):
            for pair in pairwise(text):
                self.pairs[pair] += self._times[at]
                self._places[pair].add(at)

    def merge(self, pair: Pair) -> set[Pair]:
        """Make one symbol of the pair everywhere; the pairs whose count changed, without those that are gone."""
        changed = {other for at in self._places.pop(pair) for other in self._merge_in(at, pair)}
        return {other for other in changed if self.pairs[other] > 0}

    def _merge_in(self, at: int, pair: Pair) -> set[Pair]:
        text, times = self._texts[at], self._times[at]
        before, place = Counter(pairwise(text)), 0
        while place < len(text) - 1:
            if (text[place], text[place + 1]) == pair:
                text[place : place + 2] = [text[place] + text[place + 1]]
            place += 1
        after = Counter(pairwise(text))
        changed = {other for other in before | after if before[other] != after[other]}
        for other in changed:
            self.pairs[other] += times * (after[other] - before[other])
            if other in after:
                self._places[other].add(at)
            elif other in self._places:
                self._places[other].discard(at)
        return changed
