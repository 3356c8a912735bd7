"""Images a second of an endless run of batches. Standard library only: the peer's environment uses it too."""

import time
from collections.abc import Iterable

__all__ = ["steady_rate"]


def steady_rate(sizes: Iterable[int], began: float, warm: float, window: float) -> dict[str, float]:
    """Take batches for ``warm`` seconds after the first one, then measure for ``window`` seconds.

    The rate is the slope of a line through (time, images so far): where batches come in bursts, the first and the
    last of the window alone would not tell.

    Args:
        sizes: images of each batch, as they come.
        began: when the loader was started, by `time.monotonic`.
        warm: seconds.
        window: seconds.
    """
    first, seen = 0.0, 0
    times: list[float] = []
    counts: list[float] = []
    for size in sizes:
        now = time.monotonic()
        first = first or now
        seen += size
        if now >= first + warm:
            times.append(now)
            counts.append(float(seen))
        if now >= first + warm + window:
            return {"images_per_second": _slope(times, counts), "first_batch_seconds": first - began}
    raise SystemExit("the data ended before the measurement did")


def _slope(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)
