"""The architecture of a dual encoder: two towers (Radford et al. 2021, sections 2.4 and 3, tables 19 and 20)."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from raylens.config.node import Node

__all__ = [
    "Activation",
    "BagOfWordsConfig",
    "ImageTower",
    "ModelConfig",
    "ResNetConfig",
    "TextTower",
    "TextTransformerConfig",
    "VisionTransformerConfig",
]

Positive = Annotated[int, Field(gt=0)]
Context = Annotated[int, Field(ge=3)]
Vocab = Annotated[int, Field(ge=514)]
Activation = Literal["quick_gelu", "gelu"]
RESNET_STRIDE = 32
"""The pixels along an edge of one cell in a ResNet's last feature map."""


class VisionTransformerConfig(Node):
    """A vision transformer over square patches."""

    kind: Literal["vit"] = "vit"
    size: Positive = 224
    """Height and width of the input images in pixels."""
    patch: Positive = 32
    width: Positive = 768
    layers: Positive = 12
    heads: Positive = 12

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} must be a multiple of patch {self.patch}")
        _heads_divide(self.width, self.heads)
        return self


class ResNetConfig(Node):
    """A ResNet with a three-layer stem, antialiased strides and an attention pool."""

    kind: Literal["resnet"] = "resnet"
    size: Positive = 224
    """Height and width of the input images in pixels."""
    blocks: tuple[Positive, Positive, Positive, Positive] = (3, 4, 6, 3)
    """Bottleneck blocks in each of the four stages."""
    width: Positive = 64
    """Channels of the stem; the last stage has 32 times as many."""

    @property
    def heads(self) -> int:
        """Heads of the attention pool, 64 channels each."""
        return self.width * 32 // 64

    @property
    def cells(self) -> int:
        """Cells along an edge of the last feature map."""
        return self.size // RESNET_STRIDE

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size % RESNET_STRIDE:
            raise ValueError(f"size {self.size} must be a multiple of {RESNET_STRIDE}")
        if self.width % 2:
            raise ValueError(f"width {self.width} must be even: the stem begins with half of it")
        return self


class TextTransformerConfig(Node):
    """A causal transformer over byte-level BPE tokens."""

    kind: Literal["transformer"] = "transformer"
    context: Context = 77
    """The most tokens of a text, start and end tokens included."""
    vocab: Vocab = 49_408
    """Rows of the token embedding: an upper bound on the tokenizer's size (at least 514)."""
    width: Positive = 512
    layers: Positive = 12
    heads: Positive = 8

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _heads_divide(self.width, self.heads)
        return self


class BagOfWordsConfig(Node):
    """The paper's cheaper text tower (CBOW, figure 3): the mean of the token embeddings, without order."""

    kind: Literal["cbow"] = "cbow"
    context: Context = 77
    """The most tokens of a text, start and end tokens included."""
    vocab: Vocab = 49_408
    width: Positive = 512


def _heads_divide(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"width {width} must be a multiple of heads {heads}")


def _kind_or(default: str) -> Discriminator:
    def kind(value: Any) -> Any:
        return value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default)

    return Discriminator(kind)


ImageTower = Annotated[
    Annotated[VisionTransformerConfig, Tag("vit")] | Annotated[ResNetConfig, Tag("resnet")], _kind_or("vit")
]
TextTower = Annotated[
    Annotated[TextTransformerConfig, Tag("transformer")] | Annotated[BagOfWordsConfig, Tag("cbow")],
    _kind_or("transformer"),
]


class ModelConfig(Node):
    """The two towers and their joint embedding space."""

    embed_dim: Annotated[int, Field(gt=0)] = 512
    activation: Activation = "quick_gelu"
    """``quick_gelu`` is OpenAI's x * sigmoid(1.702 x); ``gelu`` is the exact one, as LAION's models use it."""
    logit_bias: bool = False
    """Whether a bias is learned beside the logit scale, which the sigmoid objective needs (Zhai et al. 2023)."""
    image: ImageTower = VisionTransformerConfig()
    text: TextTower = TextTransformerConfig()
