"""The API in one process: the real application over a real replica, without Ray and without a network."""

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from raylens.errors import OverloadedError, ServingError
from raylens.registry import Bundle, Encoder, Registry
from raylens.serve.config import ServeSettings
from raylens.serve.gateway.app import build_app
from raylens.serve.messages import Embeddings, Item, Refusal
from raylens.serve.replica.replica import EncoderReplica
from raylens.serve.tracing import RequestContext
from tests.helpers.serving_app import (
    SETTINGS,
    WORDS,
    call,
    catalogue_of,
    embed,
    picture,
    random_bundle,
    refused,
    uri,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "image", "input", "model"]) | st.text(max_size=5), part, max_size=3)
    ),
    max_leaves=8,
)


def test_mixed_items_equal_the_encoder_in_order(replica: EncoderReplica, encoder: Encoder) -> None:
    files = [picture(), picture(64, 20, "JPEG")]
    answer = embed(
        replica,
        input=["two old trees", {"image": uri(files[0])}, {"text": "a cat"}, {"image": uri(files[1], "jpeg")}],
    )
    texts, images = encoder.encode_texts(["two old trees", "a cat"]), encoder.encode_images(files)
    expected = torch.stack([texts[0], images[0], texts[1], images[1]]).numpy()
    assert [one["index"] for one in answer["data"]] == [0, 1, 2, 3]
    np.testing.assert_allclose([one["embedding"] for one in answer["data"]], expected, atol=1e-5)
    assert (answer["model"], answer["version"]) == ("tiny", 1)


def test_base64_is_the_little_endian_bytes_of_the_floats(replica: EncoderReplica) -> None:
    items = ["a cat", {"image": uri(picture())}]
    floats = embed(replica, input=items)["data"]
    packed = embed(replica, input=items, encoding_format="base64")["data"]
    for one, other in zip(floats, packed, strict=True):
        np.testing.assert_allclose(np.frombuffer(base64.b64decode(other["embedding"]), "<f4"), one["embedding"], 1e-6)


def test_one_string_is_a_list_of_one(replica: EncoderReplica) -> None:
    assert embed(replica, input="a cat")["data"] == embed(replica, input=["a cat"])["data"]


def test_truncated_texts_are_flagged_and_tokens_counted(replica: EncoderReplica, encoder: Encoder) -> None:
    texts = ["a cat", " ".join(WORDS * 3)]
    answer = embed(replica, input=texts)
    assert "truncated" not in answer["data"][0]
    assert answer["data"][1]["truncated"] is True
    ids, _ = encoder.tokenizer(texts, encoder.context)
    tokens = sum(row.tolist().index(encoder.tokenizer.end_id) + 1 for row in ids)
    assert answer["usage"] == dict.fromkeys(("prompt_tokens", "total_tokens"), tokens)


@pytest.mark.parametrize(
    ("item", "code", "says"),
    [
        ({"image": uri(b"not an image")}, "invalid_image", "known format"),
        ({"image": uri(picture()[:-60])}, "invalid_image", "truncated"),
        ({"image": "data:image/png;base64,@@@"}, "invalid_image", "base64"),
        ({"image": "data:image/png;base64,AAA\u00e9"}, "invalid_image", "base64"),
        ({"image": "data:text/plain;base64,AAAA"}, "invalid_image", "data URI"),
        ({"image": "/etc/passwd"}, "invalid_image", "data URI"),
        ({"image": uri(picture(101, 100))}, "invalid_image", "10000 pixels"),
        ({"image": "https://example.org/cat.png"}, "url_not_allowed", "not fetched"),
        ({"image": "file:///etc/passwd"}, "url_not_allowed", "not fetched"),
        ("x" * 301, "text_too_long", "301 characters"),
    ],
)
def test_a_bad_item_fails_alone(replica: EncoderReplica, encoder: Encoder, item: Any, code: str, says: str) -> None:
    file = picture()
    answer = embed(replica, input=["a cat", item, {"image": uri(file)}])
    bad = answer["data"].pop(1)
    assert (bad["object"], bad["index"], bad["error"]["code"]) == ("embedding", 1, code)
    assert says in bad["error"]["message"]
    assert "embedding" not in bad
    expected = torch.cat([encoder.encode_texts(["a cat"]), encoder.encode_images([file])])
    np.testing.assert_allclose([one["embedding"] for one in answer["data"]], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "code", "param", "says"),
    [
        ({}, "missing_key", "input", "missing"),
        ({"input": []}, "invalid_value", "input", "at least 1"),
        ({"input": 3}, "invalid_value", "input", "a string, or a list"),
        ({"input": None}, "invalid_value", "input", "a string, or a list"),
        ({"input": ["a", 3]}, "invalid_value", "input.1", "object"),
        ({"input": [[1, "a"]]}, "invalid_value", "input.0.tokens.1", "integer"),
        ({"input": [[]]}, "invalid_value", "input.0.tokens", "at least 1"),
        ({"input": "a", "dimensions": 0}, "invalid_value", "dimensions", "greater than"),
        ({"input": "a", "dimensions": 33}, "invalid_value", "dimensions", "have 32"),
        ({"input": "a", "embedding_types": ["int4"]}, "invalid_value", "embedding_types.0", "int8"),
        ({"input": "a", "modality": "audio"}, "invalid_value", "modality", "image"),
        ({"input": [{}]}, "invalid_value", "input.0", "give one of"),
        ({"input": [{"text": "a", "image": "b"}]}, "invalid_value", "input.0", "give one of"),
        ({"input": [{"txt": "a"}]}, "unknown_key", "input.0.txt", "text, image"),
        ({"input": "a", "dimension": 3}, "unknown_key", "dimension", "encoding_format"),
        ({"input": "a", "encoding_format": "int8"}, "invalid_value", "encoding_format", "base64"),
        ({"input": "a", "model": 3}, "invalid_value", "model", "string"),
        ({"input": ["a"] * 13}, "too_many_items", "input", "limit of 12"),
        ([1], "invalid_value", None, "object"),
    ],
)
def test_a_bad_request_is_explained(replica: EncoderReplica, body: Any, code: str, param: str, says: str) -> None:
    error = refused(call(replica, "POST", "/v1/embeddings", body), 400, code)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]


def test_refused_values_are_not_repeated_at_length(replica: EncoderReplica) -> None:
    response = call(replica, "POST", "/v1/embeddings", {"input": "a", "encoding_format": "x" * 10_000})
    assert len(response.content) < 500


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"input": "\\ud800"}', b"[" * 5000])
def test_what_is_not_json_is_refused(replica: EncoderReplica, content: bytes) -> None:
    refused(call(replica, "POST", "/v1/embeddings", content=content), 400, "invalid_json")


@given(body=JSON)
@examples(max_examples=60)
def test_no_body_breaks_the_service(replica: EncoderReplica, body: Any) -> None:
    for path, key in (("/v1/embeddings", "input"), ("/v1/classify", "images")):
        response = call(replica, "POST", path, {key: body, **({"classes": ["a", "b"]} if key == "images" else {})})
        if response.status_code != 200:
            assert response.status_code in (400, 404)
            refused(response, response.status_code, response.json()["error"]["code"])


def test_a_large_body_is_refused_declared_or_not(replica: EncoderReplica) -> None:
    async def chunked() -> httpx.Response:
        async def parts() -> Any:
            for _ in range(7):
                yield b" " * 10_000

        transport = httpx.ASGITransport(app=build_app(catalogue_of(replica), SETTINGS))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/embeddings", content=parts())

    refused(call(replica, "POST", "/v1/embeddings", content=b" " * 60_001), 413, "body_too_large")
    refused(asyncio.run(chunked()), 413, "body_too_large")


def test_other_models_and_routes_are_not_found(replica: EncoderReplica) -> None:
    for model in ("tiny", "tiny@1"):
        embed(replica, input="a", model=model)
    for model in ("tiny@2", "gpt", ""):
        response = call(replica, "POST", "/v1/embeddings", {"input": "a", "model": model})
        assert refused(response, 404, "model_not_found")["param"] == "model"
    refused(call(replica, "GET", "/v1/nothing"), 404, "not_found")
    refused(call(replica, "GET", "/v1/embeddings"), 405, "method_not_allowed")


@pytest.mark.parametrize("templates", [None, ["a small {}", "{} under two trees"]])
def test_classification_is_the_scaled_softmax_of_the_ensemble(
    replica: EncoderReplica, encoder: Encoder, templates: list[str] | None
) -> None:
    files, classes = [picture(), picture()], ["cat", "dog", "old tree"]
    body: dict[str, Any] = {"images": [uri(files[0]), uri(b"broken"), uri(files[1])], "classes": classes}
    filled = templates or ["a photo of a {}.", "a picture of a {}.", "an image of a {}.", "{}"]
    means = [encoder.encode_texts([form.format(name) for form in filled]).double().mean(0) for name in classes]
    class_CD = np.stack([mean.numpy() / np.linalg.norm(mean.numpy()) for mean in means])
    scores = np.exp(encoder.logit_scale * encoder.encode_images(files).double().numpy() @ class_CD.T)
    expected = scores / scores.sum(axis=1, keepdims=True)
    for _ in range(2):  # computed, then from the cache
        answer = call(replica, "POST", "/v1/classify", body | ({"templates": templates} if templates else {})).json()
        assert (answer["classes"], answer["model"], answer["version"]) == (classes, "tiny", 1)
        assert answer["data"].pop(1)["error"]["code"] == "invalid_image"
        np.testing.assert_allclose([one["probabilities"] for one in answer["data"]], expected, atol=1e-5)
        assert [one["label"] for one in answer["data"]] == [classes[place] for place in expected.argmax(axis=1)]
    offline = encoder.classifier([[form.format(name) for form in filled] for name in classes])
    np.testing.assert_allclose(offline.probabilities(encoder.encode_images(files)).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"classes": ["cat"]}, "invalid_value", "classes"),
        ({"classes": ["cat", "Cat "]}, "invalid_value", "classes"),
        ({"classes": ["cat", ""]}, "invalid_value", "classes"),
        ({"templates": ["no place"]}, "invalid_value", "templates"),
        ({"templates": []}, "invalid_value", "templates"),
        ({"images": []}, "invalid_value", "images"),
        ({"images": [{"image": "x"}]}, "invalid_value", "images.0"),
        ({"images": ["x"] * 13}, "too_many_items", "images"),
        ({"classes": ["a", "b", "c", "d"]}, "too_many_items", "classes"),
        ({"top_k": 3}, "unknown_key", "top_k"),
    ],
)
def test_a_bad_classification_is_explained(
    replica: EncoderReplica, change: dict[str, Any], code: str, param: str
) -> None:
    body = {"images": [uri(picture())], "classes": ["cat", "dog"]}
    assert refused(call(replica, "POST", "/v1/classify", body | change), 400, code)["param"] == param


def test_the_model_describes_itself(replica: EncoderReplica, registry: Path) -> None:
    version, encoder = Registry(str(registry)).load("tiny")
    [model] = call(replica, "GET", "/v1/models").json()["data"]
    assert model == {
        "id": "tiny",
        "object": "model",
        "version": 1,
        "digest": version.digest,
        "dimension": 32,
        "context": 16,
        "image_size": 32,
        "tokenizer": encoder.tokenizer.identity(),
        "preprocessing": encoder.preprocess.identity(),
        "normalised": True,
        "towers": {name: {"precision": "fp32", "cosine_to_fp32": 1.0} for name in ("image", "text")},
        "limits": {"max_items": 12, "max_body_bytes": 60_000, "max_text_chars": 300, "max_pixels": 10_000},
    }


def test_health_and_readiness(replica: EncoderReplica) -> None:
    assert call(replica, "GET", "/healthz").status_code == 200
    assert call(replica, "GET", "/readyz").json() == {"status": "ready"}


def test_a_model_of_nan_does_not_start(tmp_path: Path) -> None:
    bundle = random_bundle()
    ruined = {name: torch.full_like(weight, torch.nan) for name, weight in bundle.weights.items()}
    Registry(str(tmp_path)).publish("ruined", Bundle(bundle.config, ruined, bundle.tokenizer, bundle.preprocess))
    with pytest.raises(ServingError, match="tower of ruined@1 is unusable: known inputs have cosine nan"):
        EncoderReplica(str(tmp_path), "ruined", SETTINGS)


def test_a_full_replica_asks_to_come_back(registry: Path) -> None:
    replica = EncoderReplica(str(registry), "tiny", SETTINGS.model_copy(update={"capacity": 2}))
    body = {"input": ["a", "b", {"image": uri(picture())}]}
    embed(replica, input=body["input"][1:])
    response = call(replica, "POST", "/v1/embeddings", {"input": ["c", "d", "e"]})
    refused(response, 503, "overloaded")
    assert response.headers["retry-after"] == "1"
    embed(replica, **body)  # the refused request holds no place


class Broken(EncoderReplica):
    """Fails as a bug would, or never answers."""

    fault: Exception | None = None

    async def embed(
        self,
        items: Sequence[Item],
        digest: str | None = None,
        *,
        bulk: bool = False,
        sender: RequestContext | None = None,
    ) -> Embeddings | Refusal:
        if self.fault is not None:
            raise self.fault
        await asyncio.sleep(3600)
        return await super().embed(items, digest, bulk=bulk, sender=sender)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (RuntimeError("/work/secret.py"), 500, "internal_error"),
        (OverloadedError("too much"), 503, "overloaded"),
        (None, 504, "timeout"),
    ],
)
def test_faults_of_ours_are_answered_without_details(
    registry: Path, fault: Exception | None, status: int, code: str
) -> None:
    backend = Broken(str(registry), "tiny", SETTINGS)
    backend.fault = fault
    settings = SETTINGS.model_copy(update={"request_timeout_s": 0.05})
    response = call(backend, "POST", "/v1/embeddings", {"input": "a"}, settings=settings)
    assert refused(response, status, code)["type"] == "server_error"


def test_a_capacity_below_the_largest_request_is_refused() -> None:
    with pytest.raises(ValueError, match=r"capacity = 5.*max_items = 6"):
        ServeSettings(capacity=5, max_items=6)
