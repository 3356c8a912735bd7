"""The estimate of a training step: memory of each GPU, bytes over the network, and time at an assumed rate."""

from dataclasses import asdict, dataclass
from typing import Any

from raylens.config import RunConfig
from raylens.errors import ConfigError
from raylens.estimate.counts import Counts, counts_of
from raylens.estimate.machine import Machine
from raylens.estimate.memory import Memory, is_dense, memory_of
from raylens.estimate.traffic import Traffic, traffic_of

__all__ = ["PAPER_PAIRS", "Estimate", "estimate"]

PAPER_PAIRS = 12.8e9
"""Pairs in 32 epochs of 400 million (Radford et al. 2021, section 2.5)."""
DAY = 86_400.0


@dataclass(frozen=True)
class Estimate:
    """The estimate of a training step on a number of GPUs."""

    workers: int
    global_batch: int
    micro_batch: int
    """Number of pairs that pass through the towers at a time; 1 if not even that fits."""
    fits: bool
    """Whether the memory of a GPU is sufficient."""
    memory: Memory
    traffic: Traffic
    tower_seconds: float
    loss_seconds: float
    backward_seconds: float
    """The part of the towers' seconds that are backward passes during which gradients can be reduced."""
    gradient_seconds: float
    weight_seconds: float
    embedding_seconds: float
    """Seconds of sending embeddings, their gradients and the sums of the loss."""
    weights_beside: bool
    """Whether weights can be gathered during computation, as at ZeRO 3."""

    @property
    def worker_batch(self) -> int:
        """Return the pairs of one GPU."""
        return self.global_batch // self.workers

    @property
    def micro_batches(self) -> int:
        """Return the micro-batches of one GPU in a step."""
        return self.worker_batch // self.micro_batch

    @property
    def compute_seconds(self) -> float:
        """Return the seconds of computation in a step."""
        return self.tower_seconds + self.loss_seconds

    @property
    def network_seconds(self) -> float:
        """Return the seconds of network traffic in a step."""
        return self.gradient_seconds + self.weight_seconds + self.embedding_seconds

    @property
    def seconds(self) -> float:
        """Return the seconds of a step without overlap of network and computation."""
        return self.compute_seconds + self.network_seconds

    @property
    def hidden_seconds(self) -> float:
        """Return the part of the network's seconds that can overlap with computation."""
        gradients = min(self.gradient_seconds, self.backward_seconds)
        weights = min(self.weight_seconds, self.tower_seconds - gradients) if self.weights_beside else 0.0
        return gradients + weights

    @property
    def best_seconds(self) -> float:
        """Return the seconds of a step if all traffic that can overlap with computation does."""
        return self.seconds - self.hidden_seconds

    @property
    def hides(self) -> bool:
        """Return whether gradients, and at ZeRO 3 weights, can be hidden behind the computation beside them."""
        return self.hidden_seconds >= self.gradient_seconds + (self.weight_seconds if self.weights_beside else 0.0)

    @property
    def pairs_per_second(self) -> float:
        """Return the throughput of all GPUs without overlap."""
        return self.global_batch / self.seconds

    def days(self, pairs: float = PAPER_PAIRS) -> float:
        """Return the days until so many pairs are seen."""
        return pairs / self.pairs_per_second / DAY

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers by name, in bytes and seconds."""
        names = ("worker_batch", "micro_batches", "compute_seconds", "network_seconds", "seconds", "best_seconds")
        derived = {name: getattr(self, name) for name in (*names, "hides", "pairs_per_second")}
        totals = {"memory_bytes": self.memory.total, "state_bytes": self.memory.state, "days": self.days()}
        return asdict(self) | derived | totals | {"traffic_bytes": self.traffic.total}


def estimate(
    config: RunConfig,
    machine: Machine | None = None,
    *,
    workers: int | None = None,
    micro_batch: int | None = None,
    tokens: int | None = None,
) -> Estimate:
    """Estimate the step of a run by counting its model; `Machine` holds what is assumed.

    Args:
        config: the configuration of the run.
        machine: the machine; H100s if None.
        workers: the number of GPUs; ``scale.workers`` if None.
        micro_batch: the number of pairs that pass through the towers at a time; if None, ``scale.micro_batch``, or the
            largest power of two that divides the worker's batch and fits.
        tokens: the tokens of a caption, start and end included; the model's context if None.

    Raises:
        ConfigError: the workers do not divide the global batch, the micro-batch does not divide a worker's batch, or
            the objective is not a loss over pairs.
    """
    machine = machine or Machine()
    workers = config.scale.workers if workers is None else workers
    micro_batch = config.scale.micro_batch if micro_batch is None else micro_batch
    tokens = min(tokens or config.model.text.context, config.model.text.context)
    _check(config, workers, micro_batch)
    counts, limit = counts_of(config, tokens), machine.usable * machine.memory_bytes
    sizes = [micro_batch] if micro_batch is not None else _powers(config.global_batch // workers)
    memories = {size: memory_of(config, counts, tokens, workers, size) for size in sizes}
    fitting = [size for size, memory in memories.items() if memory.total <= limit]
    chosen = max(fitting, default=min(sizes))
    return _timed(config, machine, counts, workers, chosen, memories[chosen], fits=bool(fitting))


def _check(config: RunConfig, workers: int, micro_batch: int | None) -> None:
    if config.objective.kind in ("bag_of_words", "caption"):
        raise ConfigError(
            f"objective.kind = {config.objective.kind!r}: only losses over all pairs of a batch can be estimated: use "
            "softmax, sigmoid or triplet"
        )
    if workers < 1 or config.global_batch % workers:
        raise ConfigError(
            f"global_batch = {config.global_batch} cannot be shared equally by workers = {workers}: change one of them"
        )
    worker_batch = config.global_batch // workers
    if micro_batch is not None and (micro_batch < 1 or worker_batch % micro_batch):
        raise ConfigError(
            f"micro_batch = {micro_batch} does not divide a worker's batch, {worker_batch}: choose a divisor, or "
            "omit it"
        )


def _powers(worker_batch: int) -> list[int]:
    return [2**n for n in range(worker_batch.bit_length()) if worker_batch % 2**n == 0]


def _timed(
    config: RunConfig, machine: Machine, counts: Counts, workers: int, micro_batch: int, memory: Memory, *, fits: bool
) -> Estimate:
    worker_batch, stage = config.global_batch // workers, config.zero.stage
    micro_batches = worker_batch // micro_batch
    forward, backward = _passes(config, counts, micro_batches)
    rate, bandwidth = machine.rate(config.precision), machine.ring_bandwidth(workers)
    per_logit = (6 if is_dense(config, worker_batch) else 8) * config.model.embed_dim
    traffic = traffic_of(config, counts, workers, micro_batches)
    return Estimate(
        workers=workers,
        global_batch=config.global_batch,
        micro_batch=micro_batch,
        fits=fits,
        memory=memory,
        traffic=traffic,
        tower_seconds=worker_batch * (forward + backward) / rate,
        loss_seconds=per_logit * worker_batch * config.global_batch / machine.rate(config.objective.products),
        # Below stage 2 gradients are sent with the last micro-batch.
        backward_seconds=worker_batch * backward / rate / (1 if stage > 1 else micro_batches),
        gradient_seconds=traffic.gradients / bandwidth,
        weight_seconds=traffic.weights / bandwidth,
        embedding_seconds=(traffic.embeddings + traffic.sums) / bandwidth,
        weights_beside=stage == 3,
    )


def _passes(config: RunConfig, counts: Counts, micro_batches: int) -> tuple[float, float]:
    """Return the operations of a pair in its forward passes, and in the backward pass with recomputation."""
    towers, model = config.towers, config.model
    forward = (counts.image_flops + counts.text_flops) * (2 if micro_batches > 1 else 1)
    backward = 0.0
    for flops, locked, blocks in (
        (counts.image_flops, towers.lock_image, model.image.kind == "vit"),
        (counts.text_flops, towers.lock_text, model.text.kind == "transformer"),
    ):
        if not locked:
            backward += flops * (3 if towers.checkpoint_blocks and blocks else 2)
    return forward, backward
