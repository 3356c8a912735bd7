"""The replica: the towers of a model on a device, in the version that an alias points to. It knows no HTTP."""

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from raylens.errors import OverloadedError, RaylensError, ServingError
from raylens.registry import Registry
from raylens.serve.config import Precision, ServeSettings
from raylens.serve.histograms import Meter
from raylens.serve.messages import Description, Embeddings, Item, Refusal, ReplicaReport, Tower
from raylens.serve.replica.device import Device
from raylens.serve.replica.loaded_model import LoadedModel
from raylens.serve.tracing import RequestContext, request_context, request_id, request_span

__all__ = ["EncoderReplica"]

logger = logging.getLogger("ray.serve")

RETRY_SECONDS = 60.0
"""Seconds until a version that could not be loaded is tried again."""
LOADING_NICENESS = 4
"""Niceness, added to the replica's own, of the thread that loads its next version: the thread gets two fifths of a core
where both want it. With the highest niceness, a version would not be loaded at all under a full load."""


class EncoderReplica:
    """An `Embedder` that serves a version of a model, which the gateway calls.

    A replica that follows an alias resolves it every ``settings.follow_interval_s`` seconds, loads a new version beside
    the one that it serves, and switches to it between two requests. It keeps the previous version for
    ``settings.overlap_s`` for requests that ask for it by digest, because the other tower's replicas switch at another
    moment.

    Args:
        registry: URI of the registry.
        reference: the version to serve where no alias is followed, ``name@3``.
        follow: a reference with an alias to follow, ``name@prod``. The replica begins with the version that it points
            to now, so that one that is added or restarted later serves what the others serve.
        towers: the towers that this replica holds.
        precision: see `raylens.serve.replica.precision.apply_precision`.
        settings: limits and batching.
        cpus: CPUs that Ray has reserved, which are as many lanes, so that replicas do not crowd each other.
        device: torch's name of the device that the towers compute on.

    Raises:
        NotFoundError: the registry has no such model.
        BundleError: the bundle is damaged.
        ServingError: the model gives no unit vectors.
    """

    def __init__(
        self,
        registry: str,
        reference: str,
        settings: ServeSettings,
        *,
        follow: str | None = None,
        towers: Sequence[Tower] = ("text", "image"),
        precision: Precision = "fp32",
        cpus: float = 1,
        device: str = "cpu",
    ) -> None:
        # For this thread, which loads; the lanes' threads compute, see `Device`.
        torch.set_num_threads(1)
        self._registry, self._settings = Registry(registry), settings
        self._towers, self._precision, self._device_name = tuple(towers), precision, device
        self._follow = follow
        self._following: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="raylens-decode")
        self._device = Device(max(1, int(cpus)) if device == "cpu" else 1)
        self._meters: dict[Tower, Meter] = {tower: Meter() for tower in self._towers}
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._current = self._attach(self._load(follow or reference))
        self._previous: LoadedModel | None = None

    def _load(self, reference: str) -> LoadedModel:
        return LoadedModel(*self._registry.load(reference, self._device_name), self._towers, self._precision)

    def _attach(self, loaded: LoadedModel) -> LoadedModel:
        return loaded.attach(self._device, self._pool, self._settings, self._meters)

    async def embed(
        self,
        items: Sequence[Item],
        digest: str | None = None,
        *,
        bulk: bool = False,
        sender: RequestContext | None = None,
    ) -> Embeddings | Refusal:
        """Implement `Embedder.embed`; ``sender`` is the context of a request from another process.

        Ray Serve takes arguments named ``context`` or ``request_metadata`` for its own where processes call by gRPC.
        """
        self._start_following()
        began = time.perf_counter()
        attributes: dict[str, str | int] = {"raylens.towers": ",".join(self._towers), "raylens.items": len(items)}
        with request_span(sender or request_context(), "raylens.embed", attributes) as span:
            answer = await self._embed(items, digest, bulk=bulk)
            outcome = answer.code if isinstance(answer, Refusal) else "ok"
            span.set_attribute("raylens.outcome", outcome)
            milliseconds = 1000 * (time.perf_counter() - began)
            logger.info("request %s: %d items, %s, %.1f ms", request_id(), len(items), outcome, milliseconds)
        return replace(answer, report=self._report())

    async def _embed(self, items: Sequence[Item], digest: str | None, *, bulk: bool) -> Embeddings | Refusal:
        version = next(
            (loaded for loaded in (self._current, self._previous) if loaded and _matches(loaded, digest)), None
        )
        if version is None:
            return Refusal("other_version", f"this replica does not hold the version of digest {digest}")
        try:
            return Embeddings(version.identity, await version.embed(items, bulk=bulk))
        except OverloadedError as error:
            return Refusal("overloaded", str(error), retry_after_s=version.expected_wait_s)

    def _report(self) -> ReplicaReport:
        measured = {
            (tower, measure): histogram
            for tower, meter in self._meters.items()
            for measure, histogram in meter.drain().items()
        }
        return ReplicaReport(self._name, self._pending, measured)

    @property
    def _pending(self) -> dict[Tower, int]:
        versions = [loaded.pending for loaded in (self._current, self._previous) if loaded is not None]
        return {tower: sum(pending.get(tower, 0) for pending in versions) for tower in self._towers}

    async def describe(self) -> Description:
        """Implement `Embedder.describe`: return the version that is served now."""
        self._start_following()
        return self._current.description

    async def probe(self) -> Refusal | None:
        """Implement `Embedder.probe`: compute known inputs with the version that is served now."""
        self._start_following()
        try:
            await self._current.probe()
        except ServingError as error:
            return Refusal("not_ready", str(error))
        return None

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what Ray Serve's autoscaler reads; see `raylens.serve.deploy.autoscale`."""
        self._start_following()
        return {"items": float(sum(self._pending.values()))}

    async def check_health(self) -> None:
        """Raise where the device no longer answers or the weights changed; Ray Serve then replaces the replica."""
        if self._following is not None and self._following.done():
            raise ServingError("the replica no longer follows its alias; see its log")
        await self._current.probe()

    def _start_following(self) -> None:
        # At the first call, because the constructor has no event loop yet.
        if self._follow is not None and self._following is None:
            self._following = asyncio.get_running_loop().create_task(self._follow_alias(self._follow))

    async def _follow_alias(self, reference: str) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="raylens-load", initializer=_lower_priority) as loader:
            while True:
                await asyncio.sleep(self._settings.follow_interval_s)
                try:
                    version = await loop.run_in_executor(loader, self._registry.resolve, reference)
                    if version.digest != self._current.identity.digest:
                        loaded = await loop.run_in_executor(loader, self._load, str(version))
                        await self._switch_to(self._attach(loaded))
                except Exception as error:  # whatever the error, the current version stays in service
                    logger.warning("cannot follow %s: %s", reference, error, exc_info=not _is_own_error(error))
                    await asyncio.sleep(RETRY_SECONDS)

    async def _switch_to(self, loaded: LoadedModel) -> None:
        previous = self._current
        logger.info("serving %s@%d from now on", loaded.identity.name, loaded.identity.number)
        self._previous, self._current = previous, loaded
        # For requests that have begun, and for replicas of the other tower that switch later.
        await asyncio.sleep(self._settings.overlap_s)
        self._previous = None
        while previous.busy:
            await asyncio.sleep(0.1)
        previous.detach()

    async def close(self) -> None:
        """Finish the current batches and end the threads."""
        if self._following is not None:
            self._following.cancel()
        await self._device.close()
        self._pool.shutdown()


def _is_own_error(error: Exception) -> bool:
    """Return whether this is an error of raylens, whose message needs no trace."""
    return isinstance(error, RaylensError)


def _matches(version: LoadedModel, digest: str | None) -> bool:
    return digest in (None, version.identity.digest)


def _lower_priority() -> None:
    """Lower the priority of the thread that loads below those that compute; Linux has priorities of threads."""
    torch.set_num_threads(1)
    if hasattr(os, "setpriority"):
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, own + LOADING_NICENESS))
