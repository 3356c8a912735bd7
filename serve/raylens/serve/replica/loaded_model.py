"""One version of a model in memory: its towers, their queues on the device, and the inputs that prove them sound."""

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
ABSENT = Failed("internal_error", "this replica does not hold the tower for the item")


class LoadedModel:
    """A version that is ready to embed: verified, rounded where that is allowed, and warm.

    Building takes seconds and is safe in any thread; afterwards all methods belong to the event loop.

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
        held: tuple[Tower, ...] = tuple(tower for tower in towers if tower != "text" or encoder.embeds_texts)
        self._golden: dict[Tower, GoldenInputs] = golden_inputs(encoder, held)
        self.conditions = apply_precision(encoder, self._golden, precision)
        encoder.keep_only(held)
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
        """Line the towers up for a device."""
        self._device = device
        if "text" in self._golden:
            self._texts = TextTower(self._encoder, device, pool, settings, meters["text"])
        if "image" in self._golden:
            self._images = ImageTower(self._encoder, device, pool, settings, meters["image"])
        return self

    def detach(self) -> None:
        """Leave the device; nothing may be in line."""
        for tower in (self._texts, self._images):
            if tower is not None:
                self._device.detach(tower.batcher)

    @property
    def description(self) -> Description:
        """What is served, and how."""
        return Description(self.identity, self.conditions)

    @property
    def pending(self) -> dict[Tower, int]:
        """Items that wait or are computed."""
        towers: dict[Tower, TextTower | ImageTower | None] = {"text": self._texts, "image": self._images}
        return {name: tower.batcher.pending for name, tower in towers.items() if tower is not None}

    @property
    def expected_wait_s(self) -> float:
        """Until an item that comes now would be computed."""
        towers = [tower.batcher.expected_wait_s for tower in (self._texts, self._images) if tower is not None]
        return max(towers, default=0.0)

    @property
    def busy(self) -> bool:
        """Some request is on its way through the towers."""
        return self._users > 0

    async def embed(self, items: Sequence[Item], *, bulk: bool = False) -> list[Embedded | Failed]:
        """Embed items, each for itself: what is wrong with one leaves the others alone.

        Raises:
            OverloadedError: there is no room for them.
        """
        words = [item for item in items if isinstance(item, Text | Tokens)]
        pictures = [item for item in items if isinstance(item, ImageFile)]
        self._users += 1
        try:
            of_words, of_pictures = await asyncio.gather(
                self._texts.embed(words, bulk=bulk) if words and self._texts else self._without(len(words)),
                self._images.embed(pictures, bulk=bulk) if pictures and self._images else _absent(len(pictures)),
            )
        finally:
            self._users -= 1
        from_words, from_pictures = iter(of_words), iter(of_pictures)
        return [
            item if isinstance(item, Failed) else next(from_pictures if isinstance(item, ImageFile) else from_words)
            for item in items
        ]

    async def _without(self, count: int) -> list[Embedded | Failed]:
        return [ABSENT if self._embeds_texts else NO_TEXTS] * count

    async def probe(self) -> None:
        """Compute the inputs whose vectors are known, in every lane's turn.

        Raises:
            ServingError: other vectors came out.
        """
        for tower, golden in self._golden.items():
            # One input: on a slow device the questions must not become the load.
            for cosine in await self._device.run_in_lanes(partial(golden.cosine, 1)):
                self._check(tower, cosine)

    def _check(self, tower: Tower, cosine: float) -> None:
        if not cosine > min(MIN_COSINE, self.conditions[tower].cosine) - 1e-3:  # so put, it refuses NaN as well
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
