"""Bytes that a training step takes on one GPU, by what they are for.

Shapes: b a worker's pairs, B the global batch, D embedding.
"""

import math
from dataclasses import dataclass
from typing import Any

from raylens.config import RunConfig
from raylens.estimate.counts import Counts
from raylens.objectives.contrastive import DENSE_ENTRIES
from raylens.objectives.tiles import FUSED_ENTRIES, TILE

__all__ = ["Memory", "is_dense", "memory_of", "weights_stay", "zero_key"]

FP32 = 4
BUCKET, REUSE, PREFETCH = 500_000_000, 1_000_000_000, 50_000_000
"""DeepSpeed's defaults of reduce_bucket_size, stage3_max_reuse_distance and stage3_prefetch_bucket_size, in numbers."""
EXP_SUMS = 192 * 2**20
"""What Triton's kernels hold of partial sums; see `raylens.objectives.triton.launch.exp_sums`."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    weights: int
    """At ZeRO 3 the worker's part, and what is gathered of the others' at a time."""
    casts: int
    """bf16 copies that autocast makes of weights, until the forward pass ends."""
    gradients: int
    masters: int
    """fp32 weights that the optimiser steps on, where they are others than the module's."""
    moments: int
    average: int
    buckets: int
    """Which DeepSpeed allocates whole, in every backward pass, to reduce gradients from."""
    inputs: int
    """Pixels and tokens of the worker's batch."""
    embeddings: int
    """Of the worker's pairs, and with several micro-batches their gradients."""
    activations: int
    """Of one micro-batch: what the forward pass keeps, and what the backward pass adds at a time."""
    loss: int
    """All texts' embeddings, their gradients, sums, and the logits that exist at a time."""
    together: bool
    """Whether activations are there while the loss is computed: with one micro-batch."""

    @property
    def state(self) -> int:
        """What is there between steps too, with the gradients."""
        held = self.weights + self.casts + self.gradients + self.masters + self.moments + self.average
        return held + self.buckets

    @property
    def total(self) -> int:
        """At the peak of a step."""
        both = self.activations + self.loss if self.together else max(self.activations, self.loss)
        return self.state + self.inputs + self.embeddings + both


def memory_of(config: RunConfig, counts: Counts, tokens: int, workers: int, micro_batch: int) -> Memory:
    """The peak of a step.

    Args:
        config: of the run; its ``resources`` are not looked at.
        counts: of its model.
        tokens: of a caption, marks included.
        workers: GPUs.
        micro_batch: pairs that go through the towers at a time.
    """
    worker_batch = config.global_batch // workers
    single = micro_batch == worker_batch
    shared = 1 if config.zero.stage == 0 else workers
    part = 0 if config.zero.offload_optimizer else FP32 * _ceil(counts.learning, shared)
    bed = FP32 * worker_batch * config.model.embed_dim
    return Memory(
        weights=_weights(config, counts, workers, single=single),
        casts=2 * counts.multiplied,
        gradients=_gradients(config, counts, workers),
        masters=part if config.zero.stage else 0,
        moments=part * (1 if config.optim.kind == "lion" else 2),
        average=part if config.optim.ema_decay else 0,
        buckets=_buckets(config),
        inputs=worker_batch * (3 * config.model.image.size**2 + FP32 * tokens + 8),
        # In two passes: the parts, all of them in one tensor, and its gradient.
        embeddings=2 * bed * (1 if single else 3),
        activations=_activations(config, counts, micro_batch),
        loss=_loss(config, worker_batch),
        together=single,
    )


def is_dense(config: RunConfig, worker_batch: int) -> bool:
    """Whether the loss keeps all logits of a worker, as it does where they are few."""
    return config.objective.kind == "softmax" and worker_batch * config.global_batch <= DENSE_ENTRIES


def weights_stay(config: RunConfig, counts: Counts, *, single: bool) -> bool:
    """Whether ZeRO 3 gathers the weights once in a step and keeps them for the backward pass.

    DeepSpeed keeps what it needs again before so many numbers went by. It knows what comes next only where each step is
    one forward and one backward pass.
    """
    return single and 2 * counts.parameters <= zero_key(config, "stage3_max_reuse_distance", REUSE)


def zero_key(config: RunConfig, name: str, otherwise: int) -> int:
    """A number of ``zero.deepspeed``, or DeepSpeed's default."""
    given: Any = config.zero.deepspeed.get("zero_optimization", {})
    return int(given.get(name, otherwise))


def _weights(config: RunConfig, counts: Counts, workers: int, *, single: bool) -> int:
    each = 2 if config.half_weights else FP32
    if config.zero.stage < 3:
        return each * counts.parameters
    at_a_time = counts.largest_module + zero_key(config, "stage3_prefetch_bucket_size", PREFETCH)
    gathered = counts.parameters if weights_stay(config, counts, single=single) else at_a_time
    return each * (_ceil(counts.parameters, workers) + min(gathered, counts.parameters))


def _gradients(config: RunConfig, counts: Counts, workers: int) -> int:
    if config.zero.stage > 1:
        return FP32 * _ceil(counts.learning, workers)
    # DeepSpeed's optimiser for bf16 at stage 1 has those of the module beside the sum in fp32.
    return (6 if config.precision == "bf16" else FP32) * counts.learning


def _buckets(config: RunConfig) -> int:
    stage, half = config.zero.stage, config.half_weights
    if stage == 0 or (stage == 1 and config.precision == "bf16"):
        return 0
    each = 2 if half and stage > 1 else FP32
    given = config.zero.deepspeed.get("zero_optimization", {})
    double = 2 if stage < 3 and given.get("overlap_comm") else 1
    return double * each * zero_key(config, "reduce_bucket_size", BUCKET)


def _activations(config: RunConfig, counts: Counts, micro_batch: int) -> int:
    # Backward, a gradient goes as an activation goes: at the peak one tensor more. Checkpointed, the inside of a block.
    beside = counts.largest_bytes
    if config.towers.checkpoint_blocks:
        beside = counts.inside_bytes + 2 * counts.largest_bytes
    return math.ceil(micro_batch * (counts.kept_bytes + beside))


def _loss(config: RunConfig, b: int) -> int:
    B, D, products = config.global_batch, config.model.embed_dim, config.objective.matmul_precision
    gathered = 2 * FP32 * B * D + 2 * FP32 * b * D  # texts and their gradients; gradients of the worker's own
    rounded = 2 * (b + B) * D if products == "bf16" else 0
    sums = 8 * (3 * B + 2 * b) + FP32 * (2 * b + B)
    return gathered + rounded + sums + _logits(config, b)


def _logits(config: RunConfig, b: int) -> int:
    """A tile of logits and what is computed from it, or a block of the gradient as Triton's kernels write it."""
    B, D, products = config.global_batch, config.model.embed_dim, config.objective.matmul_precision
    rounded = 2 if products == "bf16" else 0
    if is_dense(config, b):
        return (2 * FP32 + rounded) * b * B
    if products == "fp32" or config.objective.kind != "softmax":
        return (2 * FP32 + rounded) * min(TILE.rows, b) * min(TILE.columns, B)
    columns = min(max(128, FUSED_ENTRIES // b), B)
    return (rounded or FP32) * b * columns + FP32 * (b + columns) * D + EXP_SUMS


def _ceil(count: int, parts: int) -> int:
    return -(-count // parts)
