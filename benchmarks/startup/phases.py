"""Start-up: from the command to the first training step, and to a service that answers, beside bare Ray scripts.

`python -m benchmarks.startup.phases [--rounds 3] [--only train,serve,quickstart,help]`. The bare scripts are
bare_train.py (Ray Train) and bare_serve.py (Ray Serve). Rounds go in turns after one of each that is not counted and
fills the page cache.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from benchmarks.machine import tell_machine
from benchmarks.startup.services import bare_ready_seconds, make_model, ours_ready_seconds
from benchmarks.startup.torch_steps import seconds_of_steps
from raylens.cluster.niceness import WORKER_NICENESS, worker_niceness
from raylens.storage import open_store
from raylens.workloads.quickstart.digits import pack_digits

RAYLENS = str(Path(sys.executable).with_name("raylens"))
HERE = Path(__file__).parent
PHASES = (
    ("imports", r"starting Ray"),
    ("Ray", r"indexing"),
    ("index", r"starting \d+ workers"),
    ("worker processes", r"worker processes up"),
    ("workers", r"\d+ workers up"),
    ("first step", r"step \d+/\d+"),
)
"""Each with the line of the terminal that ends it; the lines come in this order."""
Moments = dict[str, float]


def bare_start(folder: Path) -> Moments:
    began = time.time()
    subprocess.run([sys.executable, str(HERE / "bare_train.py"), str(folder)], check=True, capture_output=True)
    moments = json.loads((folder / "moments.json").read_text())
    return {phase: moment - began for phase, moment in moments.items()}


def our_start(data: str, storage: Path) -> Moments:
    """The same command again resumes."""
    settings = [f"storage={storage}", f"registry={storage}/registry", f"data.train={data}", "log_every_steps=1"]
    command = [RAYLENS, "train", "digits", *(word for one in settings for word in ("--set", one))]
    began, found = time.monotonic(), Moments()
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            for phase, pattern in PHASES:
                if phase not in found and re.search(pattern, line):
                    found[phase] = time.monotonic() - began
                    break
            if "first step" in found:
                break
        assert "first step" in found, "".join(lines)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    return found


def help_seconds() -> float:
    began = time.monotonic()
    subprocess.run([RAYLENS, "--help"], check=True, capture_output=True)
    return time.monotonic() - began


def quickstart_seconds(folder: Path) -> float:
    began = time.monotonic()
    subprocess.run([RAYLENS, "quickstart", "--storage", str(folder)], check=True, capture_output=True)
    return time.monotonic() - began


def in_turns(rounds: int, *functions: Callable[[Path], Any]) -> list[list[Any]]:
    """What each returns, in rounds; the first one, which warms up, is left out."""
    found: list[list[Any]] = [[] for _ in functions]
    for number in range(rounds + 1):
        for place, function in enumerate(functions):
            with tempfile.TemporaryDirectory(prefix="raylens-startup-") as name:
                value = function(Path(name))
            found[place] += [value] if number else []
    return found


def claim(name: str, value: float, unit: str, peer: str, wanted: str) -> None:
    print(json.dumps({"claim": name, "value": round(value, 2), "unit": unit, "peer": peer, "wanted": wanted}))


def medians(rows: list[Moments]) -> Moments:
    return {phase: statistics.median(row[phase] for row in rows) for phase in rows[0]}


def show(title: str, moments: Moments) -> None:
    """Seconds of each phase, and the sum up to its end."""
    before = 0.0
    print(title)
    for phase, moment in moments.items():
        print(f"  {phase:20} {moment - before:6.1f} {moment:6.1f}")
        before = moment


def measure_train(rounds: int) -> float:
    peer = f"Ray Train {ray.__version__}, a script"
    with tempfile.TemporaryDirectory(prefix="raylens-startup-data-") as name:
        data = pack_digits(open_store(name)).train.uri

        def start_and_resume(folder: Path) -> tuple[Moments, Moments]:
            return our_start(data, folder), our_start(data, folder)

        bare, ours = in_turns(rounds, bare_start, start_and_resume)
    floor, start, resume = medians(bare), medians([one for one, _ in ours]), medians([again for _, again in ours])
    show("bare Ray Train", floor)
    show("raylens train digits", start)
    show("the same again (resume)", resume)
    claim("start_over_bare", start["first step"] / floor["first step"], "x", peer, "<= 1.15")
    claim("resume_over_bare", resume["first step"] / floor["first step"], "x", peer, "<= 1.1")
    return floor["first step"]


def measure_serve(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="raylens-startup-model-") as name:
        make_model(Path(name))
        bare, ours = in_turns(rounds, lambda _: bare_ready_seconds(), lambda _: ours_ready_seconds(Path(name)))
    floor, ready = (statistics.median(seconds for seconds, _ in rows) for rows in (bare, ours))
    print(f"bare Ray Serve {floor:.1f} s, raylens serve {ready:.1f} s: {medians([phases for _, phases in ours])}")
    claim("ready_over_bare", ready / floor, "x", f"Ray Serve {ray.__version__}, a script", "<= 1.3")


def measure_quickstart(rounds: int, floor: float) -> None:
    steps = statistics.median(seconds_of_steps() for _ in range(rounds))
    (ours,) = in_turns(rounds, quickstart_seconds)
    whole = statistics.median(ours)
    print(f"raylens quickstart {whole:.1f} s; a bare start {floor:.1f} s, its steps in plain torch {steps:.1f} s")
    claim("quickstart_over_bare", whole / (floor + steps), "x", "bare Ray Train start, then plain torch", "<= 2.2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="help,train,serve,quickstart")
    given = parser.parse_args()
    parts = given.only.split(",")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, each process compiles all that it imports
    # The bare scripts as well: by Ray's own default their workers would stand at 15.
    os.environ[WORKER_NICENESS] = worker_niceness()
    tell_machine(int(os.environ[WORKER_NICENESS]))
    if "help" in parts:
        seconds = [help_seconds() for _ in range(given.rounds + 1)][1:]
        claim("help_seconds", statistics.median(seconds), "s", "none", "<= 0.4")
    if "train" in parts or "quickstart" in parts:
        floor = measure_train(given.rounds)
        if "quickstart" in parts:
            measure_quickstart(given.rounds, floor)
    if "serve" in parts:
        measure_serve(given.rounds)


if __name__ == "__main__":
    main()
