"""An actor on every node, and questions to all of them at once, with a time limit for their answers."""

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
    """Stands for the answer of a node that did not answer."""

    why: str


class Probes:
    """The probes of a cluster, by the names of their nodes."""

    def __init__(self, actors: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self._actors = dict(actors)
        self._say = say

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the nodes that have answered all questions so far."""
        return tuple(self._actors)

    def ask(
        self, method: str, what: str, seconds: float, *, arguments: Mapping[str, tuple[Any, ...]] | None = None
    ) -> dict[str, Any]:
        """Return the answer of each node; `Silent` for a node that does not answer, which is not asked again.

        Args:
            method: the name of a method of `raylens.cluster.doctor.probe.Probe`.
            what: describes the step in lines about the progress; empty to print none.
            seconds: time limit for all answers.
            arguments: the arguments for each node; only these nodes are asked.
        """
        calls = dict.fromkeys(self._actors, ()) if arguments is None else arguments
        pending = {getattr(self._actors[name], method).remote(*calls[name]): name for name in calls}
        answers: dict[str, Any] = {}
        end, count = time.monotonic() + seconds, len(pending)
        while pending:
            ready, _ = ray.wait(list(pending), timeout=max(0.0, end - time.monotonic()))
            if not ready:
                break
            name = pending.pop(ready[0])
            answers[name] = _get(ready[0])
            if what:
                self._say(f"{what}: {len(answers)} of {count} nodes")
        answers |= {name: Silent(f"no answer within {seconds:.0f} s") for name in pending.values()}
        self._forget(answers)
        return {name: answers[name] for name in calls}

    def _forget(self, answers: Mapping[str, Any]) -> None:
        for name, answer in answers.items():
            if isinstance(answer, Silent):
                del self._actors[name]


@contextmanager
def probes(node_ids: Mapping[str, str], say: Callable[[str], None]) -> Iterator[Probes]:
    """Start a probe on each node, given by name and ID; the probes end with the block."""
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
