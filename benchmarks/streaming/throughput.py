"""Images a second from tars of JPEGs to batches, against webdataset and against the bare decode loop.

    python -m benchmarks.streaming.throughput     # `make benchmarks` prepares the peer's environment first

Side by side on the same shards (photographs, 512 x 512 and 1024 x 768, JPEG quality 90, 12-word captions; 224-pixel
random crops, tokenised), all cores for each, in turns; a claim is the median over rounds of the ratio within a round:

    stream      raylens, as a training worker consumes it: Ray Data, one split (raylens_stream.py)
    webdataset  webdataset 1.0.2 in a torch DataLoader, with OpenCLIP's transforms in Pillow (webdataset_peer.py)
    bare        decoding in draft mode and cropping with Pillow, from memory, a process a core (bare.py)
    own         the same loop with the function that the stream uses, which resamples faster than Pillow does

Prints one JSON object a claim. Linux only.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import tell_machine
from benchmarks.streaming import shards as photographs

ROOT = Path(__file__).parents[2]
DATA = ROOT / "benchmarks" / ".data"
PEER = ROOT / ".peers" / "webdataset" / "bin" / "python"
ROUNDS = 3
WARM, WINDOW, BARE = 10.0, 25.0, 8.0
FLAT_PERCENT = 5.0

Round = dict[str, dict[str, float]]


def run(python: Path | str, program: str, *arguments: object) -> Any:
    command = [str(python), "-m", f"benchmarks.streaming.{program}", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout.splitlines()[-1])


def one_round(shards: Path, tokenizer: Path) -> Round:
    found = {
        "stream": run(sys.executable, "raylens_stream", "rate", shards, DATA, tokenizer, WARM, WINDOW),
        "webdataset": run(PEER, "webdataset_peer", shards, tokenizer, WARM, WINDOW),
    }
    for name, kind in (("bare", "pillow"), ("own", "raylens")):
        found[name] = run(sys.executable, "bare", shards, kind, BARE)
    print(f"# {shards.name}: {found}", file=sys.stderr, flush=True)
    return found


def claim(name: str, values: list[float], unit: str, peer: str, wanted: str, **more: object) -> None:
    figures = {"claim": name, "value": round(statistics.median(values), 2), "unit": unit, "peer": peer}
    spread = [round(min(values), 2), round(max(values), 2)]
    print(json.dumps({**figures, "wanted": wanted, "spread": spread, **more}), flush=True)


def ratios(rounds: list[Round], peer: str) -> list[float]:
    return [each["stream"]["images_per_second"] / each[peer]["images_per_second"] for each in rounds]


def per_core(rounds: list[Round]) -> dict[str, float]:
    cores = os.cpu_count() or 1
    return {
        name: round(statistics.median(each[name]["images_per_second"] for each in rounds) / cores) for name in rounds[0]
    }


def main() -> None:
    if not PEER.exists():
        raise SystemExit(f"no {PEER}: run `make .peers/webdataset` first")
    tokenizer, folders = DATA / "tokenizer.json", {}
    for name in photographs.SIZES:
        folders[name] = photographs.make_shards(DATA, name)
    found: dict[str, list[Round]] = {name: [] for name in folders}
    for _ in range(ROUNDS):
        for name, shards in folders.items():
            found[name].append(one_round(shards, tokenizer))
    tell_machine(int(found["512"][0]["stream"]["niceness"]))
    for name, rounds in found.items():
        figures = {"images_per_second_per_core": per_core(rounds)}
        claim(f"vs_webdataset_{name}", ratios(rounds, "webdataset"), "x", "webdataset 1.0.2", ">= 2.2", **figures)
    shares = [ratios(rounds, "bare") for rounds in found.values()]
    worst = min(shares, key=statistics.median)
    claim("share_of_bare_decode", worst, "x", "Pillow in draft mode, from memory", ">= 0.9")
    shares = [ratios(rounds, "own") for rounds in found.values()]
    claim("share_of_own_decode", min(shares, key=statistics.median), "x", "the stream's own decoding, from memory", "")
    first = [each["stream"]["first_batch_seconds"] for rounds in found.values() for each in rounds]
    peers = [each["webdataset"]["first_batch_seconds"] for rounds in found.values() for each in rounds]
    peer = f"webdataset 1.0.2: {statistics.median(peers):.1f} s"
    claim("time_to_first_batch", first, "s", peer, "stated")
    mib = run(sys.executable, "raylens_stream", "memory", folders["512"], DATA, tokenizer, 0, 0)["mib"]
    # Ten epochs apart, after every process has come to all of its work; medians of five, because blocks begin and end.
    growth = 100 * (statistics.median(mib[-5:]) / statistics.median(mib[-15:-10]) - 1)
    claim("memory_growth_10_epochs", [growth], "%", "itself ten epochs before", f"<= {FLAT_PERCENT:g}", mib=mib)


if __name__ == "__main__":
    main()
