"""Kills what a run stands on, at random moments, and measures what each kill costs."""

import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.integration.nodes.outage import Outage

__all__ = ["KINDS", "Kill", "Monkey"]

KINDS = ("worker", "node", "driver", "store")
DRIVER = Path(__file__).with_name("driver.py")
PATIENCE_SECONDS = 240.0
NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 150_000_000}


@dataclass
class Kill:
    """One of them, and what it cost."""

    kind: str
    at_step: int
    seconds: float = 0.0
    """The longest time without a step that had not been taken before."""
    lost: int = 0
    """Steps that were taken again."""
    starts: int = 0
    """Of the workers, because of it."""
    meanwhile: int = 0
    """New steps while the store was away."""
    detail: str = ""


@dataclass
class Monkey:
    """Runs a training command over a cluster of several raylets and disturbs it."""

    config: Path
    cluster: Any
    nodes: list[Any]
    """Those of it that may be killed."""
    outage: Outage
    seed: int
    most_steps: int
    """Between a kill and the next, however fast they are: the run must last until the last kill."""
    kills: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._driver: subprocess.Popen[str] | None = None
        self._driver_node = ""
        self.step, self._start, self._starts, self._launches, self._finished = 0, 0, 0, 0, ""
        self._stepped_at, self._stood_still = time.monotonic(), 0.0

    def run(self, kinds: list[str]) -> str:
        """To the end, with these kills on the way; the registered version."""
        self._launch()
        for kind in kinds:
            self._train_for(self._draw.uniform(0.3, 4.0))
            if self._finished:
                break
            self.kills.append(self._kill(kind))
        self._until(lambda: bool(self._finished), "the end of the run")
        assert self._driver is not None
        self._driver.wait(timeout=60)
        return self._finished

    def _launch(self) -> None:
        command = [sys.executable, str(DRIVER), self.cluster.address, str(self.config)]
        self._driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=self._read, args=(self._driver,), daemon=True).start()

    def _read(self, driver: "subprocess.Popen[str]") -> None:
        assert driver.stdout is not None
        with driver.stdout as lines:
            for line in lines:
                try:
                    self._lines.put(json.loads(line))
                except ValueError:
                    self._lines.put({"event": "printed", "text": line.rstrip(), "step": None})
        self._lines.put({"event": "ended", "text": "", "step": driver.pid})

    def _hear(self, seconds: float) -> None:
        try:
            line = self._lines.get(timeout=max(0.01, seconds))
        except queue.Empty:
            return
        event, step, text = line["event"], line["step"], line["text"]
        if event == "step":
            self._stepped(step)
        elif event == "started":
            self._start, self._starts = step, self._starts + 1
        elif event == "joined":
            self._driver_node = text
        elif event == "finished":
            self._finished = text
        elif event == "ended":
            self._ended(step)
        if event not in ("step", "checkpointed") and os.environ.get("RAYLENS_CHAOS_LOUD"):
            sys.stderr.write(f"{time.strftime('%X')} {event} {step} {text}\n")

    def _stepped(self, step: int) -> None:
        self._launches = 0
        if step > self.step:
            now = time.monotonic()
            self._stood_still = max(self._stood_still, now - self._stepped_at)
            self.step, self._stepped_at = step, now

    def _ended(self, pid: int) -> None:
        """By a kill, by itself with an error, or because the raylet that it was joined to is gone: once more."""
        assert self._driver is not None
        if pid != self._driver.pid:
            return
        self._driver.wait()
        if not self._finished:
            self._launches += 1
            assert self._launches < 6, "the command ended six times in a row without a step; see its output"
            self._launch()

    def _until(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not done():
            assert time.monotonic() < end, f"waited {PATIENCE_SECONDS:.0f} s for {what}; at step {self.step}"
            self._hear(1.0)

    def _train_for(self, seconds: float) -> None:
        """From the next new step on."""
        before = self.step
        self._until(lambda: self.step > before or bool(self._finished), "a step")
        self._listen(seconds)

    def _listen(self, seconds: float) -> None:
        """So long, or until half of the steps of this kill are taken."""
        end, before = time.monotonic() + seconds, self.step
        while time.monotonic() < end and self.step - before < self.most_steps // 2 and not self._finished:
            self._hear(end - time.monotonic())

    def _kill(self, kind: str) -> Kill:
        kill, reached, starts = Kill(kind, self.step), self.step, self._starts
        self._stepped_at, self._stood_still = time.monotonic(), 0.0
        kill.detail = getattr(self, f"_kill_{kind}")()
        if kind == "store":
            kill.meanwhile = self.step - reached
        else:
            # What is heard before is of those that are gone.
            self._until(lambda: self._starts > starts or bool(self._finished), f"a start after the loss of the {kind}")
        before = self.step
        self._until(lambda: self.step > before or bool(self._finished), f"training after the loss of the {kind}")
        kill.seconds, kill.starts = self._stood_still, self._starts - starts
        kill.at_step, kill.lost = before, max(0, before - self._start) if kill.starts else 0
        return kill

    def _workers(self) -> dict[int, str]:
        """Training processes, and the raylet's node that each is a child of."""
        raylets = {_raylet(node): node.unique_id for node in [self.cluster.head_node, *self.nodes]}
        found = {}
        for raylet, node in raylets.items():
            for child in psutil.Process(raylet).children(recursive=True):
                if "RayTrainWorker" in " ".join(child.cmdline()):
                    found[child.pid] = node
        return found

    def _kill_worker(self) -> str:
        pids = list(self._workers())
        assert pids, "no training workers are on the cluster"
        os.kill(self._draw.choice(pids), signal.SIGKILL)
        return f"1 of {len(pids)} workers"

    def _kill_node(self) -> str:
        busy = set(self._workers().values())
        victims = [node for node in self.nodes if node.unique_id in busy]
        assert victims, "no node but the head has training workers"
        victim = next((node for node in victims if node.unique_id != self._driver_node), victims[0])
        self.cluster.remove_node(victim, allow_graceful=False)
        self.nodes.remove(victim)
        self.nodes.append(self.cluster.add_node(**NODE))
        return "its raylet" + (", to which the driver was joined" if victim.unique_id == self._driver_node else "")

    def _kill_driver(self) -> str:
        assert self._driver is not None
        self._driver.kill()
        return "the same command again"

    def _kill_store(self) -> str:
        away = self._draw.uniform(2.0, 20.0)
        self.outage.down()
        self._listen(away)
        self.outage.up()
        return f"away for {away:.0f} s"


def _raylet(node: Any) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid
