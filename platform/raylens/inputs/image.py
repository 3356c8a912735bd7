"""Decoding: bytes of an image file to pixels, within limits that are checked before any pixel exists."""

import io
import struct
import warnings
from zlib import error as zlib_error

from PIL import Image, UnidentifiedImageError

from raylens.errors import InputError

__all__ = ["DEFAULT_MAX_PIXELS", "FORMATS", "decode_image", "image_size"]

# Named, because Pillow knows some forty formats and several of its rarer decoders have a poor record.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
DEFAULT_MAX_PIXELS = 89_478_485
"""A quarter of a gibibyte of RGB, the size from which Pillow itself warns. From twice that on it refuses."""

# Pillow warns of metadata that we do not read, and of sizes that we check. The filter is set once and for the whole
# process: warnings.catch_warnings is not safe in threads, and images are decoded in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_image(data: bytes, *, least: int = 0, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Decode an image file to RGB.

    Args:
        data: the file's bytes: JPEG, PNG, WebP, GIF (first frame) or BMP.
        least: pixels that the shorter edge must keep. A JPEG at least twice as large is decoded at a half,
            a quarter or an eighth, which is several times faster; 0 always decodes at full size.
        max_pixels: refuse an image that declares more, before memory is spent on it.

    Raises:
        InputError: not an image, of another format, truncated, corrupt or too large.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f"image of {width} x {height} pixels is over the limit of {max_pixels} pixels: "
                "scale it down or raise max_pixels"
            )
        # MPO is what Pillow calls a JPEG with further pictures behind it, as many phones write.
        if least and image.format in ("JPEG", "MPO"):
            # draft() keeps both edges at or above what is asked, so it never costs sharpness.
            image.draft("RGB", (least, least))
        return _to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"image is over the limit of {max_pixels} pixels: scale it down ({error})") from None
    except UnidentifiedImageError:
        raise InputError(f"not an image of a known format ({', '.join(FORMATS)}); {len(data)} bytes") from None
    except (OSError, SyntaxError, ValueError, struct.error, zlib_error) as error:
        raise InputError(f"corrupt or truncated image ({error}); {len(data)} bytes") from None


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height that the header of an image file declares; no pixel is decoded.

    Raises:
        InputError: not an image of a format that `decode_image` takes.
    """
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS).size
    except (OSError, SyntaxError, ValueError, struct.error, zlib_error, Image.DecompressionBombError) as error:
        raise InputError(f"not an image of a known format ({', '.join(FORMATS)}): {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB before any geometry: resampling palette indices would mix unrelated colours."""
    if image.mode in ("I;16", "I", "F"):
        raise InputError(f"image mode {image.mode} (more than 8 bits a channel) is not supported: convert it to 8 bits")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        # A transparent pixel's colour is arbitrary; white is what a viewer shows behind it.
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")
