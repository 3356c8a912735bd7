"""What the pauses of Ray Data's executor cost a run that its data bounds: the stream with and without them.

    python -m benchmarks.streaming.pause [--rounds 3]

The stream of throughput.py on its shards of 512 x 512 pixels, as fast as the cores make it, in turns. A run that its
devices bound gains by the pauses; see benchmarks/train_loop, case device_bound. Prints one JSON object a claim.
"""

import argparse
import sys

from benchmarks.machine import tell_machine
from benchmarks.streaming import shards as photographs
from benchmarks.streaming.throughput import DATA, WARM, WINDOW, claim, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    shards = photographs.make_shards(DATA, "512")
    more = (shards, DATA, DATA / "tokenizer.json", WARM, WINDOW)
    pairs = [
        [run(sys.executable, "raylens_stream", kind, *more) for kind in ("rate", "unpaused")]
        for _ in range(parser.parse_args().rounds)
    ]
    tell_machine(int(pairs[0][0]["niceness"]))
    rates = [[round(side["images_per_second"], 1) for side in pair] for pair in pairs]
    ratios = [paused / unpaused for paused, unpaused in rates]
    claim("rate_over_unpaused", ratios, "x", "the same stream without pauses", ">= 0.97", images_per_second=rates)


if __name__ == "__main__":
    main()
