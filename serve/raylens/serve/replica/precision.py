"""The precision of a tower: bf16 where the processor multiplies faster in it and embeddings keep their direction.

Shapes: B items, T tokens, S image size, D embedding.
"""

import logging
import time
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from raylens.registry import Encoder
from raylens.serve.config import Precision
from raylens.serve.messages import Tower, TowerPrecision

__all__ = ["GoldenInputs", "apply_precision", "golden_inputs"]

logger = logging.getLogger("ray.serve")

MIN_COSINE = 0.9995
"""Least cosine of embeddings in bf16 to those in fp32; below it, ``auto`` stays with fp32."""
GOLDEN_COUNT = 8
"""Number of golden inputs of a tower."""
MIN_SPEEDUP = 1.2
"""Least speed-up of matrix products in bf16 over fp32; below it, ``auto`` stays with fp32."""
Vectors = NDArray[np.float32]


class GoldenInputs:
    """Fixed inputs of a tower with their embeddings, computed in fp32 from verified weights, for comparison."""

    def __init__(self, encoder: Encoder, tower: Tower) -> None:
        draw = np.random.default_rng(20)
        self._encoder, self._tower = encoder, tower
        if tower == "image":
            size = encoder.preprocess.size
            # Coarse squares: noise per pixel would be unlike any image that a tower has seen.
            coarse_BssC = (
                draw.integers(0, 256, (GOLDEN_COUNT, 8, 8, 3)).repeat(-(-size // 8), 1).repeat(-(-size // 8), 2)
            )
            self.inputs: NDArray[np.integer] = coarse_BssC[:, :size, :size].astype(np.uint8)
        else:
            self.inputs = _texts(encoder, draw)
        self.vectors_BD = self.computed()

    def computed(self, count: int = GOLDEN_COUNT) -> Vectors:
        """Return the embeddings of the first ``count`` inputs as the tower computes them now, ``[B, D]``."""
        encode = self._encoder.encode_pixels if self._tower == "image" else self._encoder.encode_ids
        vectors_BD: Vectors = encode(self.inputs[:count]).numpy()  # type: ignore[arg-type]
        return vectors_BD

    def cosine(self, count: int = GOLDEN_COUNT) -> float:
        """Return the least cosine of the embeddings now to the kept ones; NaN where a vector contains NaN."""
        now_BD = self.computed(count)
        return float((now_BD * self.vectors_BD[:count]).sum(axis=1).min())


def _texts(encoder: Encoder, draw: np.random.Generator) -> NDArray[np.int32]:
    tokenizer, context = encoder.tokenizer, encoder.context
    ids_BT = np.zeros((GOLDEN_COUNT, context), dtype=np.int32)
    for row, words in enumerate(np.linspace(1, context - 2, GOLDEN_COUNT).astype(int)):
        drawn = draw.integers(0, tokenizer.vocab_size, words)
        drawn[np.isin(drawn, (tokenizer.start_id, tokenizer.end_id))] = 0
        ids_BT[row, : words + 2] = [tokenizer.start_id, *drawn, tokenizer.end_id]
    return ids_BT


def golden_inputs(encoder: Encoder, towers: tuple[Tower, ...]) -> dict[Tower, GoldenInputs]:
    """Return the golden inputs of each tower; they must be made before anything is rounded."""
    return {tower: GoldenInputs(encoder, tower) for tower in towers}


def apply_precision(
    encoder: Encoder, golden: dict[Tower, GoldenInputs], requested: Precision
) -> dict[Tower, TowerPrecision]:
    """Round the towers to the precision that they will compute in; return it with the least cosine to fp32.

    ``auto`` rounds a tower to bf16 where the device multiplies faster in it and every golden input keeps its direction.
    """
    precisions: dict[Tower, TowerPrecision] = {}
    for tower, inputs in golden.items():
        precisions[tower] = TowerPrecision("fp32", 1.0)
        if requested == "fp32" or (requested == "auto" and not _is_faster_in_bf16(encoder.model.device)):
            continue
        encoder.round_tower(tower, torch.bfloat16)
        cosine = inputs.cosine()
        if requested == "auto" and not cosine >= MIN_COSINE:
            logger.warning("the %s tower in bf16 has cosine %.5f to fp32: it stays in fp32", tower, cosine)
            encoder.restore_tower(tower)
        else:
            precisions[tower] = TowerPrecision("bf16", cosine)
    return precisions


def _is_faster_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(supported) and _bf16_speedup() >= MIN_SPEEDUP


@cache
def _bf16_speedup() -> float:
    """Measure how much faster this processor multiplies in bf16, which its instruction set does not reveal.

    With AVX-512 BF16 alone, it was 3.8 on AMD's Zen 5 and 0.6 on Intel's Xeon, whose AMX makes the difference.
    """
    rows_BK, weights_NK = torch.full((256, 768), 0.5), torch.full((3072, 768), 0.5)
    pairs = [(rows_BK.to(dtype), weights_NK.to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
    # Alternating, and the best of each, so that other work of the machine does not decide.
    seconds = [[_seconds(*pair) for pair in pairs] for _ in range(7)]
    in_fp32, in_bf16 = (min(column) for column in zip(*seconds, strict=True))
    return float(in_fp32 / in_bf16)


@torch.inference_mode()
def _seconds(rows_BK: torch.Tensor, weights_NK: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.nn.functional.linear(rows_BK, weights_NK)
    return time.perf_counter() - began
