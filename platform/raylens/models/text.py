"""The text towers: a causal transformer read at the end-of-text token, and a bag of words.

Radford et al. 2021, section 2.4 and figure 3. Shapes: B batch, T tokens, N tokens without padding, W width,
D embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from raylens.config.towers import Activation, BagOfWordsConfig, TextTransformerConfig
from raylens.models.layout import Layout
from raylens.models.transformer import Block, LayerNorm, Transformer

__all__ = ["BagOfWords", "TextTransformer"]


class TextTransformer(nn.Module):
    """Token ids to embeddings (not yet of unit norm)."""

    def __init__(self, config: TextTransformerConfig, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        width = config.width
        self.token_embedding = nn.Embedding(config.vocab, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.context, width))
        self.transformer = Transformer(width, config.layers, config.heads, activation, causal=True)
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        for block in self.transformer:
            assert isinstance(block, Block)
            _initialise(block, width, config.layers)

    def forward(self, ids_BT: Tensor, end_B: Tensor) -> Tensor:
        """``[B, T]`` ids and the place of each row's end token, ``[B]``, to ``[B, D]``.

        Nothing behind the end tokens is computed, which is exact: attention is causal, so no token sees what follows.
        """
        layout = Layout.of((end_B + 1).tolist(), ids_BT.shape[1], ids_BT.device)
        positional = self.positional_embedding[layout.source_N % ids_BT.shape[1]]
        x_NW = self.token_embedding(ids_BT.flatten()[layout.source_N]) + positional
        x_BW = self.transformer(x_NW, layout, layout.last_B)[layout.rank_B]
        out: Tensor = self.ln_final(x_BW).to(self.text_projection.dtype) @ self.text_projection
        return out


class BagOfWords(nn.Module):
    """The mean of the embeddings of a text's tokens, normalised and projected: no order, no attention."""

    def __init__(self, config: BagOfWordsConfig, embed_dim: int, activation: Activation) -> None:  # noqa: ARG002
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab, config.width)
        self.ln_final = LayerNorm(config.width)
        self.text_projection = nn.Parameter(config.width**-0.5 * torch.randn(config.width, embed_dim))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, ids_BT: Tensor, end_B: Tensor) -> Tensor:
        """As `TextTransformer.forward`. The end token counts as a word, so that an empty text has one."""
        place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        counted_BT = (place_T > 0) & (place_T <= end_B[:, None])
        words_n = ids_BT[counted_BT]
        first_B = functional.pad(end_B.cumsum(0)[:-1], (1, 0))
        x_BW = functional.embedding_bag(words_n, self.token_embedding.weight, first_B, mode="mean")
        out: Tensor = self.ln_final(x_BW) @ self.text_projection
        return out


def _initialise(block: Block, width: int, layers: int) -> None:
    """Scales of the reference implementation: residual branches shrink with depth."""
    nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
    nn.init.normal_(block.attn.out_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
    nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(block.mlp.c_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
