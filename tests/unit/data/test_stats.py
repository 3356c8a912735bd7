"""Statistics of a manifest, against the same counted in the plainest way."""

import hashlib
import json
import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylens.data.manifest import SCHEMA
from raylens.data.stats import collect as collecting
from raylens.data.stats import sketches
from raylens.data.stats.collect import ASPECTS, Stats, collect
from raylens.data.stats.histogram import QUANTILE_ERROR, Summary
from raylens.errors import ManifestError

Row = dict[str, Any]
PERCENTS = (1, 5, 25, 50, 75, 95, 99)


def row(shard: int = 0, image: object = 0, text: object = 0, **values: object) -> Row:
    plain: Row = {
        "shard": shard, "key": "k", "width": 300, "height": 200, "image_length": 1000, "caption_count": 1,
        "caption_length": 20, "image_sha256": hashlib.sha256(str(image).encode()).digest(),
        "caption_hash": hashlib.sha256(str(text).encode()).digest()[:8], "reason": None,
    }  # fmt: skip
    return plain | values


def rejected(reason: str, shard: int | None = 0) -> Row:
    return {**dict.fromkeys(row()), "shard": shard, "reason": reason}


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([SCHEMA.field(name) for name in row()]))


def random_rows(count: int, seed: int) -> list[Row]:
    draw = np.random.default_rng(seed)
    return [
        row(
            int(draw.integers(5)), int(draw.integers(count)), int(draw.integers(count // 4)),
            width=int(draw.lognormal(6, 0.7)) + 1, height=int(draw.lognormal(6, 0.7)) + 1,
            image_length=int(draw.lognormal(10, 2)), caption_count=int(draw.integers(1, 6)),
            caption_length=int(draw.lognormal(4, 1)),
        )
        for _ in range(count)
    ]  # fmt: skip


def seen(summary: Summary | None) -> Summary:
    assert summary is not None
    return summary


def widths(values: list[int]) -> Summary:
    return seen(collect([table([row(width=value) for value in values])]).width)


def hashed(ids: "np.ndarray[Any, Any]") -> pa.Table:
    """Rows that differ in their hashes alone, equal for equal ids; made without a loop."""
    words = np.random.default_rng(5).permuted(np.arange(2**20, dtype=np.uint64))[ids] * np.uint64(0x9E3779B97F4A7C15)
    one = table([row()])
    rows = pa.concat_tables([one] * len(ids)).combine_chunks()
    wide = np.repeat(words[:, None], 4, axis=1)
    images = pa.Array.from_buffers(pa.binary(32), len(ids), [None, pa.py_buffer(wide.tobytes())])
    return rows.set_column(rows.column_names.index("image_sha256"), SCHEMA.field("image_sha256"), images)


def test_everything_exact_is_what_plain_counting_finds() -> None:
    rows = random_rows(997, seed=1)
    bad = [rejected("no image", 0)] * 3 + [rejected("not an image", 9)] * 2 + [rejected("no image", None)]
    found = collect([table(rows[:400] + bad), table(rows[400:])])
    assert (found.samples, found.rejected, found.reasons) == (997, 6, {"no image": 4, "not an image": 2})
    assert list(found.reasons) == ["no image", "not an image"]
    shards = [*Counter(one["shard"] for one in rows).values(), 0]
    assert (found.shards, found.per_shard) == (6, (0, float(np.median(shards)), max(shards)))
    sizes = Counter((one["width"], one["height"]) for one in rows)
    assert found.sizes_short == 0
    assert {(size.width, size.height): size.count for size in found.sizes}.items() <= sizes.items()
    assert [size.count for size in found.sizes] == [count for _, count in sizes.most_common(10)]
    assert found.small_share == sum(min(one["width"], one["height"]) < 224 for one in rows) / 997
    for summary, values in numbers_of(found, rows):
        assert (summary.least, summary.most) == (min(values), max(values))
        assert summary.total == pytest.approx(math.fsum(values), rel=1e-12)
        assert summary.mean == pytest.approx(math.fsum(values) / 997, rel=1e-12)


def numbers_of(found: Stats, rows: list[Row]) -> list[tuple[Summary, list[float]]]:
    return [
        (seen(found.image_bytes), [one["image_length"] for one in rows]),
        (seen(found.width), [one["width"] for one in rows]),
        (seen(found.height), [one["height"] for one in rows]),
        (seen(found.pixels), [one["width"] * one["height"] for one in rows]),
        (seen(found.aspect), [one["width"] / one["height"] for one in rows]),
        (seen(found.caption_bytes), [one["caption_length"] for one in rows]),
        (seen(found.captions), [one["caption_count"] for one in rows]),
    ]


def test_quantiles_are_within_the_stated_error_of_numpys() -> None:
    rows = random_rows(5003, seed=2)
    for summary, values in numbers_of(collect([table(rows)]), rows):
        for percent in PERCENTS:
            true = float(np.quantile(values, percent / 100, method="inverted_cdf"))
            assert summary.quantiles[f"p{percent}"] == pytest.approx(true, rel=QUANTILE_ERROR)


@given(st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 300), min_size=1, max_size=60))
def test_quantiles_and_bars_of_any_integers(values: list[int]) -> None:
    summary, ordered = widths(values), sorted(values)
    for percent in PERCENTS:
        true = ordered[-(-percent * len(values) // 100) - 1]
        estimate = summary.quantiles[f"p{percent}"]
        assert abs(estimate - true) <= QUANTILE_ERROR * true
        assert true >= 256 or estimate == true
    bars = summary.histogram
    assert 1 <= len(bars) <= 12
    assert (bars[0].low, bars[-1].high) == (ordered[0], ordered[-1])
    assert all(one.high + 1 == other.low for one, other in pairwise(bars))
    assert [bar.count for bar in bars] == [sum(bar.low <= value <= bar.high for value in values) for bar in bars]


def test_a_few_outliers_do_not_flatten_the_histogram() -> None:
    bars = widths([*range(256, 512)] * 4 + [1, 2**30]).histogram
    assert max(bar.count for bar in bars) < 1026 / 4
    assert sum(bar.count for bar in bars) == 1026


@given(st.lists(st.tuples(st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1)), min_size=1, max_size=40))
def test_aspects_are_counted_at_the_nearest_ratio(sizes: list[tuple[int, int]]) -> None:
    found = seen(collect([table([row(width=width, height=height) for width, height in sizes])]).aspect)
    nearest = [
        min(range(len(ASPECTS)), key=lambda place: abs(math.log(width / height / [*ASPECTS.values()][place])))
        for width, height in sizes
    ]
    assert [bar.count for bar in found.histogram] == [nearest.count(place) for place in range(len(ASPECTS))]
    ordered = sorted(width / height for width, height in sizes)
    for percent in PERCENTS:
        true = ordered[-(-percent * len(sizes) // 100) - 1]
        assert found.quantiles[f"p{percent}"] == pytest.approx(true, rel=QUANTILE_ERROR)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 60), max_size=4), st.integers(0, 1000))
def test_how_rows_are_parted_makes_no_difference(cuts: list[int], seed: int) -> None:
    rows = [*random_rows(57, seed), *[rejected("no image", 3)] * 3]
    whole, borders = table(rows), [0, *sorted(cuts), 60]
    parts = [whole.slice(start, end - start) for start, end in pairwise(borders)]
    one, other = collect([whole]).as_dict(), collect(parts).as_dict()
    # Ratios are no integers: their sum depends on the order in the last digits.
    assert one["aspect"].pop("total") == pytest.approx(other["aspect"].pop("total"))
    assert one["aspect"].pop("mean") == pytest.approx(other["aspect"].pop("mean"))
    assert one == other
    assert collect([pa.concat_tables(parts)]).samples == 57


def test_few_duplicates_are_counted_exactly() -> None:
    rows = random_rows(600, seed=3)
    found = collect([table(rows[:100]), table(rows[100:])])
    for one, name in ((found.duplicate_images, "image_sha256"), (found.duplicate_captions, "caption_hash")):
        copies = Counter(row[name] for row in rows)
        assert one is not None
        assert one.share == pytest.approx(1 - len(copies) / 600)
        assert (one.error, one.fraction, one.samples) == (0.0, 1.0, 600)
        assert (one.distinct, one.most_copies) == (len(copies), max(copies.values()))


@pytest.mark.parametrize("placeholder", [0, 4000])
def test_many_duplicates_are_estimated_within_bounded_memory(monkeypatch: pytest.MonkeyPatch, placeholder: int) -> None:
    monkeypatch.setattr(sketches, "KEPT_HASHES", 2000)
    draw = np.random.default_rng(4)
    ids = np.concatenate([draw.integers(1, 15_000, 20_000), np.zeros(placeholder, dtype=np.int64)])
    draw.shuffle(ids)
    found = collect(hashed(part) for part in np.array_split(ids, 7)).duplicate_images
    assert found is not None
    assert 1000 < found.distinct <= 2000
    assert found.fraction == 1 / 8
    assert 0 < found.error < 0.02
    assert abs(found.share - (1 - len(np.unique(ids)) / len(ids))) < 4 * found.error


def test_which_contents_are_counted_does_not_depend_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "KEPT_HASHES", 100)
    ids = np.random.default_rng(6).integers(0, 900, 3000)
    parts = np.array_split(ids, 11)
    one = collect(hashed(part) for part in parts).duplicate_images
    other = collect(hashed(part) for part in parts[::-1]).duplicate_images
    assert one == other
    assert one is not None
    assert one.samples / one.distinct == pytest.approx(3000 / 900, rel=0.3)


@given(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=80), min_size=1, max_size=6))
def test_sizes_beyond_what_is_kept_fall_short_by_no_more_than_is_said(parts: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketches, "KEPT_SIZES", 5)
        found = collect(table([row(width=value, height=7) for value in part]) for part in parts)
    true = Counter(value for part in parts for value in part)
    assert found.sizes_short <= true.total() / 6
    assert all(size.count <= true[size.width] <= size.count + found.sizes_short for size in found.sizes)
    certain = {value for value, count in true.items() if count > 2 * found.sizes_short}
    assert certain <= {size.width for size in found.sizes} or len(found.sizes) == 10


def test_where_all_sizes_are_as_rare_none_is_called_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "KEPT_SIZES", 5)
    found = collect(table([row(width=width) for width in range(first, first + 4)]) for first in range(1, 36, 4))
    assert found.sizes == ()
    assert found.sizes_short > 0


def test_hashes_are_read_from_where_a_slice_begins() -> None:
    rows = [row(image=number) for number in range(9)]
    sliced = pa.concat_tables([table(rows).slice(3, 2), table(rows).slice(7)])
    first = [int.from_bytes(rows[number]["image_sha256"][:8], "little") for number in (3, 4, 7, 8)]
    assert collecting._hashes(sliced, "image_sha256").tolist() == first


def test_without_samples_there_is_nothing_to_describe() -> None:
    for found in (collect([]), collect([table([])])):
        assert (found.samples, found.rejected, found.shards, found.per_shard) == (0, 0, 0, None)
        assert (found.width, found.small_share, found.duplicate_images, found.sizes) == (None, None, None, ())
    found = collect([table([rejected("no image", 4)])])
    assert (found.samples, found.rejected, found.shards, found.per_shard) == (0, 1, 1, (0, 0.0, 0))


def test_as_dict_is_json_of_plain_values() -> None:
    text = json.dumps(collect([table(random_rows(50, seed=7))]).as_dict(), allow_nan=False)
    back = json.loads(text)
    assert back["samples"] == 50
    assert back["quantile_error"] == QUANTILE_ERROR
    assert set(back["width"]["quantiles"]) == {f"p{percent}" for percent in PERCENTS}
    assert sum(bar["count"] for bar in back["aspect"]["histogram"]) == 50


def test_totals_beyond_a_float_are_exact() -> None:
    parts = [table([row(image_length=2**60 + 1)] * 3)] * 5
    assert seen(collect(parts).image_bytes).total == 15 * (2**60 + 1)


def test_edges_of_zero_are_counted() -> None:
    found = collect([table([row(width=0, height=0), row(width=5, height=0)])])
    assert seen(found.aspect).least == 0.0
    assert seen(found.pixels).quantiles["p99"] == 0
    assert found.small_share == 1.0


@pytest.mark.parametrize("name", ["shard", "width", "image_length", "caption_hash"])
def test_a_usable_sample_without_a_value_is_refused(name: str) -> None:
    with pytest.raises(ManifestError, match=f"1 usable samples have no {name}: index the data set again"):
        collect([table([row(), row() | {name: None}])])
