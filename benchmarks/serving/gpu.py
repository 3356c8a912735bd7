"""A replica's batcher on one GPU: images and texts per second, and the cosine of its embeddings to fp32 on the CPU.

    python -m benchmarks.serving.gpu [--seconds 4] [--precisions auto fp32]

The model is ViT-B/32 with random weights, as in throughput.py. `tower` is the bare tower on prepared batches, without
decoding; `replica` embeds requests of several items from several callers at the same time, with decoding and tokenising
in the same process. No two items of a round are alike, and nothing is cached. It prints one JSON object per case.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.serving.model import captions, jpegs, make_model
from raylens.registry import Encoder, Registry
from raylens.serve.config import ServeSettings
from raylens.serve.messages import Embedded, Embeddings, ImageFile, Item, Text
from raylens.serve.replica.replica import EncoderReplica

BATCHES = (1, 16, 64, 256)
CALLERS, ITEMS, CHECKED = 32, 32, 64
KINDS = ("text", "image")


def tower_rate(
    encode: Callable[[np.ndarray[Any, Any]], torch.Tensor], ready: np.ndarray[Any, Any], seconds: float
) -> float:
    """Return items per second; results are copied to the host, so that each call waits for the GPU."""
    for _ in range(3):
        encode(ready)
    calls, end = 0, (began := time.perf_counter()) + seconds
    while time.perf_counter() < end:
        encode(ready)
        calls += 1
    return calls * len(ready) / (time.perf_counter() - began)


def tower_rates(encoder: Encoder, items: dict[str, list[Item]], seconds: float) -> dict[str, dict[int, float]]:
    pixels = np.stack([encoder.preprocess(one.file) for one in items["image"][:64] if isinstance(one, ImageFile)])
    ids, _ = encoder.tokenizer([one.text for one in items["text"][:64] if isinstance(one, Text)], encoder.context)
    return {
        kind: {size: tower_rate(encode, np.resize(ready, (size, *ready.shape[1:])), seconds) for size in BATCHES}
        for kind, encode, ready in (("text", encoder.encode_ids, ids), ("image", encoder.encode_pixels, pixels))
    }


async def replica_rate(replica: EncoderReplica, items: Sequence[Item], seconds: float) -> float:
    requests = cycle([items[at : at + ITEMS] for at in range(0, len(items), ITEMS)])
    done, end = 0, time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            answer = await replica.embed(next(requests))
            assert isinstance(answer, Embeddings), answer
            done += len(answer.results)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return done / (time.perf_counter() - began)


async def vectors(replica: EncoderReplica, items: Sequence[Item]) -> torch.Tensor:
    answer = await replica.embed(items)
    assert isinstance(answer, Embeddings), answer
    found = [torch.from_numpy(one.vector_D) for one in answer.results if isinstance(one, Embedded)]
    return torch.stack(found)


async def of_replica(
    replica: EncoderReplica, items: dict[str, list[Item]], exact: dict[str, torch.Tensor], seconds: float
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "precision": {kind: one.precision for kind, one in (await replica.describe()).towers.items()}
    }
    for kind in KINDS:
        cosine = (await vectors(replica, items[kind][:CHECKED]) * exact[kind]).sum(dim=1)
        rate = await replica_rate(replica, items[kind], seconds)
        found[kind] = {"least_cosine": float(cosine.min()), "per_second": round(rate, 1)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--precisions", nargs="+", default=["auto", "fp32"], choices=["auto", "fp32", "bf16"])
    parser.add_argument("--items", type=int, default=2048, help="texts, and images, that take turns")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu only shows that all of it runs")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("serving_gpu: torch finds no CUDA device; run it on a machine with a GPU")
    threads = max(1, (os.cpu_count() or 1) - 1)
    settings = ServeSettings(max_batch=256, cache_bytes=0, decode_threads=threads)
    items: dict[str, list[Item]] = {
        "text": [Text(one) for one in captions(options.items, seed=1)],
        "image": [ImageFile(one) for one in jpegs(options.items, seed=2)],
    }
    where = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "registry", Path(folder) / "foreign")
        registry = Registry(str(Path(folder) / "registry"))
        _, encoder = registry.load("vit@1")
        exact = {
            "text": encoder.encode_texts([one.text for one in items["text"][:CHECKED] if isinstance(one, Text)]),
            "image": encoder.encode_images(
                [one.file for one in items["image"][:CHECKED] if isinstance(one, ImageFile)]
            ),
        }
        for precision in options.precisions:
            replica = EncoderReplica(
                registry.store.uri, "vit@1", settings, precision=precision, cpus=threads, device=options.device
            )
            found = asyncio.run(of_replica(replica, items, exact, options.seconds))
            rates = tower_rates(replica._current._encoder, items, options.seconds / len(BATCHES))
            figures = {"claim": f"replica_{precision}", **found, "tower": rates, "device": where}
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
