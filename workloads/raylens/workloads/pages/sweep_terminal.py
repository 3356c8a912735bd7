"""A sweep in the terminal while it runs: a live table, or a line now and then where there is no terminal."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from raylens.messages import with_severity
from raylens.report.numbers import count_text, duration_text, number_text, percent_text
from raylens.tune import SweepConfig
from raylens.tune.monitor import PARTS
from raylens.tune.results import Configuration, ranked
from raylens.tune.trials import SweepRecord
from raylens.workloads.pages.sweeps import trials_table, values_text

__all__ = ["SweepTerminal", "headline", "time_left"]

PLAIN_SECONDS = 15.0
MOST_ROWS = 15


class SweepTerminal:
    """Phases as lines, trials as a table; all of it on standard error."""

    def __init__(self, config: SweepConfig, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._config = config
        self._began = time.monotonic()
        self._told = 0.0
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
        """Something changed."""
        if self._live is not None:
            table = trials_table(
                self._config, record, ranked(record.trials, self._config.metric, self._config.goal), MOST_ROWS
            )
            self._live.update(Group(table, Text(headline(self._config, record))), refresh=True)
        elif time.monotonic() - self._told >= PLAIN_SECONDS or record.state != "running":
            self._told = time.monotonic()
            self.say(headline(self._config, record))


def headline(config: SweepConfig, record: SweepRecord) -> str:
    """The best so far, trials by state, the budget that was used, and what is left."""
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
    """Seconds, if the trials to come take as long as those that ended; None while there is nothing to go by."""
    ended = [trial for trial in record.trials if trial.state in ("finished", "stopped", "failed")]
    if not ended or record.state != "running":
        return None
    wanted = max(len(record.trials), config.budget.trials * config.repeats if config.search.kind != "grid" else 0)
    return record.seconds / len(ended) * (wanted - len(ended)) or None
