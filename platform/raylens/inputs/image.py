"""Decoding of image files to pixels, within limits that are checked before any pixel exists."""

import io
import re
import struct
import time
import warnings
from zlib import error as zlib_error

from PIL import Image, UnidentifiedImageError

from raylens.errors import InputError

__all__ = ["DEFAULT_MAX_PIXELS", "FORMATS", "decode_image", "image_size"]

# An explicit list, because Pillow knows some forty formats, and several of its rarer decoders have a poor record.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
DEFAULT_MAX_PIXELS = 89_478_485
"""A quarter of a gibibyte of RGB, above which Pillow itself warns; it refuses images of more than twice the size."""

MAX_SCANS = 32
"""The most scans of a progressive JPEG. Each scan passes over the whole image; encoders write about ten."""
MAX_SEGMENTS = 10_000
START_OF_SCAN = b"\xff\xda"
# In entropy-coded data 0xFF is followed by zero or by a restart marker; anything else ends a scan.
MARK = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])", re.DOTALL)
CHUNK = 16 * 2**10
"""The bytes that are decoded between two checks of the time limit."""

# Pillow warns of metadata that we do not read, and of sizes that we check. The filter is set once for the whole
# process: warnings.catch_warnings is not safe in threads, and images are decoded in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(
    data: bytes, *, least: int = 0, max_pixels: int = DEFAULT_MAX_PIXELS, max_seconds: float | None = None
) -> Image.Image:
    """Decode an image file to RGB.

    Args:
        data: the file's bytes: JPEG, PNG, WebP, GIF (first frame) or BMP.
        least: the pixels that the shorter edge must keep. A JPEG at least twice as large is decoded at a half,
            a quarter or an eighth of its size, which is several times faster; 0 always decodes at full size.
        max_pixels: the most pixels; an image that declares more is refused before memory is allocated for it.
        max_seconds: the most processor time of this thread, in seconds. WebP is decoded in one piece, and only its
            pixels are limited.

    Raises:
        InputError: the data is not an image of these formats, or is truncated, corrupt, too large, or too slow.
    """
    try:
        image = Image.open(io.BytesIO(data) if max_seconds is None else _Timed(data, max_seconds), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f"image of {width} x {height} pixels is over the limit of {max_pixels} pixels: "
                "scale it down or raise max_pixels"
            )
        if max_seconds is not None:
            image.decodermaxblock = CHUNK
        # MPO is Pillow's name for a JPEG followed by further pictures, as many phones write it.
        if image.format in ("JPEG", "MPO"):
            _check_scans(data)
        if least and image.format in ("JPEG", "MPO"):
            # draft() keeps both edges at or above the requested size, so it never costs sharpness.
            image.draft("RGB", (least, least))
        return _to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"image is over the limit of {max_pixels} pixels: scale it down ({error})") from None
    except UnidentifiedImageError:
        raise InputError(f"not an image of a known format ({', '.join(FORMATS)}); {len(data)} bytes") from None
    except (OSError, SyntaxError, ValueError, struct.error, zlib_error) as error:
        raise InputError(f"corrupt or truncated image ({error}); {len(data)} bytes") from None


def image_size(data: bytes) -> tuple[int, int]:
    """Return the width and height that the header of an image file declares; no pixel is decoded.

    Raises:
        InputError: the data is not an image of a format that `decode_image` takes.
    """
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS).size
    except (OSError, SyntaxError, ValueError, struct.error, zlib_error, Image.DecompressionBombError) as error:
        raise InputError(f"not an image of a known format ({', '.join(FORMATS)}): {error}") from None


class _Timed(io.BytesIO):
    """A file whose reads fail after a time limit; a thread cannot be stopped from outside.

    Only the thread's own processor time counts, so that a busy machine or a slow store makes no image fail.
    """

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self._seconds, self._until = seconds, time.thread_time() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._until:
            raise InputError(
                f"image takes more than {self._seconds:g} s to decode: save it as a baseline JPEG or a PNG"
            )
        return super().read(size)


def _check_scans(data: bytes) -> None:
    """Refuse a JPEG of too many scans or segments: 199 kB with a hundred scans took 2.7 s to decode.

    Raises:
        InputError: the JPEG has too many.
    """
    if data.count(START_OF_SCAN) <= MAX_SCANS:  # An upper bound: previews and videos inside the file have segments too.
        return
    at, scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        mark = MARK.search(data, at)
        if mark is None or mark[1] == b"\xd9":
            return
        scans += mark[0] == START_OF_SCAN
        if scans > MAX_SCANS:
            raise InputError(f"JPEG of more than {MAX_SCANS} scans: save it as a baseline JPEG")
        at = mark.end() + int.from_bytes(data[mark.end() : mark.end() + 2], "big")
    raise InputError(f"JPEG of more than {MAX_SEGMENTS} segments: save it again")


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB before any geometry, because resampling palette indices would mix unrelated colours."""
    if image.mode in ("I;16", "I", "F"):
        raise InputError(f"image mode {image.mode} (more than 8 bits a channel) is not supported: convert it to 8 bits")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        # A transparent pixel's colour is arbitrary; viewers show it on white.
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")
