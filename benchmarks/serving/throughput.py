"""Images and texts per second of `raylens serve`, compared with infinity and with the bare model in one process.

    ours        `raylens serve` with its defaults, but without its cache of embeddings (limits.cache_bytes=0)
    infinity    infinity_emb 0.0.78 on torch, in an environment of its own; without it, its claims are skipped:
                make .peers/infinity, then HF_HUB_OFFLINE=1 DO_NOT_TRACK=1 .peers/infinity/bin/infinity_emb v2
                --model-id FOLDER --engine torch --device cpu --port PORT --served-model-name clip --batch-size 32
    bare        the image tower alone on pixels in memory, packed as ours, at the best of several batch sizes and both
                precisions

All sides have the same ViT-B/32 with the same random weights, 32 connections, one item per request, and base64
answers where the API offers them; the load program is a third process on the same cores for both. Rounds alternate.
It prints one JSON object per claim. `--short` shows in two minutes that it runs; its numbers are not to be quoted.
"""

import argparse
import base64
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from benchmarks.machine import niceness_below, tell_machine
from benchmarks.serving.model import captions, jpegs, make_model
from raylens.ports import free_port
from raylens.registry import Registry

HERE = Path(__file__).parent
PEER = HERE.parents[1] / ".peers/infinity/bin/infinity_emb"
CONNECTIONS, WARM = 32, 4.0
BATCHES = (8, 16, 32, 64)
NICENESS = "niceness"
"""The file with the niceness of the replicas of the newest round."""
Seen = dict[str, list[float]]
"""Measurements of each round, by name."""
Sides = list[tuple[str, Callable[[Path], AbstractContextManager[str]]]]


@contextlib.contextmanager
def running(command: list[str], ready: str, log: Path, environment: dict[str, str]) -> Iterator[int]:
    """Run a server's process, from its first answer at ``ready`` until it has ended."""
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=sink, env=os.environ | environment, start_new_session=True
        )
    try:
        end = time.monotonic() + 240
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(ready, timeout=5).status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{command[0]} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def load(folder: Path, url: str, bodies: Path, seconds: float, connections: int = CONNECTIONS) -> dict[str, Any]:
    spec = {"url": url, "bodies": str(bodies), "connections": connections, "seconds": seconds, "warm": WARM}
    (folder / "spec.json").write_text(json.dumps(spec))
    program = [sys.executable, str(HERE / "load_program.py"), str(folder / "spec.json")]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    if set(found["statuses"]) != {"200"}:
        raise SystemExit(f"{url} answered {found['statuses']}")
    return found


def write_bodies(folder: Path, count: int) -> dict[str, Path]:
    """Write requests for both sides, each with one item that no other has."""
    uris = [f"data:image/jpeg;base64,{base64.b64encode(file).decode()}" for file in jpegs(count, seed=4)]
    texts = captions(4 * count, seed=5)
    made: dict[str, list[dict[str, Any]]] = {
        "ours-image": [{"input": [{"image": uri}], "encoding_format": "base64"} for uri in uris],
        "ours-text": [{"input": [text], "encoding_format": "base64"} for text in texts],
        "infinity-image": [{"model": "clip", "input": [uri], "modality": "image"} for uri in uris],
        "infinity-text": [{"model": "clip", "input": [text]} for text in texts],
    }
    for name, bodies in made.items():
        (folder / name).write_text("\n".join(json.dumps(body) for body in bodies))
    return {name: folder / name for name in made}


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[str]:
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "raylens"), "serve", "vit", "--registry", str(folder / "registry"),
        "--port", str(port), "--set", "limits.cache_bytes=0", "--set", f"models.0.image.cpus={os.cpu_count()}",
        "--set", f"models.0.text.cpus={os.cpu_count()}", "--num-cpus", str(2 * (os.cpu_count() or 1)),
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/readyz", folder / "ours.log", {}) as pid:
        (folder / NICENESS).write_text(str(niceness_below(pid)))
        yield f"{url}/v1/embeddings"


@contextlib.contextmanager
def infinity(folder: Path) -> Iterator[str]:
    port = free_port()
    command = [
        str(PEER), "v2", "--model-id", str(folder / "hf"), "--engine", "torch", "--device", "cpu", "--host",
        "127.0.0.1", "--port", str(port), "--served-model-name", "clip", "--batch-size", "32",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/health", folder / "infinity.log", {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}):
        yield f"{url}/embeddings"


def same_vectors(folder: Path, bodies: dict[str, Path], url: str) -> float:
    """Return the least cosine of the peer's vectors to the encoder's over a few texts: the weights are the same."""
    encoder = Registry(str(folder / "registry")).load("vit")[1]
    asked = [json.loads(line) for line in bodies["infinity-text"].read_text().splitlines()[:4]]
    theirs = [httpx.post(url, json=body, timeout=120).json()["data"][0]["embedding"] for body in asked]
    mine = encoder.encode_texts([body["input"][0] for body in asked]).numpy()
    theirs_BD = np.array(theirs) / np.linalg.norm(theirs, axis=1, keepdims=True)
    return float((mine * theirs_BD).sum(axis=1).min())


def bare(folder: Path, batches: Sequence[int]) -> tuple[float, dict[str, float]]:
    """Return the tower's best rate in images per second, and the seconds of a forward pass of an image and a text."""
    torch.set_num_threads(os.cpu_count() or 1)
    draw = np.random.default_rng(1)
    rates, alone = [], []
    for dtype in (torch.float32, torch.bfloat16):
        encoder = Registry(str(folder / "registry")).load("vit")[1]
        encoder.model.multiply_in(dtype)
        encoder.pack()
        for batch in batches:
            pixels = draw.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
            rates.append(batch / _median(partial(encoder.encode_pixels, pixels)))
        ids, _ = encoder.tokenizer(captions(1, seed=6), 77)
        calls = {"image": partial(encoder.encode_pixels, pixels[:1]), "text": partial(encoder.encode_ids, ids)}
        alone.append({kind: _median(call, 30) for kind, call in calls.items()})
    return max(rates), {kind: min(one[kind] for one in alone) for kind in ("image", "text")}


def _median(call: Any, times: int = 7) -> float:
    call()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def one_round(folder: Path, bodies: dict[str, Path], sides: Sides, seen: Seen, chosen: argparse.Namespace) -> None:
    rate, alone = bare(folder, BATCHES[1:2] if chosen.short else BATCHES)
    seen.setdefault("bare image", []).append(rate)
    for kind, seconds in alone.items():
        seen.setdefault(f"bare {kind} alone", []).append(1000 * seconds)
    for side, start in sides:
        with start(folder) as url:
            if side == "infinity":
                seen.setdefault("cosine of infinity", []).append(same_vectors(folder, bodies, url))
            for kind in ("image", "text"):
                found = load(folder, url, bodies[f"{side}-{kind}"], chosen.seconds)
                seen.setdefault(f"{side} {kind}", []).append(len(found["seconds"]) / chosen.seconds)
                if side == "ours":
                    light = load(folder, url, bodies[f"{side}-{kind}"], 6, connections=1)["seconds"]
                    seen.setdefault(f"{side} {kind} alone", []).append(1000 * statistics.median(light))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each kind of load in a round")
    parser.add_argument("--short", action="store_true", help="one round of three seconds: to see that it runs")
    chosen = parser.parse_args()
    if chosen.short:
        chosen.rounds, chosen.seconds = 1, 3.0
    seen: Seen = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "registry", folder / "hf")
        bodies = write_bodies(folder, 600)
        sides: Sides = [("ours", ours), *([("infinity", infinity)] if PEER.exists() else [])]
        if not PEER.exists():
            print(
                "# infinity is not installed: its claims are skipped; `make .peers/infinity` installs it",
                file=sys.stderr,
            )
        for _ in range(chosen.rounds):
            one_round(folder, bodies, sides, seen, chosen)
            told = {key: round(values[-1], 2) for key, values in seen.items()}
            print(f"# {json.dumps(told)}", file=sys.stderr, flush=True)
        tell_machine(int((folder / NICENESS).read_text()))
    on_event(seen)


def on_event(seen: Seen) -> None:
    def claim(name: str, above: str, below: str, peer: str, wanted: str) -> None:
        ratios = [one / other for one, other in zip(seen[above], seen[below], strict=True)]
        figures = {
            "claim": name, "value": round(statistics.median(ratios), 2), "unit": "x", "peer": peer, "wanted": wanted,
            "spread": [round(min(ratios), 2), round(max(ratios), 2)],
            "rates": [[round(one, 1) for one in seen[side]] for side in (above, below)],
        }  # fmt: skip
        print(json.dumps(figures), flush=True)

    if "infinity image" in seen:
        claim("image_rate_vs_infinity", "ours image", "infinity image", "infinity 0.0.78", ">= 4")
        claim("text_rate_vs_infinity", "ours text", "infinity text", "infinity 0.0.78", ">= 5")
    claim("image_rate_vs_bare_model", "ours image", "bare image", f"torch {torch.__version__}, one process", ">= 0.7")
    for kind in ("image", "text"):
        over = [one - other for one, other in zip(seen[f"ours {kind} alone"], seen[f"bare {kind} alone"], strict=True)]
        figures = {
            "claim": f"{kind}_latency_over_bare", "value": round(statistics.median(over), 1), "unit": "ms",
            "peer": f"torch {torch.__version__}, one forward pass", "wanted": "<= 10",
            "medians": [[round(one, 1) for one in seen[f"{side} {kind} alone"]] for side in ("ours", "bare")],
        }  # fmt: skip
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
