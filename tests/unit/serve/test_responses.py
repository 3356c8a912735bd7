"""Encoding of responses, and replicas that are lost before they answer."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from functools import partial
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
from grpc.aio import AioRpcError, Metadata  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import ActorUnavailableError

from raylens.errors import UnavailableError
from raylens.serve.api.convert import classify_response, embedding_response, similarity_response
from raylens.serve.api.requests import EmbeddingRequest, SimilarityRequest
from raylens.serve.api.responses import ClassifyResponse, EmbeddingResponse, ListResponse, SimilarityResponse, to_json
from raylens.serve.gateway.app import _json
from raylens.serve.gateway.ingress import HandleEmbedder
from raylens.serve.messages import Embedded, Embeddings, Failed, ModelIdentity, Text

NAMES = st.sampled_from(["pets", '"data":[]', 'x","data":[],"y":"', "\\", "\u00e9"])
RESULTS = st.lists(
    st.builds(Failed, st.just("invalid_image"), NAMES)
    | st.builds(
        lambda row, cut: Embedded(np.array(row, dtype=np.float32), 3, cut),
        st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


def embeddings(name: str, results: list[Embedded | Failed]) -> Embeddings:
    return Embeddings(ModelIdentity(name, 3, "space", 4, 8, 16, 10.0, "t", "p"), results)


@given(name=NAMES, results=RESULTS, form=st.sampled_from(["float", "base64"]))
def test_entry_by_entry_is_the_same_json(name: str, results: list[Embedded | Failed], form: str) -> None:
    answer = embeddings(name, results)
    request = EmbeddingRequest.model_validate({"input": "a", "encoding_format": form})
    pairs = SimilarityRequest.model_validate({"queries": ["a"], "documents": ["b"] * max(1, len(results) - 1)})
    chances = [one if isinstance(one, Failed) else one.vector_D for one in results]
    made: list[tuple[type[ListResponse], ListResponse]] = [
        (EmbeddingResponse, embedding_response(answer, request)),
        (SimilarityResponse, similarity_response(answer, pairs)),
        (ClassifyResponse, classify_response(answer.model, chances, ["a", '"data":[]', "c", "d"])),
    ]
    for kind, one in made:
        assert to_json(one) == one.model_dump_json(exclude_none=True).encode()
        assert kind.model_validate_json(to_json(one)) == one


def test_the_loop_goes_on_while_a_large_answer_is_encoded() -> None:
    row = Embedded(np.random.default_rng().standard_normal(512).astype(np.float32))
    request = EmbeddingRequest.model_validate({"input": "a"})
    turns: Counter[str] = Counter()

    async def scene() -> None:
        async def others() -> None:
            while True:
                turns["others"] += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(others())
        for count in (1, 500):
            turns.clear()
            await _json(partial(embedding_response, embeddings("pets", [row] * count), request), 512 * count)
            turns[str(count)] = turns["others"]
        beside.cancel()

    asyncio.run(scene())
    assert turns["1"] == 0, "a small one is not worth a thread"
    assert turns["500"] > 3


class Handle:
    """A deployment's handle whose first calls are cut off; `faults` are real exceptions of what carries them."""

    def __init__(self, faults: list[Exception]) -> None:
        self.faults, self.calls = faults, 0
        self.embed = self

    def remote(self, *_arguments: Any, **_named: Any) -> Awaitable[str]:
        self.calls += 1

        async def answer() -> str:
            if self.faults:
                raise self.faults.pop(0)
            return "embedded"

        return answer()


LOST = [
    ActorUnavailableError("gone", b"0" * 16),
    *(
        AioRpcError(code, Metadata(), Metadata(), details="the stream was reset")
        for code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    ),
]


@pytest.mark.parametrize("fault", LOST, ids=["actor", "cancelled", "internal", "unknown"])
def test_a_lost_replica_is_asked_for_once_more_and_not_twice(fault: Exception) -> None:
    handle: Any = Handle([fault])
    answer: Any = asyncio.run(HandleEmbedder(handle).embed([Text("a")]))
    assert answer == "embedded"
    assert handle.calls == 2
    handle = Handle([fault, fault])
    with pytest.raises(UnavailableError, match="replica"):
        asyncio.run(HandleEmbedder(handle).embed([Text("a")]))
    assert handle.calls == 2


def test_a_fault_of_ours_is_not_repeated() -> None:
    handle: Any = Handle([ValueError("a bug")])
    with pytest.raises(ValueError, match="a bug"):
        asyncio.run(HandleEmbedder(handle).embed([Text("a")]))
    assert handle.calls == 1
