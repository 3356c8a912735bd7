"""A pytest plugin that leaves what tests took and came to in a file: `pytest -p tests.recorded --record FILE`.

For `tests/run.py`, which runs several processes and prints one table of them all.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

HALF = 300
"""Letters of each half of a long message."""
OUTCOMES = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warnings", "error")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, required=True, metavar="FILE", help="where outcomes and seconds are left")


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    stats = terminalreporter.stats
    seconds: defaultdict[str, float] = defaultdict(float)
    for report in (report for reports in stats.values() for report in reports if hasattr(report, "when")):
        seconds[report.nodeid] += report.duration
    counts = {outcome: len(stats.get(outcome, ())) for outcome in OUTCOMES}
    # A skip is told as where it was decided, in which line, and why.
    skips = [(report.nodeid, str(report.longrepr[-1])) for report in stats.get("skipped", ())]
    failures = [(report.nodeid, _reason(report)) for name in ("failed", "error") for report in stats.get(name, ())]
    record = {"counts": counts, "seconds": seconds, "skips": skips, "failures": failures}
    Path(config.getoption("record")).write_text(json.dumps(record))


def _reason(report: pytest.TestReport) -> str:
    """The message of what was raised, in one line: its beginning, and its end, where a command's last words are."""
    crash = getattr(report.longrepr, "reprcrash", None)
    words = " ".join((crash.message if crash else report.longreprtext).split())
    return words if len(words) <= 2 * HALF else f"{words[:HALF]} ... {words[-HALF:]}"
