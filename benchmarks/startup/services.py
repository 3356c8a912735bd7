"""Seconds from the command to the first answer: `raylens serve` beside a bare Ray Serve application that imports torch.

    ours    `raylens serve tiny` until /readyz says 200: text and image towers, a gateway, HAProxy before them
    bare    bare_serve.py until / says 200: one deployment whose constructor imports torch

Each in a fresh process; `phases.py` takes them in turns. The phases are what the processes say themselves.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from raylens.ports import free_port

HERE = Path(__file__).parent
LONGEST_S = 240.0
LOOK_S = 0.02
LINE = re.compile(r"^ *(\d+\.\d) s  (.*)$", re.MULTILINE)
PHASES = {"Ray is there": "ray", "starting Ray Serve": "imports", "asking whether": "replicas", "ready:": "ready"}
"""By what a line of ours has in it: which phase it ends."""
Phases = dict[str, float]


def make_model(folder: Path) -> None:
    """Register ``tiny``: weights of no size, so that what is measured is the start and not the reading of weights."""
    from raylens.config import ModelConfig
    from raylens.inputs import Preprocess, Tokenizer
    from raylens.models import DualEncoder
    from raylens.registry import Bundle, Registry

    tokenizer = Tokenizer.train(["a red cat on a tree", "two old dogs", "a small blue house"] * 3, 600)
    image = {"size": 32, "patch": 16, "width": 32, "layers": 2, "heads": 2}
    text = {"context": 16, "vocab": 700, "width": 32, "layers": 2, "heads": 2}
    config = ModelConfig.model_validate({"embed_dim": 32, "image": image, "text": text})
    preprocess = Preprocess(size=32)
    model = DualEncoder(config, end_id=tokenizer.end_id, mean=preprocess.mean, std=preprocess.std)
    Registry(str(folder)).publish("tiny", Bundle(config, model.state_dict(), tokenizer, preprocess))


def bare_ready_seconds(cpus: int = 4) -> tuple[float, Phases]:
    """Start the bare service; seconds to its first answer, and of its phases."""
    port = free_port()
    command = [sys.executable, str(HERE / "bare_serve.py"), str(port), str(cpus)]
    with _until_answer(command, f"http://127.0.0.1:{port}/") as (seconds, log):
        end = time.monotonic() + 10
        while not (found := [line for line in log.read_text().splitlines() if line.startswith('{"')]):
            if time.monotonic() > end:
                raise SystemExit(f"the bare service says no phases:\n{log.read_text()[-3000:]}")
            time.sleep(LOOK_S)
        phases: Phases = json.loads(found[0])
    return seconds, phases


def ours_ready_seconds(registry: Path, extra: Sequence[str] = ()) -> tuple[float, Phases]:
    """Start `raylens serve` with a registry of `make_model`; seconds to its first answer, and of its phases."""
    port = free_port()
    raylens = str(Path(sys.executable).parent / "raylens")
    command = [raylens, "serve", "tiny", "--registry", str(registry), "--port", str(port), *extra]
    with _until_answer(command, f"http://127.0.0.1:{port}/readyz") as (seconds, log):
        lines = LINE.findall(log.read_text())
    phases: Phases = {}
    before = 0.0
    for told, text in lines:
        for mark, phase in PHASES.items():
            if mark in text:
                phases[phase] = float(told) - before
                before = float(told)
    return seconds, phases


@contextlib.contextmanager
def _until_answer(command: list[str], url: str) -> Iterator[tuple[float, Path]]:
    """A service, from its command to its first good answer; it has ended when this is left."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        began = time.perf_counter()
        with log.open("w") as sink:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=sink, stderr=sink, env=os.environ, start_new_session=True
            )
        try:
            while not _answers(url):
                if process.poll() is not None or time.perf_counter() - began > LONGEST_S:
                    raise SystemExit(f"{command} did not start:\n{log.read_text()[-3000:]}")
                time.sleep(LOOK_S)
            yield time.perf_counter() - began, log
        finally:
            assert process.stdin is not None
            process.stdin.close()
            if "raylens" in Path(command[0]).name:
                process.send_signal(signal.SIGTERM)  # interrupts are ignored by what a shell starts in its background
            process.wait(90)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False
