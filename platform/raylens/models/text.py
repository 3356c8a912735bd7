"""The text tower: a causal transformer, read at the end-of-text token (Radford et al. 2021, section 2.4).

Shapes: B batch, T tokens, W width, D embedding.
"""

import torch
from torch import Tensor, nn

from raylens.config.model import Activation, TextTowerConfig
from raylens.models.transformer import Block, LayerNorm, transformer

__all__ = ["TextTransformer"]


class TextTransformer(nn.Module):
    """Token ids to embeddings (not yet of unit norm)."""

    def __init__(self, config: TextTowerConfig, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        width = config.width
        self.token_embedding = nn.Embedding(config.vocab, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context, width))
        self.transformer = transformer(width, config.layers, config.heads, activation, causal=True)
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        for block in self.transformer:
            assert isinstance(block, Block)
            _initialise(block, width, config.layers)

    def forward(self, ids_BT: Tensor, end_B: Tensor) -> Tensor:
        """``[B, T]`` ids and the place of each row's end token, ``[B]``, to ``[B, D]``.

        Rows may be cut behind the longest text of the batch: attention is causal, so no token before the end
        token sees what follows it, and leaving padding out is exact.
        """
        x_BTW = self.token_embedding(ids_BT) + self.positional_embedding[: ids_BT.shape[1]]
        x_BTW = self.transformer(x_BTW)
        x_BW = x_BTW[torch.arange(len(x_BTW), device=x_BTW.device), end_B]
        out: Tensor = self.ln_final(x_BW) @ self.text_projection
        return out


def _initialise(block: Block, width: int, layers: int) -> None:
    """Scales of the reference implementation: residual branches shrink with depth."""
    nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
    nn.init.normal_(block.attn.out_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
    nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(block.mlp.c_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
