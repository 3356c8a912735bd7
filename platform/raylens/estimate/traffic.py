"""The network traffic of one GPU in a training step: bytes sent, by purpose; it receives as many.

Collectives are rings: each of N workers sends N-1 of N parts (Patarasuk and Yuan 2009). The collectives counted are
those that DeepSpeed 0.19 and the loss call, not those that a ZeRO stage could use.
"""

from dataclasses import dataclass

from raylens.config import RunConfig
from raylens.estimate.counts import Counts
from raylens.estimate.memory import FP32, weights_stay

__all__ = ["Traffic", "all_gather", "all_reduce", "reduce_scatter", "traffic_of"]


@dataclass(frozen=True)
class Traffic:
    """Bytes that one GPU sends in a step, by purpose."""

    gradients: float
    weights: float
    """Weights: at ZeRO 1 and 2 after the update, at ZeRO 3 in each pass through the towers."""
    embeddings: float
    """Embeddings of texts to all workers, and their gradients back."""
    sums: float
    """Sums of the loss over columns."""

    @property
    def total(self) -> float:
        """Return the bytes sent in total."""
        return self.gradients + self.weights + self.embeddings + self.sums


def all_gather(size: float, workers: int) -> float:
    """Return the bytes sent by one worker until each has all ``size`` bytes, of which each had a part."""
    return size * (workers - 1) / workers


def reduce_scatter(size: float, workers: int) -> float:
    """Return the bytes sent by one worker until each has its part of the sum of ``size`` bytes."""
    return size * (workers - 1) / workers


def all_reduce(size: float, workers: int) -> float:
    """Return the bytes sent by one worker until each has the sum of ``size`` bytes: both of the above."""
    return reduce_scatter(size, workers) + all_gather(size, workers)


def traffic_of(config: RunConfig, counts: Counts, workers: int, micro_batches: int) -> Traffic:
    """Estimate the bytes that one GPU sends in a step.

    Args:
        config: the configuration of the run; its ``scale`` is ignored.
        counts: the counts of its model.
        workers: the number of GPUs.
        micro_batches: the micro-batches of a worker in a step.
    """
    B, D = config.global_batch, config.model.embed_dim
    text_gradient = micro_batches > 1 or not config.towers.lock_text
    sums = {"softmax": 8 * (2 * B + 2), "triplet": 8 * (B + 1), "sigmoid": 8}[config.objective.kind]
    matches = all_gather(8 * B, workers) if config.objective.kind == "triplet" else 0.0
    return Traffic(
        gradients=_gradients(config, counts, workers, micro_batches),
        weights=_weights(config, counts, workers, micro_batches),
        embeddings=all_gather(FP32 * B * D, workers)
        + (reduce_scatter(FP32 * B * D, workers) if text_gradient else 0.0),
        sums=all_reduce(sums, workers) + matches,
    )


def _each(config: RunConfig) -> int:
    return 2 if config.half_weights else FP32


def _gradients(config: RunConfig, counts: Counts, workers: int, micro_batches: int) -> float:
    """Return the bytes of gradients: stages 1 and 2 all-reduce as well, and from stage 2 on in every micro-batch."""
    size, stage = _each(config) * counts.trainable, config.zero.stage
    once = reduce_scatter(size, workers) if stage == 3 else all_reduce(size, workers)
    return once * (micro_batches if stage > 1 else 1)


def _weights(config: RunConfig, counts: Counts, workers: int, micro_batches: int) -> float:
    if config.zero.stage == 0:
        return 0.0
    if config.zero.stage < 3:
        return all_gather(_each(config) * counts.trainable, workers)
    single = micro_batches == 1
    once = all_gather(_each(config) * counts.parameters, workers)
    if single:
        return once * (1 if weights_stay(config, counts, single=True) else 2)
    return once * 3 * micro_batches  # forward without a graph, forward, backward
