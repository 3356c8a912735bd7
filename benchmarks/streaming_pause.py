"""What the pauses of Ray Data's executor cost a run that its data bounds: the stream with and without them.

    python benchmarks/streaming_pause.py [--rounds 3]

The stream of streaming.py on its shards of 512 x 512 pixels, as fast as the cores make it, in turns. A run that its
devices bound gains by the pauses; see train_loop.py, case device_bound. Prints one JSON object a claim.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import streaming_data
from machine import tell_machine

HERE = Path(__file__).parent
DATA = HERE / ".data"
WARM, WINDOW = 10.0, 25.0


def rate(kind: str, shards: Path) -> dict[str, Any]:
    """Of ``rate`` or ``unpaused``, see streaming_ours.py."""
    command = [sys.executable, HERE / "streaming_ours.py", kind, shards, DATA, DATA / "tokenizer.json", WARM, WINDOW]
    done = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    shards = streaming_data.make_shards(DATA, "512")
    pairs = [(rate("rate", shards), rate("unpaused", shards)) for _ in range(rounds)]
    tell_machine(int(pairs[0][0]["niceness"]))
    ratios = [ours["images_per_second"] / unpaused["images_per_second"] for ours, unpaused in pairs]
    figures = {
        "claim": "rate_over_unpaused", "value": round(statistics.median(ratios), 3), "unit": "x",
        "peer": "the same stream without pauses", "wanted": ">= 0.97",
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "images_per_second": [[round(side["images_per_second"], 1) for side in pair] for pair in pairs],
    }  # fmt: skip
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
