"""`RunConfig`: everything that a training run depends on."""

import math
import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from raylens.config.model import ModelConfig
from raylens.config.node import Node
from raylens.config.objective import ObjectiveConfig

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "LengthConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "RunConfig",
    "ScaleConfig",
    "SourceConfig",
    "TowersConfig",
    "ZeroConfig",
]

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class SourceConfig(Node):
    """A data set: webdataset tars, Parquet with images, a table of image paths, or a folder of classes."""

    uri: str
    """A folder, ``s3://bucket/prefix``, ``gs://bucket/prefix``; or shards by name: globs, ``{000..127}``, ``{a,b}``."""
    weight: Annotated[float, Field(gt=0.0, ge=1e-9, le=1e9)] = 1.0
    """Share of the samples that are drawn from it, relative to the other data sets' weights."""
    format: Literal["auto", "tar", "parquet", "table", "folder"] = "auto"
    """Found by the names of the objects unless given."""
    image_column: str | None = None
    """Of Parquet and tables; found by the usual names unless given."""
    caption_column: str | None = None


class DataConfig(Node):
    """Which image-text pairs are trained on, and in which order and how they are read."""

    train: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    """One data set, which may be given as its URI alone, or several that are mixed by their weights."""
    run_length: Annotated[int, Field(gt=0, le=65_536)] = 32
    """Consecutive samples read with one ranged request. In Parquet, a run is a row group instead."""
    runs_per_unit: Annotated[int, Field(gt=0, le=65_536)] = 32
    """Runs, drawn from all over the data set, that are mixed with each other."""
    drop_last: bool = False
    """Whether the partial batch at the end of an epoch is left out instead of filled from the next epoch."""
    check_hashes: bool = False
    """Whether each image's bytes are compared with the hash in the manifest."""
    crop_min_scale: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Smallest share of the image's area that the random square crop keeps; 1 switches the crop off."""
    quarantine_budget: Fraction = 0.01
    """Largest share of unusable samples; above it the run stops."""
    max_pixels: Annotated[int, Field(gt=0, le=178_956_970)] = 89_478_485
    """Images with more pixels are refused before they are decoded; the bound is where Pillow itself refuses."""

    @field_validator("train", mode="before")
    @classmethod
    def _uri_alone(cls, train: object) -> object:
        items = [train] if isinstance(train, str | dict) else train
        if not isinstance(items, list):
            return items
        return [{"uri": item} if isinstance(item, str) else item for item in items]

    @model_validator(mode="after")
    def _whole_epochs(self) -> Self:
        if self.drop_last and len(self.train) > 1:
            raise ValueError("data.drop_last = true needs one data set: in a mixture each has epochs of its own")
        return self


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
    max_skipped: Annotated[int, Field(ge=0)] = 10
    """Steps in a row that are skipped for a loss or gradient that is not finite, before the run stops."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor on the learning rate from each block of a tower to the one before it; 1 for training from scratch."""


class TowersConfig(Node):
    """How the towers are trained; nothing here changes what they compute afterwards."""

    lock_image: bool = False
    """Leave the image tower as it is (LiT, Zhai et al. 2022); begin from a trained one with ``start_from``."""
    lock_text: bool = False
    patch_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of an image's patches that a step leaves out (FLIP, Li et al. 2023); others for each image."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the values that each branch of a transformer block adds which a step drops (Vaswani et al. 2017)."""
    checkpoint_blocks: bool = False
    """Compute the inside of transformer blocks again in the backward pass instead of keeping it in memory."""
    compile: bool = False
    """Let torch.compile make kernels for the transformer blocks: a slow first step, then faster ones on GPUs."""


class ZeroConfig(Node):
    """What DeepSpeed spreads over the workers: 1 optimiser state, 2 gradients too, 3 weights too."""

    stage: Literal[0, 1, 2, 3] = 1


class ScaleConfig(Node):
    """The machines. Nothing here changes what is learned: `RunConfig.global_batch` does."""

    workers: Positive = 2
    cpus_per_worker: Positive = 1
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    micro_batch: Positive | None = None
    """Pairs that go through the towers at a time; unset, what the memory of the workers holds."""
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
    precision: Literal["fp32", "amp_bf16"] = "fp32"
    """What the towers compute in: ``amp_bf16`` keeps weights in fp32 and multiplies in bf16 (torch's autocast)."""
    start_from: str | None = None
    """A model in the registry, NAME@VERSION, whose weights and tokenizer the run begins with."""
    tokenizer: str | None = None
    """A file (tokenizer.json, OpenAI's merges) or folder of one; else it is learned from the captions."""
    data: DataConfig
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    towers: TowersConfig = TowersConfig()
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

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Self:
        micro = self.scale.micro_batch
        if micro is not None and self.worker_batch % micro:
            raise ValueError(
                f"scale.micro_batch = {micro} does not divide a worker's batch, {self.worker_batch} (global_batch / "
                "scale.workers): choose a divisor, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _objective_fits(self) -> Self:
        kind = self.objective.kind
        if (kind == "sigmoid") != self.model.logit_bias:
            raise ValueError(
                f"objective.kind = {kind!r} and model.logit_bias = {self.model.logit_bias} do not go "
                "together: the sigmoid loss has a bias, the others none"
            )
        wanted = {"bag_of_words": "cbow", "caption": "transformer"}.get(kind, self.model.text.kind)
        if self.model.text.kind != wanted:
            raise ValueError(
                f"objective.kind = {kind!r} needs model.text.kind = {wanted!r}, not {self.model.text.kind!r}"
            )
        return self

    @model_validator(mode="after")
    def _towers_fit(self) -> Self:
        if self.tokenizer is not None and self.start_from is not None:
            raise ValueError(f"tokenizer = {self.tokenizer!r}: start_from brings its own; leave one of them out")
        if self.towers.lock_image and self.towers.lock_text:
            raise ValueError("towers.lock_image and towers.lock_text leave nothing to train: lock one of them")
        if self.towers.patch_dropout and self.model.image.kind != "vit":
            raise ValueError(f"towers.patch_dropout = {self.towers.patch_dropout}: only a vit has patches to leave out")
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
