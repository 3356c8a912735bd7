"""From texts and image files to embeddings: preparation on a pool of threads, then the batcher.

Shapes: T tokens, S image size, D embedding.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raylens.errors import InputError
from raylens.registry import Encoder
from raylens.serve.batcher import Batcher, Places
from raylens.serve.device import Device
from raylens.serve.messages import Embedded, Failed
from raylens.serve.settings import ServeSettings

__all__ = ["ImageTower", "TextTower"]

logger = logging.getLogger("ray.serve")

Vector = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class _Row:
    ids_T: NDArray[np.int32]
    tokens: int


class TextTower:
    """Embeds texts."""

    def __init__(self, encoder: Encoder, device: Device, pool: ThreadPoolExecutor, settings: ServeSettings) -> None:
        self._encoder = encoder
        self._pool = pool
        self._batcher: Batcher[_Row, Vector] = Batcher(
            device,
            self._compute,
            max_batch=settings.max_batch,
            capacity=settings.capacity,
            size=lambda row: row.tokens,
        )

    def reserve(self, count: int) -> AbstractContextManager[Places[_Row, Vector]]:
        """Room for ``count`` texts; see `Batcher.reserve`."""
        return self._batcher.reserve(count)

    async def embed(self, texts: Sequence[str], places: Places[_Row, Vector]) -> list[Embedded | Failed]:
        """Texts to unit vectors, in order."""
        if not texts:
            return []
        loop = asyncio.get_running_loop()
        rows, truncated_B = await loop.run_in_executor(self._pool, self._tokenise, texts)
        outcomes = await places.run(rows)
        return [
            _failed(outcome)
            if isinstance(outcome, BaseException)
            else Embedded(outcome, tokens=row.tokens, truncated=bool(truncated))
            for outcome, row, truncated in zip(outcomes, rows, truncated_B, strict=True)
        ]

    def _tokenise(self, texts: Sequence[str]) -> tuple[list[_Row], NDArray[np.bool_]]:
        tokenizer = self._encoder.tokenizer
        ids_BT, truncated_B = tokenizer(texts, self._encoder.context)
        tokens_B = (ids_BT == tokenizer.end_id).argmax(axis=1) + 1
        return [_Row(ids_T, int(tokens)) for ids_T, tokens in zip(ids_BT, tokens_B, strict=True)], truncated_B

    def _compute(self, rows: list[_Row]) -> list[Vector]:
        return list(self._encoder.encode_ids(np.stack([row.ids_T for row in rows])).numpy())


class ImageTower:
    """Embeds image files. Each image joins the line as soon as it is decoded: the device need not wait for all."""

    def __init__(self, encoder: Encoder, device: Device, pool: ThreadPoolExecutor, settings: ServeSettings) -> None:
        self._encoder = encoder
        self._pool = pool
        self._max_pixels = settings.max_pixels
        self._batcher: Batcher[Pixels, Vector] = Batcher(
            device, self._compute, max_batch=settings.max_batch, capacity=settings.capacity
        )

    def reserve(self, count: int) -> AbstractContextManager[Places[Pixels, Vector]]:
        """Room for ``count`` images; see `Batcher.reserve`."""
        return self._batcher.reserve(count)

    async def embed(self, files: Sequence[bytes], places: Places[Pixels, Vector]) -> list[Embedded | Failed]:
        """Image files to unit vectors, in order."""
        return list(await asyncio.gather(*(self._embed_one(file, places) for file in files)))

    async def _embed_one(self, file: bytes, places: Places[Pixels, Vector]) -> Embedded | Failed:
        decoded = await asyncio.get_running_loop().run_in_executor(self._pool, self._decode, file)
        if isinstance(decoded, Failed):
            return decoded
        [outcome] = await places.run([decoded])
        return _failed(outcome) if isinstance(outcome, BaseException) else Embedded(outcome)

    def _decode(self, file: bytes) -> Pixels | Failed:
        try:
            return self._encoder.preprocess(file, max_pixels=self._max_pixels)
        except InputError as error:
            return Failed("invalid_image", str(error))

    def _compute(self, images: list[Pixels]) -> list[Vector]:
        return list(self._encoder.encode_pixels(np.stack(images)).numpy())


def _failed(error: BaseException) -> Failed:
    """What the user learns of a failure of ours; the log has the rest."""
    logger.error("a batch failed", exc_info=error)
    return Failed("internal_error", "the model failed on this item; the server's log says why")
