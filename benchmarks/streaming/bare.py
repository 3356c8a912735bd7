"""The limit: a loop that only decodes and crops images that lie in memory, a process a core.

    python -m benchmarks.streaming.bare SHARDS pillow|raylens SECONDS

``pillow`` decodes at reduced size (draft mode) and takes crop and size in one `resize`; ``raylens`` calls the function
that the stream calls. Prints a JSON object.
"""

import io
import json
import math
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from raylens.config import SourceConfig
from raylens.data import Source
from raylens.inputs import CropDraw, Preprocess

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

SIZE, BATCH, LEAST = 224, 256, 0.9
Take = Callable[[bytes, CropDraw, NDArray[np.uint8]], object]


def with_pillow(data: bytes, draw: CropDraw, out: NDArray[np.uint8]) -> None:
    image = Image.open(io.BytesIO(data))
    least = math.ceil(SIZE / draw.share(LEAST))
    image.draft("RGB", (least, least))
    box = draw.box(image.width, image.height, LEAST)
    out[:] = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box))


def with_raylens(data: bytes, draw: CropDraw, out: NDArray[np.uint8]) -> None:
    Preprocess(size=SIZE).random_crop(data, draw, min_scale=LEAST, out=out)


def work(images: list[bytes], take: Take, seconds: float, seed: int, start: Barrier, found: "Queue[float]") -> None:
    torch.set_num_threads(1)
    draws, batch = random.Random(seed), np.empty((BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    draws.shuffle(images)
    start.wait()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        take(images[done % len(images)], CropDraw(*(draws.random() for _ in range(3))), batch[done % BATCH])
        done += 1
    found.put(done / (time.perf_counter() - began))


def main() -> None:
    shards, kind, seconds = sys.argv[1:]
    source, infos = Source.open(SourceConfig(uri=shards))
    images = [sample.image for info in infos for sample in source.walk(info) if sample.image]
    cores = os.cpu_count() or 1
    start, found = multiprocessing.Barrier(cores), cast("Queue[float]", multiprocessing.Queue())
    take = {"pillow": with_pillow, "raylens": with_raylens}[kind]
    workers = [
        multiprocessing.Process(target=work, args=(images, take, float(seconds), seed, start, found))
        for seed in range(cores)
    ]
    for worker in workers:
        worker.start()
    rates = [found.get() for _ in workers]
    for worker in workers:
        worker.join()
    print(json.dumps({"images_per_second": sum(rates)}))


if __name__ == "__main__":
    main()
