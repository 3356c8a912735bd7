"""The model and the inputs of both sides of throughput.py: ViT-B/32 with random weights, JPEGs, captions."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from raylens.config import ModelConfig
from raylens.inputs import Preprocess, Tokenizer
from raylens.inputs.preprocess import CLIP_MEAN, CLIP_STD
from raylens.interop.write import write_foreign
from raylens.models import DualEncoder
from raylens.registry import Bundle, Registry

__all__ = ["captions", "jpegs", "make_model"]

WORDS = [
    f"{first}{second}" for first in ("re", "lo", "mi", "ta", "ko", "su") for second in ("da", "len", "rik", "mos", "vi")
]


def make_model(registry: Path, foreign: Path) -> None:
    """Register the model, and write it as a Hugging Face folder for the peer."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(captions(2000, seed=9), 2000)
    preprocess = Preprocess(size=224, mean=CLIP_MEAN, std=CLIP_STD)
    config = ModelConfig(activation="quick_gelu")
    model = DualEncoder(config, end_id=tokenizer.end_id, mean=preprocess.mean, std=preprocess.std)
    bundle = Bundle(config, model.state_dict(), tokenizer, preprocess)
    Registry(str(registry)).publish("vit", bundle)
    write_foreign(bundle, foreign, "hf")


def captions(count: int, seed: int) -> list[str]:
    """Return captions of 4 to 16 words, no two alike."""
    draw = np.random.default_rng(seed)
    return [" ".join([*draw.choice(WORDS, draw.integers(4, 16)), str(number)]) for number in range(count)]


def jpegs(count: int, seed: int) -> list[bytes]:
    """Return smooth images of 320 by 240 pixels, a photograph's usual size on the web, no two alike."""
    draw = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        sink = io.BytesIO()
        coarse.resize((320, 240), Image.Resampling.BICUBIC).save(sink, format="JPEG", quality=85)
        files.append(sink.getvalue())
    return files
