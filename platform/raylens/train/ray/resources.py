"""The resources of a run: whether a cluster can hold it, and on which of its nodes."""

from collections.abc import Callable

from raylens.capacity import (
    ResourceRequest,
    Shortage,
    autoscaler_status,
    lasting_shortage,
    live_nodes,
    placement,
    possible_nodes,
    shortage,
)
from raylens.config import RunConfig
from raylens.errors import ClusterError
from raylens.placement import GROUP_LABEL, Placement

__all__ = [
    "DATA_CPUS",
    "check_resources",
    "current_shortage",
    "nodes_are_coming",
    "placement_of",
    "resource_requests",
    "shortage_text",
]

DATA_CPUS = 1
"""CPUs that are left for the stream of data; without any, training and data would wait for each other forever."""
WORKER = "training worker"
SHOWN = 4
"""Number of nodes that a message lists at most."""


def placement_of(config: RunConfig) -> Placement:
    """Return the groups of the cluster's nodes, or none if the run may be placed anywhere."""
    if config.resources.placement == "anywhere":
        return Placement()
    return placement()


def resource_requests(config: RunConfig, placement: Placement) -> tuple[ResourceRequest, ResourceRequest]:
    """Return what a run needs at least: its smallest number of workers, and one task of the stream."""
    resources = config.resources
    each = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return (
        ResourceRequest(WORKER, config.worker_counts[0], each, placement.selector("train")),
        ResourceRequest("decoding task", 1, {"CPU": DATA_CPUS}, placement.selector("decode")),
    )


def check_resources(config: RunConfig, say: Callable[[str], None]) -> None:
    """Fail fast when the cluster can never hold the run.

    Args:
        config: the configuration of the run.
        say: receives a line if the run waits for nodes.

    Raises:
        ClusterError: the smallest number of workers does not fit and never will; names the setting and the resource.
    """
    missing = lasting_shortage(resource_requests(config, placement_of(config)), say)
    if missing is not None:
        raise ClusterError(f"{shortage_text(config, missing)}: {_remedy(config, missing)}")


def current_shortage(config: RunConfig) -> Shortage | None:
    """Return what the present nodes lack for the run, or None."""
    return shortage(resource_requests(config, placement_of(config)), live_nodes())


def nodes_are_coming(config: RunConfig) -> bool:
    """Return whether the run waits for nodes that the cluster can still add."""
    requests, live = resource_requests(config, placement_of(config)), live_nodes()
    if shortage(requests, live) is None:
        return False
    state = autoscaler_status().autoscaling_state
    return bool(state.pending_instances or state.pending_instance_requests) or not shortage(
        requests, possible_nodes(live)
    )


def shortage_text(config: RunConfig, missing: Shortage) -> str:
    """Return a message that says what is missing, and where."""
    return f"{_need(config, missing)}, {_have(missing)}"


def _need(config: RunConfig, missing: Shortage) -> str:
    workers = [request for request in missing.requests if request.what == WORKER]
    if not workers:
        return f"reading data needs {DATA_CPUS} CPU"
    key, count = _key(config), config.worker_counts[0]
    if missing.resource is None:
        bundle = " and ".join(
            f"{size:g} {name}{'s' if size > 1 else ''}" for name, size in workers[0].each.items() if size
        )
        data = f", and {DATA_CPUS} CPU to read data" if len(missing.requests) > 1 else ""
        return f"{key} = {count} need {count} x {bundle}, each on one node{data}"
    setting = f"resources.{missing.resource.lower()}s_per_worker"
    part = f" ({DATA_CPUS} of them to read data)" if len(missing.requests) > 1 and missing.resource == "CPU" else ""
    each = f"{workers[0].each[missing.resource]:g}"
    return f"{key} = {count} with {setting} = {each} need {missing.wanted:g} {missing.resource}s{part}"


def _have(missing: Shortage) -> str:
    group = _group(missing)
    who = "the cluster has" if group is None else f"nodes of group {group} have"
    if missing.resource is None:
        return f"{who} room for {missing.most:g} of these"
    each = [(node, node.resources.get(missing.resource, 0.0)) for node in missing.nodes]
    having = [(node, size) for node, size in each if size]
    shown = [f"{node.name}: {f'{node.count} x ' if node.count > 1 else ''}{size:g}" for node, size in having[:SHOWN]]
    more = f" and {len(having) - SHOWN} more" if len(having) > SHOWN else ""
    listed = f" ({', '.join(shown)}{more})" if len(having) > 1 else ""
    return f"{who} {missing.most:g}{listed}"


def _remedy(config: RunConfig, missing: Shortage) -> str:
    group = _group(missing)
    lower = f"lower {_key(config)}, or " if any(request.what == WORKER for request in missing.requests) else ""
    if group is not None:
        return f"{lower}give the cluster more or larger nodes of this group (max_nodes and cpus of its description)"
    more = " (--num-cpus declares more logical CPUs on one machine)" if missing.resource == "CPU" else ""
    return f"{lower}use a larger cluster{more}"


def _group(missing: Shortage) -> str | None:
    """Return the group of nodes that must have the missing resource, or None if any node may."""
    groups = {request.selector.get(GROUP_LABEL) for request in missing.requests}
    return groups.pop() if len(groups) == 1 else None


def _key(config: RunConfig) -> str:
    return "resources.workers" if config.resources.min_workers is None else "resources.min_workers"
