"""A running service for tests: two tiny models behind a key, load on it, and the state of its replicas."""

import asyncio
import io
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ray
from PIL import Image
from ray import serve

from raylens.config import validated
from raylens.ports import free_port
from raylens.registry import Encoder, Registry
from raylens.serve import EmbeddingClient, RunningService, ServeSettings, ServiceConfig, serve_service
from raylens.serve.gateway.keys import new_key
from tests.helpers.serving_app import random_bundle
from tests.shared_ray import SHARED

SETTINGS = ServeSettings(
    max_body_bytes=2_000_000, max_pixels=1_000_000, follow_interval_s=0.5, overlap_s=3.0, startup_timeout_s=180
)
ONE = {"min_replicas": 1, "max_replicas": 1, "cpus": 0.5}
TWO = {"min_replicas": 2, "max_replicas": 2, "cpus": 0.5}
CAPTIONS = ["a red cat on a tree", "two old dogs", "a small blue house"]


def picture() -> bytes:
    draw = np.random.default_rng()
    height, width = draw.integers(20, 90, 2)
    sink = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(sink, format="PNG")
    return sink.getvalue()


def running(deployment: str) -> int:
    states: dict[Any, int] = serve.status().applications["raylens"].deployments[deployment].replica_states
    return states.get("RUNNING", 0)


def kill(deployment: str) -> None:
    replica = next(one for one in ray.util.list_named_actors(all_namespaces=True) if deployment in str(one["name"]))
    ray.kill(ray.get_actor(replica["name"], namespace=replica["namespace"]), no_restart=False)


class Callers:
    """Callers that send requests of texts that no cache has, each one request after another, without retries."""

    def __init__(self, service: RunningService, key: str | None, model: str, *, callers: int, texts: int) -> None:
        self._url, self._model, self._callers, self._texts = service.url, model, callers, texts
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._number = itertools.count()
        self.done = asyncio.Event()
        self.answers: list[httpx.Response] = []

    async def _caller(self, client: httpx.AsyncClient) -> None:
        while not self.done.is_set():
            words = [f"{CAPTIONS[part % 3]} {next(self._number)}" for part in range(self._texts)]
            body = {"input": words, "model": self._model, "encoding_format": "base64"}
            self.answers.append(await client.post("/v1/embeddings", json=body))

    async def __aenter__(self) -> "Callers":
        self._client = httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=120)
        self._all = asyncio.gather(*(self._caller(self._client) for _ in range(self._callers)))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.done.set()
        await self._all
        await self._client.aclose()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 90
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < end, f"waited 90 s for {what}"
            if self._all.done():
                await self._all  # which raises: a caller has no connection any more
            await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Site:
    """A service with two models of two versions each, whose alias ``prod`` is the first version, and its API key."""

    service: RunningService
    registry: Registry
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def encoder(self, reference: str = "pets@1") -> Encoder:
        return self.registry.load(reference)[1]

    def client(self, model: str | None = None) -> EmbeddingClient:
        return EmbeddingClient(self.service.url, key=self.key, model=model)

    def post(self, path: str, **request: Any) -> httpx.Response:
        return httpx.post(self.service.url + path, timeout=120, headers=self.headers, **request)


@contextmanager
def site_in(folder: Path, plants: dict[str, Any]) -> Iterator[Site]:
    """Start a site on the Ray that this process is connected to.

    Args:
        folder: where its models and its key are.
        plants: the text tower of the second model; the first has two replicas.
    """
    registry = Registry(str(folder / "registry"))
    for name in ("pets", "plants"):
        registry.publish(name, random_bundle())
        registry.publish(name, random_bundle())
        registry.promote(name, "prod", 1)
    secret, entry = new_key("tests")
    keys = folder / "keys.json"
    keys.write_text('{"keys": [%s]}' % entry.model_dump_json(exclude_none=True))  # noqa: UP031 (braces)
    models = [
        {"model": f"{name}@prod", "precision": "fp32", "text": text, "image": ONE}
        for name, text in (("pets", TWO), ("plants", plants))
    ]
    config = {
        "models": models,
        "registry": registry.store.uri,
        "port": free_port(),
        "security": {"keys": str(keys)},
        "limits": SETTINGS.model_dump(),
    }
    with serve_service(validated(ServiceConfig, config), inherited=SHARED.inherited) as service:
        yield Site(service, registry, secret)
