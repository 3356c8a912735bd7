"""The pre-norm transformer blocks that both towers use.

Shapes: N tokens of all samples in one row, B samples, T tokens of one, W width, H heads, K width of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from raylens.config import Activation
from raylens.models.layout import Group, Layout
from raylens.models.noise import dropped

__all__ = ["Attention", "Block", "LayerNorm", "QuickGELU", "Transformer", "activation_module"]

SLOPE = 1.702


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in fp32, cast back afterwards, so that half-precision towers keep their statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[..., W]``; the result has the same shape and dtype."""
        wide = functional.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return wide.to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with one input projection; parameters have the names of OpenAI's checkpoints."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x_NW: Tensor, layout: Layout, causal: bool) -> Tensor:
        """Apply attention to ``[N, W]``; the shape stays. ``causal`` hides later tokens from earlier ones."""
        qkv = self._project(x_NW)
        parts = [self._in_group(group, qkv, causal) for group in layout.groups]
        out: Tensor = self.out_proj(parts[0] if len(parts) == 1 else torch.cat(parts))
        return out

    def _project(self, x_NW: Tensor) -> Tensor:
        return functional.linear(x_NW.to(self.in_proj_weight.dtype), self.in_proj_weight, self.in_proj_bias)

    def _project_apart(self, x_NW: Tensor, at_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries of some tokens, and keys and values of all."""
        x_NW = x_NW.to(self.in_proj_weight.dtype)
        weight_q, weight_kv = self.in_proj_weight.split([x_NW.shape[1], 2 * x_NW.shape[1]])
        bias_q, bias_kv = self.in_proj_bias.split([x_NW.shape[1], 2 * x_NW.shape[1]])
        return functional.linear(x_NW[at_B], weight_q, bias_q), functional.linear(x_NW, weight_kv, bias_kv)

    def _in_group(self, group: Group, qkv: Tensor, causal: bool) -> Tensor:
        # A group's padding needs no mask: it comes after the tokens, so causal attention hides it from them.
        assert causal or group.slot_n is None
        spread = group.spread(qkv).view(group.batch, group.longest, 3, self.heads, -1)
        q_BHTK, k_BHTK, v_BHTK = spread.permute(2, 0, 3, 1, 4)
        out_BHTK = functional.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=causal)
        return group.gather(out_BHTK.transpose(1, 2))

    def read(self, x_NW: Tensor, at_B: Tensor, layout: Layout) -> Tensor:
        """Return the attention output of the tokens at ``at_B`` alone, one per sample: ``[B, W]``.

        Only these tokens' queries and outputs are computed.
        """
        q_BW, kv = self._project_apart(x_NW, at_B)
        parts, first = [], 0
        for group in layout.groups:
            q_BH1K = q_BW[first : first + group.batch].view(group.batch, self.heads, 1, -1)
            spread = group.spread(kv).view(group.batch, group.longest, 2, self.heads, -1)
            k_BHTK, v_BHTK = spread.permute(2, 0, 3, 1, 4)
            out = functional.scaled_dot_product_attention(q_BH1K, k_BHTK, v_BHTK, attn_mask=group.valid())
            parts.append(out.reshape(group.batch, -1))
            first += group.batch
        out_BW: Tensor = self.out_proj(torch.cat(parts))
        return out_BW


class MLP(nn.Module):
    """Two linear layers with a hidden width of four times the input's."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.act = activation_module(activation)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers to ``[..., W]``; the shape stays."""
        out: Tensor = self.c_proj(self.act(self.c_fc(x.to(self.c_fc.weight.dtype))))
        return out


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    ``x`` keeps its dtype, fp32, where the layers multiply in bf16, as under autocast, so that sums are not rounded.
    """

    def __init__(self, width: int, heads: int, activation: Activation, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.number = 0
        """The block's number in its transformer. ``dropout`` is the share of each branch's values that a step drops."""
        self.dropout = 0.0
        self.ln_1 = LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = LayerNorm(width)
        self.mlp = MLP(width, activation)

    def forward(self, x_NW: Tensor, layout: Layout, at_B: Tensor | None = None) -> Tensor:
        """Apply the block to ``[N, W]``; the shape stays. With ``at_B``, return those tokens alone, ``[B, W]``."""
        key = layout.key_N
        if at_B is None:
            x = x_NW + self._thinned(self.attn(self.ln_1(x_NW), layout, self.causal), key, 0)
        else:
            key = None if key is None else key[at_B]
            x = x_NW[at_B] + self._thinned(self.attn.read(self.ln_1(x_NW), at_B, layout), key, 0)
        out: Tensor = x + self._thinned(self.mlp(self.ln_2(x)), key, 1)
        return out

    def _thinned(self, x: Tensor, key: Tensor | None, branch: int) -> Tensor:
        """Apply dropout to the output of a branch (Vaswani et al. 2017, section 5.4)."""
        if key is None or not (self.training and self.dropout):
            return x
        return dropped(x, key, self.dropout, 2 * self.number + branch)


class Transformer(nn.Sequential):
    """A sequence of blocks. Where one token per sample is read, the last block computes nothing else."""

    def __init__(self, width: int, layers: int, heads: int, activation: Activation, *, causal: bool) -> None:
        super().__init__(*(Block(width, heads, activation, causal=causal) for _ in range(layers)))
        for number, block in enumerate(self):
            assert isinstance(block, Block)
            block.number = number
        self.checkpointed = False
        """Whether only the blocks' inputs are kept, and their insides are recomputed in the backward pass."""

    def forward(self, x_NW: Tensor, layout: Layout, at_B: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Map ``[N, W]`` to the tokens at ``at_B`` in the row's order, ``[B, W]``; without it, to all tokens."""
        for number, block in enumerate(self, 1):
            position = at_B if number == len(self) else None
            if self.checkpointed and torch.is_grad_enabled():
                x_NW = checkpoint(block, x_NW, layout, position, use_reentrant=False)
            else:
                x_NW = block(x_NW, layout, position)
        return x_NW


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, the approximation that OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise to any shape."""
        y: Tensor = _QuickGELU.apply(x)  # type: ignore[no-untyped-call]
        return y


class _QuickGELU(torch.autograd.Function):
    """QuickGELU as ``silu(1.702 x) / 1.702``, for which torch has kernels: one saved tensor, one backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        steep = x * SLOPE
        ctx.save_for_backward(steep)
        return functional.silu(steep).mul_(1.0 / SLOPE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (steep,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad, steep)  # type: ignore[no-any-return]


def activation_module(name: Activation) -> nn.Module:
    """Return the module of an activation's name in the configuration."""
    return QuickGELU() if name == "quick_gelu" else nn.GELU()
