"""The embedding API on real Ray Serve, over real HTTP."""

import base64
import io
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import ray
from PIL import Image

from raylens.config import ModelConfig
from raylens.errors import NotFoundError, ServingError
from raylens.inputs import CAPTION_TEMPLATES, Preprocess, Tokenizer, fill_templates
from raylens.models import DualEncoder
from raylens.registry import Bundle, Encoder, Registry
from raylens.serve import EmbeddingClient, RunningService, ServeSettings, serve_model
from raylens.serve.stop import stop
from raylens.serve.watch import wait_until_ready

SETTINGS = ServeSettings(max_body_bytes=2_000_000, max_pixels=1_000_000, startup_timeout_s=180)
CAPTIONS = ["a red cat on a tree", "two old dogs", "a small blue house"]
CLASSES = ["cat", "dog", "house"]


def random_bundle() -> Bundle:
    tokenizer = Tokenizer.train(CAPTIONS * 3, 600)
    image = {"size": 32, "patch": 16, "width": 32, "layers": 2, "heads": 2}
    text = {"context": 16, "vocab": 700, "width": 32, "layers": 2, "heads": 2}
    config = ModelConfig.model_validate({"embed_dim": 32, "image": image, "text": text})
    preprocess = Preprocess(size=32)
    model = DualEncoder(config, end_id=tokenizer.end_id, mean=preprocess.mean, std=preprocess.std)
    return Bundle(config, model.state_dict(), tokenizer, preprocess)


def picture() -> bytes:
    draw = np.random.default_rng()
    height, width = draw.integers(20, 90, 2)
    sink = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(sink, format="PNG")
    return sink.getvalue()


def uri(file: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("registry"))
    Registry(folder).publish("tiny", random_bundle())
    return folder


@pytest.fixture(scope="module")
def encoder(registry: str) -> Encoder:
    return Registry(registry).load("tiny")[1]


@pytest.fixture(scope="module")
def service(cluster: None, registry: str) -> Iterator[RunningService]:
    with serve_model(
        registry=registry, reference="tiny", port=free_port(), replicas=2, precision="fp32", settings=SETTINGS
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[EmbeddingClient]:
    with EmbeddingClient(service.url) as opened:
        yield opened


def post(service: RunningService, path: str, **request: Any) -> httpx.Response:
    return httpx.post(service.url + path, timeout=120, **request)


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


def test_floats_equal_base64(service: RunningService, client: EmbeddingClient) -> None:
    answer = post(service, "/v1/embeddings", json={"input": CAPTIONS, "model": "tiny@1"}).json()
    np.testing.assert_allclose([one["embedding"] for one in answer["data"]], client.embed(CAPTIONS), atol=1e-6)
    assert (answer["model"], answer["version"]) == ("tiny", 1)


def test_served_probabilities_equal_offline_ones(client: EmbeddingClient, encoder: Encoder) -> None:
    files = [picture(), picture()]
    for templates in (None, ["a small {}"]):
        offline = encoder.classifier(fill_templates(CLASSES, templates or CAPTION_TEMPLATES))
        expected = offline.probabilities(encoder.encode_images(files)).numpy()
        np.testing.assert_allclose(client.classify(files, CLASSES, templates), expected, atol=1e-5)


def test_one_bad_image_fails_alone(service: RunningService, client: EmbeddingClient, encoder: Encoder) -> None:
    items = [{"text": CAPTIONS[0]}, {"image": uri(picture()[:-40])}, {"image": "http://127.0.0.1/cat.png"}]
    answer = post(service, "/v1/embeddings", json={"input": [*items, " ".join(CAPTIONS * 3)]}).json()["data"]
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
    service: RunningService, client: EmbeddingClient, body: bytes, status: int, code: str
) -> None:
    response = post(service, "/v1/embeddings", content=body)
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


def test_requests_carry_an_id(service: RunningService) -> None:
    given = httpx.get(f"{service.url}/healthz", headers={"x-request-id": "mine-1"})
    assert given.headers.get_list("x-request-id") == ["mine-1"]
    made = post(service, "/v1/embeddings", content=b"{")
    assert made.headers["x-request-id"]


def test_models_health_and_readiness(service: RunningService, client: EmbeddingClient) -> None:
    [model] = client.models()
    assert (model.id, model.version, model.digest) == ("tiny", 1, service.model.digest)
    assert httpx.get(f"{service.url}/healthz").status_code == 200
    assert httpx.get(f"{service.url}/readyz").status_code == 200


def test_concurrent_requests_are_all_answered_right(service: RunningService, encoder: Encoder) -> None:
    files = [picture() for _ in range(64)]
    texts = [f"{CAPTIONS[number % 3]} {number}" for number in range(64)]
    expected = np.stack([encoder.encode_texts(texts).numpy(), encoder.encode_images(files).numpy()], axis=1)

    def one(number: int) -> Any:
        items = [texts[number], {"image": uri(files[number])}]
        return [data["embedding"] for data in post(service, "/v1/embeddings", json={"input": items}).json()["data"]]

    with ThreadPoolExecutor(64) as pool:
        np.testing.assert_allclose(list(pool.map(one, range(64))), expected, atol=1e-5)


def test_a_second_service_is_refused(service: RunningService, registry: str) -> None:
    with pytest.raises(ServingError, match="runs on this cluster already"):
        serve_model(registry=registry, reference="tiny", port=free_port())


def test_shutdown_finishes_begun_requests_and_frees_the_port(service: RunningService, encoder: Encoder) -> None:
    """Last: it ends the module's service."""
    texts = [f"{CAPTIONS[number % 3]} {number}" for number in range(1000)]
    sent = threading.Semaphore(0)

    def body() -> Iterator[bytes]:
        yield json.dumps({"input": texts, "encoding_format": "base64"}).encode()
        sent.release()

    with ThreadPoolExecutor(4) as pool:
        begun = [pool.submit(post, service, "/v1/embeddings", content=body()) for _ in range(4)]
        for _ in begun:
            assert sent.acquire(timeout=60)
        # What came later has been answered by the same gateway, so the four have reached it.
        assert httpx.get(f"{service.url}/healthz", timeout=60).status_code == 200
        service.shutdown()
        answers = [one.result().json()["data"] for one in begun]
    expected = encoder.encode_texts(texts).numpy()
    for answer in answers:
        vectors = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer]
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    service.shutdown()
    socket.create_server(("127.0.0.1", int(service.url.rpartition(":")[2]))).close()


def test_a_declaration_is_deployed_by_rays_own_command(
    cluster: None, registry: str, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written in the registry's folder with a relative path, run in another one."""
    port, file, tools = free_port(), tmp_path / "service.yaml", Path(sys.executable).parent
    here = Path(registry)
    build: list[str | Path] = [
        tools / "raylens",
        "serve",
        "build",
        "tiny",
        "--registry",
        here.name,
        "--port",
        str(port),
        "--out",
        file,
    ]
    subprocess.run([*build, "--set", "models.0.precision=fp32"], cwd=here.parent, check=True)
    address = ray.get_runtime_context().gcs_address
    deploy: list[str | Path] = [tools / "serve", "run", "--non-blocking", "--address", address, file]
    done = subprocess.run(deploy, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, "raylens", 180)
        with EmbeddingClient(url) as client:
            np.testing.assert_allclose(client.embed(CAPTIONS), encoder.encode_texts(CAPTIONS).numpy(), atol=1e-5)
    finally:
        stop("raylens", "127.0.0.1", port)
