"""The image tower: a vision transformer with a class token (Radford et al. 2021, section 2.4).

Shapes: B batch, S image size, P patches, T tokens of an image, N tokens of all, W width, D embedding.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from raylens.config import Activation, ModelConfig, VisionTransformerConfig
from raylens.errors import ConfigError
from raylens.models.layout import Layout
from raylens.models.noise import keys_of_tokens, shuffled
from raylens.models.transformer import LayerNorm, Transformer

__all__ = ["VisionTransformer", "at_resolution"]

TABLE = "visual.positional_embedding"


class VisionTransformer(nn.Module):
    """An image tower that maps normalised pixels to embeddings (not yet of unit norm)."""

    def __init__(self, config: VisionTransformerConfig, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        width = config.width
        patches = (config.size // config.patch) ** 2
        std = width**-0.5
        self.conv1 = nn.Conv2d(3, width, kernel_size=config.patch, stride=config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width).mul_(std))
        self.positional_embedding = nn.Parameter(torch.randn(patches + 1, width).mul_(std))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads, activation, causal=False)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, embed_dim).mul_(std))
        self.patch_dropout = 0.0
        """The share of patches that a training step drops, chosen anew for each image (Li et al. 2023, FLIP)."""

    def forward(self, image_BCSS: Tensor, key_B: Tensor | None = None) -> Tensor:
        """Map normalised pixels ``[B, 3, S, S]`` to ``[B, D]``; random choices depend on ``key_B``, if it is passed."""
        patch_BPW = self.conv1(image_BCSS).flatten(2).transpose(1, 2) + self.positional_embedding[1:]
        if self.training and self.patch_dropout and key_B is not None:
            patch_BPW = _some(patch_BPW, self.patch_dropout, key_B)
        class_W = self.class_embedding + self.positional_embedding[0]
        x_BTW = torch.cat([class_W.expand(len(patch_BPW), 1, -1), patch_BPW], dim=1)
        batch, tokens, _ = x_BTW.shape
        layout = Layout.even(batch, tokens, x_BTW.device)
        if key_B is not None:
            row_N, position_N = layout.source_N // tokens, layout.source_N % tokens
            layout = replace(layout, key_N=keys_of_tokens(key_B, row_N, position_N, tower=0))
        first_B = layout.last_B - (tokens - 1)
        x_BW = self.transformer(self.ln_pre(x_BTW).flatten(0, 1), layout, first_B)
        out: Tensor = self.ln_post(x_BW).to(self.proj.dtype) @ self.proj
        return out


def _some(patch_BPW: Tensor, dropout: float, key_B: Tensor) -> Tensor:
    """Choose patches of each image at random: the same number for all images, at least one."""
    _, patches, width = patch_BPW.shape
    kept = max(1, round(patches * (1.0 - dropout)))
    chosen_Bk = shuffled(key_B, patches)[:, :kept]
    return patch_BPW.gather(1, chosen_Bk[..., None].expand(-1, -1, width))


def at_resolution(config: ModelConfig, weights: dict[str, Tensor], size: int) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return the model for images of ``size`` pixels, with position embeddings interpolated bicubically.

    The class token's position embedding stays as it is.

    Raises:
        ConfigError: the tower is no vision transformer, or ``size`` is not a multiple of its patch.
    """
    tower = config.image
    if not isinstance(tower, VisionTransformerConfig):
        raise ConfigError(
            f"image size {size}: only a vision transformer can change its size, and this tower is a ResNet"
        )
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
