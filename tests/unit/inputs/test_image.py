"""Decoding and geometry: real files of every format and mode, damaged files, and crops against another computation."""

import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from raylens.errors import BundleError, InputError
from raylens.inputs import CropDraw, Preprocess, decode_image
from raylens.inputs.image import DEFAULT_MAX_PIXELS, FORMATS
from raylens.inputs.preprocess import resample

Pixels = NDArray[np.uint8]


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Pixels without any order: every shift of a crop shows."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng([seed, width, height, channels]).integers(0, 256, shape, dtype=np.uint8)


def smooth(width: int, height: int) -> Pixels:
    """A picture that JPEG keeps almost as it is, different everywhere."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(5 * x + 2 * y), np.cos(4 * y - x), np.sin(3 * x * y + 1)]
    return np.stack([127.5 + 110 * wave for wave in waves], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def decoded(data: bytes) -> Pixels:
    return np.asarray(decode_image(data))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(colour: int, channels: int, transparent: bytes = b"") -> bytes:
    """A 2 x 2 PNG of 16 bits a channel, all of them 40,000."""
    rows = b"".join(b"\0" + np.full(2 * channels, 40_000, ">u2").tobytes() for _ in range(2))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, colour, 0, 0, 0))
    extra = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def over_white(rgba: Pixels) -> NDArray[np.float64]:
    """What a viewer shows: the colour's share by its opacity, white for the rest."""
    alpha = rgba[..., 3:].astype(np.float64) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_the_pixels_back(kind: str, options: dict[str, Any]) -> None:
    pixels = noise(13, 7)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(pixels), kind, **options)), pixels)


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})])
def test_lossy_formats_come_close(kind: str, options: dict[str, Any]) -> None:
    pixels = smooth(64, 48)
    found = decoded(encoded(Image.fromarray(pixels), kind, **options))
    assert np.abs(found.astype(int) - pixels).max() <= 12


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_grey_is_three_equal_channels(kind: str) -> None:
    grey = noise(9, 5, 1)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(grey), kind)), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_one_bit_is_black_and_white(kind: str) -> None:
    bits = noise(9, 5, 1) > 127
    expected = np.repeat(bits[..., None], 3, axis=-1) * 255
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(bits), kind)), expected)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_a_palette_is_looked_up_before_anything_else(kind: str) -> None:
    indices, palette = noise(9, 5, 1), noise(256, 1)[0]
    image = Image.frombytes("P", (9, 5), indices.tobytes())
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(decoded(encoded(image, kind)), palette[indices])


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_transparency_shows_white(kind: str, options: dict[str, Any]) -> None:
    rgba = noise(11, 6, 4)
    found = decoded(encoded(Image.fromarray(rgba), kind, **options))
    assert np.abs(found - over_white(rgba)).max() <= 1


def test_grey_with_transparency_shows_white() -> None:
    la = noise(11, 6, 2)
    rgba = np.concatenate([la[..., :1]] * 3 + [la[..., 1:]], axis=-1)
    assert np.abs(decoded(encoded(Image.fromarray(la), "PNG")) - over_white(rgba)).max() <= 1


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_shows_white(mode: str) -> None:
    """PNG's tRNS names one colour, or one palette entry, that is not painted: in every mode alike."""
    image = Image.new("RGB", (4, 1), (0, 0, 0))
    image.putpixel((1, 0), (255, 255, 255))
    image.putpixel((2, 0), (90, 90, 90))
    image = image.quantize(8) if mode == "P" else image.convert(mode, dither=Image.Dither.NONE)
    key = (0, 0, 0) if mode == "RGB" else image.getpixel((0, 0))
    found = decoded(encoded(image, "PNG", transparency=key))
    assert found[0, 0].tolist() == found[0, 3].tolist() == [255, 255, 255]
    assert found[0, 2].tolist() == ([255, 255, 255] if mode == "1" else [90, 90, 90])


def test_cmyk_jpeg() -> None:
    pixels = smooth(48, 32)
    found = decoded(encoded(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(found.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("transparent", [b"", b"\x9c\x40"], ids=["plain", "transparent"])
def test_sixteen_bit_grey_is_refused(transparent: bytes) -> None:
    with pytest.raises(InputError, match=r"image mode I;16 \(more than 8 bits a channel\) is not supported: convert"):
        decode_image(deep_png(0, 1, transparent))


def test_sixteen_bit_colour_keeps_its_upper_byte() -> None:
    np.testing.assert_array_equal(decoded(deep_png(2, 3)), np.full((2, 2, 3), 40_000 // 256))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_stands_for_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    found = decoded(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(found.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("data", [b"", b"\0", b"GIF89a", b"\xff\xd8\xff", b"not an image" * 50, b"<svg/>"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=rf"{len(data)} bytes"):
        decode_image(data)


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "TGA"])
def test_other_formats_are_refused_with_those_there_are(kind: str) -> None:
    with pytest.raises(InputError, match=r"known format \(JPEG, PNG, WEBP, GIF, BMP\)"):
        decode_image(encoded(Image.fromarray(noise(16, 16)), kind))


WHOLE = [
    *(encoded(Image.fromarray(noise(17, 12)), kind) for kind in FORMATS),
    encoded(Image.fromarray(noise(17, 12)), "JPEG", progressive=True),
    encoded(Image.fromarray(noise(17, 12)).convert("CMYK"), "JPEG"),
    encoded(Image.fromarray(noise(17, 12, 4)), "WEBP", lossless=True),
    encoded(Image.fromarray(noise(17, 12)).quantize(16), "PNG", transparency=3),
    encoded(Image.fromarray(noise(9, 9)), "GIF", save_all=True, append_images=[Image.fromarray(noise(9, 9, seed=1))]),
]


@pytest.mark.parametrize("data", WHOLE[:5], ids=FORMATS)
def test_half_a_file_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        decode_image(data[: len(data) // 2])


def usable_or_refused(data: bytes) -> None:
    for least in (0, 3):
        try:
            image = decode_image(data, least=least, max_pixels=100_000)
        except InputError:
            continue
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= 100_000
        assert np.asarray(image).shape == (image.height, image.width, 3)


quiet = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\..*")
MAGIC = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x40\0\0\0WEBPVP8 ", b"BM"]


@quiet
@given(st.sampled_from(MAGIC), st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(magic: bytes, rest: bytes) -> None:
    usable_or_refused(magic + rest)


EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["set", "cut", "drop", "add"]),
        st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@quiet
@given(st.sampled_from(WHOLE), EDITS, st.sampled_from([0.1, 1.0]))
def test_damaged_files_decode_or_are_refused(data: bytes, edits: list[tuple[float, str, bytes]], reach: float) -> None:
    damaged = bytearray(data)
    for share, edit, new in edits:
        at = int(share * reach * len(damaged))  # a reach of 0.1 meets headers, where the trouble is
        if edit == "set":
            damaged[at : at + len(new)] = new
        elif edit == "add":
            damaged[at:at] = new
        elif edit == "drop":
            del damaged[at : at + len(new)]
        else:
            del damaged[at + 1 :]
    usable_or_refused(bytes(damaged))


def declaring(width: int, height: int) -> dict[str, bytes]:
    """Files of a few hundred bytes that claim to be of this size."""
    small = Image.new("RGB", (16, 16), (9, 8, 7))
    jpeg, bmp, gif = (bytearray(encoded(small, kind)) for kind in ("JPEG", "BMP", "GIF"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", height, width)
    bmp[18:26] = struct.pack("<ii", width, height)
    frame = bytearray(gif)  # a screen of 16 x 16 and a first frame that is larger
    gif[6:10] = struct.pack("<HH", width, height)
    at = frame.index(b",\0\0\0\0\x10\0\x10\0")
    frame[at + 5 : at + 9] = struct.pack("<HH", width, height)
    webp = bytearray(encoded(small, "WEBP"))
    at = webp.index(b"VP8 ")
    webp[at + 14 : at + 18] = struct.pack("<HH", min(width, 16_383), min(height, 16_383))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(10**6)))
    png = b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")
    files = {"png": png, "jpeg": jpeg, "bmp": bmp, "gif": gif, "gif-frame": frame, "webp": webp}
    return {name: bytes(data) for name, data in files.items()}


# 144 million pixels are over our limit and under Pillow's own; 3.6 thousand million are over both.
BOMBS = {(name, edge): data for edge in (12_000, 60_000) for name, data in declaring(edge, edge).items()}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: f"{bomb[0]}-{bomb[1]}")
def test_a_size_over_the_limit_is_refused(bomb: tuple[str, int]) -> None:
    with pytest.raises(InputError, match=rf"over the limit of {DEFAULT_MAX_PIXELS} pixels: scale it down"):
        decode_image(BOMBS[bomb])


def test_a_size_over_the_limit_is_refused_where_warnings_are_errors() -> None:
    with pytest.raises(InputError, match="over the limit"):
        decode_image(BOMBS["png", 12_000])


PEAK = """
import pathlib, sys
from raylens.errors import InputError
from raylens.inputs import decode_image
def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        decode_image(path.read_bytes())
    except InputError:
        continue
    raise SystemExit(f"{path.name} was decoded")
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_a_refused_size_costs_no_memory(tmp_path: Path) -> None:
    for (name, edge), data in BOMBS.items():
        (tmp_path / f"{name}-{edge}").write_bytes(data)
    run = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 32 * 1024  # KiB; the smallest of these pictures takes 422 MiB
    assert run.stderr == ""


def test_the_limit_is_the_callers() -> None:
    data = encoded(Image.fromarray(noise(20, 10)), "PNG")
    assert decode_image(data, max_pixels=200).size == (20, 10)
    with pytest.raises(InputError, match="image of 20 x 10 pixels is over the limit of 199 pixels"):
        decode_image(data, max_pixels=199)
    with pytest.raises(InputError, match="over the limit of 199"):
        Preprocess(size=4)(data, max_pixels=199)
    with pytest.raises(InputError, match="over the limit of 199"):
        Preprocess(size=4).random_crop(data, draw(0), min_scale=0.5, max_pixels=199)


# A directory of five entries that ends after its first bytes.
BROKEN_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x05\0"


def test_metadata_that_nobody_reads_says_nothing(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(noise(8, 8)), "JPEG", exif=BROKEN_EXIF)
    with pytest.warns(UserWarning, match="Corrupt EXIF data"):
        Image.open(io.BytesIO(data))
    (tmp_path / "x.jpg").write_bytes(data)
    code = "import sys, raylens.inputs as i; print(i.decode_image(open(sys.argv[1], 'rb').read()).size)"
    command = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-c", code, str(tmp_path / "x.jpg")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("(8, 8)\n", "")


def test_threads_leave_the_processes_warnings_alone() -> None:
    data = encoded(Image.fromarray(noise(200, 200)), "PNG")
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [decode_image(data) for _ in range(60)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 200))
def test_a_jpeg_is_reduced_only_where_it_stays_large_enough(width: int, height: int, least: int) -> None:
    data = encoded(Image.new("RGB", (width, height), (1, 2, 3)), "JPEG")
    factor = max((f for f in (1, 2, 4, 8) if f * least <= min(width, height)), default=1)
    found = decode_image(data, least=least)
    assert found.size == (-(-width // factor), -(-height // factor))
    assert decode_image(data).size == (width, height)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_jpeg_is_the_same_picture(factor: int, mode: str) -> None:
    data = encoded(Image.fromarray(smooth(320, 240)).convert(mode), "JPEG", quality=95)
    full = decoded(data).astype(np.float64)
    means = full.reshape(240 // factor, factor, 320 // factor, factor, 3).mean(axis=(1, 3))
    reduced = np.asarray(decode_image(data, least=240 // factor))
    assert reduced.shape == means.shape
    assert np.abs(reduced - means).max() < 6


def test_a_jpeg_with_further_pictures_is_reduced_like_any() -> None:
    """Pillow gives such files, which many phones write, the name of another format."""
    first = Image.fromarray(smooth(320, 240))
    data = encoded(first, "MPO", save_all=True, append_images=[Image.new("RGB", (320, 240))], quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    reduced = decode_image(data, least=60)
    assert reduced.size == (80, 60)
    assert np.abs(np.asarray(reduced, np.int16) - np.asarray(first.resize((80, 60), Image.Resampling.BOX))).max() < 12


def test_other_formats_are_never_reduced() -> None:
    assert decode_image(encoded(Image.fromarray(noise(64, 64)), "WEBP"), least=8).size == (64, 64)


def weights(length: int, start: float, edge: float, size: int) -> NDArray[np.float64]:
    """Bicubic resampling (a = -1/2) of ``edge`` pixels from ``start`` to ``size``, widened where it shrinks."""
    stretch = max(edge / size, 1.0)
    centres = start + (np.arange(size) + 0.5) * edge / size
    t = np.abs((np.arange(length) + 0.5 - centres[:, None]) / stretch)
    cubic = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))
    normalised: NDArray[np.float64] = cubic / cubic.sum(axis=1, keepdims=True)
    return normalised


def resampled(pixels: Pixels, left: float, top: float, edge: float, size: int) -> NDArray[np.float64]:
    """A square of the picture at another size, in fp64."""
    across, down = weights(pixels.shape[1], left, edge, size), weights(pixels.shape[0], top, edge, size)
    found: NDArray[np.float64] = np.einsum("px,oy,yxc->opc", across, down, pixels)
    return found


def soft(width: int, height: int) -> Pixels:
    """Noise from 64 to 191: what overshoots between the two passes is held in eight bits, and is not cut off."""
    return 64 + noise(width, height) // 2


def draw(seed: int) -> CropDraw:
    return CropDraw(*np.random.default_rng(seed).random(3))


SIDES = st.one_of(st.integers(1, 40), st.just(1))


@given(SIDES, SIDES, st.integers(1, 24))
def test_the_centre_crop_is_in_the_centre(width: int, height: int, size: int) -> None:
    """Also of odd margins, which a crop in whole pixels would have to round."""
    pixels, edge = soft(width, height), min(width, height)
    found = Preprocess(size=size)(encoded(Image.fromarray(pixels), "PNG"))
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    expected = resampled(pixels, (width - edge) / 2, (height - edge) / 2, edge, size)
    assert np.abs(found - expected).max() < 1.5


@given(SIDES, SIDES, st.integers(1, 24), st.integers(0, 2**32), st.floats(0.05, 1.0))
def test_the_random_crop_is_where_its_draws_say(width: int, height: int, size: int, seed: int, least: float) -> None:
    pixels = soft(width, height)
    found = Preprocess(size=size).random_crop(encoded(Image.fromarray(pixels), "PNG"), draw(seed), min_scale=least)
    left, top, right, bottom = draw(seed).pixels(width, height, least)
    expected = resampled(pixels[top:bottom, left:right], 0, 0, right - left, size)
    assert np.abs(found - expected).max() < 2.5  # one more than Pillow, which rounds otherwise between the passes


@given(SIDES, SIDES, st.integers(0, 2**32), st.floats(0.05, 1.0))
def test_a_crop_on_whole_pixels_is_square_inside_and_near(width: int, height: int, seed: int, least: float) -> None:
    left, top, right, bottom = draw(seed).pixels(width, height, least)
    assert right - left == bottom - top
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    share, across, down = draw(seed)
    edge = np.sqrt(least + (1 - least) * share) * min(width, height)
    exact = np.array([across * (width - edge), down * (height - edge), edge])
    assert np.abs(np.array([left, top, right - left]) - exact).max() <= 1.0


def test_training_resamples_as_pillow_does() -> None:
    for size, (width, height) in ((24, (30, 41)), (32, (90, 64)), (48, (20, 20))):
        image, found = Image.fromarray(noise(width, height)), np.empty((size, size, 3), dtype=np.uint8)
        box = (1, 2, 19, 20)
        resample(image, box, found)
        expected = np.asarray(image.crop(box).resize((size, size), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(found - expected).max() <= 2


LAST = 1 - 2.0**-53  # the largest that random() gives
EXTREME = st.sampled_from([0.0, LAST]) | st.floats(0.0, LAST)


@given(st.integers(1, 300), st.integers(1, 300), EXTREME, EXTREME, EXTREME, st.floats(1e-4, 1.0))
def test_no_draw_leaves_the_image(width: int, height: int, a: float, b: float, c: float, least: float) -> None:
    data = encoded(Image.new("RGB", (width, height), (50, 100, 150)), "BMP")
    found = Preprocess(size=4).random_crop(data, CropDraw(a, b, c), min_scale=least)
    assert (found == [50, 100, 150]).all()


@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 0.9]))
def test_the_crop_keeps_its_share_of_the_area(seed: int, least: float) -> None:
    """Measured on the result: red grows with x and green with y, so their slopes tell the edge of the crop."""
    y, x = np.mgrid[0:120, 0:250]
    pixels = np.stack([x, 2 * y, 0 * x], axis=-1).astype(np.uint8)
    found = Preprocess(size=50).random_crop(encoded(Image.fromarray(pixels), "PNG"), draw(seed), min_scale=least)
    inner = found[5:-5, 5:-5].astype(np.float64)  # the borders are flattened
    across = (inner[:, -1, 0] - inner[:, 0, 0]).mean() / 39 * 50
    down = (inner[-1, :, 1] - inner[0, :, 1]).mean() / 39 * 50 / 2
    assert across == pytest.approx(down, abs=3)
    assert least - 0.06 <= (across / 120) ** 2 <= 1.06


def test_equal_draws_give_equal_crops() -> None:
    data, preprocess = encoded(Image.fromarray(noise(40, 30)), "PNG"), Preprocess(size=16)
    crops = [preprocess.random_crop(data, draw(seed), min_scale=0.5) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(crops[0], crops[1])
    assert (crops[0] != crops[2]).any()


@pytest.mark.parametrize("seed", range(8))
def test_a_reduced_jpeg_gives_the_same_crops(seed: int) -> None:
    data = encoded(Image.fromarray(smooth(331, 257)), "JPEG", quality=95)
    whole = encoded(decode_image(data), "PNG")
    preprocess = Preprocess(size=40)
    assert decode_image(data, least=40).size < (331, 257)
    assert np.abs(preprocess(data).astype(int) - preprocess(whole)).max() < 8
    crops = [preprocess.random_crop(file, draw(seed), min_scale=0.3).astype(int) for file in (data, whole)]
    assert np.abs(crops[0] - crops[1]).max() < 16  # the crop is rounded to pixels of the image as it was decoded


def test_training_without_crops_sees_what_serving_sees() -> None:
    for kind in FORMATS:
        data = encoded(Image.fromarray(smooth(64, 64)), kind)
        crop = Preprocess(size=24).random_crop(data, draw(3), min_scale=1.0)
        assert np.abs(crop.astype(int) - Preprocess(size=24)(data)).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_exif_is_ignored_everywhere(orientation: int) -> None:
    """Pixels are taken as they are stored, in training and in serving alike."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(smooth(64, 64))
    turned, plain = encoded(image, "JPEG", exif=exif), encoded(image, "JPEG")
    np.testing.assert_array_equal(decoded(turned), decoded(plain))
    preprocess = Preprocess(size=24)
    np.testing.assert_array_equal(preprocess(turned), preprocess(plain))
    crops = [preprocess.random_crop(data, draw(0), min_scale=1.0) for data in (turned, plain)]
    np.testing.assert_array_equal(crops[0], crops[1])


CHANGED: list[dict[str, Any]] = [{"size": 33}, {"mean": (0.5, 0.5, 0.5)}, {"std": (0.5, 0.5, 0.5)}]


@pytest.mark.parametrize("change", CHANGED, ids=lambda change: next(iter(change)))
def test_the_identity_covers_every_field(change: dict[str, Any]) -> None:
    base = Preprocess(size=32)
    assert base.model_copy(update=change).identity() != base.identity()
    assert set(Preprocess.model_fields) == {"resample"} | {key for each in CHANGED for key in each}


CHANNELS = st.tuples(*[st.floats(1e-3, 10.0)] * 3)


@given(st.integers(1, 2000), CHANNELS, CHANNELS)
def test_json_gives_the_same_preprocessing(size: int, mean: Any, std: Any) -> None:
    base = Preprocess(size=size, mean=mean, std=std)
    again = Preprocess.from_json(base.to_json().encode())
    assert again == base
    assert again.identity() == base.identity()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        b"\xff",
        '{"size": 0}',
        '{"size": 8, "crop": 1}',
        '{"size": 8, "resample": "nearest"}',
        '{"size": 8, "std": [0, 1, 1]}',
        '{"size": 8, "mean": [NaN, 1, 1]}',
        '{"size": 8, "mean": [1, 1]}',
    ],
)
def test_what_is_no_preprocessing_is_a_bundle_error(text: str | bytes) -> None:
    with pytest.raises(BundleError, match=r"^preprocess\.json cannot be read: "):
        Preprocess.from_json(text)
