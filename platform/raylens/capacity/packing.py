"""The arithmetic of fitting bundles of resources on nodes, and of what is missing if they do not fit."""

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

__all__ = ["Node", "ResourceRequest", "Shortage", "shortage"]

Resources = Mapping[str, float]
ROUNDING = 1e-6
"""The fractions of a resource that Ray counts: ten-thousandths."""
TRIES = 20_000
"""The most placements that are tried; requests not shown to be impossible by then are taken to be possible."""


@dataclass(frozen=True)
class Node:
    """A node of a cluster, or several equal nodes."""

    name: str
    resources: Resources
    """The resources of one node, by Ray's names: CPU, GPU."""
    labels: Mapping[str, str] = field(default_factory=dict)
    count: int = 1


@dataclass(frozen=True)
class ResourceRequest:
    """A request for a number of bundles, each on one node with these labels; several may share a node."""

    what: str
    """The purpose of the bundles, for messages."""
    count: int
    each: Resources
    selector: Mapping[str, str] = field(default_factory=dict)

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Tell whether the bundles may be on a node with these labels."""
        return all(labels.get(key) == value for key, value in self.selector.items())

    def copies_in(self, resources: Resources) -> int:
        """Return how many bundles fit on a node that has these resources left."""
        each = [(resources.get(name, 0.0), size) for name, size in self.each.items() if size > 0]
        return min((_whole(have / size) for have, size in each), default=self.count)


@dataclass(frozen=True)
class Shortage:
    """The requests that do not fit, and why."""

    requests: tuple[ResourceRequest, ...]
    """The requests that do not fit; if there are several, each would fit alone."""
    resource: str | None
    """The scarce resource; None if there is enough of each, but not on nodes that have all of a bundle."""
    wanted: float
    """The amount of the resource that is needed; the number of bundles if the resource is None."""
    most: float
    """The amount of the resource that there is; the number of bundles that fit if the resource is None."""
    nodes: tuple[Node, ...]
    """The nodes with the requested labels."""


def shortage(requests: Sequence[ResourceRequest], nodes: Sequence[Node]) -> Shortage | None:
    """Return what is missing for all requests to fit on the nodes at the same time; None if they fit.

    The answer is exact within `TRIES` placements, and None beyond them, so that nothing possible is refused.
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
    """Return the shortage of one request by itself, if its bundles are too large or too many for the nodes."""
    own = tuple(node for node in nodes if request.allows(node.labels))
    fitting = sum(node.count * request.copies_in(node.resources) for node in own)
    return Shortage((request,), None, request.count, fitting, own) if fitting < request.count else None


def _at_once(requests: Sequence[ResourceRequest], nodes: Sequence[Node]) -> Shortage:
    """Return the shortage of requests that fit alone, but not beside each other."""
    own = tuple(node for node in nodes if any(request.allows(node.labels) for request in requests))
    total, largest = sum(request.count for request in requests), max(requests, key=lambda request: request.count)
    others = [request for request in requests if request is not largest]
    # The smallest number of bundles of the largest request that does not fit beside the others.
    first = bisect.bisect_left(
        range(largest.count), True, key=lambda count: not _fit([replace(largest, count=count), *others], nodes)
    )
    return Shortage(tuple(requests), None, total, max(0, total - largest.count + first - 1), own)


def _in_all(requests: tuple[ResourceRequest, ...], nodes: tuple[Node, ...]) -> Shortage | None:
    """Return the shortage of the scarcest resource on all nodes taken together; in a tie, GPUs first."""
    shortages = []
    for name in sorted({name for request in requests for name in request.each}, reverse=True):
        wanted = sum(request.count * request.each.get(name, 0.0) for request in requests)
        have = sum(node.count * node.resources.get(name, 0.0) for node in nodes)
        if have < wanted - ROUNDING:
            shortages.append(Shortage(requests, name, wanted, have, nodes))
    return min(shortages, key=lambda scarce: scarce.most / scarce.wanted, default=None)


def _fit(requests: Sequence[ResourceRequest], nodes: Sequence[Node]) -> bool:
    """Try all placements of the bundles, except those of the largest request: for these it is enough to count."""
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
        copies = (most.copies_in(free) for node, free in zip(places, left, strict=True) if most.allows(node.labels))
        return sum(copies) >= most.count
    request, *others = singles
    seen = set()
    for number, node in enumerate(places):
        alike = (tuple(sorted(node.labels.items())), tuple(sorted(left[number].items())))
        if alike in seen or not request.allows(node.labels) or request.copies_in(left[number]) < 1:
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
