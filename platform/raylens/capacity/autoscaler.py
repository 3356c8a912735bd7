"""Whether a cluster has, or gets, room for bundles of resources; an autoscaler is asked where nothing else can tell."""

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
"""So long may nodes take to join a cluster that does not say what it may become."""
LOOK_SECONDS = 2.0
REPLY_SECONDS = 10


def lasting_shortage(requests: Sequence[ResourceRequest], say: Callable[[str], None]) -> Shortage | None:
    """What is missing for these bundles, and will not come; None where there is room, or there may be.

    Answers at once where the cluster is this process's own, or says what it may become. Elsewhere nodes are asked for,
    and waited for up to `PATIENCE_SECONDS`.

    Args:
        requests: that are to fit at the same time.
        say: is told of the wait.
    """
    live = live_nodes()
    found = shortage(requests, possible_nodes(live))
    if found is None or started_by_this_process() or _says_its_sizes(live):
        return found
    say(f"no room yet for {_text(requests)}: waiting {PATIENCE_SECONDS:.0f} s at most for more nodes")
    with _requested(requests):
        return _after_waiting(requests)


def autoscaler_status() -> GetClusterStatusReply:
    """What Ray's autoscaler wrote down last, and what is asked of it; empty parts where there is none of version 2."""
    if client.is_connected():
        text: bytes = ray.get(ray.remote(num_cpus=0)(_status).remote())
    else:
        text = _status()
    return GetClusterStatusReply.FromString(text)


def launches(state: AutoscalingState) -> tuple[list[str], list[str]]:
    """What the autoscaler is making, and what it could not make, as texts."""
    coming = [f"{one.count} x {one.ray_node_type_name}" for one in state.pending_instance_requests]
    coming += [f"1 x {one.ray_node_type_name} ({one.details})" for one in state.pending_instances]
    failed = [f"{one.ray_node_type_name}: {one.reason}" for one in state.failed_instance_requests]
    return coming, list(dict.fromkeys(failed))


def _status() -> bytes:
    return cluster_status(REPLY_SECONDS)


def _says_its_sizes(live: Sequence[Node]) -> bool:
    groups = Placement.read([node.labels for node in live]).groups
    return bool(groups) and None not in groups.values()


def _after_waiting(requests: Sequence[ResourceRequest]) -> Shortage | None:
    end, asked_at = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        found = shortage(requests, live_nodes())
        if found is None or time.monotonic() > end:
            return found
        status = autoscaler_status()
        told, state = status.autoscaling_state, status.cluster_resource_state
        if not asked_at and state.cluster_resource_constraints:
            asked_at = state.cluster_resource_state_version
        if asked_at and told.last_seen_cluster_resource_state_version >= asked_at:
            if told.infeasible_cluster_resource_constraints:
                return found
            if told.pending_instance_requests or told.pending_instances:
                return None
        time.sleep(LOOK_SECONDS)


@contextmanager
def _requested(requests: Sequence[ResourceRequest]) -> Iterator[None]:
    """Inside, the autoscaler is asked for room, beside what others ask it for."""
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
