"""The page of ``raylens doctor``: findings as people and programs read them."""

import json
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from raylens.cluster.doctor import CLUSTER, Finding, Report
from raylens.report import ABSENT, count_text
from raylens.workloads.pages.tables import Page

__all__ = ["doctor_page"]

MARKS = {"ok": ("ok", "green"), "warning": ("!", "yellow"), "failed": ("FAILED", "bold red")}
WORST = ("failed", "warning", "ok")


def doctor_page(report: Report, as_json: bool) -> Page:
    """Yield a table of nodes and checks, what to do beneath it, and a line that sums up."""
    if as_json:
        yield json.dumps(report.as_dict(), ensure_ascii=False, allow_nan=False)
        return
    of_nodes = [check for check in report.checks if any(report.at(node, check) for node in report.nodes)]
    table = Table("node", *of_nodes)
    for node in report.nodes:
        table.add_row(Text(node), *(_cell(report.at(node, check)) for check in of_nodes))
    yield table
    together = Table("cluster", "")
    for finding in report.findings:
        if finding.node == CLUSTER:
            together.add_row(Text(finding.check), Text.assemble(_mark(finding), " ", finding.found))
    if together.row_count:
        yield together
    yield from _advice(report)
    failed, warned = len(report.with_status("failed")), len(report.with_status("warning"))
    yield (
        f"{count_text(len(report.nodes), 'nodes')}: {failed} failed, {count_text(warned, 'warnings')}, "
        f"{len(report.with_status('ok'))} ok"
    )


def _cell(findings: list[Finding]) -> Text:
    if not findings:
        return Text(ABSENT, "dim")
    worst = min(findings, key=lambda finding: WORST.index(finding.status))
    return Text.assemble(_mark(worst), " " if worst.short else "", worst.short)


def _mark(finding: Finding) -> tuple[str, str]:
    return MARKS[finding.status]


def _advice(report: Report) -> Iterator[str]:
    """Yield each advice once, with all nodes that it is about."""
    for status in ("failed", "warning"):
        alike: dict[tuple[str, str, str], list[str]] = {}
        for finding in report.with_status(status):
            alike.setdefault((finding.check, finding.found, finding.advice), []).append(finding.node)
        for (check, observed, advice), nodes in alike.items():
            yield f"{status}: {check}, {_named(nodes)}: {observed}\n    {advice}"


def _named(nodes: list[str], most: int = 3) -> str:
    return ", ".join(nodes[:most]) + (f" and {len(nodes) - most} more nodes" if len(nodes) > most else "")
