"""The peer: webdataset 1.0.2 in a torch DataLoader, as OpenCLIP sets it up, with its transforms in Pillow and numpy.

    python -m benchmarks.streaming.webdataset_peer SHARDS TOKENIZER.json WARM WINDOW

Runs in an environment of its own (`make .peers/webdataset`), which has no raylens. torchvision has no CPU build
everywhere, so its transforms are written out: RandomResizedCrop(224, scale=(0.9, 1), bicubic), RGB, ToTensor,
Normalize. The tokenizer is the one that raylens uses, which is faster than OpenCLIP's own. Prints a JSON object.
"""

import json
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset as wds
from PIL import Image
from tokenizers import Tokenizer

from benchmarks.streaming.rate import steady_rate

SIZE, BATCH, WORKERS, CONTEXT = 224, 256, 2, 77
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)
TRIES = 10


def crop_box(width: int, height: int) -> tuple[int, int, int, int]:
    """As RandomResizedCrop chooses it: an area of 0.9 to 1, an aspect of 3/4 to 4/3, else the centre."""
    for _ in range(TRIES):
        area = width * height * random.uniform(0.9, 1.0)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < 3 / 4:
        h = round(width / (3 / 4))
    elif width / height > 4 / 3:
        w = round(height * (4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def transform(image: Image.Image) -> torch.Tensor:
    """A decoded image to a normalised ``[3, S, S]`` float tensor."""
    image = image.crop(crop_box(*image.size)).resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    return pixels.sub_(MEAN).div_(STD)


class Tokenize:
    """A caption to ``[T]`` ids; travels to the loader's processes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._tokenizer: Tokenizer | None = None

    def __call__(self, text: str) -> torch.Tensor:
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_file(self.path)
            self._tokenizer.no_padding()
        ids = self._tokenizer.encode(text).ids[:CONTEXT]
        result = torch.zeros(CONTEXT, dtype=torch.int64)
        result[: len(ids)] = torch.tensor(ids)
        return result


def sizes(shards: Path, tokenizer: str) -> Iterator[int]:
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    data = wds.DataPipeline(
        wds.ResampledShards(urls, deterministic=True),
        wds.tarfile_to_samples(),
        wds.shuffle(bufsize=5000, initial=1000),
        wds.decode("pilrgb"),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=transform, text=Tokenize(tokenizer)),
        wds.to_tuple("image", "text"),
        wds.batched(BATCH, partial=False),
    )
    loader = wds.WebLoader(data, batch_size=None, shuffle=False, num_workers=WORKERS, persistent_workers=True)
    for images, _ in loader:
        yield len(images)


def main() -> None:
    shards, tokenizer, warm, window = sys.argv[1:]
    began = time.monotonic()
    print(json.dumps(steady_rate(sizes(Path(shards), tokenizer), began, float(warm), float(window))))


if __name__ == "__main__":
    main()
