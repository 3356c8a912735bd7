"""The key of each sample's random choices in the towers: which of its values are dropped, which of its patches."""

import numpy as np
from numpy.typing import NDArray

from raylens.data.bijection import key_of, mix

__all__ = ["sample_keys"]


def sample_keys(seed: int, position_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """``[B]`` keys from the run's seed and the samples' positions in the plan, which no two of a run share."""
    base = np.uint64(key_of(f"raylens dropout {seed}"))
    return mix(base ^ mix(position_B.astype(np.uint64))).view(np.int64)
