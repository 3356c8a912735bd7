"""Covering arrays: rows of settings among which every pair of settings occurs, in place of all combinations.

Most faults that need several settings need two (Kuhn, Wallace and Gallo 2004, "Software Fault Interactions and
Implications for Software Testing"); a product of four factors of four values has 256 rows, a covering array about 20.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, product
from typing import Any

__all__ = ["covering", "pairs_of"]

Row = tuple[Any, ...]
Pair = tuple[tuple[int, Any], tuple[int, Any]]


def pairs_of(row: Row) -> frozenset[Pair]:
    """Each two settings of a row; a setting is the number of its factor and the value."""
    return frozenset(combinations(enumerate(row), 2))


def covering(
    factors: Sequence[Iterable[Any]],
    allowed: Callable[..., bool] = lambda *_: True,
    given: Iterable[Row] = (),
) -> list[Row]:
    """The given rows, and more until every pair that an allowed row has occurs.

    It takes the row that adds the most pairs, and among equals the first of the product: values that cost less should
    stand first, and the factor that costs the most should be the first. The same arguments give the same rows.
    """
    possible = {row: pairs_of(row) for row in product(*factors) if allowed(*row)}
    chosen = list(given)
    missing = frozenset[Pair]().union(*possible.values()).difference(*map(pairs_of, chosen))
    while missing:
        best = max(possible, key=lambda row: len(possible[row] & missing))
        chosen.append(best)
        missing -= possible[best]
    return chosen
