"""A whole service as one tree of settings: models, their replicas, limits and protection."""

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
"""What towers are asked to compute with; see `raylens.serve.replica.precision.settle`."""


class TowerConfig(Node):
    """The replicas of a model's text or image tower."""

    min_replicas: Positive = 1
    max_replicas: Positive = 1
    items_per_replica: Annotated[float, Field(gt=0)] = 64
    """Items in line or computed that a replica is to have: with more, replicas are added, with fewer, they leave."""
    look_back_s: Annotated[float, Field(gt=0)] = 5.0
    """Over which the items are averaged."""
    upscale_delay_s: Amount = 5.0
    """How long the load must last before replicas are added."""
    downscale_delay_s: Amount = 120.0
    cpus: Annotated[float, Field(gt=0)] = 1
    """Reserved by a replica, and the threads that it computes with."""
    gpus: Amount = 0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas = {self.max_replicas}: must be at least min_replicas = {self.min_replicas}")
        return self


class ModelConfig(Node):
    """A model of the service."""

    model: str
    """``name``, ``name@3`` or ``name@alias``."""
    follow: bool = True
    """Go over to another version when the alias is moved; of no meaning without one."""
    precision: Precision = "auto"
    """``auto`` computes in bf16 where the processor multiplies in it and embeddings keep their direction."""
    text: TowerConfig = TowerConfig()
    image: TowerConfig = TowerConfig()

    @property
    def alias(self) -> str | None:
        """The alias, if that is what the reference has behind the ``@``."""
        which = self.model.partition("@")[2]
        return None if not which or which.isdecimal() else which


class ServeSettings(Node):
    """What one request, and all requests together, may ask for."""

    max_body_bytes: Positive = 32 * 2**20
    """A larger body is refused with status 413."""
    max_items: Positive = 2048
    """Inputs of an embedding request; images, or prompts (classes times templates), of a classification."""
    max_text_chars: Positive = 32_768
    """A longer text fails its item: tokenising takes time even where all but the first tokens are dropped."""
    max_pixels: Positive = 50_000_000
    """An image that declares more fails its item before it is decoded."""
    max_decode_s: Seconds = 3.0
    """Of a processor, for one image; one that takes longer fails its item."""

    max_batch: Positive = 64
    """Items that go through a tower at once."""
    capacity: Positive = 4096
    """Items of one tower that a replica holds, waiting or running; beyond, requests are refused with status 503."""
    max_wait_s: Seconds = 10.0
    """A replica with more work than this in its queue refuses what comes, with status 503."""
    cache_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    """Embeddings that a tower of a replica keeps, by their content; 0 keeps none."""
    decode_threads: Positive = 4
    """Threads that decode images and tokenise texts."""
    cached_classifiers: Positive = 64
    """Sets of class prompts whose embeddings the gateway keeps, for each model."""
    body_timeout_s: Seconds = 30.0
    """For the whole body to arrive: a caller that sends a byte now and then holds a place for no longer."""

    follow_interval_s: Seconds = 5.0
    """How often a replica looks where its alias points."""
    overlap_s: Seconds = 30.0
    """How long a replica still answers with the version before, where a request asks for that one."""

    max_ongoing_requests: Positive = 128
    """Requests that one process works on at the same time. Batches are filled from them."""
    max_queued_requests: Positive = 256
    """Requests that wait for such a process; one more is refused with status 503."""
    request_timeout_s: Seconds = 60.0
    startup_timeout_s: Seconds = 300.0
    """Longest wait for the first replica: it includes reading the weights from the registry."""
    drain_timeout_s: Seconds = 20.0
    """What a stopping replica gives the requests that it has begun."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.capacity < self.max_items:
            raise ValueError(
                f"capacity {self.capacity} must be at least max_items {self.max_items}, or the largest request "
                "would never be served"
            )
        return self


class UrlConfig(Node):
    """Whether and from where images are fetched."""

    hosts: tuple[str, ...] = ()
    """``images.example.org``, ``*.example.org`` for what is under it, ``*`` for all; with ``:port`` another port than
    the usual one. Empty, nothing is fetched."""
    http: bool = False
    """``http://`` as well: what comes may have been changed on the way."""
    private: bool = False
    """The hosts may have addresses of a private network. With ``*`` everything that this machine reaches is open."""
    max_bytes: Annotated[int, Field(gt=0)] = 16 * 2**20
    """Of one image."""
    max_total_bytes: Annotated[int, Field(gt=0)] = 64 * 2**20
    """Of all images of a request: a body of some kilobytes may name two thousand."""
    timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """For one image, redirects included."""
    max_redirects: Annotated[int, Field(ge=0)] = 3
    max_concurrency: Annotated[int, Field(gt=0)] = 32
    """Fetches that a gateway has under way."""


class SecurityConfig(Node):
    """The service's protection."""

    keys: str | None = None
    """File of API keys, a path or URI that the gateways can read; None lets everybody call. `raylens serve key`
    makes an entry."""
    items_per_second: Annotated[float, Field(gt=0)] | None = None
    """For each key that has no limit of its own, or for all callers together where there are no keys; by gateway."""
    origins: tuple[str, ...] = ()
    """Web pages that may call from a browser, as ``https://example.org``; ``*`` for all."""
    urls: UrlConfig = UrlConfig()
    """Images by URL."""


class ServiceConfig(Node):
    """What ``raylens serve`` starts."""

    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1)]
    """The first is what a request without ``model`` means."""
    registry: str = "registry"
    """Path or URI; every machine of the cluster must reach it."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(gt=0, lt=65536)] = 8000
    gateways: Positive = 1
    """Processes that take requests."""
    proxy: Literal["haproxy", "ray"] = "haproxy"
    """``ray`` is Ray Serve's own in Python: several times slower, and at hand where HAProxy is not."""
    limits: ServeSettings = ServeSettings()
    security: SecurityConfig = SecurityConfig()

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [one.model.partition("@")[0] for one in self.models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"models: {name!r} stands there twice; serve each model once, or register it by two names"
                )
        return self

    def with_absolute_paths(self) -> Self:
        """The same for processes with another working folder: Ray's, and those of other machines."""
        keys = self.security.keys
        security = self.security.model_copy(update={"keys": keys and _absolute(keys)})
        return self.model_copy(update={"registry": _absolute(self.registry), "security": security})


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).resolve())
