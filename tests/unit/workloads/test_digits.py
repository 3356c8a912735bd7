"""The quickstart's data: every scan once, as it was scanned, with a true caption."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from raylens.config import SourceConfig
from raylens.data import RawSample, Source
from raylens.evaluate import ClassList
from raylens.storage import open_store
from raylens.workloads.quickstart.digits import CLASSES, SHADES, pack_digits


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[RawSample]]:
    store = open_store(tmp_path_factory.mktemp("digits"))
    pack_digits(store)
    result = {}
    for split in ("train", "heldout"):
        source, shards = Source.open(SourceConfig(uri=(store / split).uri))
        result[split] = [sample for shard in shards for sample in source.walk(shard)]
    return result


def test_every_scan_is_in_one_split(packed: dict[str, list[RawSample]]) -> None:
    numbers = [sample.meta["index"] for samples in packed.values() for sample in samples]
    assert sorted(numbers) == list(range(1797))
    assert len(packed["train"]) == 1441
    assert len(packed["heldout"]) == 356
    for samples in packed.values():
        assert {sample.meta["label"] for sample in samples} == set(range(10))


def test_pixels_are_the_scans(packed: dict[str, list[RawSample]]) -> None:
    scans = load_digits().images
    for sample in packed["train"][::50] + packed["heldout"][::50]:
        assert sample.image
        grey = np.asarray(Image.open(io.BytesIO(sample.image)), dtype=np.float64)
        assert np.array_equal(np.rint((255 - grey) * 16 / 255), scans[sample.meta["index"]])


def test_captions_are_true_and_varied(packed: dict[str, list[RawSample]]) -> None:
    digits = load_digits()
    inks = digits.images.mean(axis=(1, 2))
    borders = np.quantile(inks, [1 / 3, 2 / 3])
    for samples in packed.values():
        for sample in samples:
            assert sample.captions
            words = sample.captions[0].replace("(", " ").replace(")", " ").replace(",", " ").split()
            label, ink = sample.meta["label"], inks[sample.meta["index"]]
            assert label == digits.target[sample.meta["index"]]
            assert CLASSES[label] in words or str(label) in words
            assert not {name for name in CLASSES if name in words} - {CLASSES[label]}
            shade = [word for word in words if word in SHADES]
            assert shade in ([], [SHADES[int(np.searchsorted(borders, ink))]])
    assert len({sample.captions for sample in packed["train"]}) > 100


def test_packing_again_changes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    pack_digits(store)
    before = {info.path: store.read(info.path) for info in store.list()}
    pack_digits(store)
    assert {info.path: store.read(info.path) for info in store.list()} == before
    assert ClassList.read(store / "heldout").classes == CLASSES
