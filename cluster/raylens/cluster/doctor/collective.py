"""The check of a small all-reduce over all nodes, from the answers of its processes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylens.cluster.doctor.findings import CLUSTER, Finding

__all__ = ["Ranks", "judge_all_reduce"]


@dataclass(frozen=True)
class Ranks:
    """The processes that take part in an all-reduce."""

    backend: str
    """The backend of torch.distributed: ``gloo`` or ``nccl``."""
    meeting: str
    """The ``host:port`` of rank 0, where the processes meet."""
    nodes: tuple[str, ...]
    """The node of each rank."""

    @property
    def check(self) -> str:
        """The name of the check in findings."""
        return f"all-reduce ({'NCCL' if self.backend == 'nccl' else 'gloo'})"

    @property
    def variable(self) -> str:
        """The variable that names the network interface for the backend."""
        return "NCCL_SOCKET_IFNAME" if self.backend == "nccl" else "GLOO_SOCKET_IFNAME"


def judge_all_reduce(ranks: Ranks, answers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield findings about nodes that are missing or failed, or else about the speed.

    Args:
        ranks: the processes that took part.
        answers: the answer of each rank, as `raylens.cluster.doctor.rank` writes it; ``error`` if it failed.
    """
    missing = sorted({ranks.nodes[rank] for answer in answers for rank in answer.get("missing", ())})
    if missing:
        yield from _absent(ranks, answers, missing)
        return
    by_node = list(zip(ranks.nodes, answers, strict=True))
    errors = {node: str(answer["error"]) for node, answer in by_node if "error" in answer}
    if errors:
        for node, error in errors.items():
            advice = "let nodes reach each other on all ports; if a node has several networks, name the one to use"
            yield Finding(ranks.check, node, "failed", error, f"{advice} with {ranks.variable}", "failed")
        return
    wrong = [node for node, answer in by_node if not answer["right"]]
    if wrong:
        problem = f"the sum is wrong on {', '.join(dict.fromkeys(wrong))}"
        yield Finding(ranks.check, CLUSTER, "failed", problem, "remove these machines: they compute wrongly", "wrong")
        return
    slowest = max(answers, key=lambda answer: float(answer["seconds"]))
    short = f"{float(slowest['rate']):.2f} GB/s"
    measured = f"{len(ranks.nodes)} processes on {len(set(ranks.nodes))} nodes, {short} on each link (bus bandwidth)"
    yield Finding(ranks.check, CLUSTER, "ok", measured, short=short)


def _absent(ranks: Ranks, answers: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> Iterator[Finding]:
    for node in missing:
        own = [answer for name, answer in zip(ranks.nodes, answers, strict=True) if name == node]
        why = next((f": {answer['error']}" for answer in own if "error" in answer), "")
        problem = f"did not connect to {ranks.meeting}, where the others met{why}"
        advice = "open the network between the nodes (all TCP ports: security groups, NetworkPolicy, firewalls)"
        yield Finding(ranks.check, node, "failed", problem, advice, "absent")
