"""Stores in folders of this machine."""

import operator
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import raylens.storage
from raylens.errors import (
    AlreadyExistsError,
    ChangedError,
    ConfigError,
    ConflictError,
    NotFoundError,
    StorageError,
)
from raylens.storage import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def every_file(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def race(count: int, act: Callable[[int], object]) -> list[object]:
    """What `count` threads that start together return; a StorageError counts as an answer."""
    barrier = threading.Barrier(count)

    def attempt(number: int) -> object:
        barrier.wait()
        try:
            return act(number)
        except StorageError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(attempt, range(count)))


def test_public_api() -> None:
    assert sorted(raylens.storage.__all__) == ["LocalStore", "ObjectInfo", "Store", "be_patient", "open_store"]


def test_import_loads_no_client() -> None:
    code = "import sys, raylens.storage; print({'boto3', 'botocore', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class TestObjects:
    def test_what_is_written_is_read(self, store: Store) -> None:
        store.write("a/b/c.bin", b"\x00\xff")
        store.write("a/text", "naïve".encode())
        assert store.read("a/b/c.bin") == b"\x00\xff"
        assert store.read_text("a/text") == "naïve"
        assert (store / "a" / "b").read("c.bin") == b"\x00\xff"

    def test_write_replaces_and_changes_the_version(self, store: Store) -> None:
        store.write("x", b"one")
        before = store.read_with_version("x")
        store.write("x", b"two")
        assert (before[0], store.read("x")) == (b"one", b"two")
        assert store.read_with_version("x")[1] != before[1]

    def test_list_is_recursive_sorted_and_bare_of_temporaries(self, store: Store, tmp_path: Path) -> None:
        for path in ("b/2", "b/10", "a", "b.txt"):
            store.write(path, path.encode())
        store.compare_and_set("a", b"A", store.read_with_version("a")[1])
        (tmp_path / "store" / "b" / ".raylens-0123").write_bytes(b"unfinished")
        assert [(info.path, info.size) for info in store.list()] == [("a", 1), ("b.txt", 5), ("b/10", 4), ("b/2", 3)]
        assert [info.path for info in store.list("b")] == ["b/10", "b/2"]
        assert [info.path for info in (store / "b").list()] == ["10", "2"]
        assert store.list()[0] == store.info("a")

    def test_list_of_nothing_is_empty(self, store: Store) -> None:
        store.write("file", b"")
        assert store.list("missing") == [] == (store / "missing").list()
        assert store.list("file") == []

    def test_list_survives_files_that_vanish(self, store: Store, tmp_path: Path) -> None:
        store.write("here", b"")
        (tmp_path / "store" / "gone").symlink_to(tmp_path / "nowhere")
        assert [info.path for info in store.list()] == ["here"]

    def test_list_shows_files_that_no_store_would_write(self, store: Store, tmp_path: Path) -> None:
        store.write("x", b"")
        (tmp_path / "store" / "a\\b").write_bytes(b"12")
        assert [(info.path, info.size) for info in store.list()] == [("a\\b", 2), ("x", 0)]

    def test_text_is_utf8_or_an_error(self, store: Store) -> None:
        store.write("latin", "naïve".encode("latin-1"))
        with pytest.raises(StorageError, match=r"/latin is not UTF-8 text: .* at 2"):
            store.read_text("latin")

    def test_linked_places(self, store: Store, tmp_path: Path) -> None:
        store.write("x", b"behind the link")
        (tmp_path / "link").symlink_to(tmp_path / "store")
        linked = open_store(tmp_path / "link")
        assert linked.uri == f"{tmp_path}/link"
        assert linked.read("x") == b"behind the link"
        assert [info.path for info in linked.list()] == ["x"]

    def test_delete(self, store: Store) -> None:
        for path in ("keep", "tree/a", "tree/b/c"):
            store.write(path, b"")
        store.delete("keep")
        store.delete("keep")
        store.delete_tree("tree")
        store.delete_tree("tree")
        assert not store.exists("keep")
        assert store.list() == []

    def test_delete_tree_leaves_files_and_the_root_alone(self, store: Store) -> None:
        store.write("file", b"")
        store.delete_tree("file")
        with pytest.raises(ConfigError):
            store.delete_tree("")
        assert store.exists("file")

    @pytest.mark.parametrize("act", ["read", "read_with_version", "info"])
    def test_missing(self, store: Store, act: str) -> None:
        store.write("folder/x", b"")
        for path in ("nothing", "folder", "folder/x/y"):
            with pytest.raises(NotFoundError, match=path):
                operator.methodcaller(act, path)(store)
            assert not store.exists(path)

    @pytest.mark.parametrize("path", ["", "/a", "../a", "a/../b", "a//b", "a/", "./a", ".raylens-lock-x"])
    def test_paths_that_would_leave_or_hide(self, store: Store, path: str) -> None:
        with pytest.raises(ConfigError, match="path"):
            store.write(path, b"")

    @pytest.mark.parametrize("sub", ["", "/a", "..", "a//b"])
    def test_children_stay_inside(self, store: Store, sub: str) -> None:
        with pytest.raises(ConfigError, match="path"):
            store / sub

    def test_files_come_and_go(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "source").write_bytes(b"payload" * 1000)
        store.upload(tmp_path / "source", "up/loaded")
        store.download("up/loaded", tmp_path / "new" / "folder" / "target")
        assert (tmp_path / "new" / "folder" / "target").read_bytes() == b"payload" * 1000
        assert every_file(tmp_path) == ["loaded", "source", "target"]

    def test_missing_ends_of_a_copy_are_named(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="no-source"):
            store.upload(tmp_path / "no-source", "x")
        with pytest.raises(NotFoundError, match="no-object"):
            store.download("no-object", tmp_path / "target")
        assert every_file(tmp_path) == []

    def test_arrow_reads_the_same_objects(self, store: Store) -> None:
        store.write("a/b", b"arrow")
        filesystem, root = store.arrow()
        with filesystem.open_input_file(f"{root}/a/b") as stream:
            assert stream.read() == b"arrow"


class TestRanges:
    @given(data=st.binary(max_size=64), offset=st.integers(-4, 80), length=st.integers(-4, 80))
    def test_exactly_what_was_asked_or_an_error(
        self, tmp_path_factory: pytest.TempPathFactory, data: bytes, offset: int, length: int
    ) -> None:
        store = open_store(tmp_path_factory.getbasetemp() / "ranges")
        store.write("x", data)
        if offset >= 0 and length >= 0 and len(data[offset : offset + length]) == length:
            assert store.read_range("x", offset, length) == data[offset : offset + length]
        else:
            with pytest.raises(StorageError, match=rf"{length} bytes at offset {offset} of .*/x"):
                store.read_range("x", offset, length)

    def test_a_senseless_length_takes_no_memory(self, store: Store) -> None:
        store.write("x", b"123")
        for offset, length in ((0, 2**50), (2**70, 1), (2**70, 2**70)):
            with pytest.raises(StorageError, match=f"{length} bytes at offset {offset}"):
                store.read_range("x", offset, length)

    def test_empty_ranges_need_an_object(self, store: Store) -> None:
        with pytest.raises(NotFoundError):
            store.read_range("missing", 0, 0)


class TestVersions:
    def test_the_indexed_object_is_read(self, store: Store) -> None:
        store.write("x", b"0123456789")
        version = store.list()[0].version
        assert store.read("x", version=version) == b"0123456789"
        assert store.read_range("x", 2, 3, version=version) == b"234"
        assert store.read_range("x", 2, 0, version=version) == b""

    @pytest.mark.parametrize("new", [b"9876543210", b"short", b"a longer one than before"])
    @pytest.mark.parametrize("in_place", [True, False])
    def test_another_one_is_refused(self, store: Store, tmp_path: Path, new: bytes, in_place: bool) -> None:
        store.write("x", b"0123456789")
        version = store.info("x").version
        time.sleep(0.02)  # file systems' clocks tick slowly
        if in_place:
            (tmp_path / "store" / "x").write_bytes(new)
        else:
            store.write("x", new)
        for act in (
            operator.methodcaller("read", "x", version=version),
            operator.methodcaller("read_range", "x", 2, 3, version=version),
            operator.methodcaller("read_range", "x", 2, 8, version=version),
            operator.methodcaller("read_range", "x", 0, 0, version=version),
        ):
            with pytest.raises(ChangedError, match=r"store/x changed since it was indexed"):
                act(store)
        assert store.read("x") == new

    def test_a_missing_one_is_missing(self, store: Store) -> None:
        for act in (
            operator.methodcaller("read", "x", version="1-1"),
            operator.methodcaller("read_range", "x", 0, 1, version="1-1"),
        ):
            with pytest.raises(NotFoundError):
                act(store)


class TestOneWinner:
    def test_write_once(self, store: Store) -> None:
        for number in range(20):
            path = f"once/{number}"
            answers = race(8, lambda writer, path=path: store.write_once(path, b"%d" % writer))  # type: ignore[misc]
            assert [type(answer) for answer in answers].count(AlreadyExistsError) == 7
            assert store.read(path) == b"%d" % answers.index(None)

    def test_compare_and_set(self, store: Store) -> None:
        version = None
        for _ in range(20):
            answers = race(8, lambda writer, old=version: store.compare_and_set("x", b"%d" % writer, old))  # type: ignore[misc]
            winners = [writer for writer, answer in enumerate(answers) if isinstance(answer, str)]
            assert [type(answer) for answer in answers].count(ConflictError) == 7
            data, version = store.read_with_version("x")
            assert (data, version) == (b"%d" % winners[0], answers[winners[0]])
            store.write("x", f"{version} is over".encode())
            version = store.read_with_version("x")[1]

    def test_creation_by_either_way(self, store: Store) -> None:
        def create(writer: int, path: str) -> object:
            return store.compare_and_set(path, b"set", None) if writer % 2 else store.write_once(path, b"once")

        for number in range(20):
            answers = race(8, lambda writer, path=f"either/{number}": create(writer, path))  # type: ignore[misc]
            assert sum(isinstance(answer, StorageError) for answer in answers) == 7

    def test_a_counter_loses_nothing(self, store: Store) -> None:
        store.write("counter", b"0")

        def add(_: int) -> None:
            for _ in range(10):
                while True:
                    data, version = store.read_with_version("counter")
                    try:
                        store.compare_and_set("counter", b"%d" % (int(data) + 1), version)
                        break
                    except ConflictError:
                        continue

        race(4, add)
        assert store.read("counter") == b"40"

    def test_stale_and_missing_versions(self, store: Store) -> None:
        old = store.compare_and_set("x", b"1", None)
        new = store.compare_and_set("x", b"2", old)
        assert old != new == store.read_with_version("x")[1]
        for path, version in (("x", old), ("x", None), ("missing", old)):
            with pytest.raises(ConflictError, match=path):
                store.compare_and_set(path, b"3", version)
        assert store.read("x") == b"2"


class TestInterruptedWrites:
    @pytest.mark.parametrize(
        "act",
        ["s.write('x', big)", "s.compare_and_set('x', big, s.read_with_version('x')[1])", "s.upload(source, 'x')"],
    )
    def test_a_write_that_fails_half_way_leaves_the_old_object(self, store: Store, tmp_path: Path, act: str) -> None:
        store.write("x", b"old")
        (tmp_path / "source").write_bytes(b"n" * 100_000)
        code = (
            "import resource, sys; from pathlib import Path; from raylens.storage import open_store\n"
            "s, source, big = open_store(sys.argv[1]), Path(sys.argv[2]), b'n' * 100_000\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))\n"  # a disk that fills up after 5 kB
            f"{act}"
        )
        command = [sys.executable, "-c", code, store.uri, str(tmp_path / "source")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "StorageError: cannot write" in done.stderr
        assert f"{store.uri}/x: File too large" in done.stderr
        assert store.read("x") == b"old"
        assert [info.path for info in store.list()] == ["x"]

    def test_a_killed_writer_leaves_a_whole_object(self, store: Store) -> None:
        store.write("x", b"0" * 1_000_000)
        code = (
            "import itertools, sys; from raylens.storage import open_store\n"
            "s = open_store(sys.argv[1]); print('ready', flush=True)\n"
            "for n in itertools.count(1): s.write('x', b'%d' % (n % 10) * 1_000_000)"
        )
        with subprocess.Popen([sys.executable, "-c", code, store.uri], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            seen = [store.read("x") for _ in range(200)]
            process.kill()
        for data in [*seen, store.read("x")]:
            assert data == data[:1] * 1_000_000
        assert [info.path for info in store.list()] == ["x"]

    def test_places_that_cannot_be_written(self, store: Store) -> None:
        store.write("file", b"")
        for act in ("write", "write_once"):
            with pytest.raises(StorageError, match=r"cannot write .*/file/below") as caught:
                operator.methodcaller(act, "file/below", b"")(store)
            assert type(caught.value) is StorageError
        with pytest.raises(StorageError, match="cannot write /proc/raylens/x"):
            open_store("/proc/raylens").write("x", b"")


class TestLinks:
    def test_folders_behind_links_are_listed(self, store: Store, tmp_path: Path) -> None:
        open_store(tmp_path / "other").write("deep/x", b"1")
        store.write("a/y", b"22")
        (tmp_path / "store" / "link").symlink_to(tmp_path / "other")
        assert [(info.path, info.size) for info in store.list()] == [("a/y", 2), ("link/deep/x", 1)]
        assert [info.path for info in store.list("link")] == ["link/deep/x"]
        assert store.read("link/deep/x") == b"1"

    @pytest.mark.parametrize("target", [".", "..", "../..", "../../other/back"])
    def test_a_link_to_a_folder_around_it_ends(self, store: Store, tmp_path: Path, target: str) -> None:
        store.write("a/y", b"")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "back").symlink_to(tmp_path / "store" / "a")
        (tmp_path / "store" / "a" / "link").symlink_to(target)
        assert [info.path for info in store.list()] == ["a/y"]
        assert [info.path for info in store.list("a")] == ["a/y"]

    def test_folders_that_link_to_each_other_end(self, store: Store, tmp_path: Path) -> None:
        for name, other in (("a", "b"), ("b", "a")):
            store.write(f"{name}/x", b"")
            (tmp_path / "store" / name / "to").symlink_to(tmp_path / "store" / other)
        assert [info.path for info in store.list()] == ["a/to/x", "a/x", "b/to/x", "b/x"]
        assert [info.path for info in store.list("a")] == ["a/to/x", "a/x"]

    def test_links_to_nothing_and_to_themselves_are_left_out(self, store: Store, tmp_path: Path) -> None:
        store.write("x", b"")
        for name, target in (("self", "self"), ("one", "two"), ("two", "one"), ("gone", "nowhere"), ("under", "x/y")):
            (tmp_path / "store" / name).symlink_to(target)
        assert [info.path for info in store.list()] == ["x"]
        assert store.list("self") == []

    def test_names_that_cannot_be_are_missing(self, store: Store, tmp_path: Path) -> None:
        store.write("x", b"")
        (tmp_path / "store" / "self").symlink_to("self")
        for path in ("n" * 300, "n" * 300 + "/x", "self", "self/x"):
            assert not store.exists(path)
            with pytest.raises(NotFoundError):
                store.read(path)
        with pytest.raises(StorageError, match="cannot write"):
            store.write("n" * 300, b"")
