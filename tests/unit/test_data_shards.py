"""Packing, indexing and reading shards: what goes in comes out, and what is broken is named."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raylens.data.index import index_shard, manifest_for
from raylens.data.manifest import Manifest
from raylens.data.pack import NewSample, pack
from raylens.data.quarantine import check_budget
from raylens.data.reader import Layout, read_samples
from raylens.data.shards import list_shards, walk_shard
from raylens.errors import ManifestError, QuarantineError, StorageError
from raylens.storage import Store, open_store

MakeShards = Callable[..., Store]


def here(items: list[dict[str, object]], function: Callable[[dict[str, object]], pa.Table]) -> Iterator[pa.Table]:
    """Runs in this process what a cluster would run elsewhere, last first: the order of results must not matter."""
    return (function(item) for item in reversed(items))


def index(store: Store, tmp_path: Path) -> Manifest:
    return manifest_for(store, open_store(tmp_path / "manifests"), here)


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def test_packing_twice_changes_nothing(make_shards: MakeShards) -> None:
    store = make_shards(25)
    before = {info.path: store.read(info.path) for info in store.list()}
    again = make_shards(25)
    assert {info.path: again.read(info.path) for info in again.list()} == before
    assert sorted(before) == ["000000.tar", "000001.tar", "000002.tar"]


def test_packing_beside_other_shards_is_refused(make_shards: MakeShards) -> None:
    make_shards(25)
    with pytest.raises(ManifestError, match=r"holds other shards too \(000001\.tar\)"):
        make_shards(10)
    with pytest.raises(ManifestError, match=r"has another 000000\.tar"):
        make_shards(7)


def test_walk_gives_what_was_packed(make_shards: MakeShards) -> None:
    store = make_shards(12, per_shard=5)
    walked = [sample for shard in list_shards(store) for sample in walk_shard(store, shard.path)]
    assert [sample.key for sample in walked] == [f"pair-{number:05d}" for number in range(12)]
    assert all(
        sample.image and sample.caption and sample.meta["label"] == number % 3 for number, sample in enumerate(walked)
    )


def test_no_shards_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no shards \(\*\.tar\) under .*nothing-here"):
        list_shards(open_store(tmp_path / "nothing-here"))


def test_manifest_places_are_exact(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(33, per_shard=8)
    manifest = index(store, tmp_path)
    assert len(manifest) == 33
    walked = [sample for shard in list_shards(store) for sample in walk_shard(store, shard.path)]
    read = list(read_samples(store.uri, Layout.of(manifest), np.arange(33)))
    assert [(image, caption) for _, image, caption in read] == [(sample.image, sample.caption) for sample in walked]


def test_reading_joins_neighbours(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(40, per_shard=20)
    layout = Layout.of(index(store, tmp_path))
    wanted = np.array([3, 1, 2, 19, 20, 39, 2])
    assert [sample for sample, _, _ in read_samples(store.uri, layout, wanted)] == [1, 2, 3, 19, 20, 39]


def test_manifest_is_found_again_and_not_rebuilt(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(9)
    first = index(store, tmp_path)

    def never(items: list[dict[str, object]], function: object) -> Iterator[pa.Table]:
        raise AssertionError("indexed again")

    again = manifest_for(store, open_store(tmp_path / "manifests"), never)
    assert again.digest == first.digest
    assert again.captions() == first.captions()


def test_digest_follows_content_not_place(make_shards: MakeShards, tmp_path: Path) -> None:
    first = index(make_shards(12, name="one"), tmp_path)
    copied = index(make_shards(12, name="two"), tmp_path)
    other = index(make_shards(13, name="three"), tmp_path)
    assert first.digest == copied.digest != other.digest


@pytest.mark.parametrize("name", ["samples.parquet", "manifest.json"])
def test_a_damaged_manifest_is_named(make_shards: MakeShards, tmp_path: Path, name: str) -> None:
    store = make_shards(5)
    index(store, tmp_path)
    cache = open_store(tmp_path / "manifests")
    path = next(info.path for info in cache.list() if info.path.endswith(name))
    cache.write(path, cache.read(path)[:-20])
    with pytest.raises(ManifestError, match="damaged"):
        index(store, tmp_path)


def test_what_cannot_be_used_is_rejected_with_a_reason(tmp_path: Path, make_shards: MakeShards) -> None:
    good = next(iter(walk_shard(make_shards(1), "000000.tar")))
    assert good.image
    store = open_store(tmp_path / "mixed")
    members = [
        ("a.png", good.image), ("a.txt", b"fine"),
        ("b.png", b"not a picture"), ("b.txt", b"words"),
        ("c.txt", b"no picture"),
        ("d.png", good.image), ("d.txt", b"   "),
        ("e.png", good.image),
        ("f.x.y.png", good.image), ("f.txt", b"dotted"),
    ]  # fmt: skip
    store.write("s.tar", tar_of(members))
    table = index_shard({"data": store.uri, "shard": 0, "path": "s.tar", "keep": 9})
    reasons = dict(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True))
    assert reasons == {
        "a": None,
        "b": "not an image",
        "c": "no image",
        "d": "empty caption",
        "e": "no caption",
        "f": "no image",
    }


@pytest.mark.parametrize("cut", [100, 512, 700, 5000])
def test_a_truncated_tar_keeps_what_came_before(make_shards: MakeShards, tmp_path: Path, cut: int) -> None:
    store = make_shards(10)
    data = store.read("000000.tar")
    store.write("000000.tar", data[:cut])
    table = index_shard({"data": store.uri, "shard": 0, "path": "000000.tar", "keep": 9})
    assert table["reason"].to_pylist()[-1] == "truncated or damaged tar"
    whole = [
        key for key, reason in zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True) if not reason
    ]
    assert len(whole) < 10
    assert whole == [f"pair-{number:05d}" for number in range(len(whole))]


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    store = open_store(tmp_path / "bad")
    store.write("s.tar", tar_of([("a.png", b"x"), ("a.txt", b"y")]))
    with pytest.raises(ManifestError, match="1 not an image"):
        index(store, tmp_path)


def test_a_shard_that_shrank_is_an_error(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(10)
    layout = Layout.of(index(store, tmp_path))
    store.write("000000.tar", store.read("000000.tar")[:3000])
    with pytest.raises(StorageError, match=r"000000\.tar"):
        list(read_samples(store.uri, layout, np.arange(10)))


def test_kept_captions_are_bounded_and_real(make_shards: MakeShards) -> None:
    store = make_shards(30, per_shard=30)
    table = index_shard({"data": store.uri, "shard": 0, "path": "000000.tar", "keep": 7})
    captions = {sample.caption for sample in walk_shard(store, "000000.tar")}
    kept = [text for text in table["caption"].to_pylist() if text is not None]
    assert len(kept) == 7
    assert set(kept) <= captions


def test_packing_nothing_is_refused(tmp_path: Path) -> None:
    none: list[NewSample] = []
    with pytest.raises(ManifestError, match="no samples"):
        pack(none, open_store(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("bad", "read", "stops"), [(0, 0, False), (10, 20, False), (11, 1100, False), (12, 1100, True)]
)
def test_budget(bad: int, read: int, *, stops: bool) -> None:
    if stops:
        with pytest.raises(QuarantineError, match=r"12 of 1100 samples \(1\.1%\).*quarantine_budget = 1\.0%"):
            check_budget(bad, read, 0.01, "where")
    else:
        check_budget(bad, read, 0.01, "where")
