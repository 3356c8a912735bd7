"""A service under more load than its capacity, during a switch of versions, and under a step of load.

    goodput     requests at constant intervals (open loop), from half to three times the capacity: successful answers
                per second at each rate, compared with the best of all rates; the rest is refused with Retry-After
    swap        the 99th percentile of latencies at half the capacity, in the seconds around `models promote` with one
                replica per tower, compared with the seconds before
    scaling     a step of load and its end: replicas and latencies over time, drawn to docs/images/serving_scaling.svg

The model is a ViT of a quarter of ViT-B/32's width with random weights, over real HTTP. The load program is a process
of its own on the same cores. It prints one JSON object per claim. `--short` shows that it runs and draws nothing; its
numbers are not to be quoted.
"""

import argparse
import base64
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from ray import serve

from benchmarks.machine import tell_machine, worker_niceness
from benchmarks.serving.model import captions, jpegs
from raylens.cluster import session
from raylens.config import ModelConfig, validated
from raylens.inputs import Preprocess, Tokenizer
from raylens.models import DualEncoder
from raylens.ports import free_port
from raylens.registry import Bundle, Registry
from raylens.serve import RunningService, ServiceConfig, serve_service

HERE = Path(__file__).parent
FACTORS = (0.5, 0.9, 1.2, 2.0, 3.0)
WARM_S, SWAP_S = 3.0, 10.0
PLOT = HERE.parents[1] / "docs/images/serving_scaling.svg"


def publish(registry: Path, seed: int) -> None:
    torch.manual_seed(seed)
    tokenizer = Tokenizer.train(captions(2000, seed=9), 2000)
    image = {"size": 224, "patch": 32, "width": 384, "layers": 8, "heads": 6}
    text = {"context": 32, "vocab": 2000, "width": 256, "layers": 4, "heads": 4}
    config = ModelConfig.model_validate({"embed_dim": 256, "image": image, "text": text})
    preprocess = Preprocess(size=224)
    model = DualEncoder(config, end_id=tokenizer.end_id, mean=preprocess.mean, std=preprocess.std)
    Registry(str(registry)).publish("vit", Bundle(config, model.state_dict(), tokenizer, preprocess))


def started(registry: Path, most: int, **limits: Any) -> RunningService:
    tower = {"min_replicas": 1, "max_replicas": most, "items_per_replica": 12, "downscale_delay_s": 10}
    config = {
        "models": [{"model": "vit@prod", "text": tower | {"max_replicas": 1}, "image": tower}],
        "registry": str(registry),
        "port": free_port(),
        "limits": {"cache_bytes": 0, "follow_interval_s": 1, "overlap_s": 5, **limits},
    }
    return serve_service(validated(ServiceConfig, config))


class Load:
    """The load program, running against a service in the background."""

    def __init__(self, folder: Path, url: str, **spec: Any) -> None:
        given = {"url": f"{url}/v1/embeddings", "bodies": str(folder / "bodies"), "warm": WARM_S, **spec}
        path = folder / f"spec-{time.monotonic_ns()}.json"
        path.write_text(json.dumps(given))
        program = [sys.executable, str(HERE / "load_program.py"), str(path)]
        self._process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)

    def result(self) -> dict[str, Any]:
        out, _ = self._process.communicate()
        found: dict[str, Any] = json.loads(out)
        return found


def capacity_of(folder: Path, url: str, seconds: float) -> float:
    return len(Load(folder, url, connections=32, seconds=seconds).result()["seconds"]) / seconds


def goodput(folder: Path, service: RunningService, seconds: float) -> None:
    capacity = capacity_of(folder, service.url, seconds)
    rows = []
    for factor in FACTORS:
        found = Load(folder, service.url, rate=factor * capacity, seconds=seconds).result()
        good = len(found["seconds"]) / seconds
        p99 = float(np.quantile(found["seconds"], 0.99)) if found["seconds"] else float("nan")
        rows.append({"offered": round(factor * capacity, 1), "good": round(good, 1), "p99_s": round(p99, 2)})
        print(f"# {json.dumps(rows[-1] | found['statuses'])}", file=sys.stderr, flush=True)
        unexpected = set(found["statuses"]) - {"200", "429", "503"}
        if unexpected:
            raise SystemExit(f"answers other than 200, 429 and 503: {found['statuses']}")
    best = max(row["good"] for row in rows)
    worst = min(row["good"] for row, factor in zip(rows, FACTORS, strict=True) if factor > 1)
    on_event("goodput_above_capacity", worst / best, "x", "the best rate of the same service", ">= 0.9", rows=rows)


def swap(folder: Path, service: RunningService, registry: Path, seconds: float) -> None:
    capacity = capacity_of(folder, service.url, seconds)
    ratios, seen = [], []
    for number in (2, 1, 2):
        before = Load(folder, service.url, rate=capacity / 2, seconds=SWAP_S).result()
        during = Load(folder, service.url, rate=capacity / 2, seconds=SWAP_S)
        time.sleep(WARM_S + SWAP_S / 3)
        Registry(str(registry)).promote("vit", "prod", number)
        found = during.result()
        if set(before["statuses"]) | set(found["statuses"]) != {"200"}:
            raise SystemExit(f"failed requests: {before['statuses']}, {found['statuses']}")
        until_version(service.url, number)
        p99 = [float(np.quantile(one["seconds"], 0.99)) for one in (before, found)]
        ratios.append(p99[1] / p99[0])
        seen.append([round(1000 * one) for one in p99])
        time.sleep(6)
    peer = f"the {SWAP_S:.0f} seconds before"
    on_event("p99_during_swap", statistics.median(ratios), "x", peer, "<= 1.5", p99_ms=seen, failed=0)


def until_version(url: str, number: int) -> None:
    end = time.monotonic() + 60
    while httpx.get(f"{url}/v1/models", timeout=30).json()["data"][0]["version"] != number:
        if time.monotonic() > end:
            raise SystemExit(f"version {number} is not served after a minute")
        time.sleep(0.5)


class Watch(threading.Thread):
    """Record the number of replicas of the image tower over time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, int]] = []
        self.begin, self.ended = time.monotonic(), threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            states = serve.status().applications["raylens"].deployments["vit-image"].replica_states
            self.seen.append((time.monotonic() - self.begin, states.get("RUNNING", 0)))


def scaling(folder: Path, service: RunningService, seconds: float, plot: Path) -> None:
    capacity = capacity_of(folder, service.url, seconds)
    watch = Watch()
    watch.start()
    spans = []
    for rate, length in ((0.3, seconds), (1.3, 3 * seconds), (0.2, 3 * seconds)):
        began = time.monotonic() - watch.begin
        found = Load(folder, service.url, rate=rate * capacity, seconds=length, warm=0.0).result()
        spans.append((began, began + length, rate * capacity, found))
    watch.ended.set()
    watch.join()
    counts = [count for _, count in watch.seen]
    step, end = spans[1][0], spans[1][1]
    up = next((at - step for at, count in watch.seen if at > step and count == max(counts)), float("nan"))
    down = next((at - end for at, count in watch.seen if at > end and count == 1), float("nan"))
    draw(watch.seen, spans, plot)
    figures = {"replicas": [min(counts), max(counts), counts[-1]], "back_to_one_s": round(down, 1)}
    on_event(
        "seconds_to_most_replicas", up, "s", "a step from 0.3 to 1.3 times one replica's capacity", "<= 30", **figures
    )


def draw(seen: list[tuple[float, int]], spans: list[Any], plot: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 4.5), sharex=True, layout="constrained")
    above.step([at for at, _ in seen], [count for _, count in seen], where="post", color="#1f77b4")
    above.set_ylabel("image replicas")
    above.set_ylim(0, max(count for _, count in seen) + 0.5)
    for began, ended, rate, found in spans:
        good = len(found["seconds"]) / (ended - began)
        below.plot([began, ended], [rate, rate], color="#999999", linestyle="--")
        below.plot([began, ended], [good, good], color="#2ca02c", linewidth=3)
    below.set_ylabel("requests per second")
    below.set_xlabel("seconds; dashed: offered, green: answered well")
    figure.savefig(plot, metadata={"Date": None})
    plt.close(figure)


def on_event(claim: str, value: float, unit: str, peer: str, wanted: str, **more: Any) -> None:
    figures = {"claim": claim, "value": round(value, 3), "unit": unit, "peer": peer, "wanted": wanted, **more}
    print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each rate; the step lasts three times as long")
    parser.add_argument("--short", action="store_true", help="six seconds of each: to see that it runs")
    parser.add_argument("--only", choices=["goodput", "swap", "scaling"])
    chosen = parser.parse_args()
    seconds = 6.0 if chosen.short else chosen.seconds
    with tempfile.TemporaryDirectory() as name, session(num_cpus=6):
        tell_machine(worker_niceness())
        folder = Path(name)
        for seed in (1, 2):
            publish(folder / "registry", seed)
        Registry(str(folder / "registry")).promote("vit", "prod", 1)
        bodies = [
            json.dumps({"input": [{"image": f"data:image/jpeg;base64,{base64.b64encode(file).decode()}"}]})
            for file in jpegs(300, seed=4)
        ]
        (folder / "bodies").write_text("\n".join(bodies))
        if chosen.only in (None, "goodput"):
            with started(folder / "registry", 1, max_wait_s=1.0) as service:
                goodput(folder, service, seconds)
        if chosen.only in (None, "swap"):
            with started(folder / "registry", 1) as service:
                swap(folder, service, folder / "registry", seconds)
        if chosen.only in (None, "scaling"):
            with started(folder / "registry", 3, max_wait_s=5.0) as service:
                scaling(folder, service, seconds, folder / "scaling.svg" if chosen.short else PLOT)


if __name__ == "__main__":
    main()
