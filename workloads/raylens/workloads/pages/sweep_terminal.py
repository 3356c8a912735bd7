"""The progress of a sweep while it runs: a live table on a terminal, or a line every few seconds in a log."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from raylens.messages import with_severity
from raylens.report import count_text, duration_text, number_text, percent_text
from raylens.tune import PARTS, Configuration, SweepConfig, SweepRecord, ranked
from raylens.workloads.pages.sweeps import trials_table, values_text

__all__ = ["SweepTerminal", "headline", "time_left"]

PLAIN_SECONDS = 15.0
MOST_ROWS = 15


class SweepTerminal:
    """Shows phases as lines and trials as a table, on standard error."""

    def __init__(self, config: SweepConfig, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._config = config
        self._began = time.monotonic()
        self._printed_at = 0.0
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print one line, with the seconds since the start."""
        seconds = time.monotonic() - self._began
        self.console.print(f"[dim]{seconds:6.1f} s[/dim]  {escape(with_severity(text))}", soft_wrap=True)

    def tell(self, record: SweepRecord) -> None:
        """Show the present state of the sweep's trials."""
        if self._live is not None:
            table = trials_table(
                self._config, record, ranked(record.trials, self._config.metric, self._config.goal), MOST_ROWS
            )
            self._live.update(Group(table, Text(headline(self._config, record))), refresh=True)
        elif time.monotonic() - self._printed_at >= PLAIN_SECONDS or record.state != "running":
            self._printed_at = time.monotonic()
            self.say(headline(self._config, record))


def headline(config: SweepConfig, record: SweepRecord) -> str:
    """Return a line with the trials by state, the best so far, the used budget, and the time left."""
    parts = [f"{count} {state}" for state, count in record.counts().items()]
    order = ranked(record.trials, config.metric, config.goal)
    if order:
        parts.append(f"best {config.metric} {number_text(order[0].mean)}: {_values(order)}")
    parts += [f"{count_text(record.samples)} samples", duration_text(record.seconds), *_budget(config, record)]
    left = time_left(config, record)
    return ", ".join(parts) + (f", about {duration_text(left)} left" if left else "")


def _values(order: Sequence[Configuration]) -> str:
    return f"{order[0].best_trial.name} ({values_text(order[0].best_trial)})"


def _budget(config: SweepConfig, record: SweepRecord) -> list[str]:
    most = {part: getattr(config.budget, part) for part in PARTS}
    return [
        f"{percent_text(record.used(part) / value, 0)} of budget.{part}"
        for part, value in most.items()
        if value is not None
    ]


def time_left(config: SweepConfig, record: SweepRecord) -> float | None:
    """Return the seconds left if all trials take as long as those that ended; None before the first has ended."""
    ended = [trial for trial in record.trials if trial.state in ("finished", "stopped", "failed")]
    if not ended or record.state != "running":
        return None
    wanted = max(len(record.trials), config.budget.trials * config.repeats if config.search.kind != "grid" else 0)
    return record.seconds / len(ended) * (wanted - len(ended)) or None
