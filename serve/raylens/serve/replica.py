"""The replica: one model, its towers and their device. Knows no HTTP, and Ray only as what runs it.

Shapes: C classes, P prompts of a class, B images, D embedding.
"""

import asyncio
import io
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from raylens.errors import OverloadedError, ServingError
from raylens.models import ZeroShotClassifier
from raylens.registry import Registry
from raylens.serve.device import Device
from raylens.serve.messages import (
    Classification,
    Classified,
    Embedded,
    Embeddings,
    Failed,
    Identity,
    Item,
    Picture,
    Refusal,
    Text,
)
from raylens.serve.settings import ServeSettings
from raylens.serve.towers import ImageTower, TextTower

__all__ = ["EncoderReplica"]

Prompts = tuple[tuple[str, ...], ...]


class EncoderReplica:
    """Serves the model behind a registry reference; the `Backend` that the gateway calls.

    Args:
        registry: URI of the registry.
        reference: ``name@3`` and the like.
        cpus: what Ray has reserved; bounds torch's threads, so that replicas of one machine do not crowd each other.

    Raises:
        NotFoundError: there is no such model.
        BundleError: it is damaged.
    """

    def __init__(self, registry: str, reference: str, settings: ServeSettings, cpus: float = 1) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        version, encoder = Registry(registry).load(reference)
        self._identity = Identity(
            name=version.name,
            number=version.number,
            digest=version.digest,
            embed_dim=encoder.embed_dim,
            context=encoder.context,
            image_size=encoder.preprocess.size,
            tokenizer=encoder.tokenizer.identity(),
            preprocess=encoder.preprocess.identity(),
        )
        self._logit_scale = encoder.logit_scale
        self._pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="raylens-decode")
        self._device = Device()
        self._texts = TextTower(encoder, self._device, self._pool, settings)
        self._images = ImageTower(encoder, self._device, self._pool, settings)
        self._classifiers: OrderedDict[Prompts, ZeroShotClassifier] = OrderedDict()
        self._cached_classifiers = settings.cached_classifiers

    async def describe(self) -> Identity:
        """The model served."""
        return self._identity

    async def embed(self, items: Sequence[Item], model: str | None = None) -> Embeddings | Refusal:
        """Embed items, each for itself: what is wrong with one leaves the others alone."""
        if not self._identity.answers_to(model):
            return self._unknown(model)
        try:
            return Embeddings(self._identity, await self._embed(items))
        except OverloadedError as error:
            return Refusal("overloaded", str(error))

    async def _embed(self, items: Sequence[Item]) -> list[Embedded | Failed]:
        texts = [item.text for item in items if isinstance(item, Text)]
        files = [item.file for item in items if isinstance(item, Picture)]
        with self._texts.reserve(len(texts)) as text_places, self._images.reserve(len(files)) as image_places:
            both = await asyncio.gather(self._texts.embed(texts, text_places), self._images.embed(files, image_places))
        from_texts, from_files = map(iter, both)
        results: list[Embedded | Failed] = []
        for item in items:
            if isinstance(item, Failed):
                results.append(item)
            else:
                results.append(next(from_texts if isinstance(item, Text) else from_files))
        return results

    async def classify(
        self,
        images: Sequence[Picture | Failed],
        prompts: Sequence[Sequence[str]],
        model: str | None = None,
    ) -> Classification | Refusal:
        """Probabilities ``[C]`` for each image, from each class's prompts and the scale that the model learned."""
        if not self._identity.answers_to(model):
            return self._unknown(model)
        try:
            classifier = await self._classifier(tuple(map(tuple, prompts)))
            embedded = await self._embed(images)
        except OverloadedError as error:
            return Refusal("overloaded", str(error))
        return Classification(self._identity, [_classified(classifier, result) for result in embedded])

    async def _classifier(self, prompts: Prompts) -> ZeroShotClassifier:
        """As `Encoder.classifier` builds it, but with the prompts in the text tower's line; kept for the next time."""
        found = self._classifiers.get(prompts)
        if found is None:
            embedded = await self._embed([Text(prompt) for of_class in prompts for prompt in of_class])
            failed = next((result for result in embedded if isinstance(result, Failed)), None)
            if failed:
                raise ServingError(f"a class prompt cannot be embedded: {failed.message}")
            vectors_ND = torch.from_numpy(np.stack([one.vector_D for one in embedded if isinstance(one, Embedded)]))
            found = ZeroShotClassifier.build(prompts, lambda _: vectors_ND, self._logit_scale)
        self._classifiers[prompts] = found
        self._classifiers.move_to_end(prompts)
        if len(self._classifiers) > self._cached_classifiers:
            self._classifiers.popitem(last=False)
        return found

    async def probe(self) -> Refusal | None:
        """Embed a text and an image, through the same lines as every request; None if both become unit vectors."""
        answer = await self.embed([Text("a photo of a cat."), Picture(_probe_image(self._identity.image_size))])
        if isinstance(answer, Refusal):
            return answer
        for result in answer.results:
            if isinstance(result, Failed):
                return Refusal("not_ready", f"the probe failed: {result.message}")
            norm = float(np.linalg.norm(result.vector_D))
            if not abs(norm - 1.0) < 1e-3:  # so put, it refuses NaN as well
                return Refusal("not_ready", f"the probe's embedding has norm {norm}, not 1: the weights are unusable")
        return None

    async def close(self) -> None:
        """Finish what runs and end the threads."""
        await self._device.close()
        self._pool.shutdown()

    def _unknown(self, model: str | None) -> Refusal:
        served = self._identity
        return Refusal(
            "model_not_found",
            f"model {model!r} is not served here: use {served.name!r} or '{served.name}@{served.number}'",
        )


def _classified(classifier: ZeroShotClassifier, result: Embedded | Failed) -> Classified | Failed:
    if isinstance(result, Failed):
        return result
    image_BD = torch.from_numpy(result.vector_D).unsqueeze(0)
    return Classified(classifier.probabilities(image_BD)[0].numpy())


def _probe_image(size: int) -> bytes:
    sink = io.BytesIO()
    Image.linear_gradient("L").resize((size, size)).save(sink, format="PNG")
    return sink.getvalue()
