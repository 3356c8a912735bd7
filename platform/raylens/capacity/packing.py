"""Whether bundles of resources fit on nodes, and which resource is missing if they do not: arithmetic alone."""

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

__all__ = ["Node", "ResourceRequest", "Shortage", "shortage"]

Resources = Mapping[str, float]
ROUNDING = 1e-6
"""Ray counts resources in ten-thousandths."""
TRIES = 20_000
"""So many placements are tried before what was not shown to be impossible is taken to be possible."""


@dataclass(frozen=True)
class Node:
    """A node of a cluster, or several alike."""

    name: str
    resources: Resources
    """Of one of them, by Ray's names: CPU, GPU."""
    labels: Mapping[str, str] = field(default_factory=dict)
    count: int = 1


@dataclass(frozen=True)
class ResourceRequest:
    """So many bundles, each on one node that has these labels; several may share a node."""

    what: str
    """What the bundles are for, named in messages."""
    count: int
    each: Resources
    selector: Mapping[str, str] = field(default_factory=dict)

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels is one that the bundles may be on."""
        return all(labels.get(key) == value for key, value in self.selector.items())

    def room(self, resources: Resources) -> int:
        """How many bundles fit on one node with so much left."""
        each = [(resources.get(name, 0.0), size) for name, size in self.each.items() if size > 0]
        return min((_whole(have / size) for have, size in each), default=self.count)


@dataclass(frozen=True)
class Shortage:
    """What does not fit, and why."""

    requests: tuple[ResourceRequest, ...]
    """The requests that do not fit; if there are several, each alone would."""
    resource: str | None
    """The one there is too little of; None if it is there, but not on nodes that have all of a bundle."""
    wanted: float
    """Of the resource; of bundles where it is None."""
    most: float
    """That there is, likewise."""
    nodes: tuple[Node, ...]
    """Those with the labels that are asked for."""


def shortage(requests: Sequence[ResourceRequest], nodes: Sequence[Node]) -> Shortage | None:
    """What is missing for all requests to fit on the nodes at the same time; None if they fit.

    Exact for as many tries as `TRIES`; beyond them None, so that nothing is refused that may be possible.
    """
    if _fit(requests, nodes):
        return None
    together: dict[tuple[int, ...], tuple[ResourceRequest, ...]] = {}
    for request in requests:
        own = tuple(number for number, node in enumerate(nodes) if request.allows(node.labels))
        together[own] = (*together.get(own, ()), request)
    sums = (_in_all(group, tuple(nodes[number] for number in own)) for own, group in together.items())
    causes = (*sums, *(_alone(request, nodes) for request in requests))
    return next((cause for cause in causes if cause), None) or _at_once(requests, nodes)


def _alone(request: ResourceRequest, nodes: Sequence[Node]) -> Shortage | None:
    """Bundles of one request that are too large for what each node has."""
    own = tuple(node for node in nodes if request.allows(node.labels))
    fitting = sum(node.count * request.room(node.resources) for node in own)
    return Shortage((request,), None, request.count, fitting, own) if fitting < request.count else None


def _at_once(requests: Sequence[ResourceRequest], nodes: Sequence[Node]) -> Shortage:
    """Asks that fit, but not beside each other."""
    own = tuple(node for node in nodes if any(request.allows(node.labels) for request in requests))
    total, largest = sum(request.count for request in requests), max(requests, key=lambda request: request.count)
    others = [request for request in requests if request is not largest]
    # The first number of the largest request that does not fit any more beside the others.
    first = bisect.bisect_left(
        range(largest.count), True, key=lambda count: not _fit([replace(largest, count=count), *others], nodes)
    )
    return Shortage(tuple(requests), None, total, max(0, total - largest.count + first - 1), own)


def _in_all(requests: tuple[ResourceRequest, ...], nodes: tuple[Node, ...]) -> Shortage | None:
    """A resource of which there is too little on all the nodes taken together; of several the scarcest, GPUs first."""
    found = []
    for name in sorted({name for request in requests for name in request.each}, reverse=True):
        wanted = sum(request.count * request.each.get(name, 0.0) for request in requests)
        have = sum(node.count * node.resources.get(name, 0.0) for node in nodes)
        if have < wanted - ROUNDING:
            found.append(Shortage(requests, name, wanted, have, nodes))
    return min(found, key=lambda one: one.most / one.wanted, default=None)


def _fit(requests: Sequence[ResourceRequest], nodes: Sequence[Node]) -> bool:
    """Try all placements of all bundles but those of which there are most: for these, nodes are only counted."""
    if not requests:
        return True
    most = max(requests, key=lambda request: request.count)
    singles = [request for request in requests if request is not most for _ in range(request.count)]
    singles.sort(key=lambda request: -sum(request.each.values()))
    total = sum(request.count for request in requests)
    places = [node for node in nodes for _ in range(min(node.count, total))]
    tries = iter(range(TRIES))
    return _place(singles, most, places, [dict(node.resources) for node in places], tries)


def _place(
    singles: Sequence[ResourceRequest],
    most: ResourceRequest,
    places: Sequence[Node],
    left: list[dict[str, float]],
    tries: Iterator[int],
) -> bool:
    if next(tries, None) is None:
        return True
    if not singles:
        rooms = (most.room(one) for node, one in zip(places, left, strict=True) if most.allows(node.labels))
        return sum(rooms) >= most.count
    request, *others = singles
    seen = set()
    for number, node in enumerate(places):
        alike = (tuple(sorted(node.labels.items())), tuple(sorted(left[number].items())))
        if alike in seen or not request.allows(node.labels) or request.room(left[number]) < 1:
            continue
        seen.add(alike)
        before = left[number]
        left[number] = {name: have - request.each.get(name, 0.0) for name, have in before.items()}
        if _place(others, most, places, left, tries):
            return True
        left[number] = before
    return False


def _whole(number: float) -> int:
    return max(0, math.floor(number + ROUNDING))
