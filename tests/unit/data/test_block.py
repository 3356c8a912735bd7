"""Units: the same pixels whoever makes them, and a bad sample keeps its slot."""

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raylens.config import SourceConfig
from raylens.data.block import BlockMaker
from raylens.data.index import manifest_for
from raylens.data.order import FixedChunkOrder
from raylens.data.pack import NewSample, pack
from raylens.data.plan import Plan
from raylens.data.quarantine import summary
from raylens.data.reader import open_reader
from raylens.errors import QuarantineError
from raylens.inputs import Preprocess, Tokenizer
from raylens.storage import Store, open_store

MakeShards = Callable[..., Store]
Array = np.ndarray[Any, np.dtype[Any]]


def maker_for(store: Store, tmp_path: Path) -> BlockMaker:
    manifest = manifest_for(
        SourceConfig(uri=store.uri), open_store(tmp_path / "manifests"), lambda items, function: map(function, items)
    )
    return BlockMaker(
        plan=Plan((FixedChunkOrder(len(manifest), manifest.digest, 5, 4, 3, len(manifest)),)),
        homes=(manifest.home,),
        run_uri=str(tmp_path / "run"),
        preprocess=Preprocess(size=16),
        tokenizer_json=Tokenizer.train(manifest.captions(), 600).to_json(),
        context=12,
        crop_min_scale=0.5,
        max_pixels=10_000,
    )


COLUMNS = ("image", "ids", "sample", "epoch", "position", "substituted", "truncated")


def joined(maker: BlockMaker, cuts: list[int]) -> dict[str, Array]:
    blocks = [maker.make(start, stop) for start, stop in pairwise(cuts)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in COLUMNS}


def test_pixels_and_ids_do_not_depend_on_how_the_work_is_cut(make_shards: MakeShards, tmp_path: Path) -> None:
    maker = maker_for(make_shards(30), tmp_path)
    whole = joined(maker, [0, 75])
    pieces = joined(maker, [0, 1, 13, 30, 31, 64, 75])
    for name, column in whole.items():
        assert np.array_equal(column, pieces[name]), name
    assert whole["image"].shape == (75, 16, 16, 3)
    assert whole["image"].dtype == np.uint8
    assert np.array_equal(whole["position"], np.arange(75))


def test_crops_change_with_the_epoch_and_can_be_switched_off(make_shards: MakeShards, tmp_path: Path) -> None:
    maker = maker_for(make_shards(30), tmp_path)

    def image_of(maker: BlockMaker, sample: int, epoch: int) -> Array:
        block = joined(maker, [epoch * 30, epoch * 30 + 30])
        image: Array = block["image"][int(np.flatnonzero(block["sample"] == sample)[0])]
        return image

    differing = sum(not np.array_equal(image_of(maker, s, 0), image_of(maker, s, 1)) for s in range(30))
    assert differing >= 15  # pictures are nearly flat, so some crops look alike
    still = replace(maker, crop_min_scale=1.0)
    assert all(np.array_equal(image_of(still, s, 0), image_of(still, s, 1)) for s in range(5))


def damage(store: Store, maker: BlockMaker, sample: int) -> None:
    """Spoil the pixels of one image, not its header; the file's time stays, so that only its content tells."""
    reader = open_reader(maker.homes[0])
    path = Path(store.uri) / reader.shard_path(sample)
    stamp, data, place = path.stat(), bytearray(path.read_bytes()), reader.index[sample]
    start, length = int(place["offset"]), int(place["length"])
    data[start + 33 : start + length] = b"\xff" * (length - 33)
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def test_a_bad_sample_keeps_its_slot_and_is_written_down(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(30)
    maker = maker_for(store, tmp_path)
    good = joined(maker, [0, 30])
    damage(store, maker, 11)
    damage(store, maker, 12)
    mended = joined(maker, [0, 30])
    bad = np.isin(good["sample"], [11, 12])
    assert np.array_equal(mended["substituted"], bad)
    assert np.array_equal(mended["sample"], good["sample"])
    assert np.array_equal(mended["image"][~bad], good["image"][~bad])
    assert np.array_equal(mended["ids"][bad], np.repeat(good["ids"][good["sample"] == 13], 2, axis=0))
    run = open_store(tmp_path / "run")
    records = [row for info in run.list("quarantine") for row in pq.read_table(Path(run.uri) / info.path).to_pylist()]
    assert {(record["key"], record["sample"], record["substitute"]) for record in records} == {
        ("pair-00011", 11, 13),
        ("pair-00012", 12, 13),
    }
    assert all("image" in record["reason"] for record in records)
    assert summary(run) == "2 not an image of a known format (JPEG, PNG, WEBP, GIF, BMP); N bytes"
    files = [info.path for info in run.list("quarantine")]
    joined(maker, [0, 30])
    assert [info.path for info in run.list("quarantine")] == files


def test_nothing_to_substitute_is_an_error(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(5)
    maker = maker_for(store, tmp_path)
    for sample in range(5):
        damage(store, maker, sample)
    with pytest.raises(QuarantineError, match="cannot be used"):
        joined(maker, [0, 5])


def picture(number: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (20, 20), (number, 2 * number, 3 * number)).save(sink, "PNG")
    return sink.getvalue()


def test_a_caption_is_drawn_anew_in_each_epoch(tmp_path: Path) -> None:
    store = open_store(tmp_path / "several")
    texts = ["red", "blue", "small house", "old cat"]
    pack((NewSample(f"{n}", picture(n), "png", texts[0], {"captions": texts}) for n in range(50)), store)
    maker = maker_for(store, tmp_path)
    tokenizer = Tokenizer.from_json(maker.tokenizer_json)
    drawn = [joined(maker, [epoch * 50, epoch * 50 + 50]) for epoch in range(4)]
    counts = np.zeros(4)
    for block in drawn:
        for number, ids in enumerate(tokenizer(texts, 12)[0]):
            counts[number] += (block["ids"] == ids).all(axis=1).sum()
    assert counts.sum() == 200
    assert counts.min() > 25  # 50 expected, standard deviation 6
    again = joined(maker, [100, 150])
    assert np.array_equal(again["ids"], drawn[2]["ids"])


INTERRUPTED = """
import _thread, pickle, sys, threading, time

def interrupt():
    while "torch.nn" not in sys.modules:
        time.sleep(0.001)
    _thread.interrupt_main()

with open(sys.argv[1], "rb") as file:
    maker = pickle.load(file)
threading.Thread(target=interrupt).start()
try:
    maker.make(0, 8)
except KeyboardInterrupt:
    print(len(maker.make(0, 8)["image"]))
"""


def test_a_task_that_is_cancelled_while_torch_is_imported_leaves_a_process_that_works(
    make_shards: MakeShards, tmp_path: Path
) -> None:
    """As Ray cancels it, and gives the process to the next stream."""
    (tmp_path / "maker").write_bytes(pickle.dumps(maker_for(make_shards(8), tmp_path)))
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "maker")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr
