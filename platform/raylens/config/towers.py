"""How the towers are trained; `raylens.config.model` has what they are."""

from typing import Annotated

from pydantic import Field

from raylens.config.node import Node

__all__ = ["TowersConfig"]


class TowersConfig(Node):
    """How the towers are trained; nothing here changes what they compute afterwards."""

    lock_image: bool = False
    """Leave the image tower as it is (LiT, Zhai et al. 2022); begin from a trained one with ``start_from``."""
    lock_text: bool = False
    patch_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of an image's patches that a step leaves out (FLIP, Li et al. 2023); others for each image."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the values that each branch of a transformer block adds which a step drops (Vaswani et al. 2017)."""
    checkpoint_blocks: bool = False
    """Compute the inside of transformer blocks again in the backward pass instead of keeping it in memory."""
    compile: bool = False
    """Let torch.compile make kernels for the transformer blocks: a slow first step, then faster ones on GPUs."""
