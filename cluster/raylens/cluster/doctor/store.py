"""What the nodes can do with a store: from their answers to findings."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from raylens.cluster.doctor.findings import Finding

__all__ = ["judge_store"]

CHECK, RATE = "storage", "bandwidth"
SLOW = 1 / 3
"""Of the nodes' median: a node that is slower holds the others up."""
LITTLE = 20.0
"""Megabytes a second below which a node feeds no training from a store."""
ADVICE = {
    "list": "see the URI, its endpoint and region, and whether the node has credentials (environment, profile, role)",
    "write": "give the node's identity the right to put objects here, or name another place with --storage",
    "read": "give the node's identity the right to get objects here; a proxy in between must pass them unchanged",
    "conditional": "raylens needs If-None-Match and If-Match: use a store or gateway that heeds them, as S3 does",
    "write_rate": "see the node's network and the store's limits",
    "read_rate": "see the node's network and the store's limits",
}


def judge_store(answers: Mapping[str, Mapping[str, Any]], uri: str) -> Iterator[Finding]:
    """A finding for each node on what it may do, and one on how fast.

    Args:
        answers: by node, as `raylens.cluster.doctor.store_probe.try_store` gives them, with ``unseen`` beside.
        uri: of the store, as it may be shown.
    """
    middle = {name: _middle(answers, name) for name in ("write_rate", "read_rate")}
    for node, answer in answers.items():
        yield _judge(node, answer, uri)
        if "failed" not in answer and "missing" not in answer:
            yield _judge_rates(node, answer, middle)


def _judge(node: str, answer: Mapping[str, Any], uri: str) -> Finding:
    if "missing" in answer:
        advice = "run this as a job, which brings raylens along: `raylens jobs submit -- doctor --storage URI`"
        return Finding(CHECK, node, "warning", f"not tried: {answer['missing']}", advice, "not tried")
    if "failed" in answer:
        step = str(answer["failed"])
        return Finding(CHECK, node, "failed", f"{step.replace('_', ' ')}: {answer['error']}", ADVICE[step], step)
    if answer.get("unseen"):
        found = f"{answer['unseen'][0]}, which another node wrote to {uri}, is not there for this one"
        advice = "a folder must be shared by all nodes, under the same path; a bucket needs one endpoint for all"
        return Finding(CHECK, node, "failed", found, advice, "not shared")
    if answer.get("left"):
        found = f"{uri} can be used, but what was written stays there: {answer['left']}"
        return Finding(
            CHECK, node, "warning", found, "give the node's identity the right to delete objects", "no delete"
        )
    if "write_rate" not in answer:
        found = f"{uri} can be listed and read; it is never written to"
        return Finding(CHECK, node, "ok", found, short="read")
    return Finding(CHECK, node, "ok", f"{uri} can be listed, written, read, and written on condition", short="rw")


def _judge_rates(node: str, answer: Mapping[str, Any], middle: Mapping[str, float]) -> Finding:
    rates = {name: float(answer[name]) for name in ("write_rate", "read_rate") if name in answer}
    words = {"write_rate": "written", "read_rate": "read"}
    found = " and ".join(f"{rate:,.0f} MB/s {words[name]}" for name, rate in rates.items())
    short = " / ".join(f"{rate:,.0f}" for rate in rates.values()) + " MB/s"
    slower = [name for name, rate in rates.items() if rate < SLOW * middle[name]]
    if slower:
        others = " and ".join(f"{middle[name]:,.0f} MB/s {words[name]}" for name in slower)
        advice = "see this node's network: the others are not held up by the store"
        return Finding(RATE, node, "warning", f"{found}, while the median is {others}", advice, short)
    if rates["read_rate"] < LITTLE:
        advice = "bring data and machines into one region, or use a faster store"
        return Finding(RATE, node, "warning", found, advice, short)
    return Finding(RATE, node, "ok", f"{found}, all nodes at once", short=short)


def _middle(answers: Mapping[str, Mapping[str, Any]], name: str) -> float:
    rates = [float(answer[name]) for answer in answers.values() if name in answer]
    return statistics.median(rates) if rates else 0.0
