"""The dual encoder: two towers and a learned logit scale.

Shapes: B batch, S image size, T tokens, D embedding.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from raylens.config.model import ModelConfig
from raylens.models.text import TextTransformer
from raylens.models.vit import VisionTransformer

__all__ = ["DualEncoder"]


class DualEncoder(nn.Module):
    """Images and texts to unit vectors of one space.

    Takes raw pixels and raw ids, as the loader and the API have them; normalises and cuts padding on the device.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        end_id: int,
        mean: Sequence[float],
        std: Sequence[float],
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.config = config
        self.end_id = end_id
        self.visual = VisionTransformer(config.image, config.embed_dim, config.activation)
        self.text = TextTransformer(config.text, config.embed_dim, config.activation)
        # One element and not none: DeepSpeed broadcasts parameters as bytes, which a scalar cannot be viewed as.
        self.logit_scale = nn.Parameter(torch.tensor([math.log(1.0 / temperature)]))
        # Plain numbers and no buffers: a cast of the module to bf16 would round them, and training see other pixels
        # than serving.
        self.mean, self.std = tuple(mean), tuple(std)

    @property
    def dtype(self) -> torch.dtype:
        """What the towers compute in."""
        return self.visual.conv1.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return self.visual.conv1.weight.device

    def encode_image(self, image_BSSC: Tensor) -> Tensor:
        """uint8 pixels ``[B, S, S, 3]`` to unit vectors ``[B, D]`` in fp32."""
        pixels_BCSS = image_BSSC.permute(0, 3, 1, 2).float().div(255.0)
        mean_C11, std_C11 = (pixels_BCSS.new_tensor(of).view(3, 1, 1) for of in (self.mean, self.std))
        pixels_BCSS = (pixels_BCSS - mean_C11) / std_C11
        return functional.normalize(self.visual(pixels_BCSS.to(self.dtype)).float(), dim=-1)

    def encode_text(self, ids_BT: Tensor) -> Tensor:
        """Token ids ``[B, T]``, padded behind the end token, to unit vectors ``[B, D]`` in fp32."""
        end_B = (ids_BT == self.end_id).int().argmax(dim=1)
        longest = int(end_B.max()) + 1
        return functional.normalize(self.text(ids_BT[:, :longest].long(), end_B.long()).float(), dim=-1)

    def forward(self, image_BSSC: Tensor, ids_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A batch of pairs to image embeddings ``[B, D]``, text embeddings ``[B, D]`` and the log of the scale."""
        # A new tensor and not the parameter, which ZeRO-3 takes away again when forward ends.
        return self.encode_image(image_BSSC), self.encode_text(ids_BT), self.logit_scale.float()[0]
