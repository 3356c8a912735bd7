"""Geometry and normalisation: the processing of a decoded image before the image tower."""

import hashlib
import math
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raylens.errors import BundleError
from raylens.inputs.image import DEFAULT_MAX_PIXELS, decode_image

__all__ = ["CLIP_MEAN", "CLIP_STD", "CropDraw", "Preprocess", "resample"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
Channels = tuple[float, float, float]
Box = tuple[int, int, int, int]
Positive = Annotated[float, Field(gt=0.0)]


class CropDraw(NamedTuple):
    """Three draws from [0, 1) that determine a random square crop."""

    scale: float
    right: float
    down: float

    def share(self, min_scale: float) -> float:
        """Return the crop's edge as a share of the shorter edge; its area is at least ``min_scale`` of the largest."""
        return math.sqrt(min_scale + (1.0 - min_scale) * self.scale)

    def box(self, width: float, height: float, min_scale: float) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of the crop, which may lie anywhere in an image of this size."""
        edge = self.share(min_scale) * min(width, height)
        left, top = self.right * (width - edge), self.down * (height - edge)
        return left, top, left + edge, top + edge

    def pixels(self, width: int, height: int, min_scale: float) -> Box:
        """Return the crop rounded to whole pixels: square, and within the image."""
        left, top, right, _ = self.box(width, height, min_scale)
        edge = max(1, round(right - left))
        left, top = min(round(left), width - edge), min(round(top), height - edge)
        return left, top, left + edge, top + edge


class Preprocess(BaseModel):
    """Bicubic resize of the shorter edge, centre crop, RGB; normalisation is left to the device.

    It is saved beside the weights as ``preprocess.json``, so that an encoder is served with what it was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: Annotated[int, Field(gt=0)]
    """Height and width of the result in pixels."""
    mean: Channels = CLIP_MEAN
    std: tuple[Positive, Positive, Positive] = CLIP_STD
    resample: Literal["bicubic"] = "bicubic"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read the text of ``preprocess.json``.

        Raises:
            BundleError: the text is not what `to_json` writes.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise BundleError(f"preprocess.json cannot be read: {error}") from None

    def to_json(self) -> str:
        """Return the settings as the text of ``preprocess.json``."""
        return self.model_dump_json(indent=2) + "\n"

    def identity(self) -> str:
        """Return a hash of everything that changes the pixels that the tower sees."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __call__(
        self, data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, max_seconds: float | None = None
    ) -> NDArray[np.uint8]:
        """Decode and preprocess an image file to ``[size, size, 3]`` uint8.

        Raises:
            InputError: see `decode_image`.
        """
        image = decode_image(data, least=self.size, max_pixels=max_pixels, max_seconds=max_seconds)
        edge = min(image.size)
        left, top = (image.width - edge) / 2, (image.height - edge) / 2
        return self._take(image, (left, top, left + edge, top + edge))

    def random_crop(
        self,
        data: bytes,
        draw: CropDraw,
        *,
        min_scale: float,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Decode an image file to a random square crop, ``[size, size, 3]`` uint8.

        This is the paper's only augmentation (section 2.4). The crop's edges are rounded to whole pixels of the
        decoded image. The result is written to ``out`` if that is not None.

        Raises:
            InputError: see `decode_image`.
        """
        # The crop is chosen first: the crop, not the whole image, must keep at least `size` pixels along an edge.
        image = decode_image(data, least=math.ceil(self.size / draw.share(min_scale)), max_pixels=max_pixels)
        pixels = np.empty((self.size, self.size, 3), dtype=np.uint8) if out is None else out
        resample(image, draw.pixels(image.width, image.height, min_scale), pixels)
        return pixels

    def _take(self, image: Image.Image, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        # Crop and resize are one resampling: the box may lie between pixels, so margins are not rounded.
        resized = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        return np.asarray(resized, dtype=np.uint8)


def resample(image: Image.Image, box: Box, out: NDArray[np.uint8]) -> None:
    """Scale a part of an image to the size of ``out``, bicubically and with antialiasing.

    torch's kernel for bytes follows Pillow's and uses the processor's vector instructions. It differs from
    ``image.crop(box).resize(...)`` by at most 2 of 255, where Pillow rounds between its two passes.

    Args:
        image: the image, in RGB.
        box: left, top, right and bottom, in pixels, within the image.
        out: the result, ``[H, W, 3]`` uint8, which is overwritten.
    """
    import torch  # imported only where images are resampled: processes that need the geometry alone start without it

    left, top, right, bottom = box
    # Writable bytes, because torch warns of read-only ones.
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    part = pixels[top:bottom, left:right].permute(2, 0, 1)[None]
    # interpolate() has no `out`, and its result would have to be reordered once more.
    torch.ops.aten._upsample_bicubic2d_aa.out(
        part, out.shape[:2], False, None, None, out=torch.from_numpy(out)[None].permute(0, 3, 1, 2)
    )
