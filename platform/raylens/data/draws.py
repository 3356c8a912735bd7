"""The random choices for a sample in an epoch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylens.inputs import CropDraw

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """Crop and caption, from the sample's key: the same whoever makes them."""

    crop: CropDraw
    caption: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Draws":
        """From four uniform draws."""
        return cls(CropDraw(*values[:3].tolist()), float(values[3]))

    def choose(self, captions: int) -> int:
        """Which of so many captions is taken."""
        return int(self.caption * captions)

    def box(self, width: int, height: int, min_scale: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the crop in pixels; at ``min_scale`` 1 that of the centre."""
        if min_scale < 1.0:
            return self.crop.box(width, height, min_scale)
        return CropDraw(0.0, 0.5, 0.5).box(width, height, 1.0)
