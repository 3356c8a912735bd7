"""Packing, indexing and reading shards: what goes in comes out, and what is broken is named."""

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raylens.config import SourceConfig
from raylens.data import RawSample, Source
from raylens.data.formats.base import Columns
from raylens.data.formats.tar import TAR
from raylens.data.index import manifest_for, shard_rows
from raylens.data.manifest import Manifest
from raylens.data.pack import NewSample, _scaled, pack
from raylens.data.quarantine import check_budget
from raylens.data.reader import open_reader
from raylens.errors import ChangedError, DamagedError, ManifestError, QuarantineError
from raylens.storage import Store, open_store

MakeShards = Callable[..., Store]


def here(items: list[dict[str, object]], function: Callable[[dict[str, object]], pa.Table]) -> Iterator[pa.Table]:
    """Runs in this process what a cluster would run elsewhere, last first: the order of results must not matter."""
    return (function(item) for item in reversed(items))


def index(store: Store, tmp_path: Path) -> Manifest:
    return manifest_for(SourceConfig(uri=store.uri), open_store(tmp_path / "manifests"), here)


def walked(store: Store) -> list[RawSample]:
    source, shards = Source.open(SourceConfig(uri=store.uri))
    return [sample for shard in shards for sample in source.walk(shard)]


def rows_of(store: Store, keep: int = 9) -> pa.Table:
    """Of the first shard."""
    source, shards = Source.open(SourceConfig(uri=store.uri))
    return shard_rows(source, 0, shards[0], keep)[0]


def read(manifest: Manifest, samples: list[int]) -> list[tuple[int, bytes, tuple[str, ...]]]:
    reader = open_reader(manifest.home)
    return [
        (sample, pair.image, pair.captions)
        for request in reader.requests(np.array(samples))
        for sample, pair in reader.read(request, check_hashes=True)
    ]


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
    with pytest.raises(ManifestError, match=r"holds other shards \(000001\.tar\)"):
        make_shards(10)
    with pytest.raises(ManifestError, match=r"000000\.tar"):
        make_shards(7)


def test_walk_gives_what_was_packed(make_shards: MakeShards) -> None:
    samples = walked(make_shards(12, per_shard=5))
    assert [sample.key for sample in samples] == [f"pair-{number:05d}" for number in range(12)]
    assert all(
        sample.image and sample.caption and sample.meta["label"] == number % 3 for number, sample in enumerate(samples)
    )


def test_no_shards_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"data set .*nothing-here: there is no such folder"):
        Source.open(SourceConfig(uri=str(tmp_path / "nothing-here")))
    with pytest.raises(ManifestError, match=r"no shards \(\*\.tar.* under .* which holds 0 objects: check data\.train"):
        Source.open(SourceConfig(uri=str(tmp_path)))
    long = ",".join("shard" * 20 for _ in range(60))
    with pytest.raises(ManifestError, match="no shards"):
        Source.open(SourceConfig(uri=f"{tmp_path}/{{{long}}}.tar"))


def test_manifests_within_the_data_are_none_of_it(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(12, per_shard=6)
    manifest = manifest_for(SourceConfig(uri=store.uri), store / "runs" / "manifests", here)
    assert Source.open(SourceConfig(uri=store.uri))[1] == list(manifest.shards)
    assert manifest_for(SourceConfig(uri=store.uri), store / "runs" / "manifests", here).home == manifest.home


def test_a_table_is_indexed_again_when_its_images_change(make_shards: MakeShards, tmp_path: Path) -> None:
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "list.csv").write_text("image,caption\n0.jpg,zero\n1.jpg,one\n")
    images = [sample.image for sample in walked(make_shards(2))]
    assert images[0] is not None
    assert images[1] is not None
    (folder / "0.jpg").write_bytes(images[0])
    cache = open_store(str(tmp_path / "manifests"))
    assert manifest_for(SourceConfig(uri=str(folder)), cache, here).reasons == {"image file is missing": 1}
    (folder / "1.jpg").write_bytes(images[1])
    assert len(manifest_for(SourceConfig(uri=str(folder)), cache, here)) == 2


def test_manifest_locations_are_exact(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(33, per_shard=8)
    manifest = index(store, tmp_path)
    assert len(manifest) == 33
    assert [(image, captions) for _, image, captions in read(manifest, list(range(33)))] == [
        (sample.image, sample.captions) for sample in walked(store)
    ]


def test_reading_joins_neighbours(make_shards: MakeShards, tmp_path: Path) -> None:
    manifest = index(make_shards(40, per_shard=20), tmp_path)
    reader = open_reader(manifest.home)
    wanted = [1, 2, 3, 19, 20, 39]
    assert [request.samples.tolist() for request in reader.requests(np.array(wanted))] == [[1, 2, 3, 19], [20, 39]]
    assert [sample for sample, _, _ in read(manifest, wanted)] == wanted


def test_rows_are_found_by_number(make_shards: MakeShards, tmp_path: Path) -> None:
    manifest = index(make_shards(40, per_shard=3), tmp_path)
    rows = manifest.rows([39, 0, 17], ["key", "width"])
    assert [row["key"] for row in rows] == ["pair-00039", "pair-00000", "pair-00017"]


def test_manifest_is_found_again_and_not_rebuilt(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(9)
    first = index(store, tmp_path)

    def never(items: list[dict[str, object]], function: object) -> Iterator[pa.Table]:
        raise AssertionError("indexed again")

    again = manifest_for(SourceConfig(uri=store.uri), open_store(tmp_path / "manifests"), never)
    assert again.digest == first.digest
    assert again.captions() == first.captions()


def test_digest_follows_content_not_place(make_shards: MakeShards, tmp_path: Path) -> None:
    first = index(make_shards(12, name="one"), tmp_path)
    copied = index(make_shards(12, name="two"), tmp_path)
    other = index(make_shards(13, name="three"), tmp_path)
    assert first.digest == copied.digest != other.digest


@pytest.mark.parametrize("name", ["shards.parquet", "manifest.json"])
def test_a_damaged_manifest_is_named(make_shards: MakeShards, tmp_path: Path, name: str) -> None:
    store = make_shards(5)
    index(store, tmp_path)
    cache = open_store(tmp_path / "manifests")
    path = next(info.path for info in cache.list() if info.path.endswith(f"/{name}"))
    cache.write(path, cache.read(path)[:-20])
    with pytest.raises(ManifestError, match="damaged"):
        index(store, tmp_path)


def test_what_cannot_be_used_is_rejected_with_a_reason(tmp_path: Path, make_shards: MakeShards) -> None:
    (good,) = walked(make_shards(1))
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
    table = rows_of(store)
    reasons = dict(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True))
    assert reasons == {
        "a": None,
        "b": "not an image",
        "c": "no image",
        "d": "empty caption",
        "e": "no caption",
        "f": "no image",
    }


def test_a_tar_that_is_cut_off_anywhere_says_so_and_keeps_what_came_before(make_shards: MakeShards) -> None:
    """tarfile alone takes a cut within a header, or between two members, for the end."""
    store = make_shards(10)
    data = store.read("000000.tar")
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512  # the zeros behind are the end's
    for cut in [*range(0, end + 512, 512), 100, 700, 5000, end + 511]:
        store.write("000000.tar", data[:cut])
        table = rows_of(store)
        keys, reasons = table["key"].to_pylist(), table["reason"].to_pylist()
        assert reasons[-1] == "truncated or damaged shard", cut
        whole = [key for key, reason in zip(keys, reasons, strict=True) if not reason]
        assert whole == [f"pair-{number:05d}" for number in range(len(whole))]
        assert len(whole) == 10 or cut < end
    store.write("000000.tar", data[: end + 512])
    assert rows_of(store)["reason"].null_count == 10


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(make_shards: MakeShards) -> None:
    store = make_shards(10)
    data = bytearray(store.read("000000.tar"))
    at = data.index(b"pair-00005.")
    data[at : at + 20] = b"\xff" * 20
    store.write("000000.tar", bytes(data))
    reasons = rows_of(store)["reason"].to_pylist()
    assert reasons == [None] * 5 + ["truncated or damaged shard"]


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    store = open_store(tmp_path / "bad")
    store.write("s.tar", tar_of([("a.png", b"x"), ("a.txt", b"y")]))
    with pytest.raises(ManifestError, match="1 not an image"):
        index(store, tmp_path)


def test_a_shard_that_changed_is_named(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(10)
    manifest = index(store, tmp_path)
    store.write("000000.tar", store.read("000000.tar")[:3000])
    with pytest.raises(ChangedError, match=r"000000\.tar"):
        read(manifest, list(range(10)))


def test_kept_captions_are_bounded_and_real(make_shards: MakeShards) -> None:
    store = make_shards(30, per_shard=30)
    captions = {sample.caption for sample in walked(store)}
    kept = [text for text in rows_of(store, keep=7)["caption"].to_pylist() if text is not None]
    assert len(kept) == 7
    assert set(kept) <= captions


def test_an_interrupted_index_goes_on(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(30, per_shard=3)
    done: list[object] = []

    def broken(items: list[dict[str, object]], function: Callable[[dict[str, object]], pa.Table]) -> Iterator[pa.Table]:
        for item in items:
            if len(done) == 4:
                raise KeyboardInterrupt
            done.append(item["part"])
            yield function(item)

    cache = open_store(tmp_path / "manifests")
    with pytest.raises(KeyboardInterrupt):
        manifest_for(SourceConfig(uri=store.uri), cache, broken, local_bytes=0)
    for info in store.list()[:4]:
        path = Path(store.uri) / info.path
        stamp = path.stat()
        path.write_bytes(b"-" * info.size)  # of these parts nothing is read again
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    told: list[tuple[int, int]] = []
    manifest = manifest_for(
        SourceConfig(uri=store.uri), cache, here, lambda done, of: told.append((done, of)), local_bytes=0
    )
    assert len(manifest) == 30
    assert told[-1] == (10, 10)


def test_several_captions_in_the_json(tmp_path: Path, make_shards: MakeShards) -> None:
    (good,) = walked(make_shards(1))
    assert good.image
    store = open_store(tmp_path / "several")
    texts = json.dumps({"captions": ["one", " two ", ""]}).encode()
    members = [
        ("a.json", texts),
        ("a.png", good.image),
        ("a.txt", b"other"),
        ("b.txt", b"first"),
        ("b.png", good.image),
    ]
    store.write("s.tar", tar_of(members))
    manifest = index(store, tmp_path)
    assert [captions for _, _, captions in read(manifest, [0, 1])] == [("one", "two"), ("first",)]
    assert [row["caption_count"] for row in manifest.rows([0, 1], ["caption_count"])] == [2, 1]


def test_what_img2dataset_says_is_compared(tmp_path: Path, make_shards: MakeShards) -> None:
    store = make_shards(10, per_shard=5)
    stats = {"count": 9, "successes": 7, "failed_to_download": 2, "failed_to_resize": 0}
    store.write("000001_stats.json", json.dumps(stats).encode())
    store.write("000001.parquet", b"not looked at")
    manifest = index(store, tmp_path)
    assert manifest.warnings() == ["000001.tar has 5 samples, its _stats.json says 7"]
    assert manifest.table["failed"].to_pylist() == [None, 2]


def test_a_changed_image_is_found_by_its_hash(make_shards: MakeShards, tmp_path: Path) -> None:
    store = make_shards(3)
    manifest = index(store, tmp_path)
    path = Path(store.uri) / "000000.tar"
    stamp, data = path.stat(), bytearray(path.read_bytes())
    data[512 + 40] ^= 1  # within the first image
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(ManifestError, match=r"sample 0 in .*000000\.tar"):
        read(manifest, [0, 1])


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


def picture() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (4, 3), (1, 2, 3)).save(sink, format="PNG")
    return sink.getvalue()


def rows_of_tar(tmp_path: Path, data: bytes) -> list[tuple[str, str | None, str | None]]:
    """Keys, captions and reasons."""
    store = open_store(tmp_path / "tar")
    store.write("s.tar", data)
    table = rows_of(store)
    return list(zip(*(table[name].to_pylist() for name in ("key", "caption", "reason")), strict=True))


def test_a_name_that_comes_again_is_another_sample(tmp_path: Path) -> None:
    pair = [("a.png", picture()), ("a.txt", b"one")]
    again = [("a.png", picture()), ("a.txt", b"two")]
    assert rows_of_tar(tmp_path, tar_of([*pair, *again, ("b.png", picture()), ("b.txt", b"b"), *pair])) == [
        ("a", "one", None),
        ("a#2", "two", None),
        ("b", "b", None),
        ("a#3", "one", None),
    ]
    assert rows_of_tar(tmp_path, tar_of([*pair, ("a.png", picture())])) == [
        ("a", "one", None),
        ("a#2", None, "no caption"),
    ]


def pairs(*names: str) -> bytes:
    return tar_of([member for name in names for member in ((f"{name}.png", picture()), (f"{name}.txt", b"words"))])


@pytest.mark.parametrize("padding", [0, 2**20, 3 * 2**20])
def test_a_tar_behind_a_tar_is_told(tmp_path: Path, padding: int) -> None:
    joined = pairs("a", "b") + bytes(padding) + pairs("c")
    assert rows_of_tar(tmp_path, joined) == [
        ("a", "words", None),
        ("b", "words", None),
        ("(rest of the shard)", None, "data after the end of a tar"),
    ]
    store = open_store(tmp_path / "tar")
    with pytest.raises(DamagedError, match=r"s\.tar of .* data follows its end at byte \d+"):
        list(TAR.walk(store, store.info("s.tar"), Columns()))


def test_a_sample_before_the_end_is_counted_though_data_follows(tmp_path: Path) -> None:
    rows = rows_of_tar(tmp_path, tar_of([("a.png", picture())]) + pairs("b"))
    assert [reason for _, _, reason in rows] == ["no caption", "data after the end of a tar"]


@pytest.mark.parametrize("zeros", [1024, 10_240, 2**20, 5 * 2**20 + 512])
def test_padding_is_no_damage(tmp_path: Path, zeros: int) -> None:
    whole = pairs("a").rstrip(b"\0")
    whole += bytes(-len(whole) % 512 + zeros)
    assert rows_of_tar(tmp_path, whole) == [("a", "words", None)]


def sparse_tar(folder: Path, kind: list[str]) -> bytes:
    folder.mkdir()
    with (folder / "b.png").open("wb") as sink:
        sink.write(picture())
        sink.truncate(2**20)
    for name, data in (("a.png", picture()), ("a.txt", b"a"), ("b.txt", b"b"), ("c.png", picture()), ("c.txt", b"c")):
        (folder / name).write_bytes(data)
    names = ["a.png", "a.txt", "b.png", "b.txt", "c.png", "c.txt"]
    done = subprocess.run(["tar", "-cS", *kind, *names], cwd=folder, capture_output=True, check=True)
    assert len(done.stdout) < 2**19
    return done.stdout


@pytest.mark.parametrize(
    "kind",
    [["--format=gnu"], *(["--format=posix", f"--sparse-version={number}"] for number in ("0.0", "0.1", "1.0"))],
)
def test_a_sparse_member_is_a_reason(tmp_path: Path, kind: list[str]) -> None:
    assert rows_of_tar(tmp_path, sparse_tar(tmp_path / "files", kind)) == [
        ("a", "a", None),
        ("b", None, "stored as a sparse file: write the tar without --sparse"),
        ("c", "c", None),
    ]


def test_a_compressed_tar_is_told(tmp_path: Path) -> None:
    reason = "compressed shard: unpack it"
    assert rows_of_tar(tmp_path, gzip.compress(pairs("a"))) == [("(rest of the shard)", None, reason)]
    store = open_store(tmp_path / "tar")
    with pytest.raises(DamagedError, match=r"s\.tar of .* it is compressed by gzip: unpack it"):
        list(TAR.walk(store, store.info("s.tar"), Columns()))
    assert rows_of_tar(tmp_path, b"")[0][2] == "truncated or damaged shard"


def test_metadata_that_is_too_deep_or_too_large_is_none(tmp_path: Path) -> None:
    deep = b"[" * 200_000
    members = [("a.json", deep), ("a.png", picture()), ("a.txt", b"a"), ("b.json", b'{"captions":' + deep)]
    store = open_store(tmp_path / "tar")
    counts = {"successes": 10**30, "failed_to_download": 0, "failed_to_resize": 0}
    large = [json.dumps({**counts, **more}).encode() for more in ({}, {"successes": 1, "failed_to_resize": 2**63 - 1})]
    for stats in (deep, *large, b'{"successes": -1, "failed_to_download": 0, "failed_to_resize": 0}'):
        store.write("s_stats.json", stats)
        store.write("s.tar", tar_of(members))
        manifest = index(store, tmp_path)
        assert manifest.table["expected"].to_pylist() == [None]
        assert len(manifest) == 1


def test_a_row_of_a_table_with_a_senseless_name_is_rejected(tmp_path: Path) -> None:
    store = open_store(tmp_path / "table")
    store.write("0.png", picture())
    store.write("t.csv", f"image,caption\n0.png,a\n{'n' * 300}.png,b\n".encode())
    assert rows_of(store)["reason"].to_pylist() == [None, "image file is missing"]


def test_repacking_keeps_pictures_of_phones_as_they_are() -> None:
    """Pillow calls a JPEG with a second picture behind the first one MPO."""
    first, second = (Image.new("RGB", (64, 48), (number, 2, 3)) for number in (10, 200))
    sink = io.BytesIO()
    first.save(sink, format="MPO", save_all=True, append_images=[second])
    data = sink.getvalue()
    assert _scaled(data, None) == (data, "jpg")
    assert _scaled(data, 48) == (data, "jpg")
    made = _scaled(data, 24)
    assert made is not None
    assert made[1] == "jpg"
    with Image.open(io.BytesIO(made[0])) as small:
        assert (small.format, small.size) == ("JPEG", (32, 24))
