"""The statistics of a data set, in memory that does not grow with its samples."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.data.stats.collect import ASPECTS, SMALL_EDGE, Stats
    from raylens.data.stats.histogram import QUANTILE_ERROR, Summary
    from raylens.data.stats.sketches import Duplicates

__all__ = [
    "ASPECTS",
    "QUANTILE_ERROR",
    "SMALL_EDGE",
    "Duplicates",
    "Stats",
    "Summary",
]

__getattr__ = lazy_face(
    __name__,
    {
        "ASPECTS": "collect",
        "QUANTILE_ERROR": "histogram",
        "SMALL_EDGE": "collect",
        "Duplicates": "sketches",
        "Stats": "collect",
        "Summary": "histogram",
    },
)
