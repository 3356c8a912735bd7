"""The helper that thins grids: no pair is lost, and what is not allowed does not occur."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.covering import covering, pairs_of


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3),
)
def test_every_allowed_pair_occurs_and_nothing_else(sizes: list[int], refused: set[tuple[int, int]]) -> None:
    def allowed(*row: int) -> bool:
        return (row[0], row[1]) not in refused

    rows = covering([range(size) for size in sizes], allowed)
    assert all(allowed(*row) for row in rows)
    for (i, n), (j, m) in combinations(enumerate(sizes), 2):
        for a in range(n):
            for b in range(m):
                # A pair may occur if the first two factors, which have the restriction, can be chosen around it.
                fixed = {i: a, j: b}
                possible = any(
                    (x, y) not in refused
                    for x in ([fixed[0]] if 0 in fixed else range(sizes[0]))
                    for y in ([fixed[1]] if 1 in fixed else range(sizes[1]))
                )
                assert any(row[i] == a and row[j] == b for row in rows) == possible


def test_given_rows_come_first_and_count() -> None:
    given_rows = [(1, 1, 1), (0, 1, 0)]
    rows = covering([range(2)] * 3, given=given_rows)
    assert rows[:2] == given_rows
    assert len(rows) < 8
    assert frozenset().union(*map(pairs_of, rows)) == frozenset().union(*map(pairs_of, covering([range(2)] * 3)))


def test_four_factors_of_four_need_few_rows() -> None:
    assert 16 <= len(covering([range(4)] * 4)) <= 24
