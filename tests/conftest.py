"""Fixtures for all tests: small real shards, and a small model."""

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from raylens.data.pack import NewSample, pack
from raylens.storage import Store, open_store

# A machine that is busy is not a failure: no deadlines; examples are fresh each time, and a failing one is printed.
settings.register_profile("raylens", deadline=None, derandomize=False, print_blob=True, max_examples=50)
settings.load_profile("raylens")

WORDS = ("red", "blue", "small", "large", "round", "square", "old", "new", "cat", "dog", "house", "tree")


def png(width: int, height: int, seed: int) -> bytes:
    """A picture that no other seed gives."""
    draw = random.Random(seed)
    image = Image.new("RGB", (width, height), tuple(draw.randrange(256) for _ in range(3)))
    image.putpixel((draw.randrange(width), draw.randrange(height)), (seed % 256, seed // 256 % 256, 7))
    sink = io.BytesIO()
    image.save(sink, format="PNG")
    return sink.getvalue()


def samples(count: int) -> Iterator[NewSample]:
    """Pairs with captions of one to eight words."""
    for number in range(count):
        draw = random.Random(number)
        caption = " ".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 9)))
        image = png(draw.randrange(8, 40), draw.randrange(8, 40), number)
        yield NewSample(f"pair-{number:05d}", image, "png", caption, {"label": number % 3})


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Store]:
    """Packs ``count`` samples into shards of ``per_shard`` and returns their store."""

    def make(count: int, per_shard: int = 10, name: str = "shards") -> Store:
        store = open_store(tmp_path / name)
        pack(samples(count), store, per_shard=per_shard)
        return store

    return make
