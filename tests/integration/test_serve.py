"""The embedding API on real Ray Serve, over real HTTP: one service in use, and what keeps one from starting."""

import asyncio
import base64
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import psutil
import pytest
import ray
from typer.testing import CliRunner

from raylens.errors import NotFoundError, ServingError
from raylens.inputs import CAPTION_TEMPLATES, fill_templates
from raylens.ports import free_port
from raylens.registry import Encoder, Registry
from raylens.serve import AsyncEmbeddingClient, EmbeddingClient, serve_model
from raylens.serve.deploy.launch import stop
from raylens.serve.deploy.startup import wait_until_ready
from raylens.workloads.cli import app
from tests.helpers.serving import CAPTIONS, ONE, SETTINGS, Site, picture, site_in
from tests.helpers.serving_app import random_bundle, uri

CLASSES = ["cat", "dog", "house"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("registry"))
    Registry(folder).publish("tiny", random_bundle())
    return folder


@pytest.fixture(scope="module")
def site(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_in(tmp_path_factory.mktemp("site"), ONE) as made:
        yield made


@pytest.fixture(scope="module")
def encoder(site: Site) -> Encoder:
    return site.encoder()


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[EmbeddingClient]:
    with site.client() as opened:
        yield opened


# What keeps a service from starting comes first: one Ray carries one service at a time.


def test_a_taken_port_is_named(cluster: None, registry: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(ServingError, match=rf"port {port} \(Address already in use\)"):
            serve_model(registry=registry, reference="tiny", port=port)


def test_an_unknown_model_is_named(cluster: None, registry: str) -> None:
    for reference in ("tinny", "tiny@7"):
        with pytest.raises(NotFoundError, match=re.escape(reference.rpartition("@")[2])):
            serve_model(registry=registry, reference=reference, port=free_port())


def test_more_cpus_than_there_are_is_refused(cluster: None, registry: str) -> None:
    with pytest.raises(ServingError, match=r"need 1998 CPUs .tiny: 1 x 999 . 1 x 999."):
        serve_model(registry=registry, reference="tiny", port=free_port(), cpus_per_replica=999)


def test_a_damaged_bundle_is_reported_in_the_replicas_words(cluster: None, tmp_path: Path) -> None:
    models = Registry(str(tmp_path))
    store = models.bundle_store(models.publish("damaged", random_bundle()))
    weights = bytearray(store.read("weights.safetensors"))
    weights[-7] ^= 1
    store.write("weights.safetensors", bytes(weights))
    port = free_port()
    with pytest.raises(ServingError) as raised:
        serve_model(registry=str(tmp_path), reference="damaged", port=port, settings=SETTINGS)
    assert re.match(r"a replica failed to start: BundleError: .*weights.safetensors has sha256", str(raised.value))
    assert "Traceback" not in str(raised.value)
    socket.create_server(("127.0.0.1", port)).close()


def test_served_vectors_equal_offline_ones(client: EmbeddingClient, encoder: Encoder) -> None:
    files = [picture(), picture()]
    texts, images = encoder.encode_texts(CAPTIONS).numpy(), encoder.encode_images(files).numpy()
    np.testing.assert_allclose(client.embed(CAPTIONS), texts, atol=1e-5)
    np.testing.assert_allclose(client.embed(files), images, atol=1e-5)
    mixed = client.embed([files[1], CAPTIONS[0], files[0]])
    np.testing.assert_allclose(mixed, [images[1], texts[0], images[0]], atol=1e-5)
    assert client.embed([]).shape == (0, 32)


def test_floats_equal_base64(site: Site, client: EmbeddingClient) -> None:
    answer = site.post("/v1/embeddings", json={"input": CAPTIONS, "model": "pets@1"}).json()
    np.testing.assert_allclose([one["embedding"] for one in answer["data"]], client.embed(CAPTIONS), atol=1e-6)
    assert (answer["model"], answer["version"]) == ("pets", 1)


def test_served_probabilities_equal_offline_ones(client: EmbeddingClient, encoder: Encoder) -> None:
    files = [picture(), picture()]
    for templates in (None, ["a small {}"]):
        offline = encoder.classifier(fill_templates(CLASSES, templates or CAPTION_TEMPLATES))
        expected = offline.probabilities(encoder.encode_images(files)).numpy()
        np.testing.assert_allclose(client.classify(files, CLASSES, templates), expected, atol=1e-5)


def test_one_bad_image_fails_alone(site: Site, client: EmbeddingClient, encoder: Encoder) -> None:
    items = [{"text": CAPTIONS[0]}, {"image": uri(picture()[:-40])}, {"image": "http://127.0.0.1/cat.png"}]
    answer = site.post("/v1/embeddings", json={"input": [*items, " ".join(CAPTIONS * 3)]}).json()["data"]
    assert [one.get("error", {}).get("code") for one in answer] == [None, "invalid_image", "url_not_allowed", None]
    assert answer[3]["truncated"] is True
    np.testing.assert_allclose(answer[0]["embedding"], encoder.encode_texts(CAPTIONS[:1])[0].numpy(), atol=1e-5)
    with pytest.raises(ServingError, match="item 1: invalid_image"):
        client.embed([CAPTIONS[0], b"broken"])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"input": ', 400, "invalid_json"),
        (b'{"input": "a", "colour": 1}', 400, "unknown_key"),
        (b'{"input": [%s"a"]}' % (b'"a",' * 2048), 400, "too_many_items"),
        (b'{"input": {"text": 3}}', 400, "invalid_value"),
        (b'{"input": "a", "model": "other"}', 404, "model_not_found"),
        (b" " * 2_000_001, 413, "body_too_large"),
    ],
)
def test_a_bad_body_is_refused_and_the_service_goes_on(
    site: Site, client: EmbeddingClient, body: bytes, status: int, code: str
) -> None:
    response = site.post("/v1/embeddings", content=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert client.embed(["a cat"]).shape == (1, 32)


def test_the_client_repeats_what_the_server_says(client: EmbeddingClient) -> None:
    with pytest.raises(ServingError, match=r"answered 400: classes = .'cat'.: a classification needs at least two"):
        client.classify([picture()], ["cat"])
    with (
        EmbeddingClient(f"http://127.0.0.1:{free_port()}") as nobody,
        pytest.raises(ServingError, match="is the service running"),
    ):
        nobody.models()


def test_requests_carry_an_id(site: Site) -> None:
    given = httpx.get(f"{site.service.url}/healthz", headers={"x-request-id": "mine-1"})
    assert given.headers.get_list("x-request-id") == ["mine-1"]
    made = site.post("/v1/embeddings", content=b"{")
    assert made.headers["x-request-id"]


def test_models_health_and_readiness(site: Site, client: EmbeddingClient) -> None:
    told = [(model.id, model.version, model.digest) for model in client.models()]
    assert told == [("pets", 1, site.service.versions[0].digest), ("plants", 1, site.service.versions[1].digest)]
    assert httpx.get(f"{site.service.url}/healthz").status_code == 200
    assert httpx.get(f"{site.service.url}/readyz").status_code == 200


def test_concurrent_requests_are_all_answered_right(site: Site, encoder: Encoder) -> None:
    files = [picture() for _ in range(64)]
    texts = [f"{CAPTIONS[number % 3]} {number}" for number in range(64)]
    expected = np.stack([encoder.encode_texts(texts).numpy(), encoder.encode_images(files).numpy()], axis=1)

    def one(number: int) -> Any:
        items = [texts[number], {"image": uri(files[number])}]
        return [data["embedding"] for data in site.post("/v1/embeddings", json={"input": items}).json()["data"]]

    with ThreadPoolExecutor(64) as pool:
        np.testing.assert_allclose(list(pool.map(one, range(64))), expected, atol=1e-5)


def test_only_what_computes_has_torch(site: Site) -> None:
    """The libraries that a process has loaded stand in its memory's map."""
    has: dict[str, set[bool]] = {}
    for process in psutil.Process().children(recursive=True):
        command = " ".join(process.cmdline())
        for part in ("ServeController", "ProxyActor", "HAProxyManager", ":Gateway", "-text", "-image"):
            if command.startswith("ray::") and part in command:
                has.setdefault(part, set()).add(any("libtorch" in one.path for one in process.memory_maps()))
    computes = {"ServeController": 0, "ProxyActor": 0, "HAProxyManager": 0, ":Gateway": 0, "-text": 1, "-image": 1}
    assert has == {part: {bool(torch)} for part, torch in computes.items()}


def test_a_second_service_is_refused(site: Site, registry: str) -> None:
    with pytest.raises(ServingError, match="already runs on this cluster"):
        serve_model(registry=registry, reference="tiny", port=free_port())


def test_the_openai_client_works_unchanged(site: Site) -> None:
    expected = site.encoder("pets@1").encode_texts(CAPTIONS).numpy()
    with openai.OpenAI(api_key=site.key, base_url=f"{site.service.url}/v1", max_retries=0) as client:
        whole = client.embeddings.create(model="pets", input=CAPTIONS)  # base64, decoded by the client
        np.testing.assert_allclose([one.embedding for one in whole.data], expected, atol=1e-5)
        floats = client.embeddings.create(model="pets@prod", input=CAPTIONS[0], encoding_format="float", dimensions=8)
        short = expected[0, :8] / np.linalg.norm(expected[0, :8])
        np.testing.assert_allclose(floats.data[0].embedding, short, atol=1e-5)
        assert whole.usage.total_tokens > len(CAPTIONS)
        assert {model.id for model in client.models.list()} == {"pets", "plants"}
        with pytest.raises(openai.NotFoundError, match=r"'dogs' is not served here.*'pets', 'plants'"):
            client.embeddings.create(model="dogs", input="a")
        with pytest.raises(openai.BadRequestError, match="dimensions = 99"):
            client.embeddings.create(model="pets", input="a", dimensions=99)
    with (
        openai.OpenAI(api_key="rl-wrong", base_url=f"{site.service.url}/v1", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError, match="no valid API key"),
    ):
        stranger.embeddings.create(model="pets", input="a")


def test_models_side_by_side_keep_their_spaces(site: Site) -> None:
    file = picture()
    for name in ("pets", "plants"):
        own = site.encoder(f"{name}@1")
        with site.client(name) as client:
            rows = client.embed([CAPTIONS[0], file])
            expected = np.concatenate([own.encode_texts(CAPTIONS[:1]), own.encode_images([file])])
            np.testing.assert_allclose(rows, expected, atol=1e-5)
            cosine = client.similarity([CAPTIONS[0]], [file, b"broken"])
            np.testing.assert_allclose(cosine[0, 0], expected[0] @ expected[1], atol=1e-5)
            assert np.isnan(cosine[0, 1])
            assert client.embed([], dimensions=5).shape == (0, 5)


def test_the_client_for_asyncio_sends_parts_at_once(site: Site) -> None:
    texts = [f"{CAPTIONS[number % 3]} {number}" for number in range(4500)]

    async def embedded() -> Any:
        async with AsyncEmbeddingClient(site.service.url, key=site.key) as client:
            classes = await client.classify([picture()], ["cat", "dog"])
            assert classes.shape == (1, 2)
            return await client.embed(texts, dimensions=6, bulk=True)

    whole = site.encoder("pets@1").encode_texts(texts).numpy()[:, :6]
    np.testing.assert_allclose(asyncio.run(embedded()), whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-5)


def test_a_new_version_is_gone_over_to_without_a_failed_or_a_mixed_answer(site: Site) -> None:
    """There and back, while eight callers send pairs of a text and an image."""
    file = picture()
    pairs = {
        site.registry.resolve(f"pets@{number}").digest: np.concatenate(
            [
                site.encoder(f"pets@{number}").encode_texts(CAPTIONS[:1]),
                site.encoder(f"pets@{number}").encode_images([file]),
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
        headers = {"authorization": f"Bearer {site.key}"}
        async with httpx.AsyncClient(base_url=site.service.url, headers=headers, timeout=60) as client:
            callers = asyncio.gather(*(caller(client) for _ in range(8)))
            try:
                for version in (1, 2, 1):
                    await asyncio.to_thread(site.registry.promote, "pets", "prod", version)
                    await until(version)
            finally:
                done.set()
            await callers

    asyncio.run(scene())
    assert set(seen) == {1, 2}


def test_a_request_is_told_of_by_the_gateway_and_by_its_replica(site: Site) -> None:
    headers = {"authorization": f"Bearer {site.key}", "x-request-id": "live-1"}
    body = {"input": ["told of", "and this"], "model": "pets"}
    assert httpx.post(f"{site.service.url}/v1/embeddings", json=body, headers=headers, timeout=60).status_code == 200
    text = httpx.get(f"{site.service.url}/metrics", headers=headers, timeout=60).text
    assert 'raylens_batch_items_sum{model="pets",tower="text"}' in text
    assert 'raylens_queue_items{model="pets",replica="' in text
    logs = Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"
    lines = [line for file in logs.glob("replica_*") for line in file.read_text().splitlines() if "live-1" in line]
    assert any("request live-1: 2 items, ok" in line for line in lines)
    assert any("request live-1 tests /v1/embeddings 200" in line for line in lines)


def test_shutdown_finishes_begun_requests_and_frees_the_port(site: Site, encoder: Encoder) -> None:
    """Last: it ends the module's service."""
    texts = [f"{CAPTIONS[number % 3]} {number}" for number in range(1000)]
    sent = threading.Semaphore(0)

    def body() -> Iterator[bytes]:
        yield json.dumps({"input": texts, "encoding_format": "base64"}).encode()
        sent.release()

    with ThreadPoolExecutor(4) as pool:
        begun = [pool.submit(site.post, "/v1/embeddings", content=body()) for _ in range(4)]
        for _ in begun:
            assert sent.acquire(timeout=60)
        # What came later has been answered by the same gateway, so the four have reached it.
        assert httpx.get(f"{site.service.url}/healthz", timeout=60).status_code == 200
        site.service.shutdown()
        answers = [one.result().json()["data"] for one in begun]
    expected = encoder.encode_texts(texts).numpy()
    for answer in answers:
        vectors = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer]
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    site.service.shutdown()
    socket.create_server(("127.0.0.1", int(site.service.url.rpartition(":")[2]))).close()


@pytest.mark.slow
def test_a_serve_config_is_deployed_by_rays_own_command(
    cluster: None, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written in the registry's folder with a relative path, run in another one."""
    port, file, here = free_port(), tmp_path / "service.yaml", Path(registry)
    monkeypatch.chdir(here.parent)
    build = ["serve", "build", "tiny", "--registry", here.name, "--port", str(port), "--out", str(file)]
    written = CliRunner().invoke(app, [*build, "--set", "models.0.precision=fp32"])
    assert written.exit_code == 0, written.output
    address = ray.get_runtime_context().gcs_address
    serve = str(Path(sys.executable).parent / "serve")
    deploy = [serve, "run", "--non-blocking", "--address", address, str(file)]
    done = subprocess.run(deploy, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, "raylens", 180)
        with EmbeddingClient(url) as client:
            expected = Registry(registry).load("tiny")[1].encode_texts(CAPTIONS).numpy()
            np.testing.assert_allclose(client.embed(CAPTIONS), expected, atol=1e-5)
    finally:
        stop("raylens", "127.0.0.1", port)
