"""Units: the same pixels whoever makes them, and a bad sample keeps its slot."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylens.data.index import manifest_for
from raylens.data.manifest import Manifest
from raylens.data.plan import Plan
from raylens.data.reader import Layout
from raylens.data.unit import UnitMaker
from raylens.errors import QuarantineError
from raylens.inputs import Preprocess, Tokenizer
from raylens.storage import Store, open_store

MakeShards = Callable[..., Store]
Array = np.ndarray[Any, np.dtype[Any]]


def maker_for(store: Store, tmp_path: Path) -> tuple[UnitMaker, Layout]:
    manifest = manifest_for(store, open_store(tmp_path / "manifests"), lambda items, function: map(function, items))
    return _maker(store, manifest, tmp_path), Layout.of(manifest)


def _maker(store: Store, manifest: Manifest, tmp_path: Path) -> UnitMaker:
    return UnitMaker(
        plan=Plan(len(manifest), manifest.digest, 5, 4, 3),
        data_uri=store.uri,
        run_uri=str(tmp_path / "run"),
        preprocess=Preprocess(size=16),
        tokenizer_json=Tokenizer.train(manifest.captions(), 300).to_json(),
        context=12,
        crop_min_scale=0.5,
        max_pixels=10_000,
    )


def joined(maker: UnitMaker, layout: Layout, cuts: list[int], rows: int) -> dict[str, Array]:
    blocks = [block for start, stop in pairwise(cuts) for block in maker.make(layout, start, stop, rows)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def test_pixels_and_ids_do_not_depend_on_how_the_work_is_cut(make_shards: MakeShards, tmp_path: Path) -> None:
    maker, layout = maker_for(make_shards(30), tmp_path)
    whole = joined(maker, layout, [0, 75], rows=75)
    pieces = joined(maker, layout, [0, 1, 13, 30, 31, 64, 75], rows=4)
    for name, column in whole.items():
        assert np.array_equal(column, pieces[name]), name
    assert whole["image"].shape == (75, 16, 16, 3)
    assert whole["image"].dtype == np.uint8
    assert np.array_equal(whole["position"], np.arange(75))


def test_crops_change_with_the_epoch_and_can_be_switched_off(make_shards: MakeShards, tmp_path: Path) -> None:
    maker, layout = maker_for(make_shards(30), tmp_path)

    def image_of(maker: UnitMaker, sample: int, epoch: int) -> Array:
        block = joined(maker, layout, [epoch * 30, epoch * 30 + 30], rows=30)
        image: Array = block["image"][int(np.flatnonzero(block["sample"] == sample)[0])]
        return image

    differing = sum(not np.array_equal(image_of(maker, s, 0), image_of(maker, s, 1)) for s in range(30))
    assert differing >= 15  # pictures are nearly flat, so some crops look alike
    still = replace(maker, crop_min_scale=1.0)
    assert all(np.array_equal(image_of(still, s, 0), image_of(still, s, 1)) for s in range(5))


def damage(store: Store, layout: Layout, sample: int) -> None:
    """Spoil the pixels of one image, not its header."""
    path = layout.paths[int(layout.columns["shard"][sample])]
    data = bytearray(store.read(path))
    start = int(layout.columns["image_offset"][sample])
    data[start + 33 : start + int(layout.columns["image_length"][sample])] = b"\xff" * (
        int(layout.columns["image_length"][sample]) - 33
    )
    store.write(path, bytes(data))


def test_a_bad_sample_keeps_its_slot_and_is_written_down(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(30)
    maker, layout = maker_for(store, tmp_path)
    good = joined(maker, layout, [0, 30], rows=8)
    damage(store, layout, 11)
    damage(store, layout, 12)
    mended = joined(maker, layout, [0, 30], rows=8)
    bad = np.isin(good["sample"], [11, 12])
    assert np.array_equal(mended["substituted"], bad)
    assert np.array_equal(mended["sample"], good["sample"])
    assert np.array_equal(mended["image"][~bad], good["image"][~bad])
    assert np.array_equal(mended["ids"][bad], np.repeat(good["ids"][good["sample"] == 13], 2, axis=0))
    run = open_store(tmp_path / "run")
    records = [json.loads(line) for info in run.list("quarantine") for line in run.read_text(info.path).splitlines()]
    assert {(record["sample"], record["substitute"]) for record in records} == {(11, 13), (12, 13)}
    assert all("image" in record["reason"] for record in records)
    files = [info.path for info in run.list("quarantine")]
    joined(maker, layout, [0, 30], rows=8)
    assert [info.path for info in run.list("quarantine")] == files


def test_nothing_to_substitute_is_an_error(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(5)
    maker, layout = maker_for(store, tmp_path)
    for sample in range(5):
        damage(store, layout, sample)
    with pytest.raises(QuarantineError, match="cannot be used"):
        joined(maker, layout, [0, 5], rows=5)
