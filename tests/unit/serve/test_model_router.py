"""The model router: two sets of replicas as one model, while each switches to another version at its own moment."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.errors import UnavailableError
from raylens.serve.config import ServeSettings
from raylens.serve.gateway import model_router as router_module
from raylens.serve.gateway.model_router import ModelRouter
from raylens.serve.messages import (
    Description,
    Embedded,
    Embeddings,
    Failed,
    ImageFile,
    Item,
    ModelIdentity,
    Refusal,
    Text,
)

FILES = [ImageFile(b"a"), ImageFile(b"b")]


def identity(version: str) -> ModelIdentity:
    return ModelIdentity("tiny", int(version), version, 4, 8, 16, 10.0, "t", "p")


class Tower:
    """Replicas that hold the versions of a script, one entry per call."""

    def __init__(self, script: Sequence[set[str]], slow: int | None = None) -> None:
        self._script, self._slow = list(script), slow
        self.asked: list[str | None] = []
        self.embedded: list[tuple[str, str]] = []
        """Versions, and the first text of each list of texts."""

    async def embed(
        self, items: Sequence[Item], digest: str | None = None, *, bulk: bool = False
    ) -> Embeddings | Refusal:
        del bulk
        there = self._script[min(len(self.asked), len(self._script) - 1)]
        self.asked.append(digest)
        for _ in range(20 if len(self.asked) - 1 == self._slow else 1):
            await asyncio.sleep(0)
        version = max(there) if digest is None else digest
        if version not in there:
            return Refusal("other_version", "not here")
        if isinstance(items[0], Text):
            self.embedded.append((version, items[0].text))
        vector = np.full(4, float(version), dtype=np.float32)
        return Embeddings(identity(version), [one if isinstance(one, Failed) else Embedded(vector) for one in items])

    async def describe(self) -> Description:
        raise NotImplementedError

    async def probe(self) -> None:
        raise NotImplementedError


versions = st.lists(st.sets(st.sampled_from("123"), min_size=1), min_size=1, max_size=6)


@given(of_texts=versions, of_images=versions)
def test_an_answer_is_of_one_version(of_texts: list[set[str]], of_images: list[set[str]]) -> None:
    if max(of_texts[-1]) not in of_images[-1] and max(of_images[-1]) not in of_texts[-1]:
        of_images = [*of_images, of_texts[-1]]  # at last what one of them offers, the other has too
    settings = ServeSettings()
    router = ModelRouter(Tower(of_texts), Tower(of_images), settings)
    answer = asyncio.run(router.embed([Text("a"), FILES[0], Failed("bad", "x"), Text("b")]))
    rows = [one.vector_D[0] for one in answer.results if isinstance(one, Embedded)]
    assert len(rows) == 3
    assert {str(int(row)) for row in rows} == {answer.model.digest}
    assert answer.results[2] == Failed("bad", "x")


def test_replicas_that_never_agree_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "VERSION_TIMEOUT_S", 0.2)
    router = ModelRouter(Tower([{"1"}]), Tower([{"2"}]), ServeSettings())
    with pytest.raises(UnavailableError, match="version"):
        asyncio.run(router.embed([Text("a"), FILES[0]]))


def test_a_class_is_never_of_another_version_than_the_image() -> None:
    texts, images = Tower([{"1"}, {"2"}]), Tower([{"1"}, {"1"}, {"2"}])
    router = ModelRouter(texts, images, ServeSettings())

    async def scene() -> list[Any]:
        return [await router.classify(FILES, [["a cat"], ["a dog"]]) for _ in range(4)]

    told = [found.digest for found, _ in asyncio.run(scene())]
    assert told == ["1", "1", "2", "2"]
    assert len(texts.asked) == 2, "the prompts of a version are embedded once"


def test_a_swap_while_a_classification_waits_mixes_nothing() -> None:
    """The classifier is of version 1, and another caller has found version 2 before the images are back."""

    async def scene() -> list[tuple[str, Any]]:
        texts, images = Tower([{"1"}, {"2"}]), Tower([{"1"}, {"2"}], slow=1)
        router = ModelRouter(texts, images, ServeSettings())
        prompts = [["a cat"], ["a dog"]]
        told = [await router.classify(FILES, prompts)]
        late, other = await asyncio.gather(router.classify(FILES, prompts), router.classify(FILES, [["c"], ["d"]]))
        told += [late, other, await router.classify(FILES, prompts)]
        assert texts.embedded == [("1", "a cat"), ("2", "c"), ("2", "a cat")]
        return [(found.digest, chances) for found, chances in told]

    assert [digest for digest, _ in asyncio.run(scene())] == ["1", "2", "2", "2"]


def test_one_tower_alone_is_asked_once() -> None:
    texts, images = Tower([{"1"}]), Tower([{"1"}])
    router = ModelRouter(texts, images, ServeSettings())
    asyncio.run(router.embed([Text("a")]))
    asyncio.run(router.embed(FILES))
    assert (texts.asked, images.asked) == ([None], [None])
