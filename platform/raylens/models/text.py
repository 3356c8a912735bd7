"""The text towers: a causal transformer read at the end-of-text token, and a bag of words.

Radford et al. 2021, section 2.4 and figure 3. Shapes: B batch, T tokens, N tokens without padding, W width,
D embedding.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from raylens.config import Activation, BagOfWordsConfig, TextTransformerConfig
from raylens.models.layout import Layout
from raylens.models.noise import keys_of_tokens
from raylens.models.transformer import Block, LayerNorm, Transformer

__all__ = ["BagOfWords", "Prediction", "TextTransformer"]


class Prediction(NamedTuple):
    """The predicted token after each token of the captions but the last, given an image."""

    logits_NV: Tensor
    next_N: Tensor
    """The token that follows in the caption."""
    row_N: Tensor
    """The caption that each token belongs to."""


class TextTransformer(nn.Module):
    """A causal transformer that maps token ids to embeddings (not yet of unit norm)."""

    def __init__(self, config: TextTransformerConfig, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        width = config.width
        self.token_embedding = nn.Embedding(config.vocab, width)
        self.positional_embedding = nn.Parameter(torch.randn(config.context, width).mul_(0.01))
        self.transformer = Transformer(width, config.layers, config.heads, activation, causal=True)
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, embed_dim).mul_(width**-0.5))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        for block in self.transformer:
            assert isinstance(block, Block)
            _initialise(block, width, config.layers)

    def forward(
        self, ids_BT: Tensor, end_B: Tensor, key_B: Tensor | None = None, image_BD: Tensor | None = None
    ) -> Any:
        """Map ids ``[B, T]`` and the positions of end tokens ``[B]`` to ``[B, D]``; with images, to `Prediction`.

        Nothing after the end tokens is computed, which is exact: attention is causal, so no token sees what follows.
        Random choices depend on ``key_B``; without it there are none.
        """
        x_NW, layout = self._embedded(ids_BT, end_B, key_B)
        if image_BD is not None:
            return self._predicted(x_NW, layout, image_BD, ids_BT, end_B)
        x_BW = self.transformer(x_NW, layout, layout.last_B)[layout.rank_B]
        out: Tensor = self.ln_final(x_BW).to(self.text_projection.dtype) @ self.text_projection
        return out

    def _predicted(self, x_NW: Tensor, layout: Layout, image_BD: Tensor, ids_BT: Tensor, end_B: Tensor) -> "Prediction":
        """Predict captions: the image enters at the start token, through the transposed text projection.

        A token's embedding also predicts it (Press and Wolf 2017), so the task needs no parameters of its own.
        """
        row_N, position_N = layout.source_N // ids_BT.shape[1], layout.source_N % ids_BT.shape[1]
        image_BW = (image_BD.to(self.text_projection.dtype) @ self.text_projection.T).to(x_NW.dtype)
        x_NW = x_NW + image_BW[row_N] * (position_N == 0)[:, None]
        x_NW = self.ln_final(self.transformer(x_NW, layout))
        followed_n = (position_N < end_B[row_N]).nonzero().flatten()
        next_n = ids_BT.flatten()[layout.source_N[followed_n] + 1]
        logits_nV = functional.linear(x_NW[followed_n], self.token_embedding.weight)
        return Prediction(logits_nV, next_n, row_N[followed_n])

    def _embedded(self, ids_BT: Tensor, end_B: Tensor, key_B: Tensor | None) -> tuple[Tensor, Layout]:
        tokens = ids_BT.shape[1]
        layout = Layout.of((end_B + 1).tolist(), tokens, ids_BT.device)
        position_N = layout.source_N % tokens
        if key_B is not None:
            layout = replace(layout, key_N=keys_of_tokens(key_B, layout.source_N // tokens, position_N, tower=1))
        return self.token_embedding(ids_BT.flatten()[layout.source_N]) + self.positional_embedding[position_N], layout


class BagOfWords(nn.Module):
    """A text tower that normalises and projects the mean of a text's token embeddings: no order, no attention."""

    def __init__(self, config: BagOfWordsConfig, embed_dim: int, activation: Activation) -> None:  # noqa: ARG002
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab, config.width)
        self.ln_final = LayerNorm(config.width)
        self.text_projection = nn.Parameter(torch.randn(config.width, embed_dim).mul_(config.width**-0.5))
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(
        self,
        ids_BT: Tensor,
        end_B: Tensor,
        key_B: Tensor | None = None,  # noqa: ARG002
        *,
        words: bool = False,
    ) -> Tensor:
        """Map ids as `TextTransformer.forward` does. The end token counts as a word, so that an empty text has one.

        With ``words``, return for each token of the vocabulary the embedding of a text of this token alone, ``[V, D]``.
        """
        if words:
            return self._projected(self.token_embedding.weight)
        place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        counted_BT = (place_T > 0) & (place_T <= end_B[:, None])
        words_n = ids_BT[counted_BT]
        first_B = functional.pad(end_B.cumsum(0)[:-1], (1, 0))
        x_BW = functional.embedding_bag(words_n, self.token_embedding.weight, first_B, mode="mean")
        return self._projected(x_BW)

    def _projected(self, x_BW: Tensor) -> Tensor:
        out: Tensor = self.ln_final(x_BW) @ self.text_projection
        return out


def _initialise(block: Block, width: int, layers: int) -> None:
    """Initialise weights with the reference implementation's scales: residual branches shrink with depth."""
    nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
    nn.init.normal_(block.attn.out_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
    nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(block.mlp.c_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
