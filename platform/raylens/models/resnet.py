"""The other kind of image tower: a ResNet with antialiased strides and an attention pool.

Radford et al. 2021, section 2.4 and table 19.

Shapes: B batch, S image size, C channels, X and Y cells, T cells and their mean, D embedding.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from raylens.config import Activation, ResNetConfig

__all__ = ["ResNet"]

EXPANSION = 4


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut. All have stride 1; an average pool downsamples, without aliasing."""

    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, planes * EXPANSION, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * EXPANSION)
        self.downsample: nn.Module | None = None
        if stride > 1 or inplanes != planes * EXPANSION:
            # The layers are numbered as in the reference checkpoints: the pool in front has no number of its own.
            self.downsample = nn.Sequential(
                OrderedDict(
                    [
                        ("-1", nn.AvgPool2d(stride)),
                        ("0", nn.Conv2d(inplanes, planes * EXPANSION, 1, bias=False)),
                        ("1", nn.BatchNorm2d(planes * EXPANSION)),
                    ]
                )
            )

    def forward(self, x_BCXY: Tensor) -> Tensor:
        """Map ``[B, C, X, Y]`` to ``[B, 4 planes, X / stride, Y / stride]``."""
        out = functional.relu(self.bn1(self.conv1(x_BCXY)), inplace=True)
        out = functional.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(self.avgpool(out)))
        out = out + (x_BCXY if self.downsample is None else self.downsample(x_BCXY))
        return functional.relu(out, inplace=True)


class AttentionPool(nn.Module):
    """Attention of the mean cell over all cells and itself, which yields one vector per image."""

    def __init__(self, cells: int, channels: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(cells**2 + 1, channels).div_(channels**0.5))
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, embed_dim)
        for layer in (self.k_proj, self.q_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=channels**-0.5)

    def forward(self, x_BCXY: Tensor) -> Tensor:
        """Map cells ``[B, C, X, Y]`` to embeddings ``[B, D]``."""
        x_BTC = x_BCXY.flatten(2).transpose(1, 2)
        x_BTC = torch.cat([x_BTC.mean(dim=1, keepdim=True), x_BTC], dim=1)
        x_BTC = x_BTC + self.positional_embedding.to(x_BTC.dtype)
        batch, tokens, channels = x_BTC.shape
        q_BH1K = self.q_proj(x_BTC[:, 0]).view(batch, self.heads, 1, -1)
        k_BHTK, v_BHTK = (
            of(x_BTC).view(batch, tokens, self.heads, -1).transpose(1, 2) for of in (self.k_proj, self.v_proj)
        )
        out = functional.scaled_dot_product_attention(q_BH1K, k_BHTK, v_BHTK)
        pooled: Tensor = self.c_proj(out.reshape(batch, channels))
        return pooled


class ResNet(nn.Module):
    """An image tower that maps normalised pixels to embeddings (not yet of unit norm)."""

    def __init__(self, config: ResNetConfig, embed_dim: int, activation: Activation) -> None:  # noqa: ARG002
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        channels, stages = width, []
        for number, blocks in enumerate(config.blocks):
            planes = width * 2**number
            layers = [Bottleneck(channels, planes, 2 if number else 1)]
            channels = planes * EXPANSION
            layers += [Bottleneck(channels, planes, 1) for _ in range(1, blocks)]
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.attnpool = AttentionPool(config.cells, channels, config.heads, embed_dim)
        for module in self.modules():
            if isinstance(module, Bottleneck):  # Each block begins as its shortcut (Goyal et al. 2017, section 5.1).
                nn.init.zeros_(module.bn3.weight)

    def forward(self, image_BCSS: Tensor, key_B: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Map normalised pixels ``[B, 3, S, S]`` to embeddings ``[B, D]``."""
        # In this layout convolutions need no reordering, on CPUs and on tensor cores.
        x = image_BCSS.contiguous(memory_format=torch.channels_last)
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = functional.relu(norm(conv(x)), inplace=True)
        x = functional.avg_pool2d(x, 2)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        out: Tensor = self.attnpool(x)
        return out
