"""One version of a model in memory: its towers, their queues on the device, and the golden inputs that check them."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from raylens.errors import ServingError
from raylens.registry import Encoder, Version
from raylens.serve.config import Precision, ServeSettings
from raylens.serve.histograms import Meter
from raylens.serve.messages import Description, Embedded, Failed, ImageFile, Item, ModelIdentity, Text, Tokens, Tower
from raylens.serve.replica.device import Device
from raylens.serve.replica.precision import MIN_COSINE, GoldenInputs, apply_precision, golden_inputs
from raylens.serve.replica.towers import ImageTower, TextTower

__all__ = ["LoadedModel"]

logger = logging.getLogger("ray.serve")

NO_TEXTS = Failed("unsupported_input", "this model predicts captions and embeds no texts: send images")
ABSENT = Failed("internal_error", "this replica does not hold the tower that embeds the item")


class LoadedModel:
    """A version that is ready to embed: verified, rounded to bf16 where that is allowed, and warmed up.

    Building it takes seconds and is safe in any thread; afterwards all methods must be called in the event loop.

    Args:
        version: the version in the registry.
        encoder: its encoder, loaded.
        towers: the towers to hold.
        precision: see `raylens.serve.replica.precision.apply_precision`.

    Raises:
        ServingError: the towers do not give unit vectors.
    """

    def __init__(
        self,
        version: Version,
        encoder: Encoder,
        towers: Sequence[Tower],
        precision: Precision,
    ) -> None:
        self.identity = _identity(version, encoder)
        self._embeds_texts = encoder.embeds_texts
        kept_towers: tuple[Tower, ...] = tuple(tower for tower in towers if tower != "text" or encoder.embeds_texts)
        self._golden: dict[Tower, GoldenInputs] = golden_inputs(encoder, kept_towers)
        self.precisions = apply_precision(encoder, self._golden, precision)
        encoder.keep_only(kept_towers)
        encoder.pack()
        self._encoder = encoder
        self._texts: TextTower | None = None
        self._images: ImageTower | None = None
        self._users = 0
        for tower, golden in self._golden.items():
            self._check(tower, golden.cosine())  # also warms up: the first call of a shape allocates and compiles

    def attach(
        self, device: Device, pool: ThreadPoolExecutor, settings: ServeSettings, meters: Mapping[Tower, Meter]
    ) -> "LoadedModel":
        """Attach the towers to a device; return the model itself."""
        self._device = device
        if "text" in self._golden:
            self._texts = TextTower(self._encoder, device, pool, settings, meters["text"])
        if "image" in self._golden:
            self._images = ImageTower(self._encoder, device, pool, settings, meters["image"])
        return self

    def detach(self) -> None:
        """Detach the towers from the device; nothing may be queued."""
        for tower in (self._texts, self._images):
            if tower is not None:
                self._device.detach(tower.batcher)

    @property
    def description(self) -> Description:
        """The version, and the precision of its towers."""
        return Description(self.identity, self.precisions)

    @property
    def pending(self) -> dict[Tower, int]:
        """Number of items that wait or are being computed, by tower."""
        towers: dict[Tower, TextTower | ImageTower | None] = {"text": self._texts, "image": self._images}
        return {name: tower.batcher.pending for name, tower in towers.items() if tower is not None}

    @property
    def expected_wait_s(self) -> float:
        """Seconds until an item that arrives now would be computed, in the slower tower."""
        towers = [tower.batcher.expected_wait_s for tower in (self._texts, self._images) if tower is not None]
        return max(towers, default=0.0)

    @property
    def busy(self) -> bool:
        """Whether a request is on its way through the towers."""
        return self._users > 0

    async def embed(self, items: Sequence[Item], *, bulk: bool = False) -> list[Embedded | Failed]:
        """Embed items independently: an item that fails does not affect the others.

        Raises:
            OverloadedError: a tower has not enough capacity for them.
        """
        texts = [item for item in items if isinstance(item, Text | Tokens)]
        images = [item for item in items if isinstance(item, ImageFile)]
        self._users += 1
        try:
            text_outcomes, image_outcomes = await asyncio.gather(
                self._texts.embed(texts, bulk=bulk) if texts and self._texts else self._without_texts(len(texts)),
                self._images.embed(images, bulk=bulk) if images and self._images else _absent(len(images)),
            )
        finally:
            self._users -= 1
        text_results, image_results = iter(text_outcomes), iter(image_outcomes)
        return [
            item if isinstance(item, Failed) else next(image_results if isinstance(item, ImageFile) else text_results)
            for item in items
        ]

    async def _without_texts(self, count: int) -> list[Embedded | Failed]:
        return [ABSENT if self._embeds_texts else NO_TEXTS] * count

    async def probe(self) -> None:
        """Compute an input whose vector is known, in every lane.

        Raises:
            ServingError: a tower gives another vector.
        """
        for tower, golden in self._golden.items():
            # One input only: on a slow device the probes must not become the load.
            for cosine in await self._device.run_in_lanes(partial(golden.cosine, 1)):
                self._check(tower, cosine)

    def _check(self, tower: Tower, cosine: float) -> None:
        if not cosine > min(MIN_COSINE, self.precisions[tower].cosine) - 1e-3:  # in this form, it refuses NaN as well
            raise ServingError(
                f"the {tower} tower of {self.identity.name}@{self.identity.number} is unusable: known inputs have "
                f"cosine {cosine:.4f} to their vectors"
            )


async def _absent(count: int) -> list[Embedded | Failed]:
    return [ABSENT] * count


def _identity(version: Version, encoder: Encoder) -> ModelIdentity:
    return ModelIdentity(
        name=version.name,
        number=version.number,
        digest=version.digest,
        embed_dim=encoder.embed_dim,
        context=encoder.context,
        image_size=encoder.preprocess.size,
        logit_scale=encoder.logit_scale,
        tokenizer=encoder.tokenizer.identity(),
        preprocess=encoder.preprocess.identity(),
    )
