"""Findings of the doctor: the result of a check of a node or of the cluster, with advice."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["CLUSTER", "Finding", "Report", "Status"]

Status = Literal["ok", "warning", "failed"]
CLUSTER = "cluster"
"""The name that stands for all nodes together, in place of a node's name."""


@dataclass(frozen=True)
class Finding:
    """The result of a check on one node, or on the whole cluster."""

    check: str
    node: str
    """The name of the node, or `CLUSTER`."""
    status: Status
    found: str
    """What was measured or observed."""
    advice: str = ""
    """What to do about it; empty if all is well."""
    short: str = ""
    """The result in a table: a number or a word."""


@dataclass(frozen=True)
class Report:
    """All findings of an examination, in the order of the checks."""

    nodes: tuple[str, ...]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, nodes: Iterable[str], findings: Iterable[Finding]) -> "Report":
        """Make a report from any iterables of nodes and findings."""
        return cls(tuple(nodes), tuple(findings))

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of the checks, in their order."""
        return tuple(dict.fromkeys(finding.check for finding in self.findings))

    def with_status(self, status: Status) -> list[Finding]:
        """Return the findings that have a status."""
        return [finding for finding in self.findings if finding.status == status]

    def at(self, node: str, check: str) -> list[Finding]:
        """Return the findings of a check about a node."""
        return [finding for finding in self.findings if (finding.node, finding.check) == (node, check)]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the number of findings of each status."""
        counts = {status: len(self.with_status(status)) for status in ("ok", "warning", "failed")}
        return {"nodes": list(self.nodes), **counts, "findings": [asdict(finding) for finding in self.findings]}
