"""The image tower: a vision transformer with a class token (Radford et al. 2021, section 2.4).

Shapes: B batch, S image size, P patches, W width, D embedding.
"""

import torch
from torch import Tensor, nn

from raylens.config.model import Activation, ImageTowerConfig
from raylens.models.transformer import LayerNorm, transformer

__all__ = ["VisionTransformer"]


class VisionTransformer(nn.Module):
    """Normalised pixels to embeddings (not yet of unit norm)."""

    def __init__(self, config: ImageTowerConfig, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        width = config.width
        patches = (config.size // config.patch) ** 2
        std = width**-0.5
        self.conv1 = nn.Conv2d(3, width, kernel_size=config.patch, stride=config.patch, bias=False)
        self.class_embedding = nn.Parameter(std * torch.randn(width))
        self.positional_embedding = nn.Parameter(std * torch.randn(patches + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = transformer(width, config.layers, config.heads, activation, causal=False)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(std * torch.randn(width, embed_dim))

    def forward(self, image_BCSS: Tensor) -> Tensor:
        """``[B, 3, S, S]`` normalised pixels to ``[B, D]``."""
        patch_BPW = self.conv1(image_BCSS).flatten(2).transpose(1, 2)
        class_B1W = self.class_embedding.to(patch_BPW.dtype).expand(len(patch_BPW), 1, -1)
        x_BTW = torch.cat([class_B1W, patch_BPW], dim=1) + self.positional_embedding
        x_BTW = self.transformer(self.ln_pre(x_BTW))
        out: Tensor = self.ln_post(x_BTW[:, 0]) @ self.proj
        return out
