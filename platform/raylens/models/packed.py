"""Weights in the layout in which the processor multiplies them, for towers that only embed.

A product on a CPU rearranges its weights at each call, which takes longer than the product itself where there are few
rows, as in a request of one text. Here that is done once. oneDNN does both; torch's compiler uses the same two
operators.

Shapes: N rows, W width in, V width out.
"""

import torch
from torch import Tensor, nn

from raylens.models.transformer import Attention, Block, Transformer

__all__ = ["pack"]

ROWS = 64
"""The number of rows for which the layout is chosen; it works for any number."""


class PackedLinear(nn.Module):
    """A linear layer, or some rows of one, with packed weights."""

    def __init__(self, weight_VW: Tensor, bias_V: Tensor | None) -> None:
        super().__init__()
        # Plain attributes, neither parameters nor buffers: the layout is the processor's own and must not be saved.
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_VW.detach().contiguous(), ROWS)
        self.bias = None if bias_V is None else bias_V.detach().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``[..., W]``; the result is ``[..., V]``."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return product


class PackedAttention(Attention):
    """`Attention` with packed input projections: one if all tokens have queries, two if one per sample has."""

    def __init__(self, plain: Attention, *, reads: bool) -> None:
        nn.Module.__init__(self)
        self.heads = plain.heads
        self.out_proj = plain.out_proj
        width = plain.out_proj.in_features
        rows = [width, 2 * width] if reads else [3 * width]
        parts = zip(plain.in_proj_weight.split(rows), plain.in_proj_bias.split(rows), strict=True)
        self.parts = [PackedLinear(weight, bias) for weight, bias in parts]

    def _project(self, x_NW: Tensor) -> Tensor:
        (whole,) = self.parts
        qkv: Tensor = whole(x_NW.to(whole.weight.dtype))
        return qkv

    def _project_apart(self, x_NW: Tensor, at_B: Tensor) -> tuple[Tensor, Tensor]:
        queries, others = self.parts
        x_NW = x_NW.to(others.weight.dtype)
        return queries(x_NW[at_B]), others(x_NW)


def pack(tower: nn.Module) -> None:
    """Replace a tower's layers by packed ones and free its own; the tower can only embed from then on.

    Do nothing where oneDNN is missing, or has no products in the tower's dtype on this processor.
    """
    for module in list(tower.modules()):
        if isinstance(module, Transformer):
            for number, block in enumerate(module, 1):
                assert isinstance(block, Block)
                if _packable(block.attn.in_proj_weight):
                    block.attn = PackedAttention(block.attn, reads=number == len(module))
    for parent in list(tower.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and _packable(child.weight):
                setattr(parent, name, PackedLinear(child.weight, child.bias))


def _packable(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
