"""Geometry and normalisation: what a decoded image goes through before the image tower."""

import hashlib
import math
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raylens.errors import BundleError
from raylens.inputs.image import DEFAULT_MAX_PIXELS, decode_image

__all__ = ["CLIP_MEAN", "CLIP_STD", "Preprocess"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
Channels = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0.0)]


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

    def __call__(self, data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
        """An image file to ``[size, size, 3]`` uint8.

        Raises:
            InputError: see `decode_image`.
        """
        image = decode_image(data, least=self.size, max_pixels=max_pixels)
        edge = min(image.size)
        left, top = (image.width - edge) / 2, (image.height - edge) / 2
        return self._take(image, (left, top, left + edge, top + edge))

    def random_crop(
        self,
        data: bytes,
        draw: np.random.Generator,
        *,
        min_scale: float,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> NDArray[np.uint8]:
        """An image file to a random square crop, ``[size, size, 3]`` uint8.

        The crop keeps between ``min_scale`` and all of the largest centred square's area and lies anywhere in
        the image (the paper's only augmentation, section 2.4). ``draw`` decides, so equal draws give equal crops.

        Raises:
            InputError: see `decode_image`.
        """
        scale, right, down = draw.random(3)
        share = math.sqrt(min_scale + (1.0 - min_scale) * scale)
        # The crop is chosen first: its pixels, not the whole image's, must stay at or above the size.
        image = decode_image(data, least=math.ceil(self.size / share), max_pixels=max_pixels)
        edge = share * min(image.size)
        left, top = right * (image.width - edge), down * (image.height - edge)
        return self._take(image, (left, top, left + edge, top + edge))

    def _take(self, image: Image.Image, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        # One resampling for crop and resize: the box may lie between pixels, so there is no rounding of margins.
        resized = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        return np.asarray(resized, dtype=np.uint8)
