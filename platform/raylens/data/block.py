"""Making a block: the samples at a span of positions are read, decoded, cropped and tokenised."""

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raylens.data.bijection import Ints, uniforms
from raylens.data.formats import Pair
from raylens.data.plan import Draws, Plan
from raylens.data.quarantine import Quarantined, write_records
from raylens.data.reader import Request, SampleReader, open_reader
from raylens.errors import InputError, QuarantineError
from raylens.inputs import Preprocess, Tokenizer
from raylens.storage import open_store

__all__ = ["BlockMaker"]

Block = dict[str, NDArray[np.generic]]
Pixels = NDArray[np.uint8]
DECODE_THREADS = 2  # Pillow releases the GIL while it decodes and resizes
READ_THREADS = 8  # a request to a store takes tens of milliseconds, most of it waiting
TRIES = 64


@dataclass(frozen=True)
class _Slot:
    """A position with its sample and random choices."""

    source: int
    epoch: int
    sample: int
    position: int
    draws: Draws


@dataclass(frozen=True)
class BlockMaker:
    """Turns positions of the plan into arrays; it is small, and is pickled into every task."""

    plan: Plan
    homes: tuple[str, ...]
    """URI of the manifest of each data set of the plan."""
    run_uri: str
    preprocess: Preprocess
    tokenizer_json: str
    context: int
    crop_min_scale: float
    max_pixels: int
    check_hashes: bool = False

    def make(self, start: int, stop: int) -> Block:
        """Return the samples at positions ``start .. stop-1``, in order, as columns.

        Columns: ``image`` ``[n, S, S, 3]`` uint8, ``ids`` ``[n, T]`` int32, ``sample`` (counted over all data sets),
        ``epoch`` and ``position`` ``[n]`` int64, ``substituted`` and ``truncated`` ``[n]`` bool; and, to show what
        limits the stream, ``read_seconds`` and ``decode_seconds`` ``[n]`` float64 (a task's time divided by its
        samples) and ``made_at`` ``[n]`` float64 (seconds since the epoch).
        """
        slots = self._slots(np.arange(start, stop))
        began = time.perf_counter()
        raw = self._read(slots)
        return self._block(raw, slots, (time.perf_counter() - began) / len(slots))

    def _slots(self, positions: Ints) -> list[_Slot]:
        located = self.plan.locate(positions)
        values = uniforms(self.plan.draw_keys(located), 4)
        columns = (located.source, located.epoch, located.sample, positions)
        return [
            _Slot(source, epoch, sample, position, Draws.of(draws))
            for source, epoch, sample, position, draws in zip(*(c.tolist() for c in columns), values, strict=True)
        ]

    def _read(self, slots: list[_Slot]) -> dict[tuple[int, int], Pair]:
        """Read the samples of a block, each once, with several requests at a time."""
        tasks: list[tuple[int, SampleReader, Request]] = []
        for number, home in enumerate(self.homes):
            samples = np.unique(np.array([slot.sample for slot in slots if slot.source == number], dtype=np.int64))
            if len(samples):
                reader = open_reader(home)
                tasks += [(number, reader, request) for request in reader.requests(samples)]
        pairs_by_sample: dict[tuple[int, int], Pair] = {}
        for number, pairs in _readers().map(self._answer, tasks):
            pairs_by_sample.update({(number, sample): pair for sample, pair in pairs})
        return pairs_by_sample

    def _answer(self, task: tuple[int, SampleReader, Request]) -> tuple[int, list[tuple[int, Pair]]]:
        number, reader, request = task
        return number, list(reader.read(request, check_hashes=self.check_hashes))

    def _block(self, raw: dict[tuple[int, int], Pair], slots: list[_Slot], reading: float) -> Block:
        began = time.perf_counter()
        image = np.empty((len(slots), self.preprocess.size, self.preprocess.size, 3), dtype=np.uint8)

        def fill(numbers: range) -> list[tuple[str, Quarantined | None]]:
            return [self._fill(slots[number], raw, image[number]) for number in numbers]

        each = -(-len(slots) // DECODE_THREADS)
        stripes = [range(first, min(first + each, len(slots))) for first in range(0, len(slots), each)]
        made = [filled for stripe in _decoders().map(fill, stripes) for filled in stripe]
        ids_BT, truncated_B = _tokenizer(self.tokenizer_json)([text for text, _ in made], self.context)
        self._write_down([record for _, record in made if record is not None])
        columns = {name: np.array([getattr(slot, name) for slot in slots]) for name in ("epoch", "position")}
        offsets = self.plan.offsets
        return {
            "image": image,
            "ids": ids_BT,
            "sample": np.array([offsets[slot.source] + slot.sample for slot in slots], dtype=np.int64),
            **columns,
            "substituted": np.array([record is not None for _, record in made]),
            "truncated": truncated_B,
            "read_seconds": np.full(len(slots), reading),
            "decode_seconds": np.full(len(slots), (time.perf_counter() - began) / len(slots)),
            "made_at": np.full(len(slots), time.time()),
        }

    def _write_down(self, bad: list[Quarantined]) -> None:
        """Write quarantine records; keys are looked up together, since each look-up reads a part of the manifest."""
        for number in {record.source for record in bad}:
            records = [record for record in bad if record.source == number]
            keys = open_reader(self.homes[number]).keys([record.sample for record in records])
            named = [replace(record, key=key) for record, key in zip(records, keys, strict=True)]
            write_records(open_store(self.run_uri), named)

    def _fill(self, slot: _Slot, raw: dict[tuple[int, int], Pair], out: Pixels) -> tuple[str, Quarantined | None]:
        """Write a sample's pixels into ``out``: copying them together later would take a tenth of the decoding time."""
        pair = raw[slot.source, slot.sample]
        try:
            self._pixels(pair.image, slot.draws, out)
        except InputError as error:
            substitute, caption = self._substitute(slot, out)
            reader = open_reader(self.homes[slot.source])
            record = Quarantined(
                shard=reader.shard_path(slot.sample),
                offset=int(reader.index["offset"][slot.sample]),
                key="",
                source=slot.source,
                sample=slot.sample,
                position=slot.position,
                reason=str(error),
                substitute=substitute,
            )
            return caption, record
        return pair.captions[slot.draws.choose(len(pair.captions))], None

    def _substitute(self, slot: _Slot, out: Pixels) -> tuple[int, str]:
        """Use the next usable sample in manifest order: the same one for every worker and every resume."""
        reader, samples = open_reader(self.homes[slot.source]), self.plan.orders[slot.source].samples
        reason: InputError | None = None
        for step in range(1, TRIES + 1):
            other = (slot.sample + step) % samples
            (request,) = reader.requests(np.array([other]))
            for _, pair in reader.read(request):
                try:
                    self._pixels(pair.image, slot.draws, out)
                except InputError as error:
                    reason = error
                    continue
                return other, pair.captions[slot.draws.choose(len(pair.captions))]
        raise QuarantineError(
            f"{TRIES} samples in a row cannot be used, from sample {slot.sample} of {reader.source.config_uri} on, in "
            f"{reader.shard_path(slot.sample)}; the last: {reason}. Repair or remove these shards"
        )

    def _pixels(self, image: bytes, draws: Draws, out: Pixels) -> None:
        if self.crop_min_scale == 1.0:
            out[:] = self.preprocess(image, max_pixels=self.max_pixels)
        else:
            least, most = self.crop_min_scale, self.max_pixels
            self.preprocess.random_crop(image, draws.crop, min_scale=least, max_pixels=most, out=out)


@functools.lru_cache(maxsize=1)
def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode", initializer=_load_torch)


def _load_torch() -> None:
    """Import torch in a thread of the pool, where nothing interrupts it.

    Ray cancels a task by an interrupt in the main thread. An interrupt during the import of torch leaves the module
    half initialised, and every later task of that process, of other streams too, fails to import it.
    """
    import torch

    # One thread for each kernel: one that uses all cores would take them from other tasks.
    torch.set_num_threads(1)


@functools.lru_cache(maxsize=1)
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")


@functools.lru_cache(maxsize=4)
def _tokenizer(text: str) -> Tokenizer:
    return Tokenizer.from_json(text)
