"""An actor on every node, and questions to all of them at once; who does not answer in time is named."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylens import ray_internals
from raylens.cluster.doctor import probe
from raylens.cluster.text import last_line

__all__ = ["Probes", "Silent", "probes"]

BY_VALUE = (probe, ray_internals)
"""Modules of which a probe takes along what it uses: the nodes need not have raylens, nor this version of it."""


@dataclass(frozen=True)
class Silent:
    """A node's answer that did not come."""

    why: str


class Probes:
    """Those of a cluster, by the names of their nodes."""

    def __init__(self, actors: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self._actors = dict(actors)
        self._say = say

    @property
    def names(self) -> tuple[str, ...]:
        """Of the nodes that answered so far."""
        return tuple(self._actors)

    def ask(
        self, method: str, what: str, seconds: float, *, arguments: Mapping[str, tuple[Any, ...]] | None = None
    ) -> dict[str, Any]:
        """What each node answers; `Silent` for one that does not, which is not asked again.

        Args:
            method: of `raylens.cluster.doctor.probe.Probe`.
            what: is done, for people who wait; empty to say nothing.
            seconds: that the slowest may take.
            arguments: by node; these nodes alone are asked.
        """
        given = dict.fromkeys(self._actors, ()) if arguments is None else arguments
        pending = {getattr(self._actors[name], method).remote(*given[name]): name for name in given}
        found: dict[str, Any] = {}
        end, count = time.monotonic() + seconds, len(pending)
        while pending:
            ready, _ = ray.wait(list(pending), timeout=max(0.0, end - time.monotonic()))
            if not ready:
                break
            name = pending.pop(ready[0])
            found[name] = _get(ready[0])
            if what:
                self._say(f"{what}: {len(found)} of {count} nodes")
        found |= {name: Silent(f"no answer within {seconds:.0f} s") for name in pending.values()}
        self._forget(found)
        return {name: found[name] for name in given}

    def _forget(self, found: Mapping[str, Any]) -> None:
        for name, answer in found.items():
            if isinstance(answer, Silent):
                del self._actors[name]


@contextmanager
def probes(node_ids: Mapping[str, str], say: Callable[[str], None]) -> Iterator[Probes]:
    """Probes on nodes, by name; they end with the block."""
    for module in BY_VALUE:
        cloudpickle.register_pickle_by_value(module)
    try:
        remote = ray.remote(num_cpus=0, max_restarts=0)(probe.Probe)
        actors = {
            name: remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote()
            for name, node_id in node_ids.items()
        }
        yield Probes(actors, say)
    finally:
        for module in BY_VALUE:
            cloudpickle.unregister_pickle_by_value(module)
        for actor in actors.values():
            ray.kill(actor)


def _get(answer: Any) -> Any:
    try:
        return ray.get(answer)
    except ray.exceptions.RayError as error:
        return Silent(last_line(str(error), "its process ended"))
