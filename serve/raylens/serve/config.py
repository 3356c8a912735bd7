"""The settings of a whole service as one frozen tree: models, their replicas, limits and protection."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raylens.config import Node

__all__ = [
    "ModelConfig",
    "Precision",
    "SecurityConfig",
    "ServeSettings",
    "ServiceConfig",
    "TowerConfig",
    "UrlConfig",
]

Positive = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Precision = Literal["auto", "fp32", "bf16"]
"""The precision requested for towers; see `raylens.serve.replica.precision.apply_precision`."""


class TowerConfig(Node):
    """The replicas of a model's text or image tower."""

    min_replicas: Positive = 1
    max_replicas: Positive = 1
    items_per_replica: Annotated[float, Field(gt=0)] = 64
    """Target of pending items (queued or being computed) per replica: above it replicas are added, below it removed."""
    look_back_s: Annotated[float, Field(gt=0)] = 5.0
    """Period, in seconds, over which pending items are averaged."""
    upscale_delay_s: Amount = 5.0
    """How long the load must stay above the target before replicas are added."""
    downscale_delay_s: Amount = 120.0
    cpus: Annotated[float, Field(gt=0)] = 1
    """CPUs that a replica reserves, and the number of threads that it computes with."""
    gpus: Amount = 0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas = {self.max_replicas}: must be at least min_replicas = {self.min_replicas}")
        return self


class ModelConfig(Node):
    """A model that the service offers, and the replicas of its two towers."""

    model: str
    """Reference in the registry: ``name``, ``name@3`` or ``name@alias``."""
    follow: bool = True
    """Switch to another version when the alias moves; has no effect on a reference without an alias."""
    precision: Precision = "auto"
    """``auto`` computes in bf16 where the processor is faster in it and embeddings keep their direction."""
    text: TowerConfig = TowerConfig()
    image: TowerConfig = TowerConfig()

    @property
    def alias(self) -> str | None:
        """The alias that the reference names behind the ``@``, or None."""
        which = self.model.partition("@")[2]
        return None if not which or which.isdecimal() else which


class ServeSettings(Node):
    """The limits of one request and of all requests together, and how items are batched."""

    max_body_bytes: Positive = 32 * 2**20
    """Largest body of a request in bytes; a larger one is refused with status 413."""
    max_items: Positive = 2048
    """Largest number of inputs of an embedding request; of images, or of prompts, of a classification."""
    max_text_chars: Positive = 32_768
    """Longest text in characters; a longer one fails its item, because tokenising it takes time even if it is cut."""
    max_pixels: Positive = 50_000_000
    """Largest image in pixels; one whose header declares more fails its item before it is decoded."""
    max_decode_s: Seconds = 3.0
    """Processor time to decode one image, in seconds; an image that takes longer fails its item."""

    max_batch: Positive = 64
    """Largest batch: items that go through a tower at once."""
    capacity: Positive = 4096
    """Most pending items of one tower in a replica; a request that would exceed it is refused with status 503."""
    max_wait_s: Seconds = 10.0
    """A replica whose queue is longer than this, in seconds of work, refuses new requests with status 503."""
    cache_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    """Size of a tower's cache of embeddings in one replica, keyed by content; 0 keeps none."""
    decode_threads: Positive = 4
    """Threads of a replica that decode images and tokenise texts."""
    cached_classifiers: Positive = 64
    """Number of sets of class prompts whose embeddings a gateway keeps for each model."""
    body_timeout_s: Seconds = 30.0
    """Longest time for a body to arrive, so that a caller who sends it byte by byte does not hold a connection."""

    follow_interval_s: Seconds = 5.0
    """How often a replica resolves the alias that it follows."""
    overlap_s: Seconds = 30.0
    """How long a replica still answers with the previous version where a request asks for it by digest."""

    max_ongoing_requests: Positive = 128
    """Requests that one process works on at the same time; batches are filled from them."""
    max_queued_requests: Positive = 256
    """Requests that may wait for a process; one more is refused with status 503."""
    request_timeout_s: Seconds = 60.0
    startup_timeout_s: Seconds = 300.0
    """Longest wait for the service to be ready, which includes reading the weights from the registry."""
    drain_timeout_s: Seconds = 20.0
    """Time that a stopping replica gives to the requests that it has begun."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.capacity < self.max_items:
            raise ValueError(
                f"capacity = {self.capacity}: must be at least max_items = {self.max_items}, or the largest "
                "request would never be served"
            )
        return self


class UrlConfig(Node):
    """Whether images are fetched by URL, and from which hosts."""

    hosts: tuple[str, ...] = ()
    """Allowed hosts: ``images.example.org``, ``*.example.org`` for its subdomains, ``*`` for all; ``:port`` allows
    another port than the usual one. With none, nothing is fetched."""
    http: bool = False
    """Fetch ``http://`` URLs too, whose content may have been changed on the way."""
    private: bool = False
    """Allow hosts with addresses of a private network. With ``*``, callers reach whatever this machine reaches."""
    max_bytes: Annotated[int, Field(gt=0)] = 16 * 2**20
    """Largest image that is fetched, in bytes."""
    max_total_bytes: Annotated[int, Field(gt=0)] = 64 * 2**20
    """Largest sum over all images of a request: a body of a few kilobytes may name two thousand."""
    timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Longest time to fetch one image, redirects included."""
    max_redirects: Annotated[int, Field(ge=0)] = 3
    max_concurrency: Annotated[int, Field(gt=0)] = 32
    """Number of fetches that a gateway runs at the same time."""


class SecurityConfig(Node):
    """Who may call, how often, from which web pages, and which URLs the service fetches."""

    keys: str | None = None
    """File of API keys, a path or URI that the gateways can read; None lets everybody call. `raylens serve key`
    adds an entry."""
    items_per_second: Annotated[float, Field(gt=0)] | None = None
    """Rate limit of each key without a limit of its own, or of all callers together without keys; per gateway."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may call from a browser, such as ``https://example.org``; ``*`` allows all."""
    urls: UrlConfig = UrlConfig()
    """Which images are fetched by URL."""


class ServiceConfig(Node):
    """The settings of the service that ``raylens serve`` starts."""

    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1)]
    """Models to serve; a request without ``model`` goes to the first."""
    registry: str = "registry"
    """Path or URI of the model registry; every machine of the cluster must reach it."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(gt=0, lt=65536)] = 8000
    gateways: Positive = 1
    """Number of gateway processes, which take the HTTP requests."""
    proxy: Literal["haproxy", "ray"] = "haproxy"
    """``ray`` is Ray Serve's own proxy in Python: several times slower, but available where HAProxy is not."""
    limits: ServeSettings = ServeSettings()
    security: SecurityConfig = SecurityConfig()

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [model.model.partition("@")[0] for model in self.models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"models: {name!r} is listed twice; serve each model once, or register it under two names"
                )
        return self

    def with_absolute_paths(self) -> Self:
        """Return a copy whose paths are absolute, for processes with another working folder."""
        keys = self.security.keys
        security = self.security.model_copy(update={"keys": keys and _absolute(keys)})
        return self.model_copy(update={"registry": _absolute(self.registry), "security": security})


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).resolve())
