"""Geometry and normalisation: what a decoded image goes through before the image tower."""

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
    """Three draws from [0, 1) that decide a random square crop."""

    scale: float
    right: float
    down: float

    def share(self, min_scale: float) -> float:
        """The crop's edge as a share of the image's shorter edge; its area is ``min_scale`` of the largest at least."""
        return math.sqrt(min_scale + (1.0 - min_scale) * self.scale)

    def box(self, width: float, height: float, min_scale: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the crop in an image of this size; it may lie anywhere in the image."""
        edge = self.share(min_scale) * min(width, height)
        left, top = self.right * (width - edge), self.down * (height - edge)
        return left, top, left + edge, top + edge

    def pixels(self, width: int, height: int, min_scale: float) -> Box:
        """The same on whole pixels: as near as can be, square, and within the image."""
        left, top, right, _ = self.box(width, height, min_scale)
        edge = max(1, round(right - left))
        left, top = min(round(left), width - edge), min(round(top), height - edge)
        return left, top, left + edge, top + edge


class Preprocess(BaseModel):
    """Bicubic resize of the shorter edge, centre crop, RGB; normalisation is left to the device.

    Travels with the weights as ``preprocess.json``, so that an encoder is served with what it was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: Annotated[int, Field(gt=0)]
    """Height and width of the result in pixels."""
    mean: Channels = CLIP_MEAN
    std: tuple[Positive, Positive, Positive] = CLIP_STD
    resample: Literal["bicubic"] = "bicubic"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read ``preprocess.json``.

        Raises:
            BundleError: it is not what `to_json` writes.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise BundleError(f"preprocess.json cannot be read: {error}") from None

    def to_json(self) -> str:
        """The text of ``preprocess.json``."""
        return self.model_dump_json(indent=2) + "\n"

    def identity(self) -> str:
        """A hash of everything that changes the pixels that the tower sees."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __call__(
        self, data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, max_seconds: float | None = None
    ) -> NDArray[np.uint8]:
        """An image file to ``[size, size, 3]`` uint8.

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
        """An image file to a random square crop, ``[size, size, 3]`` uint8 (the paper's only augmentation, 2.4).

        Its edges are rounded to whole pixels of the image as it was decoded. It goes to ``out`` if that is given.

        Raises:
            InputError: see `decode_image`.
        """
        # The crop is chosen first: its pixels, not the whole image's, must stay at or above the size.
        image = decode_image(data, least=math.ceil(self.size / draw.share(min_scale)), max_pixels=max_pixels)
        pixels = np.empty((self.size, self.size, 3), dtype=np.uint8) if out is None else out
        resample(image, draw.pixels(image.width, image.height, min_scale), pixels)
        return pixels

    def _take(self, image: Image.Image, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        # One resampling for crop and resize: the box may lie between pixels, so there is no rounding of margins.
        resized = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        return np.asarray(resized, dtype=np.uint8)


def resample(image: Image.Image, box: Box, out: NDArray[np.uint8]) -> None:
    """Scale a part of an image to the size of ``out``, bicubic and with antialiasing.

    torch's kernel for bytes was made after Pillow's and uses the processor's vector instructions. It differs from
    ``image.crop(box).resize(...)`` by 2 of 255 at most, where Pillow rounds between its two passes.

    Args:
        image: RGB.
        box: left, top, right and bottom, in pixels, within the image.
        out: ``[H, W, 3]`` uint8, which is filled.
    """
    import torch  # only where images are resampled: whoever knows the geometry alone starts without it

    left, top, right, bottom = box
    # Held as bytes that may be written to, because torch warns of those that may not.
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    part = pixels[top:bottom, left:right].permute(2, 0, 1)[None]
    # interpolate() has no `out`, and its result would have to be put into order once more.
    torch.ops.aten._upsample_bicubic2d_aa.out(
        part, out.shape[:2], False, None, None, out=torch.from_numpy(out)[None].permute(0, 3, 1, 2)
    )
