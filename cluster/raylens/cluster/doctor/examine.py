"""The whole examination of the cluster that this process is connected to."""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from raylens.capacity.autoscaler import autoscaler_status, launches
from raylens.capacity.nodes import name_of, started_by_this_process
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
"""Questions for the time to each node; the quickest counts."""


@dataclass(frozen=True)
class Limits:
    """How long and how much."""

    seconds: float = 120.0
    """That a node may take to answer a question; the first has torch imported."""
    megabytes: int = 64
    """Written to the store and read from it by each node."""
    reduced_megabytes: int = 16
    """In an all-reduce."""


def examine(storage: str | None, limits: Limits, say: Callable[[str], None]) -> Report:
    """Look at every node, and at what they do together. Ray must be initialised.

    Args:
        storage: URI of a place where runs, registries or data are, to be tried from every node; None to leave that out.
        limits: of time and size.
        say: is told how far it is.

    Raises:
        ConfigError: the URI is of no form that raylens knows.
    """
    store = None if storage is None else open_store(storage)
    rows = _named_rows()
    findings: list[Finding] = []
    with probes({name: row["NodeID"] for name, row in rows.items()}, say) as asked:
        facts = _facts(asked, rows, limits, findings)
        findings += judge_versions(facts, probe.versions())
        findings += judge_clocks(_offsets(asked, limits, findings))
        for judge in (judge_shared_memory, judge_disk, judge_files, judge_gpus):
            findings += [found for node in facts for found in judge(node)]
        if store is not None:
            findings += _storage(asked, store.uri, store.describe(), limits, findings)
        findings += _all_reduces(asked, rows, facts, limits, findings)
    findings += judge_groups({name: row["Labels"] or {} for name, row in rows.items()})
    findings += judge_autoscaler(_autoscaler())
    findings += judge_tokens(facts, os.environ.get("RAY_AUTH_MODE", ""), own=started_by_this_process())
    return Report.of(rows, findings)


def _named_rows() -> dict[str, Mapping[str, Any]]:
    """Ray's rows of the nodes that are there, by name: the head first."""
    rows = [row for row in ray.nodes() if row["Alive"]]
    rows.sort(key=lambda row: ("node:__internal_head__" not in row["Resources"], row["NodeManagerHostname"]))
    return {name_of(row): row for row in rows}


def _facts(
    asked: Probes, rows: Mapping[str, Mapping[str, Any]], limits: Limits, findings: list[Finding]
) -> list[NodeFacts]:
    program = _text(torch_facts)
    answers = asked.ask("facts", "looking around", limits.seconds, arguments=dict.fromkeys(asked.names, (program,)))
    told = dict(_answered(answers, findings))
    return [NodeFacts.of(name, rows[name], answer) for name, answer in told.items()]


def _answered(answers: Mapping[str, Any], findings: list[Finding]) -> Iterator[tuple[str, Any]]:
    """The answers that came; what did not come is a finding, of the node's first silence."""
    for name, answer in answers.items():
        if not isinstance(answer, Silent):
            yield name, answer
            continue
        advice = "see `ray status` and the node's logs (/tmp/ray/session_latest/logs/raylet.out); restart or replace it"
        findings.append(Finding("answers", name, "failed", answer.why, advice, "silent"))


def _offsets(asked: Probes, limits: Limits, findings: list[Finding]) -> dict[str, Offset]:
    found = {}
    for name in asked.names:
        rounds = []
        for _ in range(ROUNDS):
            sent = time.time()
            told = dict(_answered(asked.ask("now", "", limits.seconds, arguments={name: ()}), findings))
            if name not in told:
                break
            rounds.append((sent, float(told[name]), time.time()))
        else:
            found[name] = offset_of(rounds)
    return found


def _storage(asked: Probes, uri: str, shown: str, limits: Limits, findings: list[Finding]) -> list[Finding]:
    folder, writable = f"raylens-doctor-{uuid.uuid4().hex[:12]}", not uri.startswith("gs://")
    arguments = {
        name: (uri, folder, f"node-{number}", limits.megabytes, writable) for number, name in enumerate(asked.names)
    }
    tried = asked.ask("storage", f"trying {shown}", limits.seconds, arguments=arguments)
    answers = dict(_answered(tried, findings))
    wrote = {name: f"{folder}/{arguments[name][2]}.txt" for name, one in answers.items() if "read" in one}
    # Deleted by every node: a folder that is not shared is on each of them.
    for method, given in (("sees", (uri, list(wrote.values()))), ("clean", (uri, folder))):
        told = asked.ask(method, "comparing", limits.seconds, arguments=dict.fromkeys(wrote, given))
        answers |= {name: answers[name] | found for name, found in _answered(told, findings)}
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
    # Nodes that neither decode nor train, as the head of a cluster with groups, have torch all the same.
    gloo = [node.name for node in usable]
    nccl = [node.name for node in usable for _ in node.torch_gpus]
    found: list[Finding] = []
    for backend, nodes in (("gloo", gloo), ("nccl", nccl)):
        if len(nodes) > 1:
            found += _all_reduce(asked, rows, backend, nodes, limits, findings)
    return found


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
    told = asked.ask("run", f"all-reduce over {backend}", 2 * limits.seconds, arguments=arguments)
    came = dict(_answered(told, findings))
    waiting = {name: iter(came.get(name, [])) for name in commands}
    answers = [next(waiting[name], {"error": "its node did not answer"}) for name in nodes]
    return list(judge_all_reduce(Ranks(backend, f"{host}:{port}", tuple(nodes)), answers))


def _autoscaler() -> dict[str, Any]:
    try:
        state = autoscaler_status().autoscaling_state
    except ray.exceptions.RayError as error:  # through Ray's client, a node without raylens cannot be asked for it
        return {"unknown": last_line(str(error), repr(error))}
    coming, failed = launches(state)
    return {
        "seen": state.autoscaler_state_version > 0,
        "coming": coming,
        "failed": failed,
        "infeasible": [
            f"{one.count} x {dict(one.request.resources_bundle)}"
            for constraint in state.infeasible_cluster_resource_constraints
            for one in constraint.resource_requests
        ]
        + [str(dict(one.resources_bundle)) for one in state.infeasible_resource_requests],
    }


def _text(module: Any) -> str:
    """The text of a program, which is sent to nodes that need not have it."""
    return Path(module.__file__).read_text(encoding="utf-8")
