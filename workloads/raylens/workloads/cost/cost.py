"""The cost of a run on a described cluster: machines and hours, data and checkpoints, requests, money."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raylens.cluster.description import ClusterSpec
from raylens.config import RunConfig
from raylens.errors import ConfigError
from raylens.workloads.cost.storage import storage_figures
from raylens.workloads.cost.terms import Data, Figure, Rate, Spot
from raylens.workloads.cost.time import Duration, duration_of

__all__ = ["Cost", "NodePool", "cost", "pools_of"]


@dataclass(frozen=True)
class NodePool:
    """The nodes of one group that a run holds."""

    group: str
    nodes: int
    gpus: int
    """Number of GPUs of all nodes of the pool together."""
    price: float | None
    """Price of a node for an hour; None if the description has none."""
    how: str


@dataclass(frozen=True)
class Cost:
    """All figures of a run; each follows from those before it."""

    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """Sentences about what is not counted, and what is assumed."""

    def figure(self, name: str) -> Figure:
        """Return the figure of a name."""
        return next(figure for figure in self.figures if figure.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return value, unit and origin of each figure, for JSON."""
        rows = {row.name: {"value": row.value, "unit": row.unit, "how": row.how} for row in self.figures}
        return {"figures": rows, "notes": list(self.notes)}


def cost(config: RunConfig, spec: ClusterSpec, rate: Rate, data: Data, spot: Spot, start_minutes: float) -> Cost:
    """Compute the figures of a run.

    Args:
        config: the configuration of the run.
        spec: the description of the cluster.
        rate: the speed of training, and of a core that decodes.
        data: the size of the data.
        spot: how often spot machines are interrupted, and how long a restart takes.
        start_minutes: minutes until the first step: machines, images, processes.

    Raises:
        ConfigError: the cluster has no nodes for the run, or interruptions lose more than is trained.
    """
    steps = config.length.steps(data.pairs, config.global_batch)
    pools, limit = pools_of(config, spec, rate)
    held_up = limit is not None and limit < rate.pairs_per_second
    speed = limit if held_up and limit is not None else rate.pairs_per_second
    train = next(pool for pool in pools if pool.group == "train")
    time = duration_of(config, steps, speed, train.nodes if _is_spot(spec) else 0, spot, start_minutes)
    seen = steps * config.global_batch
    figures = [
        Figure(
            "steps",
            steps,
            "steps",
            f"length, over {data.pairs:,} pairs an epoch in batches of {config.global_batch:,}",
        ),
        Figure("pairs seen", seen, "pairs", f"{steps:,} steps x {config.global_batch:,}"),
        Figure("speed", speed, "pairs/s", _speed_text(rate, limit, held_up=held_up)),
        *time.figures,
        *_machines(pools, time),
        *_money(pools, time),
        *storage_figures(config, data, steps, time, {pool.group: pool.nodes for pool in pools}),
    ]
    return Cost(tuple(figures), _notes(spec, rate, data, pools))


def pools_of(config: RunConfig, spec: ClusterSpec, rate: Rate) -> tuple[list[NodePool], float | None]:
    """Return the nodes that the run holds, and how many pairs a second its decoding nodes can make.

    Raises:
        ConfigError: the cluster cannot hold the workers.
    """
    resources, train = config.resources, spec.train
    if train is None:
        raise ConfigError("the cluster has no group train: describe one, with the machines that train")
    each = train.cpus // resources.cpus_per_worker
    if resources.gpus_per_worker:
        each = min(each, train.gpus // resources.gpus_per_worker)
    if each < 1 or each * train.max_nodes < resources.workers:
        raise ConfigError(
            f"resources.workers = {resources.workers} with {resources.cpus_per_worker} CPUs and "
            f"{resources.gpus_per_worker} GPUs each: group train has room for {each * train.max_nodes} "
            f"({train.max_nodes} nodes of {train.cpus} CPUs and {train.gpus} GPUs): lower resources.workers, or raise "
            "train.max_nodes"
        )
    nodes = max(math.ceil(resources.workers / each), train.min_nodes)
    workers = f"{resources.workers} workers, {each} on a node"
    pools = [
        NodePool("head", 1, 0, spec.head.price_per_hour, "one, as long as the run"),
        NodePool("train", nodes, nodes * train.gpus, train.price_per_hour, workers),
    ]
    decode = spec.decode
    if decode is None:
        spare = nodes * train.cpus - resources.workers * resources.cpus_per_worker
        if spare < 1:
            raise ConfigError(
                f"no CPU is left to decode: {nodes} nodes of {train.cpus} CPUs hold {resources.workers} workers of "
                f"{resources.cpus_per_worker} CPUs each: describe a group decode, or lower resources.cpus_per_worker"
            )
        return pools, spare * rate.pairs_per_core
    wanted = math.ceil(rate.pairs_per_second / rate.pairs_per_core / decode.cpus)
    count = min(max(wanted, decode.min_nodes, 1), decode.max_nodes)
    how = f"{rate.pairs_per_second:,.0f} pairs/s at {rate.pairs_per_core:,.0f} a core ({rate.core_how})"
    pools.insert(1, NodePool("decode", count, 0, decode.price_per_hour, how))
    return pools, decode.max_nodes * decode.cpus * rate.pairs_per_core


def _is_spot(spec: ClusterSpec) -> bool:
    return spec.train is not None and spec.train.spot


def _speed_text(rate: Rate, limit: float | None, *, held_up: bool) -> str:
    if held_up:
        return f"what the cores that decode make; training alone would take {rate.pairs_per_second:,.0f} ({rate.how})"
    return rate.how if limit is None else f"{rate.how}; cores that decode could make {limit:,.0f}"


def _machines(pools: Sequence[NodePool], time: Duration) -> list[Figure]:
    figures = []
    for pool in pools:
        figures.append(Figure(f"{pool.group} nodes", pool.nodes, "nodes", pool.how))
        how = f"{pool.nodes} x {time.hours:,.2f} h"
        figures.append(Figure(f"{pool.group} node-hours", pool.nodes * time.hours, "h", how))
    gpus = sum(pool.gpus for pool in pools)
    figures.append(
        Figure("GPU-hours", gpus * time.hours, "h", f"{gpus} GPUs of the nodes that train x {time.hours:,.2f} h")
    )
    return figures


def _money(pools: Sequence[NodePool], time: Duration) -> list[Figure]:
    priced = [pool for pool in pools if pool.price is not None]
    if not priced:
        return []
    parts = [f"{pool.group} {pool.nodes} x {pool.price:g}" for pool in priced]
    without = [pool.group for pool in pools if pool.price is None]
    lacking = f"; without {', '.join(without)}, of no price" if without else ""
    hourly = sum(pool.nodes * (pool.price or 0.0) for pool in priced)
    return [
        Figure("price an hour", hourly, "money/h", f"{' + '.join(parts)}{lacking}"),
        Figure("price", hourly * time.hours, "money", f"{hourly:g} an hour x {time.hours:,.2f} h"),
    ]


def _notes(spec: ClusterSpec, rate: Rate, data: Data, pools: Sequence[NodePool]) -> tuple[str, ...]:
    assumed = [text for text in (rate.assumed, data.assumed) if text]
    notes = [f"assumed, not measured: {text}" for text in assumed]
    if not any(pool.price is not None for pool in pools):
        notes.append("no money: give groups a price_per_hour in the cluster's description")
    if spec.decode is not None and spec.decode.spot:
        notes.append("spot nodes that decode: their tasks are made again elsewhere; what that costs is not counted")
    notes.append("not counted: idle nodes before they go, evaluation, network between regions, prices of storage")
    return tuple(notes)
