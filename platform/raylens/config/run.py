"""The configuration of a training run, `RunConfig`: everything that a run depends on."""

import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from raylens.config.checkpoint import CheckpointConfig
from raylens.config.data import DataConfig
from raylens.config.evaluation import EvaluationConfig, Goal
from raylens.config.model import ModelConfig
from raylens.config.node import Node
from raylens.config.objective import ObjectiveConfig
from raylens.config.optim import OptimConfig
from raylens.config.resources import ResourcesConfig
from raylens.config.towers import TowersConfig
from raylens.config.tracking import TrackingConfig
from raylens.config.zero import ZeroConfig
from raylens.names import RUN_NAME

__all__ = ["LengthConfig", "RunConfig"]

Positive = Annotated[int, Field(gt=0)]


class LengthConfig(Node):
    """The length of training; exactly one of the two is set."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    samples_seen: Positive | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.epochs is None) == (self.samples_seen is None):
            raise ValueError(
                f"set exactly one of length.epochs (now {self.epochs}) and length.samples_seen "
                f"(now {self.samples_seen}), and the other to null"
            )
        return self

    def steps(self, samples: int, global_batch: int) -> int:
        """Return the optimiser steps over a data set of ``samples``: the length, rounded up to whole global batches."""
        seen = self.samples_seen if self.samples_seen is not None else samples * (self.epochs or 0.0)
        return max(1, math.ceil(seen / global_batch))


class RunConfig(Node):
    """The configuration of a training run. Recipes return one; YAML files and ``--set`` change it."""

    name: Annotated[str, AfterValidator(RUN_NAME.validated)]
    storage: str = "runs"
    """The place of the run's files: everything it writes is under ``<storage>/<name>/``."""
    registry: str | None = None
    """The registry of finished encoders; ``<storage>/registry`` if unset."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    global_batch: Positive = 32_768
    """Image-text pairs contrasted in one step, over all workers."""
    precision: Literal["fp32", "amp_bf16", "bf16", "fp16"] = "fp32"
    """The precision of the towers: ``amp_bf16`` keeps weights in fp32 and multiplies in bf16 (torch's autocast);
    ``bf16`` and ``fp16`` keep weights and activations in 16 bits beside a master copy in fp32 (DeepSpeed)."""
    start_from: str | None = None
    """A model in the registry, NAME@VERSION; the run starts from its weights, tokenizer and normalisation of pixels."""
    tokenizer: str | None = None
    """A tokenizer's file (tokenizer.json, OpenAI's merges) or folder; unset, it is learned from the captions."""
    data: DataConfig
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    towers: TowersConfig = TowersConfig()
    length: LengthConfig = LengthConfig(epochs=32)
    zero: ZeroConfig = ZeroConfig()
    resources: ResourcesConfig = ResourcesConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    log_every_steps: Positive = 10

    @property
    def half_weights(self) -> bool:
        """Whether weights and activations are kept in 16 bits, beside a master copy of the weights in fp32."""
        return self.precision in ("bf16", "fp16")

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.global_batch % self.resources.workers:
            raise ValueError(
                f"global_batch = {self.global_batch} cannot be shared equally by "
                f"resources.workers = {self.resources.workers}: change either"
            )
        return self

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Self:
        micro = self.resources.micro_batch
        if micro is not None and self.worker_batch % micro:
            raise ValueError(
                f"resources.micro_batch = {micro} does not divide a worker's batch, {self.worker_batch} "
                "(global_batch / resources.workers): choose a divisor, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _objective_fits(self) -> Self:
        kind = self.objective.kind
        if (kind == "sigmoid") != self.model.logit_bias:
            raise ValueError(
                f"objective.kind = {kind!r} and model.logit_bias = {self.model.logit_bias} do not fit "
                "together: the sigmoid loss has a bias, the others have none"
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
            raise ValueError(
                f"tokenizer = {self.tokenizer!r}: start_from brings a tokenizer of its own; leave either out"
            )
        if self.towers.lock_image and self.towers.lock_text:
            raise ValueError("towers.lock_image and towers.lock_text leave nothing to train: lock at most one tower")
        if self.towers.patch_dropout and self.model.image.kind != "vit":
            raise ValueError(f"towers.patch_dropout = {self.towers.patch_dropout}: only a vit has patches to drop")
        return self

    @model_validator(mode="after")
    def _masters_fit(self) -> Self:
        if self.half_weights and self.zero.stage == 0:
            raise ValueError(
                f"precision = {self.precision!r} with zero.stage = 0: master copies of the weights are part of what "
                "ZeRO spreads; use zero.stage = 1 (the same with one worker), or amp_bf16"
            )
        return self

    @model_validator(mode="after")
    def _evaluations_fit(self) -> Self:
        kind, wanted = self.objective.kind, self.checkpoint
        if kind == "caption" and self.evaluation.zero_shot:
            raise ValueError("evaluation.zero_shot with objective.kind = 'caption': its text tower embeds no texts")
        known = self.metrics
        if wanted.keep_best and wanted.best_by not in known:
            raise ValueError(
                f"checkpoint.best_by = {wanted.best_by!r} is not measured by this run; "
                f"{f'it has {list(known)}' if known else 'set evaluation.pairs or evaluation.zero_shot'}"
            )
        return self

    @property
    def metrics(self) -> dict[str, Goal]:
        """The names of the metrics that the run measures, and whether higher or lower is better."""
        return self.evaluation.metrics(retrieval=self.objective.kind not in ("caption", "bag_of_words"))

    @property
    def worker_batch(self) -> int:
        """The number of pairs that each worker has in a step."""
        return self.global_batch // self.resources.workers

    @property
    def worker_counts(self) -> tuple[int, ...]:
        """The possible numbers of workers, ascending: those that divide a global batch."""
        least = self.resources.min_workers or self.resources.workers
        return tuple(n for n in range(least, self.resources.workers + 1) if self.global_batch % n == 0)

    @property
    def registry_uri(self) -> str:
        """The URI of the registry of the finished encoder."""
        if self.registry is not None:
            return self.registry
        base, question, query = self.storage.partition("?")
        return f"{base.rstrip('/')}/registry{question}{query}"
