"""A serving application in one process, over a real replica of a tiny model, and requests to it."""

import asyncio
import base64
import io
from typing import Any

import httpx
import numpy as np
from PIL import Image

from raylens.config import ModelConfig
from raylens.inputs import Preprocess, Tokenizer
from raylens.models import DualEncoder
from raylens.registry import Bundle
from raylens.serve.config import SecurityConfig, ServeSettings
from raylens.serve.gateway.app import build_app
from raylens.serve.gateway.catalogue import Catalogue, ServedModel
from raylens.serve.gateway.fetch import Fetcher
from raylens.serve.gateway.model_router import ModelRouter
from raylens.serve.messages import Embedder
from raylens.serve.replica.replica import EncoderReplica

WORDS = ["photo", "small", "red", "cat", "an", "old", "blue", "dog", "under", "two", "trees"]
SETTINGS = ServeSettings(
    max_body_bytes=60_000, max_items=12, max_text_chars=300, max_pixels=10_000, capacity=20, max_batch=3
)


def random_bundle() -> Bundle:
    tokenizer = Tokenizer.train([" ".join(WORDS)] * 3, 600)
    image = {"size": 32, "patch": 16, "width": 32, "layers": 2, "heads": 2}
    text = {"context": 16, "vocab": 700, "width": 32, "layers": 2, "heads": 2}
    config = ModelConfig.model_validate({"embed_dim": 32, "image": image, "text": text})
    preprocess = Preprocess(size=32)
    model = DualEncoder(config, end_id=tokenizer.end_id, mean=preprocess.mean, std=preprocess.std)
    return Bundle(config, model.state_dict(), tokenizer, preprocess)


def picture(width: int = 40, height: int = 33, form: str = "PNG") -> bytes:
    noise = np.random.default_rng().integers(0, 256, (height, width, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noise).save(sink, format=form)
    return sink.getvalue()


def uri(file: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def catalogue_of(backend: Embedder, settings: ServeSettings = SETTINGS) -> Catalogue:
    """One set of replicas for both towers."""
    return Catalogue([ServedModel("tiny@1", ModelRouter(backend, backend, settings))])


def call(
    backend: Embedder,
    method: str,
    path: str,
    body: Any = None,
    content: bytes | None = None,
    settings: ServeSettings = SETTINGS,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(
            app=build_app(catalogue_of(backend, settings), settings), raise_app_exceptions=False
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, json=body, content=content, headers=headers)

    return asyncio.run(once())


def embed(backend: Embedder, **body: Any) -> Any:
    response = call(backend, "POST", "/v1/embeddings", body)
    assert response.status_code == 200, response.text
    return response.json()


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of a response, whose form and silence about our insides are checked."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert "Traceback" not in response.text
    assert "/work" not in response.text
    assert ".py" not in response.text
    return error


class Service:
    """An application that keeps its state between requests, as a process does."""

    def __init__(self, replica: EncoderReplica, security: SecurityConfig, fetcher: Fetcher | None = None) -> None:
        self._app = build_app(catalogue_of(replica), SETTINGS, security, fetcher)

    def send(self, method: str, path: str, *, key: str = "", headers: Any = None, **body: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                given = {"authorization": f"Bearer {key}".encode("latin-1")} if key else {}
                return await client.request(method, path, headers=given | (headers or {}), **body)

        return asyncio.run(once())
