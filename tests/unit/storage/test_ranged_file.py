"""Objects as files that are read by ranges."""

import io
import os
import random
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.errors import ChangedError, NotFoundError, StorageError
from raylens.storage import base
from raylens.storage.base import BLOCK_BYTES, RangedFile
from raylens.storage.local import LocalStore

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 40)),
        st.tuples(st.just("readinto"), st.integers(0, 40)),
        st.tuples(st.just("readall"), st.none()),
        st.tuples(st.sampled_from(["start", "here", "end"]), st.integers(-60, 60)),
    ),
    max_size=30,
)
WHENCE = {"start": 0, "here": 1, "end": 2}


@dataclass(frozen=True)
class Watched(LocalStore):
    """A folder that notes which ranges are read."""

    spans: list[tuple[int, int]] = field(default_factory=list, compare=False)

    def read_range(self, path: str, offset: int, length: int, *, version: str | None = None) -> bytes:
        self.spans.append((offset, length))
        return super().read_range(path, offset, length, version=version)

    @property
    def came(self) -> int:
        return sum(length for _, length in self.spans)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(str(tmp_path))


def opened(store: Watched, path: str) -> RangedFile:
    info = store.info(path)
    return store.open_file(path, info.size, info.version)


def step(file: io.RawIOBase | io.BytesIO, act: str, number: int | None) -> object:
    """What a step gives, or the kind of its error."""
    try:
        if act in WHENCE:
            assert number is not None
            return file.seek(number, WHENCE[act])
        if act == "readinto":
            buffer = bytearray(number or 0)
            return file.readinto(buffer), bytes(buffer)
        if act == "readall":
            return file.readall() if isinstance(file, io.RawIOBase) else file.read()
        return file.read(-1 if number is None else number)
    except ValueError as error:
        return type(error)


@given(data=st.binary(max_size=100), steps=STEPS, block=st.integers(1, 40), smallest=st.integers(1, 40))
def test_any_steps_are_as_in_memory(
    tmp_path_factory: pytest.TempPathFactory,
    data: bytes,
    steps: list[tuple[str, int | None]],
    block: int,
    smallest: int,
) -> None:
    store = Watched(str(tmp_path_factory.getbasetemp()))
    store.write("x", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK_BYTES", block)
        patch.setattr(base, "SMALLEST_BYTES", min(block, smallest))
        with opened(store, "x") as file, io.BytesIO(data) as wanted:
            for act, number in steps:
                assert step(file, act, number) == step(wanted, act, number), (act, number)
                assert file.tell() == wanted.tell()
    assert all(0 < length <= block and offset + length <= len(data) for offset, length in store.spans)


def test_a_tar_is_read_ahead_in_blocks(store: Watched) -> None:
    content = random.Random(1).randbytes(3 * BLOCK_BYTES // 2)
    with io.BytesIO() as sink:
        with tarfile.open(fileobj=sink, mode="w") as archive:
            for name in ("a", "b"):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        store.write("x.tar", sink.getvalue())
    with opened(store, "x.tar") as file, tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            taken = archive.extractfile(member)
            assert taken is not None
            assert taken.read() == content
    assert [offset for offset, _ in store.spans] == [number * BLOCK_BYTES for number in range(4)]


def test_one_column_of_one_row_group_is_a_fraction_of_the_file(store: Watched, tmp_path: Path) -> None:
    draw = random.Random(1)
    table = pa.table({name: [draw.randbytes(1000) for _ in range(4000)] for name in "abcd"})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1000, compression="none")
    with opened(store, "x.parquet") as file:
        column = pq.ParquetFile(file).read_row_group(2, columns=["c"])["c"]
    assert column.to_pylist() == table["c"][2000:3000].to_pylist()
    assert store.came < store.info("x.parquet").size / 10


def test_a_file_says_what_it_is(store: Watched) -> None:
    store.write("x", b"0123456789")
    file = opened(store, "x")
    assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
    assert file.name == f"{store.describe()}/x"
    assert store.spans == [], "opening asks nothing"
    assert io.BufferedReader(file).read() == b"0123456789"
    file.close()
    file.close()
    for act in (
        file.read,
        file.tell,
        file.readable,
        file.seekable,
        lambda: file.seek(0),
        lambda: file.readinto(bytearray(1)),
    ):
        with pytest.raises(ValueError, match="closed"):
            act()


@pytest.mark.parametrize("kind", ["bytes", "parquet"])
def test_a_changed_object_is_told_through_whoever_reads(store: Watched, tmp_path: Path, kind: str) -> None:
    pq.write_table(pa.table({"a": list(range(1000))}), tmp_path / "x")
    info = store.info("x")
    os.utime(tmp_path / "x", ns=(1, 1))
    file = store.open_file("x", info.size, info.version)
    with file, pytest.raises(ChangedError, match=r"/x changed since it was indexed"):
        file.read(1) if kind == "bytes" else pq.ParquetFile(file)


def test_missing_and_shorter_objects(store: Watched) -> None:
    with store.open_file("none", 10) as file, pytest.raises(NotFoundError, match="none"):
        file.read(1)
    store.write("x", b"123")
    with store.open_file("x", 10) as file, pytest.raises(StorageError, match="10 bytes at offset 0"):
        file.read()
