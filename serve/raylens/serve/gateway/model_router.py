"""Routing items to the text or image replicas of a model, so that each answer comes from one version.

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
"""How long the replicas of both towers may take to have a version in common while they switch to another one."""
PAUSE_S = 0.05
MIN_NORM = np.float32(1e-12)
"""Lower bound of norms that vectors are divided by, as in torch's ``normalize``."""


@dataclass(frozen=True)
class Classifier:
    """A zero-shot classifier of vectors that replicas computed: `raylens.models.ZeroShotClassifier` without torch.

    A gateway computes nothing else, and torch would take most of its start and memory.
    """

    class_CD: Vectors
    logit_scale: float

    @classmethod
    def build(cls, prompts: Sequence[Sequence[str]], vectors: Sequence[Vectors], logit_scale: float) -> Self:
        """Average the prompt embeddings of each class and normalise again (Radford et al. 2021, section 3.1.4).

        Args:
            prompts: the prompts of each of ``C`` classes.
            vectors: the prompts' unit vectors ``[D]``, class by class.
            logit_scale: the scale that the model learned, not its logarithm.
        """
        ends = np.cumsum([len(class_prompts) for class_prompts in prompts])[:-1]
        mean_CD = np.stack([part_PD.mean(axis=0) for part_PD in np.split(np.stack(vectors), ends)])
        norm_C1 = np.maximum(np.linalg.norm(mean_CD, axis=1, keepdims=True), MIN_NORM)
        return cls(mean_CD / norm_C1, logit_scale)

    def probabilities(self, image_D: Vectors) -> Vectors:
        """Return the probabilities ``[C]`` of the classes for a unit image embedding ``[D]``."""
        logit_C = np.float32(self.logit_scale) * (self.class_CD @ image_D)
        weight_C = np.exp(logit_C - logit_C.max())
        probability_C: Vectors = weight_C / weight_C.sum()
        return probability_C


class ModelRouter:
    """A model as the API sees it, over the replicas of its text and of its image tower.

    Args:
        text: the text replicas.
        image: the image replicas.
        settings: the number of classifiers that are kept.
    """

    def __init__(self, text: Embedder, image: Embedder, settings: ServeSettings) -> None:
        self._text, self._image = text, image
        self.on_report: Callable[[ReplicaReport], None] = lambda _: None
        """Called with the reports that replicas send along with their answers."""
        self._cached_classifiers = settings.cached_classifiers
        self._digest = ""
        """Digest of the version that classified last."""
        self._classifiers: OrderedDict[tuple[str, Prompts], Classifier] = OrderedDict()

    async def describe(self) -> list[Description]:
        """Return the descriptions of the text and of the image replicas."""
        return list(await asyncio.gather(self._text.describe(), self._image.describe()))

    async def probe(self) -> None:
        """Have both towers compute inputs whose vectors are known.

        Raises:
            UnavailableError: a tower gives other vectors.
        """
        for answer in await asyncio.gather(self._text.probe(), self._image.probe()):
            if answer is not None:
                raise UnavailableError(answer.message)

    async def embed(self, items: Sequence[Item], *, bulk: bool = False) -> Embeddings:
        """Embed items independently, all with one version.

        Raises:
            RefusedError: the replicas are overloaded (status 503).
            UnavailableError: the replicas of the two towers had no version in common in time.
        """
        images = [item for item in items if isinstance(item, ImageFile)]
        texts = [item for item in items if not isinstance(item, ImageFile | Failed)]
        if not (images and texts):
            return await self._embed_alone(items, self._image if images else self._text, bulk=bulk)
        text_answer, image_answer = await self._embed_both(texts, images, bulk=bulk)
        text_results, image_results = iter(text_answer.results), iter(image_answer.results)
        merged = [
            item if isinstance(item, Failed) else next(image_results if isinstance(item, ImageFile) else text_results)
            for item in items
        ]
        return Embeddings(text_answer.model, merged)

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
        self, texts: Sequence[Item], images: Sequence[Item], *, bulk: bool
    ) -> tuple[Embeddings, Embeddings]:
        """Embed with one version: where the versions differ, call one tower again for the other's, then both anew."""
        until = time.monotonic() + VERSION_TIMEOUT_S
        while True:
            text_answer, image_answer = (
                _accepted(answer)
                for answer in await asyncio.gather(
                    self._ask(self._text, texts, bulk=bulk), self._ask(self._image, images, bulk=bulk)
                )
            )
            if text_answer.model.digest == image_answer.model.digest:
                return text_answer, image_answer
            again = await self._ask(self._image, images, text_answer.model.digest, bulk=bulk)
            if isinstance(again, Embeddings):
                return text_answer, again
            again = await self._ask(self._text, texts, image_answer.model.digest, bulk=bulk)
            if isinstance(again, Embeddings):
                return again, image_answer
            if time.monotonic() > until:
                raise UnavailableError("the replicas are switching to another version; send the request again")
            await asyncio.sleep(PAUSE_S)

    async def classify(
        self, images: Sequence[ImageFile | Failed], prompts: Sequence[Sequence[str]], *, bulk: bool = False
    ) -> tuple[ModelIdentity, list[Vectors | Failed]]:
        """Return probabilities ``[C]`` for each image, from the prompts of each class and the model's logit scale.

        Raises:
            RefusedError, UnavailableError: see `embed`.
        """
        key = tuple(map(tuple, prompts))
        digest = self._digest  # read once: while this request waits, another may meet a newer version
        known = self._classifiers.get((digest, key))
        if known is not None:
            answer = await self._embed_alone(images, self._image, bulk=bulk)
        if known is None or answer.model.digest != digest:
            texts = [Text(prompt) for class_prompts in key for prompt in class_prompts]
            prompt_answer, answer = await self._embed_both(texts, images, bulk=bulk)
            known = _classifier(key, prompt_answer)
        self._digest = answer.model.digest
        self._keep((self._digest, key), known)
        return answer.model, [_probabilities(known, result) for result in answer.results]

    def _keep(self, key: tuple[str, Prompts], classifier: Classifier) -> None:
        self._classifiers[key] = classifier
        self._classifiers.move_to_end(key)
        if len(self._classifiers) > self._cached_classifiers:
            self._classifiers.popitem(last=False)


def _accepted(answer: Embeddings | Refusal) -> Embeddings:
    """Return the embeddings, or raise the exception that corresponds to a refusal."""
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
    vectors = [result.vector_D for result in answer.results if isinstance(result, Embedded)]
    return Classifier.build(prompts, vectors, answer.model.logit_scale)


def _probabilities(classifier: Classifier, result: Embedded | Failed) -> Vectors | Failed:
    return result if isinstance(result, Failed) else classifier.probabilities(result.vector_D)
