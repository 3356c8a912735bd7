"""A run of raylens for steps.py, and what the processor of each kind of its processes spent on it meanwhile."""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.train_loop.cases import EVERY, Case
from raylens.cluster import session
from raylens.interrupts import Interrupts
from raylens.messages import quiet
from raylens.storage import open_store
from raylens.train.loop.events import Metrics, RunEvent
from raylens.train.run.launch import fit
from raylens.train.runs.jsonl import read_metrics

__all__ = ["Run", "ours"]


@dataclass
class Run:
    """What was seen of it, by records."""

    losses: list[float]
    seconds: list[float]
    """Of a step, as a mean over those of a record."""
    data_wait: list[float]
    cores: dict[str, float] = field(default_factory=dict)
    """Seconds of a core a second, by what a process is called; once the stream is full."""


class Meter:
    """Looks at the processes' clocks when the figures begin and when they end, and asks the run to stop."""

    def __init__(self, case: Case) -> None:
        self.interrupts = Interrupts(quiet, notice="")
        self.cores: dict[str, float] = {}
        self._case = case
        self._began: tuple[float, dict[str, float]] | None = None

    def hear(self, event: RunEvent) -> None:
        if not isinstance(event, Metrics):
            return
        if event.record.step == self._case.left_out * EVERY:
            self._began = time.monotonic(), spent()
        if event.record.step == self._case.steps:
            assert self._began is not None
            began, before = self._began
            passed, now = time.monotonic() - began, spent()
            self.cores = {name: (seconds - before.get(name, 0.0)) / passed for name, seconds in now.items()}
            if self._case.steps < self._case.planned:
                self.interrupts.stop()


def spent() -> dict[str, float]:
    """Seconds of processor time of all processes below this one, by name. One that has ended is not counted."""
    seconds: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        try:
            name, times = " ".join(process.cmdline()[:1]), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        # Ray's workers are called after what runs in them; all others are Ray's own daemons.
        kind = name.removeprefix("ray::").split(".")[0] if name.startswith("ray::") else "daemons"
        seconds[kind] += times.user + times.system
    return seconds


def ours(case: Case, folder: Path, name: str) -> Run:
    """Train in a cluster of its own."""
    config, meter = case.config(folder, name), Meter(case)
    with session(num_cpus=4):
        try:
            fit(config, say=quiet, on_event=meter.hear, interrupts=meter.interrupts)
        except KeyboardInterrupt:
            if not meter.cores:
                raise  # somebody else's
    records = read_metrics(open_store(config.storage) / config.name)[: case.steps // EVERY]
    return Run(
        losses=[record["loss"] for record in records],
        seconds=[case.batch / record["samples_per_second"] for record in records],
        data_wait=[record["data_wait"] for record in records],
        cores=meter.cores,
    )
