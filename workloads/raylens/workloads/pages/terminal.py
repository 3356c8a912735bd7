"""What a person sees while something long runs. All of it goes to standard error; results go to standard output."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from raylens.messages import warning
from raylens.train.loop.events import (
    Checkpointed,
    Evaluated,
    Metrics,
    News,
    Preparing,
    Restarting,
    Started,
    Stopping,
    Warned,
)
from raylens.workloads.lines import Lines
from raylens.workloads.pages.progress_line import progress_line, time_left

__all__ = ["Terminal"]

PLAIN_SECONDS = 5.0
"""Between progress lines where there is no terminal to draw a bar on."""


class Terminal(Lines):
    """Phases as lines, training as a bar (or, in a log file, as a line every few seconds)."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None
        self._task = 0
        self._told = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def title(self, text: str) -> None:
        """Begin a phase."""
        self._close()
        self.console.print(Text(text, "bold"))

    def tell(self, news: News) -> None:
        """News of a training run."""
        if isinstance(news, Started):
            self._start(news)
        elif isinstance(news, Metrics):
            self._advance(news)
        elif isinstance(news, Restarting):
            self.say(f"workers lost ({news.reason}); going on from the newest checkpoint", style="yellow")
        elif isinstance(news, Warned | Preparing):
            self.say(warning(news.text) if isinstance(news, Warned) else news.text)
        elif isinstance(news, Stopping):
            self.say(f"stopped after step {news.step}, its state saved; the same command goes on")
        elif isinstance(news, Evaluated):
            values = "  ".join(f"{metric.name} {metric.value:.4g}" for metric in news.metrics)
            self.say(f"evaluated at step {news.step} in {news.seconds:.1f} s: {values}")
        elif isinstance(news, Checkpointed) and self._bar is None:
            self.say(f"checkpoint at step {news.step}")

    def _start(self, news: Started) -> None:
        again = f", going on after step {news.start}" if news.start else ""
        each = f"{news.micro_batches} x {news.micro_batch}" if news.micro_batches > 1 else f"{news.micro_batch}"
        self.say(f"{news.workers} workers up, {each} pairs of a step on each, {news.steps} steps{again}")
        if self.console.is_terminal and self._bar is None:
            columns = (
                TextColumn("          step {task.completed}/{task.total}"),
                BarColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("waiting for the first batches", total=news.steps, completed=news.start)

    def _advance(self, news: Metrics) -> None:
        record = news.record
        if record.first_batch_seconds is not None:
            self.say(f"first batch after {record.first_batch_seconds:.1f} s")
        text = progress_line(record)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[self._task], completed=record.step, description=text)
        elif time.monotonic() - self._told >= PLAIN_SECONDS or record.step == news.steps:
            self.say("  ".join([f"step {record.step}/{news.steps}", text, time_left(record, news.steps)]).rstrip())
            self._told = time.monotonic()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
