"""The forms of a request and of an answer: what other services' clients send and expect."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from raylens.registry import Encoder, Registry
from raylens.serve.api.convert import encoded, shortened, typed
from raylens.serve.replica.replica import EncoderReplica
from tests.helpers.serving_app import SETTINGS, call, embed, picture, refused, uri

VECTORS = arrays.arrays(np.float32, st.integers(1, 70), elements=st.floats(-1, 1, width=32))


def vectors(answer: Any) -> Any:
    return np.array([one["embedding"] for one in answer["data"]])


def test_token_ids_with_and_without_marks_are_their_text(replica: EncoderReplica, encoder: Encoder) -> None:
    text = "two old trees"
    ids_T = encoder.tokenizer([text], encoder.context)[0][0]
    marked = ids_T[: int((ids_T == encoder.tokenizer.end_id).argmax()) + 1].tolist()
    expected = vectors(embed(replica, input=text))
    for form in (marked[1:-1], marked, [marked[1:-1]], [{"tokens": marked}]):
        np.testing.assert_allclose(vectors(embed(replica, input=form)), expected, atol=1e-6)
    mixed = embed(replica, input=[marked, "a cat", marked[1:-1]])
    np.testing.assert_allclose(vectors(mixed)[[0, 2]], np.repeat(expected, 2, axis=0), atol=1e-6)


@pytest.mark.parametrize("number", [700, -1, 10**9, None])
def test_token_ids_that_are_none_fail_alone(replica: EncoderReplica, encoder: Encoder, number: int | None) -> None:
    answer = embed(replica, input=["a cat", [5, encoder.tokenizer.end_id if number is None else number, 7]])
    assert "embedding" in answer["data"][0]
    assert answer["data"][1]["error"]["code"] == "invalid_tokens"


def test_too_many_token_ids_are_cut_and_flagged(replica: EncoderReplica, encoder: Encoder) -> None:
    ids = [5] * 20
    answer = embed(replica, input=[ids, [5] * (encoder.context - 2)])
    assert [one.get("truncated") for one in answer["data"]] == [True, None]
    np.testing.assert_allclose(vectors(answer)[0], vectors(answer)[1], atol=1e-6)


def test_infinitys_modality_makes_images_of_strings(replica: EncoderReplica) -> None:
    files = [picture(), picture()]
    expected = vectors(embed(replica, input=[{"image": uri(file)} for file in files]))
    given_so = embed(replica, input=[uri(file) for file in files], modality="image", user="somebody")
    np.testing.assert_allclose(vectors(given_so), expected, atol=1e-6)
    one = embed(replica, input=uri(files[0]), modality="image")
    np.testing.assert_allclose(vectors(one), expected[:1], atol=1e-6)


def test_an_image_as_it_is(replica: EncoderReplica) -> None:
    file = picture()
    expected = vectors(embed(replica, input=[{"image": uri(file)}], dimensions=8))
    answer = send(replica, "/v1/embeddings?dimensions=8&model=tiny", file, "image/png")
    np.testing.assert_allclose(vectors(answer.json()), expected, atol=1e-6)
    assert (
        send(replica, "/v1/embeddings", b"broken", "image/jpeg").json()["data"][0]["error"]["code"] == "invalid_image"
    )
    refused(send(replica, "/v1/embeddings?colour=red", file, "image/png"), 400, "unknown_key")
    refused(send(replica, "/v1/embeddings?dimensions=many", file, "image/png"), 400, "invalid_value")
    refused(send(replica, "/v1/embeddings", b"x" * 60_001, "image/png"), 413, "body_too_large")


def test_a_form_of_files_and_texts_in_order(replica: EncoderReplica) -> None:
    file = picture()
    expected = vectors(embed(replica, input=["a cat", {"image": uri(file)}, "a dog"]))
    parts: list[Any] = [
        ("text", (None, "a cat")),
        ("image", ("a.png", file, "image/png")),
        ("input", (None, "a dog")),
        ("encoding_format", (None, "float")),
    ]
    request = httpx.Request("POST", "http://test", files=parts)
    answer = send(replica, "/v1/embeddings", request.read(), request.headers["content-type"])
    np.testing.assert_allclose(vectors(answer.json()), expected, atol=1e-6)


@pytest.mark.parametrize(
    "content", [b"", b"--x\r\n", b"--x\r\ncontent-disposition: form-data\r\n\r\na\r\n--x--\r\n", b"\xff" * 99]
)
def test_a_broken_form_is_refused(replica: EncoderReplica, content: bytes) -> None:
    response = send(replica, "/v1/embeddings", content, "multipart/form-data; boundary=x")
    assert response.status_code == 400
    assert response.json()["error"]["code"] in ("invalid_form", "invalid_value")
    refused(send(replica, "/v1/embeddings", content, "multipart/form-data"), 400, "invalid_form")


def test_similarity_is_the_cosine(replica: EncoderReplica, encoder: Encoder) -> None:
    files = [picture(), picture()]
    body = {
        "queries": ["a cat", {"image": uri(files[0])}, {"image": "data:image/png;base64,AAAA"}],
        "documents": [{"image": uri(files[1])}, {"text": "x" * 301}, "two dogs"],
    }
    answer = call(replica, "POST", "/v1/similarity", body).json()
    text_BD, image_BD = encoder.encode_texts(["a cat", "two dogs"]).numpy(), encoder.encode_images(files).numpy()
    expected = np.stack([text_BD[0], image_BD[0]]) @ np.stack([image_BD[1], text_BD[1]]).T
    scores = [one["scores"] for one in answer["data"][:2]]
    assert [row[1] for row in scores] == [None, None]
    np.testing.assert_allclose([[row[0], row[2]] for row in scores], expected, atol=1e-5)
    assert answer["data"][2]["error"]["code"] == "invalid_image"
    assert answer["document_errors"]["1"]["code"] == "text_too_long"
    best = call(replica, "POST", "/v1/similarity", body | {"top_k": 1}).json()["data"]
    assert [one["documents"] for one in best[:2]] == [[(0, 2)[place]] for place in expected.argmax(axis=1)]
    np.testing.assert_allclose([one["scores"][0] for one in best[:2]], expected.max(axis=1), atol=1e-5)


def test_nothing_but_failed_documents(replica: EncoderReplica) -> None:
    answer = call(replica, "POST", "/v1/similarity", {"queries": "a", "documents": [{"image": "no"}]}).json()
    assert answer["data"][0]["scores"] == [None]


def test_shorter_vectors_are_of_unit_norm_and_types_agree(replica: EncoderReplica) -> None:
    whole = vectors(embed(replica, input="a cat"))[0]
    kinds = ["float", "float16", "int8", "binary"]
    [one] = embed(replica, input="a cat", dimensions=12, embedding_types=kinds)["data"]
    assert "embedding" not in one
    short = whole[:12] / np.linalg.norm(whole[:12])
    np.testing.assert_allclose(one["embeddings"]["float"], short, atol=1e-6)
    np.testing.assert_allclose(one["embeddings"]["float16"], short, atol=1e-3)
    int8 = np.array(one["embeddings"]["int8"])
    assert np.abs(int8).max() == 127
    assert int8 @ short / np.linalg.norm(int8) > 0.9995
    assert one["embeddings"]["binary"] == np.packbits(short > 0).tolist()
    [packed] = embed(replica, input="a cat", dimensions=12, embedding_types=kinds, encoding_format="base64")["data"]
    for kind, of in (("float", "<f4"), ("float16", "<f2"), ("int8", "i1"), ("binary", "u1")):
        values = np.frombuffer(base64.b64decode(packed["embeddings"][kind]), of)
        np.testing.assert_allclose(values, one["embeddings"][kind], atol=1e-6)


@given(vector_D=VECTORS, kept=st.integers(1, 80))
def test_any_vector_is_shortened_and_encoded(vector_D: Any, kept: int) -> None:
    short = shortened(vector_D, kept)
    assert len(short) == min(kept, len(vector_D))
    assert np.linalg.norm(short) == pytest.approx(1.0, abs=1e-3) or not short.any()
    for kind in ("float", "float16", "int8", "binary"):
        values = typed(short, kind)
        assert np.isfinite(np.asarray(encoded(values, "float"), dtype=float)).all()
        assert base64.b64decode(encoded(values, "base64")) == values.tobytes()


def test_each_answer_names_version_and_space(replica: EncoderReplica, registry: Path) -> None:
    version = Registry(str(registry)).resolve("tiny")
    bodies = {
        "/v1/embeddings": {"input": "a"},
        "/v1/similarity": {"queries": "a", "documents": "b"},
        "/v1/classify": {"images": [uri(picture())], "classes": ["cat", "dog"]},
    }
    for path, body in bodies.items():
        answer = call(replica, "POST", path, body).json()
        assert (answer["model"], answer["version"], answer["space"]) == ("tiny", 1, version.digest)


def test_the_same_item_is_computed_once(registry: Path) -> None:
    replica = EncoderReplica(str(registry), "tiny@1", SETTINGS)
    image = {"image": uri(picture())}
    first = embed(replica, input=["a cat", image, "a cat", image])
    assert first["data"][0]["embedding"] == first["data"][2]["embedding"]
    computed: list[Any] = []
    replica._current._encoder.encode_ids = replica._current._encoder.encode_pixels = computed.append  # type: ignore[assignment,method-assign]
    again = embed(replica, input=[image, "a cat"])
    assert [one["embedding"] for one in again["data"]] == [first["data"][place]["embedding"] for place in (1, 0)]
    assert not computed


def test_the_description_fits_what_is_served(replica: EncoderReplica) -> None:
    described = call(replica, "GET", "/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/embeddings", "/v1/similarity", "/v1/classify", "/v1/models", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    for path in ("/v1/embeddings", "/v1/similarity", "/v1/classify"):
        examples = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
        for example in examples.values():
            assert call(replica, "POST", path, example["value"]).status_code == 200
    assert "swagger" in call(replica, "GET", "/docs").text


def send(replica: EncoderReplica, path: str, content: bytes, kind: str) -> httpx.Response:
    return call(replica, "POST", path, content=content, headers={"content-type": kind})


def test_metrics_count_requests_and_items(replica: EncoderReplica) -> None:
    text = call(replica, "GET", "/metrics").text
    assert "raylens_request_seconds" in text
    assert io.StringIO(text).readline().startswith("# HELP")
