"""A whole service as one tree of settings: models, their replicas, limits and protection."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raylens.config import Node
from raylens.serve.messages import Precision
from raylens.serve.security import SecurityConfig
from raylens.serve.settings import ServeSettings

__all__ = ["ModelConfig", "ServiceConfig", "TowerConfig"]

Positive = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]


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

    def with_absolute_places(self) -> Self:
        """The same for processes with another working folder: Ray's, and those of other machines."""
        keys = self.security.keys
        security = self.security.model_copy(update={"keys": keys and _absolute(keys)})
        return self.model_copy(update={"registry": _absolute(self.registry), "security": security})


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).resolve())
