"""Parquet files with images: what is walked is read again, and what is broken is named."""

import contextlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.data.formats.base import Columns, Kind, RawSample
from raylens.data.formats.parquet import PARQUET, _footer
from raylens.errors import DamagedError, ManifestError, StorageError
from raylens.storage import ObjectInfo, Store, open_store

USUAL = Columns()


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Small pictures would do, but to Parquet any bytes are images; lengths differ."""
    return [bytes([number % 256]) * (number % 90 + 1) for number in range(300)]


def written(folder: Path, table: pa.Table, **options: Any) -> tuple[Store, ObjectInfo]:
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "a.parquet", **options)
    store = open_store(folder)
    return store, store.info("a.parquet")


def walked(store: Store, shard: ObjectInfo, columns: Columns = USUAL) -> list[RawSample]:
    return list(PARQUET.walk(store, shard, columns))


def reread(store: Store, shard: ObjectInfo, samples: list[RawSample], columns: Columns = USUAL) -> list[Any]:
    locations = [sample.location for sample in samples]
    return [
        (pair.image, pair.captions) for pair in PARQUET.read(store, shard, columns, locations, [b""] * len(locations))
    ]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, images: list[bytes]) -> tuple[Store, ObjectInfo, list[RawSample]]:
    """Row groups of 130 rows, so that they are decoded in several batches."""
    table = pa.table(
        {
            "image": pa.array([{"bytes": image, "path": None} for image in images]),
            "captions": [[f" one of {number} ", "", "two"] for number in range(len(images))],
            "label": list(range(len(images))),
        }
    )
    store, shard = written(tmp_path_factory.mktemp("mixed"), table, row_group_size=130)
    return store, shard, walked(store, shard)


def test_walk_gives_what_was_written(mixed: tuple[Store, ObjectInfo, list[RawSample]], images: list[bytes]) -> None:
    _, _, samples = mixed
    assert [sample.image for sample in samples] == images
    assert [sample.captions for sample in samples] == [(f"one of {number}", "two") for number in range(len(images))]
    assert [sample.key for sample in samples][129:131] == ["000000-000129", "000001-000000"]
    assert {sample.location.kind for sample in samples} == {Kind.ROW}
    assert samples[131].location.offset == 1 << 32 | 1


@given(chosen=st.sets(st.integers(0, 299), max_size=40))
def test_any_ascending_choice_is_read_again(mixed: tuple[Store, ObjectInfo, list[RawSample]], chosen: set[int]) -> None:
    store, shard, samples = mixed
    some = [samples[number] for number in sorted(chosen)]
    assert reread(store, shard, some) == [(sample.image, sample.captions) for sample in some]


def large(values: list[Any]) -> pa.Array:
    return pa.array(values, pa.large_list(pa.large_string()))


@pytest.mark.parametrize(
    ("table", "captions"),
    [
        ({"jpg": [b"x"], "txt": ["words"]}, ("words",)),
        ({"png": pa.array([b"x"], pa.large_binary()), "TEXT": pa.array(["words"], pa.large_string())}, ("words",)),
        ({"image_bytes": [b"x"], "caption": pa.array(["words"]).dictionary_encode()}, ("words",)),
        ({"image": pa.array([b"x"]).dictionary_encode(), "caption": ["words"]}, ("words",)),
        ({"image": pa.array([b"x"], pa.large_binary()).dictionary_encode(), "caption": ["words"]}, ("words",)),
        ({"image": pa.array([b"x"], pa.binary_view()), "caption": ["words"]}, ("words",)),
        ({"image": pa.array([{"bytes": b"x"}], pa.struct({"bytes": pa.binary_view()})), "txt": ["a"]}, ("a",)),
        ({"image": [b"x"], "sentences": large([["a", None, "b"]])}, ("a", "b")),
        ({"image": ["a.png"], "content": [b"x"], "caption": [7], "title": ["words"]}, ("words",)),
        ({"image": [b"x"], "caption": pa.array([b"\xff"]).view(pa.string())}, ("\ufffd",)),
        ({"image": [b"x"], "caption": pa.array([None], pa.string())}, None),
        ({"image": [b"x"], "caption": [""]}, ()),
        ({"image": [b"x"], "caption": pa.array([[]], pa.list_(pa.string()))}, ()),
    ],
)
def test_columns_are_found_by_usual_names_and_types(
    tmp_path: Path, table: dict[str, Any], captions: tuple[str, ...] | None
) -> None:
    (sample,) = walked(*written(tmp_path, pa.table(table)))
    assert (sample.image, sample.captions) == (b"x", captions)


def test_columns_that_cannot_serve_are_told_with_their_type(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([["x"] * 3], pa.list_(pa.string())), "caption": ["y"]})
    with pytest.raises(ManifestError, match=r"its columns are image \(list<element: string>, no images\)"):
        walked(*written(tmp_path, table))


def test_given_columns_come_first(tmp_path: Path) -> None:
    table = pa.table({"image": [b"no"], "mine": [b"yes"], "caption": ["no"], "Words": ["yes"]})
    store, shard = written(tmp_path, table)
    columns = Columns("mine", "Words")
    samples = walked(store, shard, columns)
    assert reread(store, shard, samples, columns) == [(b"yes", ("yes",))]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            Columns(),
            r"a\.parquet.*set image_column; its columns are picture, words \(string, no images\), label \(int64, no i",
        ),
        (Columns("picture"), r"set caption_column; its columns are picture \(binary, no captions\), words, label"),
        (Columns("image", "words"), r"image_column = 'image' is not among its columns"),
        (Columns("label", "words"), r"image_column = 'label' does not hold images"),
        (Columns("twice", "words"), r"image_column = 'twice' does not hold images"),
    ],
)
def test_missing_columns_are_named(tmp_path: Path, columns: Columns, says: str) -> None:
    arrays = [pa.array([b"x"]), pa.array(["x"]), pa.array([1]), pa.array([b"x"]), pa.array([b"y"])]
    store, shard = written(tmp_path, pa.table(arrays, names=["picture", "words", "label", "twice", "twice"]))
    with pytest.raises(ManifestError, match=says):
        walked(store, shard, columns)


@pytest.mark.parametrize(
    ("extra", "keys"),
    [
        ({"key": ["a", "b", "a"], "id": [7, 8, 9]}, ["7", "8", "9"]),
        ({"__key__": ["a", "b", "c"]}, ["a", "b", "c"]),
        ({"uid": ["a", None, "c"]}, ["000000-000000", "000000-000001", "000001-000000"]),
        ({"id": [0.5, 1.5, 2.5]}, ["000000-000000", "000000-000001", "000001-000000"]),
    ],
)
def test_keys(tmp_path: Path, extra: dict[str, Any], keys: list[str]) -> None:
    table = pa.table({"image": [b"x"] * 3, "caption": ["y"] * 3, **extra})
    assert [sample.key for sample in walked(*written(tmp_path, table, row_group_size=2))] == keys


def test_rows_without_an_image_have_none(tmp_path: Path) -> None:
    images = pa.array([{"bytes": b"x"}, None, {"bytes": None}, {"bytes": b""}])
    store, shard = written(tmp_path, pa.table({"image": images, "caption": ["a", "b", "c", "d"]}))
    samples = walked(store, shard)
    assert [sample.image for sample in samples] == [b"x", None, None, None]
    assert reread(store, shard, samples[:1]) == [(b"x", ("a",))]


def test_a_file_without_rows_has_no_samples(tmp_path: Path) -> None:
    assert (
        walked(*written(tmp_path, pa.table({"image": pa.array([], pa.binary()), "caption": pa.array([], "str")}))) == []
    )


@pytest.mark.parametrize("keep", [0, 7, 500, -1])
def test_a_truncated_file_is_named(tmp_path: Path, images: list[bytes], keep: int) -> None:
    store, _ = written(tmp_path, pa.table({"image": images, "caption": ["x"] * len(images)}))
    store.write("a.parquet", store.read("a.parquet")[:keep])
    with pytest.raises(DamagedError, match=r"shard a\.parquet of .* is truncated or damaged: [^\n]+$"):
        walked(store, store.info("a.parquet"))


def test_damage_in_the_middle_keeps_what_came_before(tmp_path: Path, images: list[bytes]) -> None:
    table = pa.table({"image": images, "caption": ["x"] * 300, "id": range(300)})
    store, _ = written(tmp_path, table, row_group_size=100, write_page_checksum=True)
    data = bytearray(store.read("a.parquet"))
    middle = pq.read_metadata(tmp_path / "a.parquet").row_group(1).column(0)
    data[middle.data_page_offset + middle.total_compressed_size // 2] ^= 255
    store.write("a.parquet", bytes(data))
    found: list[RawSample] = []
    with pytest.raises(DamagedError, match=r"a\.parquet"):
        found.extend(PARQUET.walk(store, store.info("a.parquet"), USUAL))
    assert [sample.image for sample in found] == images[:100]
    assert [sample.key for sample in found] == [str(number) for number in range(100)]


@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
def test_any_byte_that_is_wrong_is_damage_or_unseen(
    tmp_path_factory: pytest.TempPathFactory, images: list[bytes], at: int, value: int
) -> None:
    table = pa.table({"image": images[:40], "caption": [["a", "b"]] * 40, "id": range(40)})
    store, _ = written(tmp_path_factory.mktemp("byte"), table, row_group_size=20)
    data = bytearray(store.read("a.parquet"))
    data[at % len(data)] = value
    store.write("a.parquet", bytes(data))
    with contextlib.suppress(ManifestError):
        assert len(walked(store, store.info("a.parquet"))) <= 40


def test_a_file_that_changed_is_an_error(tmp_path: Path, images: list[bytes]) -> None:
    store, shard = written(tmp_path, pa.table({"image": images, "caption": ["x"] * 300}), row_group_size=100)
    samples = walked(store, shard)
    _, other = written(tmp_path, pa.table({"image": images[1:], "caption": ["x"] * 299}), row_group_size=100)
    with pytest.raises((ManifestError, StorageError), match=r"a\.parquet"):
        reread(store, shard, samples)  # by its version
    with pytest.raises(ManifestError, match=r"an image of 2 bytes in row 0 of row group 0, not one of 1"):
        reread(store, other, samples)
    with pytest.raises(ManifestError, match=r"has no row 99 in row group 2"):
        reread(store, other, samples[200:])
    _, empty = written(tmp_path, pa.table({"image": pa.array([None] * 300, "binary"), "caption": ["x"] * 300}))
    with pytest.raises(ManifestError, match=r"has no image in row 0"):
        reread(store, empty, samples[:1])
    with pytest.raises(ManifestError, match=r"has no row 99 in row group 1"):
        reread(store, empty, samples[100:200])


def test_the_footer_is_parsed_once(mixed: tuple[Store, ObjectInfo, list[RawSample]]) -> None:
    store, shard, samples = mixed
    _footer.cache_clear()
    for sample in samples[:5]:
        reread(open_store(store.uri), shard, [sample])
    assert _footer.cache_info().misses == 1


def test_only_rows_and_columns_that_are_wanted_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = [bytes([number]) * 10_000 for number in range(40)]
    table = pa.table({"image": noise, "caption": ["x"] * 40, "other": noise})
    store, shard = written(tmp_path, table, row_group_size=10, compression="none", use_dictionary=False)
    samples = walked(store, shard)
    read = count_bytes(store, monkeypatch)
    reread(store, shard, [samples[11], samples[13]])
    assert 10 * len(noise[0]) < sum(read) < 12 * len(noise[0])


def count_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the reads of files that are opened from now on."""
    sizes: list[int] = []
    original: Any = type(store).open_file

    def opened(self: Store, *arguments: Any) -> Any:
        return Counting(original(self, *arguments))

    class Counting:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def __enter__(self) -> "Counting":
            return self

        def __exit__(self, *_: object) -> None:
            self._stream.close()

        def read(self, size: int = -1) -> bytes:
            data: bytes = self._stream.read(size)
            sizes.append(len(data))
            return data

    monkeypatch.setattr(type(store), "open_file", opened)
    return sizes


def test_select_leaves_metadata_beside_tars_alone() -> None:
    def named(*paths: str) -> list[str]:
        return [info.path for info in PARQUET.select([ObjectInfo(path, 1, "v") for path in paths])]

    assert named("a.parquet", "b/c.parquet", "d.txt", "e.parquet.bak") == ["a.parquet", "b/c.parquet"]
    assert named("00000.parquet", "00000.tar", "other.parquet") == []
