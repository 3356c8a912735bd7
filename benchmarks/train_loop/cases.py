"""The two runs of steps.py: what their models, batches and streams are."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from raylens.config import RunConfig, apply_overrides, validated
from raylens.data.pack import NewSample

__all__ = ["CASES", "EVERY", "KEPT", "WORKERS", "Case", "samples"]

WORKERS, KEPT = 2, 10
EVERY = 10
"""Steps of a record, as by default; step times are means over them."""
TEXT = {"context": 24, "vocab": 1000, "width": 256, "layers": 4, "heads": 4}


@dataclass(frozen=True)
class Case:
    """A run of both sides."""

    name: str
    batch: int
    image: dict[str, int]
    """The tower, by the keys of ``model.image``."""
    planned: int
    """Steps for which there is data: a stream that has made them all rests by itself."""
    steps: int
    """Steps that are taken; where there are fewer than planned, the run is asked to stop there."""
    left_out: int
    """Records before the figures begin: processes start, and the stream fills."""
    wanted: str

    def config(self, folder: Path, name: str) -> RunConfig:
        """The run, with its data and what it writes under ``folder``."""
        tree = {
            "name": f"{self.name}-{name}",
            "storage": str(folder / "runs"),
            "global_batch": self.batch,
            "data": {"train": str(folder / "shards"), "crop_min_scale": 1.0},
            "model": {"embed_dim": 256, "image": self.image, "text": TEXT},
            "optim": {"peak_lr": 1e-4, "schedule": {"kind": "constant", "warmup_steps": 0}},
            "length": {"samples_seen": self.batch * self.planned},
            "checkpoint": {"every_steps": 25, "keep_last": 1},
            "resources": {"workers": WORKERS, "micro_batch": self.batch // WORKERS},
            "log_every_steps": EVERY,
        }
        return validated(RunConfig, apply_overrides(tree, []))


CASES = (
    Case(
        name="whole",
        batch=128,
        image={"size": 64, "patch": 8, "width": 256, "layers": 6, "heads": 4},
        planned=60,
        steps=60,
        left_out=1,
        wanted="<= 1.05",
    ),
    # Small files and large images: a block is quickly made and takes much memory, so that after a few steps the
    # read-ahead reaches its limit and stays there.
    Case(
        name="device_bound",
        batch=32,
        image={"size": 224, "patch": 16, "width": 256, "layers": 6, "heads": 4},
        planned=2_000,
        steps=60,
        left_out=3,
        wanted="<= 1.03",
    ),
)


def samples(count: int) -> list[NewSample]:
    """Coarse patterns of 64 x 64 pixels with captions of some words, the same each time."""
    draw, found = np.random.default_rng(3), []
    words = ["red", "blue", "small", "large", "round", "square", "old", "new", "cat", "dog", "house", "tree"]
    for number in range(count):
        file = io.BytesIO()
        coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(file, format="JPEG", quality=85)
        caption = " ".join(draw.choice(words, draw.integers(4, 12)))
        found.append(NewSample(f"{number:05d}", file.getvalue(), "jpg", caption, {}))
    return found
