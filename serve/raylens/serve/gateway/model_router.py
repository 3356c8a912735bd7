"""A model of which one set of replicas embeds texts and another images, as one: never two spaces in one answer.

Shapes: B images, C classes, P prompts of a class, D embedding.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from raylens.errors import ServingError, UnavailableError
from raylens.serve.api.errors import RefusedError
from raylens.serve.config import ServeSettings
from raylens.serve.messages import (
    Description,
    Embedded,
    Embedder,
    Embeddings,
    Failed,
    ImageFile,
    Item,
    ModelIdentity,
    Refusal,
    ReplicaReport,
    Text,
)

__all__ = ["Classifier", "ModelRouter"]

Vectors = NDArray[np.float32]
Prompts = tuple[tuple[str, ...], ...]
VERSION_TIMEOUT_S = 20.0
"""For the replicas of both towers to have a version in common, while they go over to another one."""
PAUSE_S = 0.05
SMALLEST = np.float32(1e-12)
"""What a norm is taken for at least, as in torch's ``normalize``."""


@dataclass(frozen=True)
class Classifier:
    """Unit vectors of the classes and the scale that turns cosines into logits."""

    class_CD: Vectors
    logit_scale: float

    @classmethod
    def build(cls, prompts: Sequence[Sequence[str]], vectors: Sequence[Vectors], logit_scale: float) -> Self:
        """Average each class's prompt embeddings and normalise again (Radford et al. 2021, section 3.1.4).

        Args:
            prompts: for each of ``C`` classes its prompts.
            vectors: the prompts' unit vectors ``[D]``, class after class.
            logit_scale: the scale the model learned, not its logarithm.
        """
        ends = np.cumsum([len(of_class) for of_class in prompts])[:-1]
        mean_CD = np.stack([part_PD.mean(axis=0) for part_PD in np.split(np.stack(vectors), ends)])
        norm_C1 = np.maximum(np.linalg.norm(mean_CD, axis=1, keepdims=True), SMALLEST)
        return cls(mean_CD / norm_C1, logit_scale)

    def probabilities(self, image_D: Vectors) -> Vectors:
        """The probabilities ``[C]`` of the classes for a unit image embedding ``[D]``."""
        logit_C = np.float32(self.logit_scale) * (self.class_CD @ image_D)
        weight_C = np.exp(logit_C - logit_C.max())
        probability_C: Vectors = weight_C / weight_C.sum()
        return probability_C


class ModelRouter:
    """What the API asks for a model. Knows replicas only as `Embedder`."""

    def __init__(self, text: Embedder, image: Embedder, settings: ServeSettings) -> None:
        self._text, self._image = text, image
        self.on_report: Callable[[ReplicaReport], None] = lambda _: None
        """Is told what replicas say of their work along with their answers."""
        self._cached_classifiers = settings.cached_classifiers
        self._digest = ""
        """Of the version that classified last."""
        self._classifiers: OrderedDict[tuple[str, Prompts], Classifier] = OrderedDict()

    async def describe(self) -> list[Description]:
        """Of the text and the image replicas."""
        return list(await asyncio.gather(self._text.describe(), self._image.describe()))

    async def probe(self) -> None:
        """Both towers compute known inputs.

        Raises:
            UnavailableError: one does not.
        """
        for answer in await asyncio.gather(self._text.probe(), self._image.probe()):
            if answer is not None:
                raise UnavailableError(answer.message)

    async def embed(self, items: Sequence[Item], *, bulk: bool = False) -> Embeddings:
        """Embed items, each for itself, all with one version.

        Raises:
            RefusedError: there is no room for them (status 503).
            UnavailableError: the towers' replicas found no version in common in time.
        """
        images = [item for item in items if isinstance(item, ImageFile)]
        words = [item for item in items if not isinstance(item, ImageFile | Failed)]
        if not (images and words):
            return await self._embed_alone(items, self._image if images else self._text, bulk=bulk)
        of_words, of_images = await self._embed_both(words, images, bulk=bulk)
        from_words, from_images = iter(of_words.results), iter(of_images.results)
        merged = [
            item if isinstance(item, Failed) else next(from_images if isinstance(item, ImageFile) else from_words)
            for item in items
        ]
        return Embeddings(of_words.model, merged)

    async def _embed_alone(self, items: Sequence[Item], embedder: Embedder, *, bulk: bool) -> Embeddings:
        return _accepted(await self._ask(embedder, items, bulk=bulk))

    async def _ask(
        self, embedder: Embedder, items: Sequence[Item], digest: str | None = None, *, bulk: bool
    ) -> Embeddings | Refusal:
        answer = await embedder.embed(items, digest, bulk=bulk)
        if answer.report is not None:
            self.on_report(answer.report)
        return answer

    async def _embed_both(
        self, words: Sequence[Item], images: Sequence[Item], *, bulk: bool
    ) -> tuple[Embeddings, Embeddings]:
        """Of one version: where they differ, each is asked again for the version of the other, then both anew."""
        until = time.monotonic() + VERSION_TIMEOUT_S
        while True:
            of_words, of_images = (
                _accepted(answer)
                for answer in await asyncio.gather(
                    self._ask(self._text, words, bulk=bulk), self._ask(self._image, images, bulk=bulk)
                )
            )
            if of_words.model.digest == of_images.model.digest:
                return of_words, of_images
            again = await self._ask(self._image, images, of_words.model.digest, bulk=bulk)
            if isinstance(again, Embeddings):
                return of_words, again
            again = await self._ask(self._text, words, of_images.model.digest, bulk=bulk)
            if isinstance(again, Embeddings):
                return again, of_images
            if time.monotonic() > until:
                raise UnavailableError("the replicas are going over to another version; send the request again")
            await asyncio.sleep(PAUSE_S)

    async def classify(
        self, images: Sequence[ImageFile | Failed], prompts: Sequence[Sequence[str]], *, bulk: bool = False
    ) -> tuple[ModelIdentity, list[Vectors | Failed]]:
        """For each image probabilities ``[C]``, from each class's prompts and the scale that the model learned.

        Raises:
            RefusedError, UnavailableError: see `embed`.
        """
        key = tuple(map(tuple, prompts))
        digest = self._digest  # of now: while this request waits, another may find a newer version
        known = self._classifiers.get((digest, key))
        if known is not None:
            answer = await self._embed_alone(images, self._image, bulk=bulk)
        if known is None or answer.model.digest != digest:
            texts = [Text(prompt) for of_class in key for prompt in of_class]
            of_prompts, answer = await self._embed_both(texts, images, bulk=bulk)
            known = _classifier(key, of_prompts)
        self._digest = answer.model.digest
        self._keep((self._digest, key), known)
        return answer.model, [_probabilities(known, one) for one in answer.results]

    def _keep(self, key: tuple[str, Prompts], classifier: Classifier) -> None:
        self._classifiers[key] = classifier
        self._classifiers.move_to_end(key)
        if len(self._classifiers) > self._cached_classifiers:
            self._classifiers.popitem(last=False)


def _accepted(answer: Embeddings | Refusal) -> Embeddings:
    """The answer, or the exception that a refusal means to the API."""
    if isinstance(answer, Embeddings):
        return answer
    if answer.code == "overloaded":
        raise RefusedError(answer.message, status=503, code=answer.code, retry_after_s=answer.retry_after_s)
    raise UnavailableError(answer.message)


def _classifier(prompts: Prompts, answer: Embeddings) -> Classifier:
    failed = next((result for result in answer.results if isinstance(result, Failed)), None)
    if failed and failed.code == "unsupported_input":
        raise RefusedError(failed.message, code=failed.code, param="model")
    if failed:
        raise ServingError(f"a class prompt cannot be embedded: {failed.message}")
    vectors = [one.vector_D for one in answer.results if isinstance(one, Embedded)]
    return Classifier.build(prompts, vectors, answer.model.logit_scale)


def _probabilities(classifier: Classifier, result: Embedded | Failed) -> Vectors | Failed:
    return result if isinstance(result, Failed) else classifier.probabilities(result.vector_D)
