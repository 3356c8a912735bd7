"""The examination of the cluster that this process is connected to: all checks, in their order."""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from raylens.capacity import autoscaler_status, launches, name_of, started_by_this_process
from raylens.cluster.doctor import probe, rank, torch_facts
from raylens.cluster.doctor.clock import Offset, judge_clocks, offset_of
from raylens.cluster.doctor.collective import Ranks, judge_all_reduce
from raylens.cluster.doctor.control import judge_autoscaler, judge_groups, judge_tokens
from raylens.cluster.doctor.facts import NodeFacts
from raylens.cluster.doctor.findings import Finding, Report
from raylens.cluster.doctor.gpus import judge_gpus
from raylens.cluster.doctor.machine import judge_disk, judge_files, judge_shared_memory
from raylens.cluster.doctor.probes import Probes, Silent, probes
from raylens.cluster.doctor.store import judge_store
from raylens.cluster.doctor.versions import judge_versions
from raylens.cluster.text import last_line
from raylens.storage import open_store

__all__ = ["Limits", "examine"]

ROUNDS = 8
"""Number of round trips that measure each node's clock; the quickest counts."""


@dataclass(frozen=True)
class Limits:
    """Limits of an examination: seconds, and amounts of data."""

    seconds: float = 120.0
    """Seconds within which a node must answer a question; the first question imports torch."""
    megabytes: int = 64
    """Megabytes that each node writes to the store and reads from it."""
    reduced_megabytes: int = 16
    """Megabytes of the vector that is summed in an all-reduce."""


def examine(storage: str | None, limits: Limits, say: Callable[[str], None]) -> Report:
    """Examine every node, and what the nodes do together. Ray must be initialised.

    Args:
        storage: URI of a folder of runs, registries or data that every node tries to use; None skips these checks.
        limits: how long the checks may take, and how much they write.
        say: receives lines about the progress.

    Raises:
        ConfigError: the URI has no form that raylens knows.
    """
    store = None if storage is None else open_store(storage)
    rows = _named_rows()
    findings: list[Finding] = []
    with probes({name: row["NodeID"] for name, row in rows.items()}, say) as asked:
        facts = _facts(asked, rows, limits, findings)
        findings += judge_versions(facts, probe.versions())
        findings += judge_clocks(_offsets(asked, limits, findings))
        for judge in (judge_shared_memory, judge_disk, judge_files, judge_gpus):
            findings += [finding for node in facts for finding in judge(node)]
        if store is not None:
            findings += _storage(asked, store.uri, store.describe(), limits, findings)
        findings += _all_reduces(asked, rows, facts, limits, findings)
    findings += judge_groups({name: row["Labels"] or {} for name, row in rows.items()})
    findings += judge_autoscaler(_autoscaler())
    findings += judge_tokens(facts, os.environ.get("RAY_AUTH_MODE", ""), own=started_by_this_process())
    return Report.of(rows, findings)


def _named_rows() -> dict[str, Mapping[str, Any]]:
    """Return Ray's records of the live nodes by name, the head first."""
    rows = [row for row in ray.nodes() if row["Alive"]]
    rows.sort(key=lambda row: ("node:__internal_head__" not in row["Resources"], row["NodeManagerHostname"]))
    return {name_of(row): row for row in rows}


def _facts(
    asked: Probes, rows: Mapping[str, Mapping[str, Any]], limits: Limits, findings: list[Finding]
) -> list[NodeFacts]:
    program = _text(torch_facts)
    answers = asked.ask(
        "facts", "examining the nodes", limits.seconds, arguments=dict.fromkeys(asked.names, (program,))
    )
    return [NodeFacts.of(name, rows[name], answer) for name, answer in _answered(answers, findings)]


def _answered(answers: Mapping[str, Any], findings: list[Finding]) -> Iterator[tuple[str, Any]]:
    """Yield the answers that arrived; add a finding for each node that did not answer."""
    for name, answer in answers.items():
        if not isinstance(answer, Silent):
            yield name, answer
            continue
        advice = "see `ray status` and the node's logs (/tmp/ray/session_latest/logs/raylet.out); restart or replace it"
        findings.append(Finding("answers", name, "failed", answer.why, advice, "silent"))


def _offsets(asked: Probes, limits: Limits, findings: list[Finding]) -> dict[str, Offset]:
    offsets = {}
    for name in asked.names:
        rounds = []
        for _ in range(ROUNDS):
            sent = time.time()
            times = dict(_answered(asked.ask("now", "", limits.seconds, arguments={name: ()}), findings))
            if name not in times:
                break
            rounds.append((sent, float(times[name]), time.time()))
        else:
            offsets[name] = offset_of(rounds)
    return offsets


def _storage(asked: Probes, uri: str, shown: str, limits: Limits, findings: list[Finding]) -> list[Finding]:
    folder, writable = f"raylens-doctor-{uuid.uuid4().hex[:12]}", not uri.startswith("gs://")
    arguments = {
        name: (uri, folder, f"node-{number}", limits.megabytes, writable) for number, name in enumerate(asked.names)
    }
    tried = asked.ask("storage", f"trying {shown}", limits.seconds, arguments=arguments)
    answers = dict(_answered(tried, findings))
    wrote = {name: f"{folder}/{arguments[name][2]}.txt" for name, answer in answers.items() if "read" in answer}
    # Every node deletes the folder: one that is not shared exists on each of them.
    for method, values in (("sees", (uri, list(wrote.values()))), ("clean", (uri, folder))):
        more = asked.ask(method, "comparing", limits.seconds, arguments=dict.fromkeys(wrote, values))
        answers |= {name: answers[name] | answer for name, answer in _answered(more, findings)}
        wrote = {name: path for name, path in wrote.items() if name in asked.names}
    return list(judge_store(answers, shown))


def _all_reduces(
    asked: Probes,
    rows: Mapping[str, Mapping[str, Any]],
    facts: list[NodeFacts],
    limits: Limits,
    findings: list[Finding],
) -> list[Finding]:
    usable = [node for node in facts if node.name in asked.names and node.versions.get("torch")]
    # Nodes that neither decode nor train, such as the head of a cluster with groups, have torch as well.
    gloo = [node.name for node in usable]
    nccl = [node.name for node in usable for _ in node.torch_gpus]
    verdicts: list[Finding] = []
    for backend, nodes in (("gloo", gloo), ("nccl", nccl)):
        if len(nodes) > 1:
            verdicts += _all_reduce(asked, rows, backend, nodes, limits, findings)
    return verdicts


def _all_reduce(
    asked: Probes,
    rows: Mapping[str, Mapping[str, Any]],
    backend: str,
    nodes: list[str],
    limits: Limits,
    findings: list[Finding],
) -> list[Finding]:
    first = nodes[0]
    ports = dict(_answered(asked.ask("free_port", "all-reduce", limits.seconds, arguments={first: ()}), findings))
    if first not in ports:
        return []
    host, port, wait = rows[first]["NodeManagerAddress"], ports[first], limits.seconds / 2
    sizes = [str(limits.reduced_megabytes), str(wait)]
    commands: dict[str, list[list[str]]] = {}
    for number, name in enumerate(nodes):
        gpu = len(commands.setdefault(name, []))
        commands[name].append([host, str(port), str(number), str(len(nodes)), backend, str(gpu), *sizes])
    program = _text(rank)
    arguments = {name: (program, lines, limits.seconds) for name, lines in commands.items()}
    outputs = dict(
        _answered(asked.ask("run", f"all-reduce over {backend}", 2 * limits.seconds, arguments=arguments), findings)
    )
    waiting = {name: iter(outputs.get(name, [])) for name in commands}
    answers = [next(waiting[name], {"error": "its node did not answer"}) for name in nodes]
    return list(judge_all_reduce(Ranks(backend, f"{host}:{port}", tuple(nodes)), answers))


def _autoscaler() -> dict[str, Any]:
    try:
        state = autoscaler_status().autoscaling_state
    except ray.exceptions.RayError as error:  # through Ray's client, a node without raylens cannot answer
        return {"unknown": last_line(str(error), repr(error))}
    coming, failed = launches(state)
    return {
        "seen": state.autoscaler_state_version > 0,
        "coming": coming,
        "failed": failed,
        "infeasible": [
            f"{request.count} x {dict(request.request.resources_bundle)}"
            for constraint in state.infeasible_cluster_resource_constraints
            for request in constraint.resource_requests
        ]
        + [str(dict(request.resources_bundle)) for request in state.infeasible_resource_requests],
    }


def _text(module: Any) -> str:
    """Return the text of a program, which is sent to nodes that may not have it."""
    return Path(module.__file__).read_text(encoding="utf-8")
