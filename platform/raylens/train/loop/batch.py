"""A worker's share of a global batch. Shapes: B a worker's pairs, S image size, T tokens."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """A worker's share of a global batch."""

    image_BSSC: NDArray[np.uint8]
    ids_BT: NDArray[np.int32]
    position_B: NDArray[np.int64]
    sample_B: NDArray[np.int64]
    """Counted over all data sets."""
    epoch_B: NDArray[np.int64]
    substituted: int = 0
    """Samples that stand in for unusable ones."""
    truncated: int = 0
    """Captions that are longer than the context and were cut."""
    made_at: float = 0.0
    """When the last of it was made, in seconds of the system's clock."""
    read_seconds: float = 0.0
    """What data tasks spent on reading it, and below on decoding it."""
    decode_seconds: float = 0.0
