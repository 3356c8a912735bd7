"""Byte pair encoding learned from counts of words (Sennrich et al. 2016), so that a corpus is read only once.

The ``tokenizers`` library trains from texts; words counted on many machines would have to be repeated for it as often
as they occur.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

__all__ = ["learn_merges"]

Pair = tuple[str, str]
RAREST = 2
"""The least occurrences of a pair in the corpus; a rarer pair is not worth a token."""


def learn_merges(words: Mapping[tuple[str, ...], int], count: int) -> list[Pair]:
    """Learn ``count`` merges, each of the most frequent pair after those before; fewer if no pair is frequent enough.

    Args:
        words: the number of occurrences of each word, a tuple of symbols, in the corpus.
        count: the number of merges.

    Ties go to the pair that is first in the order of its symbols, so that the result depends on the counts alone.
    """
    corpus = _Corpus(words)
    heap = [(-total, pair) for pair, total in corpus.pairs.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < count:
        total, pair = heapq.heappop(heap)
        if -total != corpus.pairs[pair]:  # The pair's count has changed since; the heap also holds the current entry.
            continue
        if -total < RAREST:
            break
        merges.append(pair)
        for other in corpus.merge(pair):
            heapq.heappush(heap, (-corpus.pairs[other], other))
    return merges


class _Corpus:
    """The words after the merges so far, and the words in which each pair occurs."""

    def __init__(self, words: Mapping[tuple[str, ...], int]) -> None:
        self._texts, self._times = [list(word) for word in words], list(words.values())
        self.pairs: Counter[Pair] = Counter()
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)
        for at, text in enumerate(self._texts):
            for pair in pairwise(text):
                self.pairs[pair] += self._times[at]
                self._places[pair].add(at)

    def merge(self, pair: Pair) -> set[Pair]:
        """Replace the pair by one symbol everywhere; return the remaining pairs whose count changed."""
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
