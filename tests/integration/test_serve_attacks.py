"""What the API does with bodies that nobody should send: thousands of them, and no status of a broken server."""

import asyncio
import io
import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image

from raylens.registry import Registry
from raylens.serve.gateway.app import build_app
from raylens.serve.replica.replica import EncoderReplica
from tests.helpers.serving_app import SETTINGS, catalogue_of, picture, random_bundle, uri

FUZZED = 10_000
ALLOWED = {200, 400, 404, 413}
BOUNDED = SETTINGS.model_copy(
    update={"max_body_bytes": 200_000, "capacity": 4096, "body_timeout_s": 0.5, "request_timeout_s": 30.0}
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    where = tmp_path_factory.mktemp("registry")
    Registry(str(where)).publish("tiny", random_bundle())
    return build_app(catalogue_of(EncoderReplica(str(where), "tiny@1", BOUNDED)), BOUNDED)


def send_all(app: Any, requests: list[tuple[str, bytes, str]]) -> list[httpx.Response]:
    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            return [
                await client.post(path, content=content, headers={"content-type": kind})
                for path, content, kind in requests
            ]

    return asyncio.run(all_of_them())


def good_bodies() -> list[tuple[str, bytes, str]]:
    image = uri(picture())
    form = httpx.Request("POST", "http://x", files={"text": (None, "a cat"), "image": ("a.png", picture())})
    bodies: list[tuple[str, Any]] = [
        ("/v1/embeddings", {"input": ["a cat", {"image": image}, [5, 6]], "dimensions": 8, "model": "tiny"}),
        ("/v1/similarity", {"queries": ["a"], "documents": [{"image": image}], "top_k": 2}),
        ("/v1/classify", {"images": [image], "classes": ["cat", "dog"], "templates": ["a {}"]}),
    ]
    return [
        *((path, json.dumps(body).encode(), "application/json") for path, body in bodies),
        ("/v1/embeddings", form.read(), form.headers["content-type"]),
        ("/v1/embeddings", picture(), "image/png"),
    ]


def damaged(draw: random.Random, content: bytes) -> bytes:
    """A few bytes changed, dropped, repeated or put in, as a fuzzer does."""
    broken = bytearray(content)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(broken) + 1)
        kind = draw.randrange(5)
        if kind == 0 and at < len(broken):
            broken[at] = draw.randrange(256)
        elif kind == 1:
            del broken[at : at + draw.randint(1, 30)]
        elif kind == 2:
            broken[at:at] = broken[at : at + draw.randint(1, 60)]
        elif kind == 3:
            broken[at:at] = draw.choice([b"null", b"[" * 200, b'"', b"\\ud800", b"1e999", b"-", b"\x00", b"{}", b"NaN"])
        else:
            del broken[at:]
            broken = broken or bytearray(b"x")
    return bytes(broken)


@pytest.mark.parametrize("count", [FUZZED // 10, pytest.param(FUZZED, marks=pytest.mark.slow)])
def test_no_malformed_body_breaks_an_answer(app: Any, count: int) -> None:
    draw = random.Random(7)
    whole = good_bodies()
    requests = []
    for _ in range(count):
        path, content, kind = draw.choice(whole)
        requests.append((path, damaged(draw, content), kind))
    answers = send_all(app, requests)
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= ALLOWED, statuses
    for (path, content, _), answer in zip(requests, answers, strict=True):
        if answer.status_code != 200:
            assert set(answer.json()) == {"error"}, (path, content)
        assert "Traceback" not in answer.text
        assert "/raylens/" not in answer.text
        failed = [one["error"]["code"] for one in answer.json().get("data", []) if "error" in one]
        assert "internal_error" not in failed, (path, content)
    assert statuses[400] > count / 10
    assert all(answer.status_code == 200 for answer in send_all(app, whole))


def test_what_the_description_allows_and_forbids(app: Any) -> None:
    """schemathesis draws bodies from our OpenAPI: those that it allows, and those that break one of its rules."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    told: Counter[int] = Counter()
    kinds: Counter[str] = Counter()
    for mode in schemathesis.GenerationMode:
        for found in schema.include(method="POST").get_all_operations():
            operation: Any = found.ok()  # type: ignore[union-attr]

            @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case: Any) -> None:
                answer = case.call()
                told[answer.status_code] += 1
                kinds[str(case.media_type)] += 1
                assert answer.status_code in ALLOWED, answer.text
                if answer.status_code != 200:
                    assert set(answer.json()) == {"error"}

            one()
    assert told[200] > 30
    assert kinds["multipart/form-data"] > 50
    assert kinds["application/json"] > 200
    assert told[400] > 100


def png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG that says it is as large as you like."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_decompression_bombs_fail_alone(app: Any) -> None:
    bombs = [
        png(100_000, 100_000, zlib.compress(bytes(10_000))),  # says that it is large
        png(90, 90, zlib.compress(bytes(30_000_000))),  # is larger than it says
        png(2**31 - 1, 2**31 - 1, b""),
        png(0, 0, b""),
    ]
    frames = [Image.fromarray(np.full((90, 90), shade, np.uint8)) for shade in range(200)]
    sink = io.BytesIO()
    frames[0].save(sink, "GIF", save_all=True, append_images=frames[1:])
    body = {"input": [{"image": uri(bomb)} for bomb in (*bombs, sink.getvalue())] + [{"image": uri(picture())}]}
    [answer] = send_all(app, [("/v1/embeddings", json.dumps(body).encode(), "application/json")])
    codes = [one.get("error", {}).get("code") for one in answer.json()["data"]]
    assert codes[0] == codes[2] == codes[3] == "invalid_image"
    assert codes[-1] is None


def test_a_body_that_comes_byte_by_byte_is_given_up(app: Any) -> None:
    async def drops() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            return await client.post("/v1/embeddings", content=drops())

    answer = asyncio.run(one())
    assert answer.status_code == 408
    assert answer.json()["error"]["code"] == "body_too_slow"
