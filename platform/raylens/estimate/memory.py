"""The memory of one GPU in a training step, in bytes, by purpose.

Shapes: b pairs of a worker, B the global batch, D embedding.
"""

import math
from dataclasses import dataclass
from typing import Any

from raylens.config import RunConfig
from raylens.estimate.counts import Counts
from raylens.objectives import DENSE_ENTRIES, FUSED_ENTRIES, TILE

__all__ = ["Memory", "is_dense", "memory_of", "weights_stay", "zero_key"]

FP32 = 4
BUCKET, REUSE, PREFETCH = 500_000_000, 1_000_000_000, 50_000_000
"""Elements: DeepSpeed's reduce_bucket_size, stage3_max_reuse_distance and stage3_prefetch_bucket_size."""
EXP_SUMS = 192 * 2**20
"""Bytes of partial sums in Triton's kernels; see `raylens.objectives.triton.launch.exp_sums`."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, by purpose."""

    weights: int
    """The module's weights; at ZeRO 3 the worker's part, and what is gathered from others at a time."""
    casts: int
    """Casts of weights to bf16 that autocast keeps until the forward pass ends."""
    gradients: int
    masters: int
    """Master weights in fp32 that the optimiser updates, where they differ from the module's."""
    moments: int
    average: int
    buckets: int
    """Buckets that DeepSpeed allocates in every backward pass to reduce gradients."""
    inputs: int
    """Pixels and tokens of the worker's batch."""
    embeddings: int
    """Embeddings of the worker's pairs, and with several micro-batches their gradients."""
    activations: int
    """What the forward pass of one micro-batch keeps, and what the backward pass adds at a time."""
    loss: int
    """Embeddings of all texts, their gradients, sums, and the logits that exist at a time."""
    simultaneous: bool
    """Whether activations exist while the loss is computed, as with one micro-batch."""

    @property
    def state(self) -> int:
        """Return the bytes that exist between steps, gradients included."""
        held = self.weights + self.casts + self.gradients + self.masters + self.moments + self.average
        return held + self.buckets

    @property
    def total(self) -> int:
        """Return the bytes at the peak of a step."""
        both = self.activations + self.loss if self.simultaneous else max(self.activations, self.loss)
        return self.state + self.inputs + self.embeddings + both


def memory_of(config: RunConfig, counts: Counts, tokens: int, workers: int, micro_batch: int) -> Memory:
    """Estimate the peak memory of a step.

    Args:
        config: the configuration of the run; its ``resources`` are ignored.
        counts: the counts of its model.
        tokens: the tokens of a caption, start and end included.
        workers: the number of GPUs.
        micro_batch: the number of pairs that pass through the towers at a time.
    """
    worker_batch = config.global_batch // workers
    single = micro_batch == worker_batch
    shared = 1 if config.zero.stage == 0 else workers
    part = 0 if config.zero.offload_optimizer else FP32 * _ceil(counts.trainable, shared)
    bed = FP32 * worker_batch * config.model.embed_dim
    return Memory(
        weights=_weights(config, counts, workers, single=single),
        casts=2 * counts.cast,
        gradients=_gradients(config, counts, workers),
        masters=part if config.zero.stage else 0,
        moments=part * (1 if config.optim.kind == "lion" else 2),
        average=part if config.optim.ema_decay else 0,
        buckets=_buckets(config),
        inputs=worker_batch * (3 * config.model.image.size**2 + FP32 * tokens + 8),
        # With two passes: the parts, their concatenation, and its gradient.
        embeddings=2 * bed * (1 if single else 3),
        activations=_activations(config, counts, micro_batch),
        loss=_loss(config, worker_batch),
        simultaneous=single,
    )


def is_dense(config: RunConfig, worker_batch: int) -> bool:
    """Return whether the loss keeps all logits of a worker, as it does if they are few."""
    return config.objective.kind == "softmax" and worker_batch * config.global_batch <= DENSE_ENTRIES


def weights_stay(config: RunConfig, counts: Counts, *, single: bool) -> bool:
    """Return whether ZeRO 3 gathers the weights once in a step and keeps them for the backward pass.

    DeepSpeed keeps parameters that are needed again within a number of elements. It knows the order only if each step
    has one forward and one backward pass.
    """
    return single and 2 * counts.parameters <= zero_key(config, "stage3_max_reuse_distance", REUSE)


def zero_key(config: RunConfig, name: str, default: int) -> int:
    """Return a number of ``zero.deepspeed``, or DeepSpeed's default."""
    settings: Any = config.zero.deepspeed.get("zero_optimization", {})
    return int(settings.get(name, default))


def _weights(config: RunConfig, counts: Counts, workers: int, *, single: bool) -> int:
    each = 2 if config.half_weights else FP32
    if config.zero.stage < 3:
        return each * counts.parameters
    at_a_time = counts.largest_module + zero_key(config, "stage3_prefetch_bucket_size", PREFETCH)
    gathered = counts.parameters if weights_stay(config, counts, single=single) else at_a_time
    return each * (_ceil(counts.parameters, workers) + min(gathered, counts.parameters))


def _gradients(config: RunConfig, counts: Counts, workers: int) -> int:
    if config.zero.stage > 1:
        return FP32 * _ceil(counts.trainable, workers)
    # DeepSpeed's optimiser for bf16 at stage 1 keeps the module's gradients beside their sum in fp32.
    return (6 if config.precision == "bf16" else FP32) * counts.trainable


def _buckets(config: RunConfig) -> int:
    stage, half = config.zero.stage, config.half_weights
    if stage == 0 or (stage == 1 and config.precision == "bf16"):
        return 0
    each = 2 if half and stage > 1 else FP32
    settings = config.zero.deepspeed.get("zero_optimization", {})
    double = 2 if stage < 3 and settings.get("overlap_comm") else 1
    return double * each * zero_key(config, "reduce_bucket_size", BUCKET)


def _activations(config: RunConfig, counts: Counts, micro_batch: int) -> int:
    # The backward pass frees an activation for each gradient: its peak is one tensor more, and with checkpointed blocks
    # also the activations within one block.
    beside = counts.largest_bytes
    if config.towers.checkpoint_blocks:
        beside = counts.inside_bytes + 2 * counts.largest_bytes
    return math.ceil(micro_batch * (counts.kept_bytes + beside))


def _loss(config: RunConfig, b: int) -> int:
    B, D, products = config.global_batch, config.model.embed_dim, config.objective.matmul_precision
    gathered = 2 * FP32 * B * D + 2 * FP32 * b * D  # all texts and their gradients; gradients of the worker's pairs
    rounded = 2 * (b + B) * D if products == "bf16" else 0
    sums = 8 * (3 * B + 2 * b) + FP32 * (2 * b + B)
    return gathered + rounded + sums + _logits(config, b)


def _logits(config: RunConfig, b: int) -> int:
    """Return the bytes of a tile of logits and what is computed from it, or of a block that Triton's kernels write."""
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
