"""The architecture of a dual encoder: two towers and the space in which they meet."""

from typing import Annotated

from pydantic import Field

from raylens.config.node import Node
from raylens.config.towers import Activation, ImageTower, TextTower, TextTransformerConfig, VisionTransformerConfig

__all__ = ["ModelConfig"]


class ModelConfig(Node):
    """Two towers and the joint space they meet in."""

    embed_dim: Annotated[int, Field(gt=0)] = 512
    activation: Activation = "quick_gelu"
    """``quick_gelu`` is OpenAI's x * sigmoid(1.702 x); ``gelu`` is the exact one, as LAION's models use it."""
    logit_bias: bool = False
    """A learned bias beside the logit scale, as the sigmoid objective needs it (Zhai et al. 2023)."""
    image: ImageTower = VisionTransformerConfig()
    text: TextTower = TextTransformerConfig()
