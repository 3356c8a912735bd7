"""Where a unit's samples are cut into blocks."""

from collections.abc import Iterator

__all__ = ["cuts"]


def cuts(start: int, stop: int, rows: int, grid: int) -> Iterator[slice]:
    """Slices of a span that end on a grid: whole batches then pass on as they are, without being put together."""
    at = start
    while at < stop:
        end = min(stop, at + rows - (at - grid) % rows)
        yield slice(at - start, end - start)
        at = end
