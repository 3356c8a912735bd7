"""A vision transformer at another resolution: its table of positions, interpolated."""

import math

from torch import Tensor
from torch.nn import functional

from raylens.config import ModelConfig, VisionTransformerConfig
from raylens.errors import ConfigError

__all__ = ["at_resolution"]

TABLE = "visual.positional_embedding"


def at_resolution(config: ModelConfig, weights: dict[str, Tensor], size: int) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The model for images of ``size`` pixels; positions in between are bicubic, the class token's stays.

    Raises:
        ConfigError: the tower is no vision transformer, or ``size`` is not a multiple of its patch.
    """
    tower = config.image
    if not isinstance(tower, VisionTransformerConfig):
        raise ConfigError(f"image size {size}: only a vision transformer can change its size, this tower is a ResNet")
    if size % tower.patch:
        raise ConfigError(f"image size {size} must be a multiple of the model's patch, {tower.patch}")
    first, grid = weights[TABLE][:1], weights[TABLE][1:]
    old, new, width = math.isqrt(len(grid)), size // tower.patch, grid.shape[1]
    image = grid.float().T.reshape(1, width, old, old)
    image = functional.interpolate(image, size=(new, new), mode="bicubic", antialias=True, align_corners=False)
    table = first.new_empty(new * new + 1, width)
    table[:1], table[1:] = first, image[0].flatten(1).T.to(first.dtype)
    changed = config.model_copy(update={"image": tower.model_copy(update={"size": size})})
    return changed, {**weights, TABLE: table}
