"""`RunConfig`: everything that a training run depends on."""

import math
import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from raylens.config.model import ModelConfig
from raylens.config.node import Node

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "LengthConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "RunConfig",
    "ScaleConfig",
    "ZeroConfig",
]

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class DataConfig(Node):
    """Where the image-text shards are, and in which order and how they are read."""

    train: str
    """URI of a folder of webdataset tars: a local path or ``s3://bucket/prefix``."""
    run_length: Positive = 32
    """Consecutive samples read with one ranged request."""
    runs_per_unit: Positive = 32
    """Runs, drawn from all over the data set, that are mixed with each other."""
    crop_min_scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Smallest share of the image's area that the random square crop keeps; 1 switches the crop off."""
    quarantine_budget: Fraction = 0.01
    """Largest share of unusable samples; above it the run stops."""
    max_pixels: Annotated[int, Field(gt=0, le=178_956_970)] = 89_478_485
    """Images with more pixels are refused before they are decoded; the bound is where Pillow itself refuses."""


class LengthConfig(Node):
    """How long to train: exactly one of the two."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    samples_seen: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.epochs is None) == (self.samples_seen is None):
            raise ValueError(
                f"give exactly one of length.epochs (now {self.epochs}) and length.samples_seen "
                f"(now {self.samples_seen}), and null for the other"
            )
        return self

    def steps(self, samples: int, global_batch: int) -> int:
        """Optimiser steps over a data set of ``samples``: the length, rounded up to whole global batches."""
        seen = self.samples_seen if self.samples_seen is not None else samples * (self.epochs or 0.0)
        return max(1, math.ceil(seen / global_batch))


class ObjectiveConfig(Node):
    """The symmetric contrastive loss and its temperature (Radford et al. 2021, sections 2.3 and 2.5)."""

    temperature: Annotated[float, Field(gt=0.0, le=1.0)] = 0.07
    """Initial temperature; the logit scale starts at its inverse and is learned in log space."""
    max_logit_scale: Annotated[float, Field(gt=1.0, le=300.0)] = 100.0


class OptimConfig(Node):
    """AdamW with warm-up and cosine decay to zero (Radford et al. 2021, table 18)."""

    peak_lr: Annotated[float, Field(gt=0.0)] = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 2000
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.2
    """Decoupled; on everything but gains, biases and the logit scale."""
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.98
    eps: Annotated[float, Field(gt=0.0)] = 1e-6
    clip_norm: Annotated[float, Field(ge=0.0)] = 0.0
    """Largest norm of the whole gradient; 0 leaves it alone."""


class ZeroConfig(Node):
    """What DeepSpeed spreads over the workers: 1 optimiser state, 2 gradients too, 3 weights too."""

    stage: Literal[0, 1, 2, 3] = 1


class ScaleConfig(Node):
    """The machines. Nothing here changes what is learned: `RunConfig.global_batch` does."""

    workers: Positive = 2
    cpus_per_worker: Positive = 1
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Restarts from the newest checkpoint after a worker or its node was lost."""


class CheckpointConfig(Node):
    """When state is saved, and how much of it is kept."""

    every_steps: Positive = 1000
    keep_last: Positive = 3


class RunConfig(Node):
    """A complete training run. Recipes return one; YAML files and ``--set`` change it."""

    name: str
    storage: str = "runs"
    """Where the run lives: everything it writes is under ``<storage>/<name>/``."""
    registry: str | None = None
    """Where finished encoders go; ``<storage>/registry`` if unset."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    global_batch: Positive = 32_768
    """Image-text pairs contrasted in one step, over all workers."""
    precision: Literal["fp32"] = "fp32"
    """What the towers compute in. bf16 is to come: through DeepSpeed it ran and did not learn (docs/log.md)."""
    data: DataConfig
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    length: LengthConfig = LengthConfig(epochs=32)
    zero: ZeroConfig = ZeroConfig()
    scale: ScaleConfig = ScaleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log_every_steps: Positive = 10

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("a name has letters, digits, '.', '_' and '-', and starts with a letter or digit")
        return name

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.global_batch % self.scale.workers:
            raise ValueError(
                f"global_batch = {self.global_batch} cannot be shared equally by "
                f"scale.workers = {self.scale.workers}: change one of them"
            )
        return self

    @property
    def worker_batch(self) -> int:
        """Pairs that one worker holds in a step."""
        return self.global_batch // self.scale.workers

    @property
    def registry_uri(self) -> str:
        """Where the finished encoder is registered."""
        if self.registry is not None:
            return self.registry
        base, question, query = self.storage.partition("?")
        return f"{base.rstrip('/')}/registry{question}{query}"
