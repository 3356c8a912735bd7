"""The check whether a cluster has, or will get, room for bundles of resources; it asks the autoscaler if need be."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ray
from ray.util.client import ray as client

from raylens.capacity.nodes import live_nodes, possible_nodes, started_by_this_process
from raylens.capacity.packing import Node, ResourceRequest, Shortage, shortage
from raylens.placement import Placement
from raylens.ray_internals import AutoscalingState, GetClusterStatusReply, cluster_status

__all__ = ["PATIENCE_SECONDS", "autoscaler_status", "lasting_shortage", "launches"]

PATIENCE_SECONDS = 40.0
"""The longest wait for nodes to join a cluster that does not announce its possible size."""
LOOK_SECONDS = 2.0
REPLY_SECONDS = 10


def lasting_shortage(requests: Sequence[ResourceRequest], say: Callable[[str], None]) -> Shortage | None:
    """Return the shortage for these bundles that will not end; None if they fit, or may yet fit.

    The answer comes at once if this process started the cluster, or if the cluster announces its possible size.
    Otherwise nodes are requested, and awaited for up to `PATIENCE_SECONDS`.

    Args:
        requests: the requests, which are to fit at the same time.
        say: a function that is called with a message about the wait.
    """
    live = live_nodes()
    lacking = shortage(requests, possible_nodes(live))
    if lacking is None or started_by_this_process() or _says_its_sizes(live):
        return lacking
    say(f"no room yet for {_text(requests)}: waiting at most {PATIENCE_SECONDS:.0f} s for more nodes")
    with _requested(requests):
        return _after_waiting(requests)


def autoscaler_status() -> GetClusterStatusReply:
    """Return the autoscaler's last status, and the requests to it; empty without an autoscaler of version 2."""
    if client.is_connected():
        text: bytes = ray.get(ray.remote(num_cpus=0)(_status).remote())
    else:
        text = _status()
    return GetClusterStatusReply.FromString(text)


def launches(state: AutoscalingState) -> tuple[list[str], list[str]]:
    """Return, as texts, the nodes that the autoscaler is launching, and those that it could not launch."""
    coming = [f"{nodes.count} x {nodes.ray_node_type_name}" for nodes in state.pending_instance_requests]
    coming += [f"1 x {node.ray_node_type_name} ({node.details})" for node in state.pending_instances]
    failed = [f"{nodes.ray_node_type_name}: {nodes.reason}" for nodes in state.failed_instance_requests]
    return coming, list(dict.fromkeys(failed))


def _status() -> bytes:
    return cluster_status(REPLY_SECONDS)


def _says_its_sizes(live: Sequence[Node]) -> bool:
    groups = Placement.read([node.labels for node in live]).groups
    return bool(groups) and None not in groups.values()


def _after_waiting(requests: Sequence[ResourceRequest]) -> Shortage | None:
    end, asked_at = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        lacking = shortage(requests, live_nodes())
        if lacking is None or time.monotonic() > end:
            return lacking
        status = autoscaler_status()
        scaling, state = status.autoscaling_state, status.cluster_resource_state
        if not asked_at and state.cluster_resource_constraints:
            asked_at = state.cluster_resource_state_version
        if asked_at and scaling.last_seen_cluster_resource_state_version >= asked_at:
            if scaling.infeasible_cluster_resource_constraints:
                return lacking
            if scaling.pending_instance_requests or scaling.pending_instances:
                return None
        time.sleep(LOOK_SECONDS)


@contextmanager
def _requested(requests: Sequence[ResourceRequest]) -> Iterator[None]:
    """Request resources from the autoscaler, within this context, beside the requests of others."""
    from raylens.ray_internals import get_or_create_autoscaling_coordinator  # imports Ray Data

    coordinator, name = get_or_create_autoscaling_coordinator(), f"raylens-{uuid.uuid4().hex}"
    bundles = [dict(request.each) for request in requests for _ in range(request.count)]
    selectors = [dict(request.selector) for request in requests for _ in range(request.count)]
    request = coordinator.request_resources.remote(
        requester_id=name, resources=bundles, label_selectors=selectors, expire_after_s=2 * PATIENCE_SECONDS
    )
    ray.get(request)
    try:
        yield
    finally:
        ray.get(coordinator.cancel_request.remote(name))


def _text(requests: Sequence[ResourceRequest]) -> str:
    return " and ".join(f"{request.count} x {request.what}" for request in requests)
