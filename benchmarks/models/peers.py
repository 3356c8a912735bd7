"""What the benchmarks of models share: the peer, its configurations in ours, and captions of realistic lengths."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raylens.config import ModelConfig
from raylens.interop.openclip import openclip_config as read_config

__all__ = ["caption_lengths", "ids_of", "open_clip", "openclip_config"]

START, END = 49_406, 49_407
MEDIAN_TOKENS, SPREAD = 15.0, 0.5
_KEPT: list[Any] = []


def open_clip() -> Any:
    """The package; torchvision has no CPU build, and imports once two operators are declared."""
    if not _KEPT and torch.version.cuda is None:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
    import open_clip

    return open_clip


def openclip_config(name: str) -> ModelConfig:
    """Ours of a model that OpenCLIP knows by name."""
    return read_config(open_clip().get_model_config(name))


def caption_lengths(count: int, seed: int = 0) -> list[int]:
    """Tokens of captions, marks included: log-normal around 15, 5 at least, as alt texts and short captions are.

    One in thirty has more than 37 tokens, and one in 1,500 is cut at 77.
    """
    drawn = np.random.default_rng(seed).normal(math.log(MEDIAN_TOKENS), SPREAD, count)
    return [int(length) for length in np.clip(np.exp(drawn).round(), 5, 77)]


def ids_of(lengths: list[int], seed: int = 0) -> Tensor:
    """Random token ids ``[B, 77]`` of these lengths, padded with zeros."""
    ids = torch.randint(1, START, (len(lengths), 77), generator=torch.Generator().manual_seed(seed))
    for row, length in zip(ids, lengths, strict=True):
        row[0], row[length - 1], row[length:] = START, END, 0
    return ids
