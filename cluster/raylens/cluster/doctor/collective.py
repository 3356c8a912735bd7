"""A small all-reduce over all nodes: from the processes' answers to findings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylens.cluster.doctor.findings import CLUSTER, Finding

__all__ = ["Ranks", "judge_all_reduce"]


@dataclass(frozen=True)
class Ranks:
    """Who took part."""

    backend: str
    """``gloo`` or ``nccl``."""
    meeting: str
    """``host:port`` of rank 0."""
    nodes: tuple[str, ...]
    """The node of each rank."""

    @property
    def check(self) -> str:
        """Its name."""
        return f"all-reduce ({'NCCL' if self.backend == 'nccl' else 'gloo'})"

    @property
    def variable(self) -> str:
        """By which the library is told its network."""
        return "NCCL_SOCKET_IFNAME" if self.backend == "nccl" else "GLOO_SOCKET_IFNAME"


def judge_all_reduce(ranks: Ranks, answers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Which nodes did not come or did not end, and how fast it was.

    Args:
        ranks: who took part.
        answers: of each rank, as `raylens.cluster.doctor.rank` writes them; ``error`` for one that ended otherwise.
    """
    missing = sorted({ranks.nodes[one] for answer in answers for one in answer.get("missing", ())})
    if missing:
        yield from _absent(ranks, answers, missing)
        return
    errors = {node: str(one["error"]) for node, one in zip(ranks.nodes, answers, strict=True) if "error" in one}
    if errors:
        for node, error in errors.items():
            advice = (
                "see that nodes reach each other on all ports; where a node has several networks, name the one to use"
            )
            yield Finding(ranks.check, node, "failed", error, f"{advice} with {ranks.variable}", "failed")
        return
    wrong = [node for node, one in zip(ranks.nodes, answers, strict=True) if not one["right"]]
    if wrong:
        found = f"a sum over all came out wrong on {', '.join(dict.fromkeys(wrong))}"
        yield Finding(ranks.check, CLUSTER, "failed", found, "take these machines out: they compute wrongly", "wrong")
        return
    slowest = max(answers, key=lambda one: float(one["seconds"]))
    short = f"{float(slowest['rate']):.2f} GB/s"
    found = f"{len(ranks.nodes)} processes on {len(set(ranks.nodes))} nodes, {short} on each link (bus bandwidth)"
    yield Finding(ranks.check, CLUSTER, "ok", found, short=short)


def _absent(ranks: Ranks, answers: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> Iterator[Finding]:
    for node in missing:
        own = [one for name, one in zip(ranks.nodes, answers, strict=True) if name == node]
        why = next((f": {one['error']}" for one in own if "error" in one), "")
        found = f"did not come to {ranks.meeting}, where the others met{why}"
        advice = "open the network between the nodes (all TCP ports: security groups, NetworkPolicy, firewalls)"
        yield Finding(ranks.check, node, "failed", found, advice, "absent")
