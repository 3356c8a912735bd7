"""Pre-norm transformer blocks, as both towers use them.

Shapes: B batch, T tokens, W width, H heads, K width of a head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from raylens.config.model import Activation

__all__ = ["Block", "QuickGELU", "activation_module", "transformer"]


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, the approximation that OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same out."""
        return x * torch.sigmoid(1.702 * x)


def activation_module(name: Activation) -> nn.Module:
    """The module behind a configuration's name."""
    return QuickGELU() if name == "quick_gelu" else nn.GELU()


class LayerNorm(nn.LayerNorm):
    """Computed in fp32 and cast back, so that half-precision towers keep their statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., W]`` in, the same out."""
        wide = functional.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return wide.to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with one input projection; parameter names as OpenAI's checkpoints have them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x_BTW: Tensor, causal: bool) -> Tensor:
        """``[B, T, W]`` in, the same out; ``causal`` hides later tokens from earlier ones."""
        batch, tokens, width = x_BTW.shape
        qkv = functional.linear(x_BTW, self.in_proj_weight, self.in_proj_bias)
        q_BHTK, k_BHTK, v_BHTK = qkv.view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        out_BHTK = functional.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=causal)
        out: Tensor = self.out_proj(out_BHTK.transpose(1, 2).reshape(batch, tokens, width))
        return out


class MLP(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.act = activation_module(activation)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., W]`` in, the same out."""
        out: Tensor = self.c_proj(self.act(self.c_fc(x)))
        return out


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, heads: int, activation: Activation, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.ln_1 = LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = LayerNorm(width)
        self.mlp = MLP(width, activation)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """``[B, T, W]`` in, the same out."""
        x_BTW = x_BTW + self.attn(self.ln_1(x_BTW), self.causal)
        out: Tensor = x_BTW + self.mlp(self.ln_2(x_BTW))
        return out


def transformer(width: int, layers: int, heads: int, activation: Activation, *, causal: bool) -> nn.Sequential:
    """``layers`` blocks in a row."""
    return nn.Sequential(*(Block(width, heads, activation, causal=causal) for _ in range(layers)))
