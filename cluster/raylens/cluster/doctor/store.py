"""Checks of a store: what the nodes may do there and how fast, from their answers."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from raylens.cluster.doctor.findings import Finding

__all__ = ["judge_store"]

CHECK, RATE = "storage", "bandwidth"
SLOW = 1 / 3
"""Share of the nodes' median rate below which a node slows the others down."""
LITTLE = 20.0
"""Megabytes a second below which a node cannot stream training data from a store."""
ADVICE = {
    "list": "check the URI, its endpoint and region, and the node's credentials (environment, profile, role)",
    "write": "give the node's identity the right to put objects here, or name another place with --storage",
    "read": "give the node's identity the right to get objects here; a proxy in between must pass them unchanged",
    "conditional": "raylens needs If-None-Match and If-Match: use a store or gateway that supports them, as S3 does",
    "write_rate": "check the node's network and the store's limits",
    "read_rate": "check the node's network and the store's limits",
}


def judge_store(answers: Mapping[str, Mapping[str, Any]], uri: str) -> Iterator[Finding]:
    """Yield findings for each node: what it may do with the store, and how fast.

    Args:
        answers: for each node the result of `raylens.cluster.doctor.store_probe.try_store`, with ``unseen`` added.
        uri: the URI of the store without secrets.
    """
    medians = {name: _median(answers, name) for name in ("write_rate", "read_rate")}
    for node, answer in answers.items():
        yield _judge(node, answer, uri)
        if "failed" not in answer and "missing" not in answer:
            yield _judge_rates(node, answer, medians)


def _judge(node: str, answer: Mapping[str, Any], uri: str) -> Finding:
    if "missing" in answer:
        advice = "run this as a job, which brings raylens to the nodes: `raylens jobs submit -- doctor --storage URI`"
        return Finding(CHECK, node, "warning", f"not tried: {answer['missing']}", advice, "not tried")
    if "failed" in answer:
        step = str(answer["failed"])
        return Finding(CHECK, node, "failed", f"{step.replace('_', ' ')}: {answer['error']}", ADVICE[step], step)
    if answer.get("unseen"):
        problem = f"this node does not see {answer['unseen'][0]}, which another node wrote to {uri}"
        advice = "share the folder with all nodes under the same path; use one endpoint of a bucket on all nodes"
        return Finding(CHECK, node, "failed", problem, advice, "not shared")
    if answer.get("left"):
        problem = f"{uri} can be used, but the files of this check could not be deleted: {answer['left']}"
        return Finding(
            CHECK, node, "warning", problem, "give the node's identity the right to delete objects", "no delete"
        )
    if "write_rate" not in answer:
        return Finding(CHECK, node, "ok", f"{uri} can be listed and read; it is never written to", short="read")
    return Finding(CHECK, node, "ok", f"{uri} can be listed, read, written, and written conditionally", short="rw")


def _judge_rates(node: str, answer: Mapping[str, Any], medians: Mapping[str, float]) -> Finding:
    rates = {name: float(answer[name]) for name in ("write_rate", "read_rate") if name in answer}
    words = {"write_rate": "written", "read_rate": "read"}
    measured = " and ".join(f"{rate:,.0f} MB/s {words[name]}" for name, rate in rates.items())
    short = " / ".join(f"{rate:,.0f}" for rate in rates.values()) + " MB/s"
    slower = [name for name, rate in rates.items() if rate < SLOW * medians[name]]
    if slower:
        others = " and ".join(f"{medians[name]:,.0f} MB/s {words[name]}" for name in slower)
        advice = "check this node's network: the store is fast enough for the other nodes"
        return Finding(RATE, node, "warning", f"{measured}, while the median is {others}", advice, short)
    if rates["read_rate"] < LITTLE:
        advice = "keep data and machines in one region, or use a faster store"
        return Finding(RATE, node, "warning", measured, advice, short)
    return Finding(RATE, node, "ok", f"{measured}, all nodes at once", short=short)


def _median(answers: Mapping[str, Mapping[str, Any]], name: str) -> float:
    rates = [float(answer[name]) for answer in answers.values() if name in answer]
    return statistics.median(rates) if rates else 0.0
