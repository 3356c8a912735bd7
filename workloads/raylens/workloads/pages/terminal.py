"""The progress of a long command on standard error; results go to standard output."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from raylens.messages import warning
from raylens.report import count_text, duration_text, memory_text, percent_text, rate_text
from raylens.train.loop import (
    Checkpointed,
    Evaluated,
    Metrics,
    Preparing,
    Restarting,
    RunEvent,
    Started,
    StepMetrics,
    Stopping,
    Warned,
)
from raylens.workloads.lines import Lines

__all__ = ["Terminal", "progress_line", "time_left"]

PLAIN_SECONDS = 5.0
"""Seconds between lines about progress if there is no terminal for a bar."""


class Terminal(Lines):
    """Shows phases as lines, and training as a bar, or in a log file as a line every few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None
        self._task = 0
        self._printed_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def title(self, text: str) -> None:
        """Begin a phase by printing its title."""
        self._close()
        self.console.print(Text(text, "bold"))

    def on_event(self, event: RunEvent) -> None:
        """Show an event of a training run."""
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Metrics):
            self._advance(event)
        elif isinstance(event, Restarting):
            self.say(f"workers lost ({event.reason}); restarting from the newest checkpoint", style="yellow")
        elif isinstance(event, Warned | Preparing):
            self.say(warning(event.text) if isinstance(event, Warned) else event.text)
        elif isinstance(event, Stopping):
            self.say(f"stopped after step {event.step}, its state saved; the same command resumes")
        elif isinstance(event, Evaluated):
            values = "  ".join(f"{metric.name} {metric.value:.4g}" for metric in event.metrics)
            self.say(f"evaluated at step {event.step} in {event.seconds:.1f} s: {values}")
        elif isinstance(event, Checkpointed) and self._bar is None:
            self.say(f"checkpoint at step {event.step}")

    def _start(self, event: Started) -> None:
        again = f", continuing after step {event.start}" if event.start else ""
        each = f"{event.micro_batches} x {event.micro_batch}" if event.micro_batches > 1 else f"{event.micro_batch}"
        self.say(f"{event.workers} workers up, {each} pairs of a step on each, {event.steps} steps{again}")
        if self.console.is_terminal and self._bar is None:
            columns = (
                TextColumn("          step {task.completed}/{task.total}"),
                BarColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("waiting for the first batches", total=event.steps, completed=event.start)

    def _advance(self, event: Metrics) -> None:
        record = event.record
        if record.first_batch_seconds is not None:
            self.say(f"first batch after {record.first_batch_seconds:.1f} s")
        text = progress_line(record)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[self._task], completed=record.step, description=text)
        elif time.monotonic() - self._printed_at >= PLAIN_SECONDS or record.step == event.steps:
            self.say("  ".join([f"step {record.step}/{event.steps}", text, time_left(record, event.steps)]).rstrip())
            self._printed_at = time.monotonic()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def progress_line(record: StepMetrics) -> str:
    """Return a line that shows how well a run learns, how fast, and what bounds its speed."""
    speed = rate_text(record.samples_per_second, "pairs")
    parts = [f"loss {record.loss:.3f}", f"scale {record.logit_scale:.1f}", speed]
    if record.epoch is not None:
        parts.insert(0, f"epoch {record.epoch:.2f}")
    if record.mfu is not None:
        parts.append(f"MFU {percent_text(record.mfu, 0)}")
    wait = percent_text(record.data_wait, 0)
    parts.append(f"{record.bound}-bound: {wait} data wait, {record.data_cores:.1f} data cores")
    if record.memory_bytes:
        parts.append(f"{memory_text(record.memory_bytes)} per worker")
    if record.substituted:
        parts.append(f"{record.substituted} bad samples replaced (see quarantine/)")
    if record.truncated:
        parts.append(f"{count_text(record.truncated, 'captions')} cut at the context")
    if record.skipped:
        parts.append(f"{count_text(record.skipped, 'steps')} skipped")
    return "  ".join(parts)


def time_left(record: StepMetrics, steps: int) -> str:
    """Return the time to the last step at the present speed; an empty text at the end."""
    left = steps - record.step
    if left <= 0 or record.samples_per_second <= 0:
        return ""
    return f"{duration_text(left * record.samples_seen / record.step / record.samples_per_second)} left"
