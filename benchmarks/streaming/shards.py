"""Shards of photographs for the streaming benchmark: scikit-learn's two photographs, cut and scaled at random."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from raylens.data.pack import NewSample, pack
from raylens.storage import open_store

__all__ = ["SAMPLES", "SIZES", "make_shards"]

SIZES = {"512": (512, 512), "1024": (1024, 768)}
SAMPLES, PER_SHARD = 2048, 256
QUALITY = 90
GRAIN = 3.0  # standard deviation; without it a scaled-up photograph is an easier JPEG than one from a camera
WORDS = [
    "a",
    "photo",
    "of",
    "the",
    "red",
    "temple",
    "roof",
    "flower",
    "petals",
    "sky",
    "garden",
    "with",
    "many",
    "small",
    "green",
    "leaves",
    "in",
    "front",
]


def make_shards(home: Path, name: str) -> Path:
    """The folder of the shards of one image size; written if it is not there."""
    folder = home / f"{name}-{SAMPLES}"
    if not folder.exists():
        making = folder.with_suffix(".part")
        shutil.rmtree(making, ignore_errors=True)
        pack(_samples(SIZES[name]), open_store(making), per_shard=PER_SHARD)
        making.rename(folder)
    return folder


def _samples(size: tuple[int, int]) -> Iterator[NewSample]:
    rng = np.random.default_rng(7)
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    grain = rng.normal(0.0, GRAIN, (size[1], size[0], 3)).astype(np.float32)
    for number in range(SAMPLES):
        photo = photos[number % len(photos)]
        width = rng.uniform(0.6, 1.0) * min(photo.width, photo.height * size[0] / size[1])
        height = width * size[1] / size[0]
        left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
        scaled = photo.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        noisy = np.asarray(scaled) + np.roll(grain, rng.integers(size[1]), axis=0)
        sink = io.BytesIO()
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(sink, format="JPEG", quality=QUALITY)
        yield NewSample(f"{number:06d}", sink.getvalue(), "jpg", " ".join(rng.choice(WORDS, size=12)), {})
