"""Runs the tests in processes of their own, side by side: `python tests/run.py [test|slow]`, for `make test`.

Ray keeps the authentication mode of the first cluster that a process talks to, and one process leaves cores idle while
it waits for Ray. So tests are dealt into lanes, each a pytest process, as many at a time as the cores carry. What a
lane printed is shown when it has ended; then the slowest tests of all lanes, the skips with their reasons, and a sum.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARKS = {"test": "not slow", "slow": "slow"}
LANES = {
    "training": ("integration/test_train*.py", "integration/test_stream*.py", "integration/test_evaluation.py", "gpu"),
    "stores": (
        "integration/test_sweep.py",
        "integration/test_data_commands.py",
        "integration/test_unwritable.py",
        "integration/test_idle_pause.py",
    ),
    "commands": ("integration/test_quickstart.py",),
    "serving": ("integration/test_serve*.py",),
    "ranks": (
        "integration/test_ranks.py",
        "integration/test_engine.py",
        "integration/test_accumulation.py",
        "integration/test_objectives_ranks.py",
    ),
}
"""By name, what shares a process, and with it a Ray cluster; everything else under tests/ is a lane too, the `rest`."""
ORDER = ("training", "rest", "test_jobs", "test_chaos", "test_placement_long", "commands", "serving", "stores", "ranks")
"""The long ones first, so that no core waits for a last long one; then all others."""
PATIENCE_SECONDS = 90.0
"""For lanes to end their clusters after Ctrl-C."""
SLOWEST = 25
OUTCOMES = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warnings", "error")
"""In the order of pytest's own last line."""
ALL_SLOW = "\npytestmark = pytest.mark.slow\n"
NO_TESTS = 5
"""What pytest exits with where every test was deselected."""


@dataclass
class Lane:
    """A pytest process and what came of it."""

    name: str
    paths: list[str]
    began: float = 0.0
    seconds: float = 0.0
    status: int | None = None
    record: dict[str, Any] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, target: str, folder: Path, options: list[str]) -> None:
        command = [sys.executable, "-m", "pytest", "-m", MARKS[target], "-p", "tests.recorded", "--color=no"]
        command += ["--record", str(folder / f"{self.name}.json"), "--tb=short", *options, *self.paths]
        self.began = time.monotonic()
        with (folder / f"{self.name}.txt").open("wb") as sink:
            # In a group of its own: a Ctrl-C at the terminal is passed on once, and not sent twice.
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, process_group=0
            )
        say(f"{self.name}: started")

    def ended(self, folder: Path) -> bool:
        assert self.process is not None
        if self.process.poll() is None:
            return False
        self.status, self.seconds = self.process.returncode, time.monotonic() - self.began
        record = folder / f"{self.name}.json"
        self.record = json.loads(record.read_text()) if record.exists() else {}
        say(f"\n{self.name}: ended with {self.status} after {self.seconds:.0f} s")
        say((folder / f"{self.name}.txt").read_text(errors="replace"))
        return True

    @property
    def failed(self) -> bool:
        return self.status not in (0, NO_TESTS) or not self.record


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def lanes(target: str) -> list[Lane]:
    """Every file under tests/ is in exactly one; in none, where it has nothing for this target."""
    tests = ROOT / "tests"
    named = {name: [path for glob in globs for path in sorted(tests.glob(glob))] for name, globs in LANES.items()}
    taken = [path for paths in named.values() for path in paths]
    assert len(taken) == len(set(taken)), "a file is in two lanes"
    found = {name: Lane(name, [str(path.relative_to(ROOT)) for path in paths]) for name, paths in named.items()}
    found["rest"] = Lane("rest", ["tests", *[f"--ignore={path.relative_to(ROOT)}" for path in taken]])
    for path in sorted(tests.glob("integration/nodes/test_*.py")):
        if target == "test" and ALL_SLOW in path.read_text():
            continue  # a process that would only import and find nothing to do
        found[path.stem] = Lane(path.stem, [str(path.relative_to(ROOT))])
    first = [name for name in ORDER if name in found]
    return [found[name] for name in (*first, *[name for name in found if name not in first])]


def has_long_ones(lane: Lane) -> bool:
    """Whether a lane has something for the slow run; else its process would only import and find nothing to do."""
    left_out = {path.removeprefix("--ignore=") for path in lane.paths if path.startswith("--ignore=")}
    for path in (ROOT / path for path in lane.paths if not path.startswith("--")):
        files = [path] if path.is_file() else [file for file in path.rglob("test_*.py") if "nodes" not in file.parts]
        kept = [file for file in files if str(file.relative_to(ROOT)) not in left_out]
        if any("mark.slow" in file.read_text() for file in kept if file.name != "test_lanes.py"):
            return True
    return False


def run(todo: list[Lane], target: str, at_once: int, options: list[str]) -> None:
    waiting, running = list(todo), list[Lane]()
    with tempfile.TemporaryDirectory(prefix="raylens-tests-") as name:
        folder = Path(name)
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    running.append(waiting.pop(0))
                    running[-1].start(target, folder, options)
                time.sleep(0.2)
                running[:] = [lane for lane in running if not lane.ended(folder)]
        finally:
            end(running, folder)


def end(running: list[Lane], folder: Path) -> None:
    """Whatever happens, no lane outlives this process: each is asked to end its clusters, once."""
    processes = [lane.process for lane in running if lane.process is not None]
    for process in processes:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + PATIENCE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for lane in running:
        lane.ended(folder)


def report(done: list[Lane], seconds: float) -> None:
    """One table of all lanes, and a last line like pytest's own."""
    tests = {test: taken for lane in done for test, taken in lane.record.get("seconds", {}).items()}
    say(f"the slowest {SLOWEST} of {len(tests):,} tests, with what is set up and torn down for them:\n")
    say("| s | test |\n|--:|---|")
    for test in sorted(tests, key=tests.__getitem__, reverse=True)[:SLOWEST]:
        say(f"| {tests[test]:.1f} | `{test.removeprefix('tests/')}` |")
    reasons = Counter(reason for lane in done for _, reason in lane.record.get("skips", []))
    say(f"\nskipped: {reasons.total()}")
    for reason, count in reasons.most_common():
        say(f"  {count} x {reason}")
    say("\nlanes:")
    for lane in done:
        say(f"  {lane.name}: {line_of(Counter(lane.record.get('counts', {})), lane.seconds)}")
    for lane in done:
        for test, reason in lane.record.get("failures", []):
            say(f"FAILED {test} - {reason}")
        if lane.failed and not lane.record.get("failures"):
            say(f"FAILED lane {lane.name}: its process ended with {lane.status}; see what it printed")
    counts = sum((Counter(lane.record.get("counts", {})) for lane in done), Counter[str]())
    say(f"{f' {line_of(counts, seconds)} ':=^100}")


def line_of(counts: "Counter[str]", seconds: float) -> str:
    told = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]]
    return f"{', '.join(told) or 'no tests ran'} in {seconds:.2f}s ({seconds // 60:.0f} min {seconds % 60:.0f} s)"


def status_of(todo: list[Lane]) -> int:
    """Zero where every lane ended well, and something was tested."""
    passed = any(lane.record.get("counts", {}).get("passed") for lane in todo)
    return 1 if any(lane.failed for lane in todo) or not passed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the tests in processes of their own, side by side.")
    parser.add_argument("target", choices=MARKS)
    parser.add_argument("--lanes", type=int, default=max(2, (os.cpu_count() or 2) // 2), help="processes at a time")
    parser.add_argument(
        "--only", action="append", choices=[lane.name for lane in lanes("slow")], help="this lane alone"
    )
    arguments, options = parser.parse_known_args()  # the others are pytest's, of every lane
    # A shell starts what runs in its background with interrupts ignored, and every lane would ignore them too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    todo = [lane for lane in lanes(arguments.target) if not arguments.only or lane.name in arguments.only]
    if arguments.target == "slow":
        todo = [lane for lane in todo if has_long_ones(lane)]
    began = time.monotonic()
    try:
        run(todo, arguments.target, arguments.lanes, options)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        report([lane for lane in todo if lane.status is not None], time.monotonic() - began)
    return status_of(todo)


if __name__ == "__main__":
    sys.exit(main())
