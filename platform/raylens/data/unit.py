"""Making a unit: the samples at a span of positions, read, decoded, cropped and tokenised."""

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylens.data.plan import Plan
from raylens.data.quarantine import Quarantined, write_records
from raylens.data.reader import Layout, read_samples
from raylens.errors import InputError, QuarantineError
from raylens.inputs import Preprocess, Tokenizer
from raylens.storage import open_store

__all__ = ["UnitMaker"]

Block = dict[str, NDArray[np.generic]]
DECODE_THREADS = 2  # Pillow releases the interpreter while it decodes and resizes
TRIES = 64


@dataclass(frozen=True)
class UnitMaker:
    """Everything that a task needs to turn positions of the plan into arrays; small, and travels by pickle."""

    plan: Plan
    data_uri: str
    run_uri: str
    preprocess: Preprocess
    tokenizer_json: str
    context: int
    crop_min_scale: float
    max_pixels: int

    def make(self, layout: Layout, start: int, stop: int, rows: int) -> Iterator[Block]:
        """Blocks of up to ``rows`` samples for positions ``start .. stop-1``, in order.

        Columns: ``image`` ``[n, S, S, 3]`` uint8, ``ids`` ``[n, T]`` int32, ``sample`` and ``position`` ``[n]`` int64,
        ``substituted`` ``[n]`` bool.
        """
        positions = np.arange(start, stop)
        samples = self.plan.sample_at(positions)
        raw = {sample: (image, text) for sample, image, text in read_samples(self.data_uri, layout, samples)}
        for at in range(0, len(positions), rows):
            yield self._block(layout, raw, samples[at : at + rows], positions[at : at + rows])

    def _block(
        self,
        layout: Layout,
        raw: dict[int, tuple[bytes, str]],
        samples: NDArray[np.int64],
        positions: NDArray[np.int64],
    ) -> Block:
        tasks = [
            (int(sample), int(position), *raw[int(sample)]) for sample, position in zip(samples, positions, strict=True)
        ]
        made = list(_threads().map(lambda task: self._one(layout, *task), tasks))
        ids_BT, _ = _tokenizer(self.tokenizer_json)([text for _, text, _ in made], self.context)
        bad = [record for _, _, record in made if record is not None]
        write_records(open_store(self.run_uri), bad)
        return {
            "image": np.stack([image for image, _, _ in made]),
            "ids": ids_BT,
            "sample": samples,
            "position": positions,
            "substituted": np.array([record is not None for _, _, record in made]),
        }

    def _one(
        self, layout: Layout, sample: int, position: int, image: bytes, text: str
    ) -> tuple[NDArray[np.uint8], str, Quarantined | None]:
        try:
            return self._pixels(image, sample, position), text, None
        except InputError as error:
            substitute, pixels, caption = self._substitute(layout, sample, position)
            shard = layout.paths[int(layout.columns["shard"][sample])]
            offset = int(layout.columns["image_offset"][sample])
            record = Quarantined(shard, offset, sample, position, str(error), substitute)
            return pixels, caption, record

    def _substitute(self, layout: Layout, sample: int, position: int) -> tuple[int, NDArray[np.uint8], str]:
        """The next sample in manifest order that can be used: the same for every worker and every resume."""
        for step in range(1, TRIES + 1):
            other = (sample + step) % self.plan.samples
            for _, image, text in read_samples(self.data_uri, layout, np.array([other])):
                try:
                    return other, self._pixels(image, other, position), text
                except InputError:
                    continue
        raise QuarantineError(f"{TRIES} samples after sample {sample} in a row cannot be used: check the shards")

    def _pixels(self, image: bytes, sample: int, position: int) -> NDArray[np.uint8]:
        if self.crop_min_scale == 1.0:
            return self.preprocess(image, max_pixels=self.max_pixels)
        epoch = position // self.plan.samples
        # Keyed by what is read, not by who reads it: the crop is the same under any number of workers.
        draw = np.random.Generator(np.random.Philox(key=[(self.plan.seed << 32) + epoch, sample]))
        return self.preprocess.random_crop(image, draw, min_scale=self.crop_min_scale, max_pixels=self.max_pixels)


@functools.lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")


@functools.lru_cache(maxsize=4)
def _tokenizer(text: str) -> Tokenizer:
    return Tokenizer.from_json(text)
