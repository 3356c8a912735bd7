"""The stream of raylens, as a training worker consumes it: Ray Data, one split, batches of arrays of its own.

    python -m benchmarks.streaming.raylens_stream rate|unpaused|memory SHARDS HOME TOKENIZER.json WARM WINDOW

HOME keeps the manifest. ``unpaused`` lets Ray Data's executor spin as it does by itself. ``memory`` goes through the
data for some epochs instead, and prints what all processes together held at the end of each. Prints a JSON object.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.machine import worker_niceness
from benchmarks.streaming.rate import steady_rate
from raylens.cluster import session
from raylens.config import DataConfig, RunConfig, SourceConfig
from raylens.data import Manifest
from raylens.data.block import BlockMaker
from raylens.data.index import manifest_for
from raylens.data.plan import build_plan
from raylens.data.stream import execution_options, ray_map, training_stream
from raylens.inputs import Preprocess, Tokenizer
from raylens.storage import open_store
from raylens.train.loop.batch import batches

SIZE, BATCH, CONTEXT = 224, 256, 77
ENDLESS = 4_000_000
EPOCHS = 24


def maker_for(manifest: Manifest, shards: str, tokenizer: Path) -> BlockMaker:
    config = RunConfig(name="benchmark", data=DataConfig(train=(SourceConfig(uri=shards),)))
    return BlockMaker(
        plan=build_plan(config, [manifest]),
        homes=(manifest.home,),
        run_uri=f"{manifest.home}/run",
        preprocess=Preprocess(size=SIZE),
        tokenizer_json=tokenizer.read_text(),
        context=CONTEXT,
        crop_min_scale=config.data.crop_min_scale,
        max_pixels=config.data.max_pixels,
    )


def sizes(maker: BlockMaker, stop: int, *, paused: bool = True) -> Iterator[int]:
    stream = training_stream(maker, start=0, stop=stop, worker_batch=BATCH)
    if not paused:
        stream.context.custom_execution_callback_classes = []
    stream.context.execution_options = execution_options()
    (shard,) = stream.streaming_split(1, equal=True)
    for batch in batches(shard, BATCH):
        yield len(batch.image_BSSC)


def held_mib() -> float:
    """Memory that is each process's own. The objects on their way lie in shared memory, whose size is fixed."""
    everyone = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(process.memory_full_info().uss for process in everyone) / 2**20


def memory(maker: BlockMaker, epoch: int) -> dict[str, list[float]]:
    held: list[float] = []
    seen = 0
    for size in sizes(maker, EPOCHS * epoch // BATCH * BATCH):
        seen += size
        if seen // epoch > (seen - size) // epoch:
            held.append(round(held_mib()))
    return {"mib": held}


def main() -> None:
    what, shards, home, tokenizer, warm, window = sys.argv[1:]
    with session():
        manifest = manifest_for(SourceConfig(uri=shards), open_store(home), ray_map)
        if not Path(tokenizer).exists():
            Path(tokenizer).write_text(Tokenizer.train(manifest.captions(), 800).to_json())
        maker, began = maker_for(manifest, shards, Path(tokenizer)), time.monotonic()
        if what == "memory":
            result: object = memory(maker, len(manifest))
        else:
            result = steady_rate(
                sizes(maker, ENDLESS // BATCH * BATCH, paused=what == "rate"), began, float(warm), float(window)
            )
            result |= {"niceness": worker_niceness()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
