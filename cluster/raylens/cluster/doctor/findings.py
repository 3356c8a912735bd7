"""What the doctor found: one thing about one node, or about the cluster, and what to do about it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["CLUSTER", "Finding", "Report", "Status"]

Status = Literal["ok", "warning", "failed"]
CLUSTER = "cluster"
"""In place of a node's name: of all of them together."""


@dataclass(frozen=True)
class Finding:
    """The result of a check."""

    check: str
    node: str
    """Its name, or `CLUSTER`."""
    status: Status
    found: str
    """What was measured or seen."""
    advice: str = ""
    """What to do; empty where all is well."""
    short: str = ""
    """For a table: a figure, or a word."""


@dataclass(frozen=True)
class Report:
    """All findings, by node and check in the order in which they were looked at."""

    nodes: tuple[str, ...]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, nodes: Iterable[str], findings: Iterable[Finding]) -> "Report":
        """From whatever holds them."""
        return cls(tuple(nodes), tuple(findings))

    @property
    def checks(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(dict.fromkeys(one.check for one in self.findings))

    def with_status(self, status: Status) -> list[Finding]:
        """Those that ended so."""
        return [one for one in self.findings if one.status == status]

    def at(self, node: str, check: str) -> list[Finding]:
        """What a check found of a node."""
        return [one for one in self.findings if (one.node, one.check) == (node, check)]

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        counts = {status: len(self.with_status(status)) for status in ("ok", "warning", "failed")}
        return {"nodes": list(self.nodes), **counts, "findings": [asdict(one) for one in self.findings]}
