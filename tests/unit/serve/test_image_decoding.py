"""Images that are small to send and long to decode."""

import asyncio
import io
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raylens.errors import InputError
from raylens.inputs import Preprocess, decode_image
from raylens.inputs.image import MAX_SCANS, MAX_SEGMENTS
from raylens.registry import Encoder
from raylens.serve.messages import Embedded, Failed, ImageFile
from raylens.serve.replica.device import Device
from raylens.serve.replica.towers import ImageTower
from tests.helpers.serving_app import SETTINGS, picture, random_bundle

EOI = b"\xff\xd9"


def progressive(side: int, scans: int) -> bytes:
    """A JPEG whose last scan is there several times, which decoders take."""
    sink = io.BytesIO()
    Image.new("L", (side, side), 90).save(sink, "JPEG", progressive=True, quality=50)
    whole = sink.getvalue()
    last = whole.rfind(b"\xff\xda")
    times = scans - whole.count(b"\xff\xda") + 1
    return whole[:last] + whole[last:-2] * times + EOI


def segment(mark: int, content: bytes) -> bytes:
    return bytes((0xFF, mark)) + struct.pack(">H", len(content) + 2) + content


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    assert decode_image(progressive(40, MAX_SCANS)).size == (40, 40)
    with pytest.raises(InputError, match="more than 32 scans"):
        decode_image(progressive(40, MAX_SCANS + 1))
    with pytest.raises(InputError, match="more than 32 scans"):
        Preprocess(size=32)(progressive(40, 500))


@given(fills=st.lists(st.sampled_from([b"\xff", b"\xff\xd0", b"\x00", b""]), max_size=4))
def test_scans_are_found_behind_whatever_decoders_skip(fills: list[bytes]) -> None:
    file = progressive(24, MAX_SCANS + 5)
    first = file.find(b"\xff\xc2")
    with pytest.raises(InputError):
        decode_image(file[:first] + segment(0xFE, b"\xff\xd9" * 9) + file[first:-2] + b"".join(fills) + EOI)


def test_what_only_looks_like_scans_is_let_through() -> None:
    """A preview in the header, and a video behind the picture, as phones write them."""
    sink = io.BytesIO()
    Image.new("L", (24, 24), 90).save(sink, "JPEG")
    file, many = sink.getvalue(), b"\xff\xda" * 100
    assert decode_image(file[:2] + segment(0xE5, many) + file[2:] + many).size == (24, 24)


def test_segments_without_end_are_refused() -> None:
    sink = io.BytesIO()
    Image.new("L", (24, 24), 90).save(sink, "JPEG")
    file = sink.getvalue()
    with pytest.raises(InputError, match="segments"):
        decode_image(file[:2] + segment(0xFE, b"\xff\xda" * 40) + segment(0xFE, b"") * MAX_SEGMENTS + file[2:])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_an_image_is_given_up_when_its_time_is(kind: str) -> None:
    file = picture(700, 700, kind)
    assert decode_image(file, max_seconds=60.0).size == (700, 700)
    np.testing.assert_array_equal(np.asarray(decode_image(file, max_seconds=60.0)), np.asarray(decode_image(file)))
    with pytest.raises(InputError, match="more than 1e-07 s to decode"):
        decode_image(file, max_seconds=1e-7)


def test_a_slow_image_fails_alone_and_leaves_threads_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request of as many endless images as there are threads; the image of another request passes them by."""
    settings = SETTINGS.model_copy(update={"decode_threads": 3, "max_pixels": 1_000_000})
    encoder, file, slow = Encoder(random_bundle()), picture(), [picture(60, 50) for _ in range(3)]
    opened, decode = threading.Event(), ImageTower._decode

    def held(self: ImageTower, given: bytes) -> Any:
        assert given == file or opened.wait(timeout=60)
        return decode(self, given)

    monkeypatch.setattr(ImageTower, "_decode", held)

    async def scene() -> None:
        with ThreadPoolExecutor(settings.decode_threads) as pool:
            device = Device()
            tower = ImageTower(encoder, device, pool, settings)
            crowd = asyncio.create_task(tower.embed([ImageFile(one) for one in slow]))
            await asyncio.sleep(0)
            async with asyncio.timeout(60):
                [alone] = await tower.embed([ImageFile(file)])
            assert isinstance(alone, Embedded)
            assert not crowd.done()
            opened.set()
            assert all(isinstance(one, Embedded) for one in await crowd)
            hurried = ImageTower(encoder, device, pool, settings.model_copy(update={"max_decode_s": 1e-9}))
            [late] = await hurried.embed([ImageFile(file)])
            assert isinstance(late, Failed)
            assert late.code == "invalid_image"
            await device.close()

    asyncio.run(scene())
