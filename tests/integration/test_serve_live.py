"""A service as people use it: another client, keys, two models, a new version under load, a lost replica."""

import asyncio
import base64
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import ray
from ray import serve

from raylens.config import validated
from raylens.registry import Encoder, Registry
from raylens.serve import AsyncEmbeddingClient, EmbeddingClient, RunningService, ServiceConfig, serve_service
from raylens.serve.keys import new_key
from tests.integration.test_serve import CAPTIONS, free_port, picture, random_bundle, uri

TOWER = {"min_replicas": 1, "max_replicas": 1, "cpus": 0.5}
TWO = {"min_replicas": 2, "max_replicas": 2, "cpus": 0.5}
GROWING = TOWER | {
    "max_replicas": 2, "items_per_replica": 100, "look_back_s": 1, "upscale_delay_s": 0.5, "downscale_delay_s": 1
}  # fmt: skip


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    made = Registry(str(tmp_path_factory.mktemp("registry")))
    for name in ("pets", "plants"):
        made.publish(name, random_bundle())
        made.publish(name, random_bundle())
        made.promote(name, "prod", 1)
    return made


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    secret, entry = new_key("tests")
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_text('{"keys": [%s]}' % entry.model_dump_json(exclude_none=True))  # noqa: UP031 (braces)
    return secret, path


@pytest.fixture(scope="module")
def service(cluster: None, registry: Registry, key: tuple[str, Path]) -> Iterator[RunningService]:
    models = [
        {"model": f"{name}@prod", "precision": "fp32", "text": text, "image": TOWER}
        for name, text in (("pets", TWO), ("plants", GROWING))
    ]
    config = {
        "models": models,
        "registry": registry.store.uri,
        "port": free_port(),
        "security": {"keys": str(key[1])},
        "limits": {"follow_s": 0.5, "overlap_s": 3.0, "startup_timeout_s": 180},
    }
    with serve_service(validated(ServiceConfig, config)) as running:
        yield running


def encoder(registry: Registry, reference: str) -> Encoder:
    return registry.load(reference)[1]


def test_the_openai_client_works_unchanged(service: RunningService, registry: Registry, key: tuple[str, Path]) -> None:
    expected = encoder(registry, "pets@1").encode_texts(CAPTIONS).numpy()
    with openai.OpenAI(api_key=key[0], base_url=f"{service.url}/v1", max_retries=0) as client:
        whole = client.embeddings.create(model="pets", input=CAPTIONS)  # base64, decoded by the client
        np.testing.assert_allclose([one.embedding for one in whole.data], expected, atol=1e-5)
        floats = client.embeddings.create(model="pets@prod", input=CAPTIONS[0], encoding_format="float", dimensions=8)
        short = expected[0, :8] / np.linalg.norm(expected[0, :8])
        np.testing.assert_allclose(floats.data[0].embedding, short, atol=1e-5)
        assert whole.usage.total_tokens > len(CAPTIONS)
        assert {model.id for model in client.models.list()} == {"pets", "plants"}
        with pytest.raises(openai.NotFoundError, match="'dogs' is not served here; there is 'pets', 'plants'"):
            client.embeddings.create(model="dogs", input="a")
        with pytest.raises(openai.BadRequestError, match="dimensions = 99"):
            client.embeddings.create(model="pets", input="a", dimensions=99)
    with (
        openai.OpenAI(api_key="rl-wrong", base_url=f"{service.url}/v1", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError, match="no valid API key"),
    ):
        stranger.embeddings.create(model="pets", input="a")


def test_models_side_by_side_keep_their_spaces(
    service: RunningService, registry: Registry, key: tuple[str, Path]
) -> None:
    file = picture()
    for name in ("pets", "plants"):
        own = encoder(registry, f"{name}@1")
        with EmbeddingClient(service.url, key=key[0], model=name) as client:
            rows = client.embed([CAPTIONS[0], file])
            expected = np.concatenate([own.encode_texts(CAPTIONS[:1]), own.encode_images([file])])
            np.testing.assert_allclose(rows, expected, atol=1e-5)
            cosine = client.similarity([CAPTIONS[0]], [file, b"broken"])
            np.testing.assert_allclose(cosine[0, 0], expected[0] @ expected[1], atol=1e-5)
            assert np.isnan(cosine[0, 1])
            assert client.embed([], dimensions=5).shape == (0, 5)


def test_the_client_for_asyncio_sends_parts_at_once(
    service: RunningService, registry: Registry, key: tuple[str, Path]
) -> None:
    texts = [f"{CAPTIONS[number % 3]} {number}" for number in range(4500)]

    async def embedded() -> Any:
        async with AsyncEmbeddingClient(service.url, key=key[0]) as client:
            classes = await client.classify([picture()], ["cat", "dog"])
            assert classes.shape == (1, 2)
            return await client.embed(texts, dimensions=6, bulk=True)

    whole = encoder(registry, "pets@1").encode_texts(texts).numpy()[:, :6]
    np.testing.assert_allclose(asyncio.run(embedded()), whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-5)


def test_a_new_version_is_gone_over_to_without_a_failed_or_a_mixed_answer(
    service: RunningService, registry: Registry, key: tuple[str, Path]
) -> None:
    """There and back, while eight callers send pairs of a text and an image."""
    file = picture()
    pairs = {
        registry.resolve(f"pets@{number}").digest: np.concatenate(
            [
                encoder(registry, f"pets@{number}").encode_texts(CAPTIONS[:1]),
                encoder(registry, f"pets@{number}").encode_images([file]),
            ]
        )
        for number in (1, 2)
    }
    body = {"input": [CAPTIONS[0], {"image": uri(file)}], "model": "pets", "encoding_format": "base64"}
    seen: list[int] = []
    done = asyncio.Event()

    async def caller(client: httpx.AsyncClient) -> None:
        while not done.is_set():
            answer = await client.post("/v1/embeddings", json=body)
            assert answer.status_code == 200, answer.text
            told = answer.json()
            rows = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in told["data"]]
            np.testing.assert_allclose(rows, pairs[told["space"]], atol=1e-5)
            seen.append(told["version"])

    async def until(version: int) -> None:
        end = time.monotonic() + 60
        while seen[-20:] != [version] * 20:
            assert time.monotonic() < end, f"still {seen[-1]} after a minute"
            await asyncio.sleep(0.1)

    async def scene() -> None:
        headers = {"authorization": f"Bearer {key[0]}"}
        async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60) as client:
            callers = asyncio.gather(*(caller(client) for _ in range(8)))
            try:
                for version in (1, 2, 1):
                    await asyncio.to_thread(registry.promote, "pets", "prod", version)
                    await until(version)
            finally:
                done.set()
            await callers

    asyncio.run(scene())
    assert set(seen) == {1, 2}


def test_a_request_is_told_of_by_the_gateway_and_by_its_replica(service: RunningService, key: tuple[str, Path]) -> None:
    headers = {"authorization": f"Bearer {key[0]}", "x-request-id": "live-1"}
    body = {"input": ["told of", "and this"], "model": "pets"}
    assert httpx.post(f"{service.url}/v1/embeddings", json=body, headers=headers, timeout=60).status_code == 200
    text = httpx.get(f"{service.url}/metrics", headers=headers, timeout=60).text
    assert 'raylens_batch_items_sum{model="pets",tower="text"}' in text
    assert 'raylens_queue_items{model="pets",replica="' in text
    logs = Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"
    lines = [line for file in logs.glob("replica_*") for line in file.read_text().splitlines() if "live-1" in line]
    assert any("request live-1: 2 items, ok" in line for line in lines)
    assert any("request live-1 tests /v1/embeddings 200" in line for line in lines)


def running(deployment: str) -> int:
    states: dict[Any, int] = serve.status().applications["raylens"].deployments[deployment].replica_states
    return states.get("RUNNING", 0)


class Callers:
    """Requests of many texts that are nowhere in a cache, each caller one after the other, without retries."""

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


def test_replicas_come_with_a_step_of_load_and_go_with_it(service: RunningService, key: tuple[str, Path]) -> None:
    async def scene() -> None:
        assert running("plants-text") == 1
        async with Callers(service, key[0], "plants", callers=3, texts=1000) as load:
            await load.until(lambda: running("plants-text") == 2, "the most replicas")
        assert load.answers[-1].status_code == 200
        # A replica whose first batches were slow, as on a busy machine, may take the wait for too long.
        assert {answer.json()["error"]["code"] for answer in load.answers if answer.is_error} <= {"overloaded"}
        await load.until(lambda: running("plants-text") == 1, "one replica again")

    asyncio.run(scene())


def test_a_replica_that_is_killed_under_load_costs_at_most_what_it_had(
    service: RunningService, key: tuple[str, Path]
) -> None:
    callers = 6

    async def scene() -> list[httpx.Response]:
        async with Callers(service, key[0], "pets", callers=callers, texts=200) as load:
            await load.until(lambda: len(load.answers) > 2 * callers, "the first answers")
            kill("pets-text")
            before = len(load.answers)
            await load.until(lambda: len(load.answers) > before + 4 * callers, "answers after the loss")
        return load.answers

    answers = asyncio.run(scene())
    lost = [answer for answer in answers if answer.status_code != 200]
    # What was in flight there is sent once more by the gateway, and fails only if that meets the dead replica too.
    assert len(lost) <= callers
    assert {answer.json()["error"]["code"] for answer in lost} <= {"unavailable"}
    assert {answer.status_code for answer in answers[-callers:]} == {200}


def kill(deployment: str) -> None:
    replica = next(one for one in ray.util.list_named_actors(all_namespaces=True) if deployment in str(one["name"]))
    ray.kill(ray.get_actor(replica["name"], namespace=replica["namespace"]), no_restart=False)


def test_a_replica_that_is_killed_costs_no_request(service: RunningService, key: tuple[str, Path]) -> None:
    """Its requests are sent to another one, or wait for the one that replaces it."""
    with EmbeddingClient(service.url, key=key[0], model="plants") as client:
        before = client.embed(CAPTIONS)
        kill("plants-text")
        fresh = [f"{caption} again" for caption in CAPTIONS]
        assert client.embed(fresh).shape == before.shape
        np.testing.assert_allclose(client.embed(CAPTIONS), before, atol=1e-5)
