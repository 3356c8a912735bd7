"""Images small enough to stand in a page, as data URIs."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from raylens.errors import InputError
from raylens.inputs import decode_image

__all__ = ["Thumbnail", "thumbnail"]


EDGE = 320
"""Twice the pixels of the place it has in the page, for dense screens."""
TINY = 96
"""Edge up to which pixels are shown as squares: smoothing would hide what the model saw."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture for the page; ``uri`` is empty where the file cannot be read."""

    uri: str
    tiny: bool


def thumbnail(data: bytes) -> Thumbnail:
    """A small PNG or JPEG made from the decoded pixels, so that nothing but pixels reaches the page."""
    try:
        image = decode_image(data, least=EDGE)
    except InputError:
        return Thumbnail("", tiny=False)
    tiny = max(image.size) <= TINY
    image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    kind = "PNG" if tiny else "JPEG"
    image.save(buffer, kind, **({} if tiny else {"quality": 85}))
    text = base64.b64encode(buffer.getvalue()).decode()
    return Thumbnail(f"data:image/{kind.lower()};base64,{text}", tiny)
