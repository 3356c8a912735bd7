"""The architecture of a dual encoder (Radford et al. 2021, section 2.4 and tables 19 and 20)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raylens.config.node import Node

__all__ = ["Activation", "ImageTowerConfig", "ModelConfig", "TextTowerConfig"]

Positive = Annotated[int, Field(gt=0)]
Activation = Literal["quick_gelu", "gelu"]


class ImageTowerConfig(Node):
    """A vision transformer over square patches."""

    size: Positive = 224
    """Height and width of the input image, in pixels."""
    patch: Positive = 32
    width: Positive = 768
    layers: Positive = 12
    heads: Positive = 12

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} must be a multiple of patch {self.patch}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class TextTowerConfig(Node):
    """A causal transformer over byte-level BPE tokens."""

    context: Annotated[int, Field(ge=3)] = 77
    """Most tokens a text may have, start and end tokens included."""
    vocab: Annotated[int, Field(ge=258)] = 49_408
    """Rows of the token embedding: an upper bound on the tokenizer's size (256 bytes and 2 marks at least)."""
    width: Positive = 512
    layers: Positive = 12
    heads: Positive = 8

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class ModelConfig(Node):
    """Two towers and the joint space they meet in."""

    embed_dim: Positive = 512
    activation: Activation = "quick_gelu"
    """``quick_gelu`` is OpenAI's x * sigmoid(1.702 x); ``gelu`` is the exact one, as LAION's models use it."""
    image: ImageTowerConfig = ImageTowerConfig()
    text: TextTowerConfig = TextTowerConfig()
