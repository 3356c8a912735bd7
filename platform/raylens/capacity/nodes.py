"""The nodes of the cluster that this process is connected to, and those that may still join it."""

import os
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.client import ray as client

from raylens.capacity.packing import Node
from raylens.placement import GROUP_LABEL, Group, GroupSize, Placement
from raylens.ray_internals import cluster_config, is_head_process

__all__ = [
    "declare_own_cluster",
    "is_own_cluster",
    "live_nodes",
    "name_of",
    "placement",
    "possible_nodes",
    "started_by_this_process",
]

OWN_CLUSTER = "RAYLENS_OWN_CLUSTER"
"""The environment variable by which the processes of a cluster know that one command owns it."""
MANY = 1_000_000
"""The number of nodes that stands for an unbounded number."""


def live_nodes() -> list[Node]:
    """Return the nodes that the cluster has now."""
    return [_node(row) for row in ray.nodes() if row["Alive"]]


def placement() -> Placement:
    """Return the groups of nodes that the cluster has; none without a cluster."""
    if not ray.is_initialized():
        return Placement()
    return Placement.read([node.labels for node in live_nodes()])


def possible_nodes(live: list[Node]) -> list[Node]:
    """Return the live nodes and those that may join.

    The latter come from the head's announcements, or else from the report of a service that manages the cluster.
    """
    groups = Placement.read([node.labels for node in live])
    if not groups.groups:
        return _reported() or live
    more = []
    for group, size in groups.groups.items():
        there = sum(node.labels.get(GROUP_LABEL) == group for node in live)
        if size is not None and size.nodes > there:
            more.append(_announced(group, size, size.nodes - there, groups))
    return [*live, *more]


def started_by_this_process() -> bool:
    """Tell whether this process started the cluster for itself alone, so that no node ever joins it."""
    return is_head_process()


def declare_own_cluster(own: bool) -> None:
    """Note in the environment whether this command started the cluster, which it is about to use, for itself.

    The processes of a cluster inherit the environment of the process that started it.
    """
    if own:
        os.environ[OWN_CLUSTER] = "1"
    else:
        os.environ.pop(OWN_CLUSTER, None)


def is_own_cluster() -> bool:
    """Tell whether the cluster is one machine's, was started by this command, and ends with it."""
    return os.environ.get(OWN_CLUSTER) == "1"


def name_of(row: Mapping[str, Any]) -> str:
    """Return the name of a node in messages; ``row`` is a row of `ray.nodes`."""
    return f"{row['NodeManagerHostname']} ({row['NodeID'][:6]})"


def _node(row: Mapping[str, Any]) -> Node:
    resources = {name: float(size) for name, size in row["Resources"].items() if name in ("CPU", "GPU")}
    return Node(name_of(row), resources, row.get("Labels") or {})


def _announced(group: Group, size: GroupSize, count: int, groups: Placement) -> Node:
    return Node(f"group {group}", {"CPU": size.cpus, "GPU": size.gpus}, groups.selector(group), count)


def _reported() -> list[Node]:
    """Return the reported nodes; none with Ray's own autoscaler, which reports no limits, or through Ray's client."""
    config = None if client.is_connected() else cluster_config()
    groups = config.node_group_configs if config is not None else ()
    return [
        Node(group.name, dict(group.resources), {}, MANY if group.max_count < 0 else group.max_count)
        for group in groups
        if group.resources and group.max_count
    ]
