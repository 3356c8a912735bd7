"""Towers that turn texts and image files into embeddings: preparation on a pool of threads, then the batcher.

Shapes: T tokens, S image size, D embedding.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylens.errors import InputError
from raylens.registry import Encoder
from raylens.serve.config import ServeSettings
from raylens.serve.histograms import Meter
from raylens.serve.messages import Embedded, Failed, ImageFile, Text, Tokens
from raylens.serve.replica.batcher import Batcher, Reservation
from raylens.serve.replica.cache import EmbeddingCache
from raylens.serve.replica.device import Device
from raylens.serve.tracing import request_id

__all__ = ["ImageTower", "TextTower"]

logger = logging.getLogger("ray.serve")

Vector = NDArray[np.float32]
Pixels = NDArray[np.uint8]
TextItem = Text | Tokens


@dataclass(frozen=True)
class _Row:
    ids_T: NDArray[np.int32]
    tokens: int
    truncated: bool


class TextTower:
    """A text tower: it tokenises texts on the pool of threads and embeds them in batches."""

    def __init__(
        self,
        encoder: Encoder,
        device: Device,
        pool: ThreadPoolExecutor,
        settings: ServeSettings,
        meter: Meter | None = None,
    ) -> None:
        self._encoder = encoder
        self._pool = pool
        self._meter = meter or Meter()
        self.batcher: Batcher[_Row, Vector] = Batcher(
            device,
            self._compute,
            max_batch=settings.max_batch,
            capacity=settings.capacity,
            size=lambda row: row.tokens,
            max_wait_s=settings.max_wait_s,
            meter=self._meter,
        )
        self.cache: EmbeddingCache[tuple[TextItem, bool]] = EmbeddingCache(
            self._embed, _key_of_text, settings.cache_bytes
        )

    async def embed(self, texts: Sequence[TextItem], *, bulk: bool = False) -> list[Embedded | Failed]:
        """Embed texts to unit vectors, in order.

        Raises:
            OverloadedError: the batcher has not enough capacity for them.
        """
        return await self.cache.embed([(text, bulk) for text in texts])

    async def _embed(self, items: Sequence[tuple[TextItem, bool]]) -> list[Embedded | Failed]:
        with self.batcher.reserve(len(items)) as reservation:
            texts, began = [text for text, _ in items], time.perf_counter()
            rows = await asyncio.get_running_loop().run_in_executor(self._pool, self._rows, texts)
            self._meter.add("prepare", time.perf_counter() - began)
            good = [row for row in rows if isinstance(row, _Row)]
            outcomes = iter(await reservation.run(good, bulk=items[0][1]))
        return [row if isinstance(row, Failed) else _embedded(row, next(outcomes)) for row in rows]

    def _rows(self, texts: Sequence[TextItem]) -> list[_Row | Failed]:
        tokenizer, context = self._encoder.tokenizer, self._encoder.context
        ids_BT, truncated_B = tokenizer([text.text if isinstance(text, Text) else "" for text in texts], context)
        tokens_B = (ids_BT == tokenizer.end_id).argmax(axis=1) + 1
        return [
            _Row(ids_BT[row], int(tokens_B[row]), bool(truncated_B[row]))
            if isinstance(text, Text)
            else self._row_of_ids(text.ids)
            for row, text in enumerate(texts)
        ]

    def _row_of_ids(self, ids: Sequence[int]) -> _Row | Failed:
        tokenizer, context = self._encoder.tokenizer, self._encoder.context
        marks = (tokenizer.start_id, tokenizer.end_id)
        if ids and ids[0] == marks[0]:
            ids = ids[1:]
        if ids and ids[-1] == marks[1]:
            ids = ids[:-1]
        bad = next((number for number in ids if number in marks or not 0 <= number < tokenizer.vocab_size), None)
        if bad is not None:
            return Failed(
                "invalid_tokens",
                f"token id {bad}: ids must be of the model's own tokenizer, 0 to {tokenizer.vocab_size - 1}; its start "
                f"and end tokens {marks[0]} and {marks[1]} may stand only at the ends",
            )
        row_T = np.zeros(context, dtype=np.int32)
        row_ids = [marks[0], *ids[: context - 2], marks[1]]
        row_T[: len(row_ids)] = row_ids
        return _Row(row_T, len(row_ids), len(ids) > context - 2)

    def _compute(self, rows: list[_Row]) -> list[Vector]:
        return list(self._encoder.encode_ids(np.stack([row.ids_T for row in rows])).numpy())


class ImageTower:
    """An image tower. Each image is queued as soon as it is decoded, so that the device need not wait for all."""

    def __init__(
        self,
        encoder: Encoder,
        device: Device,
        pool: ThreadPoolExecutor,
        settings: ServeSettings,
        meter: Meter | None = None,
    ) -> None:
        self._encoder = encoder
        self._pool = pool
        self._meter = meter or Meter()
        self._max_pixels, self._max_seconds = settings.max_pixels, settings.max_decode_s
        # One request leaves a thread to the others, because all of its images may take the longest time allowed.
        self._threads = max(1, settings.decode_threads - 1)
        self.batcher: Batcher[Pixels, Vector] = Batcher(
            device,
            self._compute,
            max_batch=settings.max_batch,
            capacity=settings.capacity,
            max_wait_s=settings.max_wait_s,
            meter=self._meter,
        )
        self.cache: EmbeddingCache[tuple[ImageFile, bool]] = EmbeddingCache(
            self._embed, _key_of_image, settings.cache_bytes
        )

    async def embed(self, images: Sequence[ImageFile], *, bulk: bool = False) -> list[Embedded | Failed]:
        """Embed image files to unit vectors, in order.

        Raises:
            OverloadedError: the batcher has not enough capacity for them.
        """
        return await self.cache.embed([(image, bulk) for image in images])

    async def _embed(self, items: Sequence[tuple[ImageFile, bool]]) -> list[Embedded | Failed]:
        with self.batcher.reserve(len(items)) as reservation:
            turns = asyncio.Semaphore(self._threads)
            return list(
                await asyncio.gather(*(self._embed_one(image, reservation, turns, bulk) for image, bulk in items))
            )

    async def _embed_one(
        self, image: ImageFile, reservation: Reservation[Pixels, Vector], turns: asyncio.Semaphore, bulk: bool
    ) -> Embedded | Failed:
        began = time.perf_counter()
        async with turns:
            decoded = await asyncio.get_running_loop().run_in_executor(self._pool, self._decode, image.file)
        self._meter.add("prepare", time.perf_counter() - began)
        if isinstance(decoded, Failed):
            return decoded
        [outcome] = await reservation.run([decoded], bulk=bulk)
        return _failed(outcome) if isinstance(outcome, BaseException) else Embedded(outcome.copy())

    def _decode(self, file: bytes) -> Pixels | Failed:
        try:
            return self._encoder.preprocess(file, max_pixels=self._max_pixels, max_seconds=self._max_seconds)
        except InputError as error:
            return Failed("invalid_image", str(error))

    def _compute(self, images: list[Pixels]) -> list[Vector]:
        return list(self._encoder.encode_pixels(np.stack(images)).numpy())


def _embedded(row: _Row, outcome: Vector | BaseException) -> Embedded | Failed:
    if isinstance(outcome, BaseException):
        return _failed(outcome)
    # A copy, because a view would keep the whole batch in memory as long as the cache has the row.
    return Embedded(outcome.copy(), tokens=row.tokens, truncated=row.truncated)


def _key_of_text(item: tuple[TextItem, bool]) -> bytes:
    text = item[0]
    content = b"t" + text.text.encode("utf-8", "surrogatepass") if isinstance(text, Text) else repr(text.ids).encode()
    return hashlib.blake2b(content, digest_size=16).digest()


def _key_of_image(item: tuple[ImageFile, bool]) -> bytes:
    return hashlib.blake2b(item[0].file, digest_size=16).digest()


def _failed(error: BaseException) -> Failed:
    """Return what the caller learns of an internal failure; the log has the exception."""
    logger.error("request %s: a batch failed", request_id(), exc_info=error)
    return Failed("internal_error", "the model failed on this item; the server's log says why")
