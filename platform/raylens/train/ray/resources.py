"""Whether a cluster has room for a run, and on which of its nodes."""

from collections.abc import Callable

from raylens.capacity import (
    ResourceRequest,
    Shortage,
    lasting_shortage,
    live_nodes,
    placement,
    possible_nodes,
    shortage,
)
from raylens.capacity.autoscaler import autoscaler_status
from raylens.config import RunConfig
from raylens.errors import ClusterError
from raylens.placement import GROUP_LABEL, Placement

__all__ = [
    "DATA_CPUS",
    "check_room",
    "nodes_are_coming",
    "placement_of",
    "resource_requests",
    "shortage_text",
    "wanting",
]

DATA_CPUS = 1
"""CPUs that must be left for the stream; without one, training and data wait for each other for ever."""
WORKER = "training worker"
SHOWN = 4
"""Nodes that a message lists."""


def placement_of(config: RunConfig) -> Placement:
    """The groups of the cluster's nodes, as far as the run keeps to them."""
    if config.resources.placement == "anywhere":
        return Placement()
    return placement()


def resource_requests(config: RunConfig, placement: Placement) -> tuple[ResourceRequest, ResourceRequest]:
    """What a run needs at the least: its fewest workers, and a task of the stream."""
    resources = config.resources
    each = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return (
        ResourceRequest(WORKER, config.worker_counts[0], each, placement.selector("train")),
        ResourceRequest("decoding task", 1, {"CPU": DATA_CPUS}, placement.selector("decode")),
    )


def check_room(config: RunConfig, say: Callable[[str], None]) -> None:
    """Say before the start what Ray would wait for for ever.

    Args:
        config: of the run.
        say: is told where nodes are waited for.

    Raises:
        ClusterError: there is not enough for the fewest workers, and will not be; names the setting and the resource.
    """
    found = lasting_shortage(resource_requests(config, placement_of(config)), say)
    if found is not None:
        raise ClusterError(f"{shortage_text(config, found)}: {_remedy(config, found)}")


def wanting(config: RunConfig) -> Shortage | None:
    """What the nodes that are there now lack for the run."""
    return shortage(resource_requests(config, placement_of(config)), live_nodes())


def nodes_are_coming(config: RunConfig) -> bool:
    """Whether the run has to wait for nodes which the cluster can still get."""
    requests, live = resource_requests(config, placement_of(config)), live_nodes()
    if shortage(requests, live) is None:
        return False
    state = autoscaler_status().autoscaling_state
    return bool(state.pending_instances or state.pending_instance_requests) or not shortage(
        requests, possible_nodes(live)
    )


def shortage_text(config: RunConfig, found: Shortage) -> str:
    """What is missing, and where."""
    return f"{_need(config, found)}, {_have(found)}"


def _need(config: RunConfig, found: Shortage) -> str:
    workers = [request for request in found.requests if request.what == WORKER]
    if not workers:
        return f"reading data needs {DATA_CPUS} CPU"
    key, count = _key(config), config.worker_counts[0]
    if found.resource is None:
        bundle = " and ".join(
            f"{size:g} {name}{'s' if size > 1 else ''}" for name, size in workers[0].each.items() if size
        )
        data = f", and {DATA_CPUS} CPU to read data" if len(found.requests) > 1 else ""
        return f"{key} = {count} need {count} x {bundle}, each on one node{data}"
    setting = f"resources.{found.resource.lower()}s_per_worker"
    part = f" ({DATA_CPUS} of them to read data)" if len(found.requests) > 1 and found.resource == "CPU" else ""
    each = f"{workers[0].each[found.resource]:g}"
    return f"{key} = {count} with {setting} = {each} need {found.wanted:g} {found.resource}s{part}"


def _have(found: Shortage) -> str:
    group = _group(found)
    who = "the cluster has" if group is None else f"nodes of group {group} have"
    if found.resource is None:
        return f"{who} room for {found.most:g} of these"
    each = [(node, node.resources.get(found.resource, 0.0)) for node in found.nodes]
    having = [(node, size) for node, size in each if size]
    shown = [f"{node.name}: {f'{node.count} x ' if node.count > 1 else ''}{size:g}" for node, size in having[:SHOWN]]
    more = f" and {len(having) - SHOWN} more" if len(having) > SHOWN else ""
    listed = f" ({', '.join(shown)}{more})" if len(having) > 1 else ""
    return f"{who} {found.most:g}{listed}"


def _remedy(config: RunConfig, found: Shortage) -> str:
    group = _group(found)
    lower = f"lower {_key(config)}, or " if any(request.what == WORKER for request in found.requests) else ""
    if group is not None:
        return f"{lower}give the cluster more or larger nodes of this group (max_nodes and cpus of its description)"
    more = " (--num-cpus declares more logical CPUs on one machine)" if found.resource == "CPU" else ""
    return f"{lower}use a larger cluster{more}"


def _group(found: Shortage) -> str | None:
    """The group of nodes that what is missing has to be on, if it is one."""
    groups = {request.selector.get(GROUP_LABEL) for request in found.requests}
    return groups.pop() if len(groups) == 1 else None


def _key(config: RunConfig) -> str:
    return "resources.workers" if config.resources.min_workers is None else "resources.min_workers"
