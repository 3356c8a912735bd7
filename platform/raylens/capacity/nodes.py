"""The nodes of the cluster that this process is connected to, and those that it may still get."""

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
"""What stands for a number of nodes without a bound."""


def live_nodes() -> list[Node]:
    """Those that are there."""
    return [_node(row) for row in ray.nodes() if row["Alive"]]


def placement() -> Placement:
    """The groups of nodes that the cluster has; none without a cluster."""
    if not ray.is_initialized():
        return Placement()
    return Placement.read([node.labels for node in live_nodes()])


def possible_nodes(live: list[Node]) -> list[Node]:
    """Those that are there, and those that may come: by the head's announcements, or else by what a service that
    manages the cluster reported to Ray."""
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
    """Whether this process began the cluster, for itself alone: no node ever joins it."""
    return is_head_process()


def declare_own_cluster(own: bool) -> None:
    """Note in the environment whether the cluster that is about to be used was started by this command for itself.

    Processes of a cluster inherit the environment of whoever started it.
    """
    if own:
        os.environ[OWN_CLUSTER] = "1"
    else:
        os.environ.pop(OWN_CLUSTER, None)


def is_own_cluster() -> bool:
    """Tell whether the cluster is one machine's, was started by this command, and ends with it."""
    return os.environ.get(OWN_CLUSTER) == "1"


def name_of(row: Mapping[str, Any]) -> str:
    """What a node is called in messages; ``row`` is one of `ray.nodes`."""
    return f"{row['NodeManagerHostname']} ({row['NodeID'][:6]})"


def _node(row: Mapping[str, Any]) -> Node:
    resources = {name: float(size) for name, size in row["Resources"].items() if name in ("CPU", "GPU")}
    return Node(name_of(row), resources, row.get("Labels") or {})


def _announced(group: Group, size: GroupSize, count: int, groups: Placement) -> Node:
    return Node(f"group {group}", {"CPU": size.cpus, "GPU": size.gpus}, groups.selector(group), count)


def _reported() -> list[Node]:
    """Ray's own autoscaler reports no limits, so this is empty with it; nor is it to be had through Ray's client."""
    config = None if client.is_connected() else cluster_config()
    groups = config.node_group_configs if config is not None else ()
    return [
        Node(one.name, dict(one.resources), {}, MANY if one.max_count < 0 else one.max_count)
        for one in groups
        if one.resources and one.max_count
    ]
