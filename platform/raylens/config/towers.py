"""The settings of how the towers are trained; `raylens.config.model` has their architecture."""

from typing import Annotated

from pydantic import Field

from raylens.config.node import Node

__all__ = ["TowersConfig"]


class TowersConfig(Node):
    """How the towers are trained, which does not change what they compute afterwards."""

    lock_image: bool = False
    """Freeze the image tower (LiT, Zhai et al. 2022); start from a trained one with ``start_from``."""
    lock_text: bool = False
    patch_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The share of patches that a step drops, chosen anew for each image (FLIP, Li et al. 2023)."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """The share of the output values of each transformer block's branches that a step drops (Vaswani et al. 2017)."""
    checkpoint_blocks: bool = False
    """Recompute the inside of transformer blocks in the backward pass instead of keeping it in memory."""
    compile: bool = False
    """Compile the transformer blocks with torch.compile: a slow first step, then faster steps on GPUs."""
