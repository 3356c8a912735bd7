"""A service as people use it: another client, keys, two models, a new version under load, a lost replica."""

import asyncio
import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import ray

from raylens.config import validated
from raylens.registry import Encoder, Registry
from raylens.serve import AsyncEmbeddingClient, EmbeddingClient, RunningService, ServiceConfig, serve_service
from raylens.serve.keys import new_key
from tests.integration.test_serve import CAPTIONS, free_port, picture, random_bundle, uri

TOWER = {"min_replicas": 1, "max_replicas": 1, "cpus": 1}


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
        {"model": f"{name}@prod", "precision": "fp32", "text": TOWER, "image": TOWER} for name in ("pets", "plants")
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


def test_a_replica_that_is_killed_costs_no_request(service: RunningService, key: tuple[str, Path]) -> None:
    """Its requests are sent to another one, or wait for the one that replaces it."""
    replica = next(
        actor for actor in ray.util.list_named_actors(all_namespaces=True) if "plants-text" in str(actor["name"])
    )
    with EmbeddingClient(service.url, key=key[0], model="plants") as client:
        before = client.embed(CAPTIONS)
        ray.kill(ray.get_actor(replica["name"], namespace=replica["namespace"]), no_restart=False)
        fresh = [f"{caption} again" for caption in CAPTIONS]
        assert client.embed(fresh).shape == before.shape
        np.testing.assert_allclose(client.embed(CAPTIONS), before, atol=1e-5)
