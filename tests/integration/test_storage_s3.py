"""Stores in a real S3 server on loopback, through both real clients."""

import multiprocessing
import operator
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raylens.errors import (
    AlreadyExistsError,
    ChangedError,
    ConflictError,
    NotFoundError,
    StorageError,
    UnreachableError,
)
from raylens.storage import Store, open_store
from raylens.storage.s3 import reads

# The test server cannot take control characters, which XML 1.0 forbids in its lists.
NAME = st.text(
    st.one_of(
        st.sampled_from(" %+#?&=<>'\":;@é日"), st.characters(exclude_characters="/\\", exclude_categories=["C", "Z"])
    ),
    min_size=1,
    max_size=8,
).filter(lambda name: name not in (".", ".."))
READS = ["read", "read_text", "read_with_version", "info", "exists"]


@pytest.fixture
def store(s3_bucket: str) -> Store:
    return open_store(s3_bucket) / "some" / "prefix"


@pytest.fixture
def stored(store: Store) -> Store:
    """With two objects."""
    store.write("x", b"x")
    store.write("private", b"private")
    return store


@pytest.fixture
def public_uri(stored: Store, s3_bucket: str, s3_server: str) -> str:
    """Of a store whose object x everybody may read."""
    bucket = bucket_of(s3_bucket)
    client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
    client.put_bucket_acl(Bucket=bucket, ACL="public-read")
    client.put_object_acl(Bucket=bucket, Key="some/prefix/x", ACL="public-read")
    return f"{stored.uri}&anonymous=true"


@pytest.fixture
def nowhere(s3_server: str, s3_environment: None) -> Store:
    """A bucket that does not exist."""
    return open_store(f"s3://no-such-bucket/x?endpoint_override={s3_server}")


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """With whom nobody meets; one test has the patience that users have."""
    monkeypatch.setattr(reads, "NO_CONNECTION_SECONDS", 0.5)


@pytest.fixture
def closed_port(s3_environment: None) -> Iterator[int]:
    """A port that is bound, so that nobody else takes it, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def no_credentials(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return s3_server


def bucket_of(uri: str) -> str:
    return uri.removeprefix("s3://").partition("?")[0]


def winners(act: Callable[[int], object], count: int = 8) -> list[int]:
    """Which of `count` threads that start together succeed; the others must meet a conflict."""
    barrier = threading.Barrier(count)

    def attempt(number: int) -> bool:
        barrier.wait()
        try:
            act(number)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(count) as pool:
        return [number for number, won in enumerate(pool.map(attempt, range(count))) if won]


def in_another_process(store: Store, method: str, *arguments: object) -> object:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(operator.methodcaller(method, *arguments), store).result()


class TestObjects:
    def test_what_is_written_is_read(self, store: Store) -> None:
        store.write("a/b c#d?e%41.bin", b"\x00\xff")
        assert store.read("a/b c#d?e%41.bin") == b"\x00\xff"
        assert store.read_with_version("a/b c#d?e%41.bin")[0] == b"\x00\xff"
        assert (store / "a").read("b c#d?e%41.bin") == b"\x00\xff"
        assert open_store(store.uri).list() == [store.info("a/b c#d?e%41.bin")]

    def test_write_replaces(self, store: Store) -> None:
        store.write("x", b"one")
        first = store.info("x")
        store.write("x", b"three")
        assert store.read("x") == b"three"
        assert (first.size, store.info("x").size) == (3, 5)
        assert '"' not in first.version != store.info("x").version == store.read_with_version("x")[1]

    def test_list_knows_its_folder(self, store: Store) -> None:
        for path in ("b/2", "b/10", "a", "b.txt"):
            store.write(path, path.encode())
        assert [(info.path, info.size) for info in store.list()] == [("a", 1), ("b.txt", 5), ("b/10", 4), ("b/2", 3)]
        assert [info.path for info in store.list("b")] == ["b/10", "b/2"]
        assert [info.path for info in (store / "b").list()] == ["10", "2"]
        assert store.list("missing") == [] == (store / "missing").list()

    def test_list_goes_over_pages_and_delete_tree_over_batches(self, store: Store, s3_bucket: str) -> None:
        for number in range(1003):
            store.write(f"many/{number:04d}", b"")
        store.write("other", b"")
        assert [info.path for info in store.list("many")] == [f"many/{number:04d}" for number in range(1003)]
        store.delete_tree("many")
        assert [info.path for info in open_store(s3_bucket).list()] == ["some/prefix/other"]

    def test_delete(self, store: Store) -> None:
        store.write("x", b"")
        store.delete("x")
        store.delete("x")
        store.delete_tree("x")
        assert not store.exists("x")

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
    @given(name=NAME)
    def test_any_name(self, store: Store, name: str) -> None:
        folder = store / "any" / name
        folder.write(name, b"12345")
        assert folder.read(name) == b"12345" == folder.read_with_version(name)[0]
        assert folder.read_range(name, 1, 3) == b"234"
        assert open_store(folder.uri).list() == [folder.info(name)]
        assert [info.path for info in store.list("any")] == [f"any/{name}/{name}"]
        store.delete_tree("any")
        assert store.list() == []

    def test_delete_tree_takes_what_others_left(self, store: Store, s3_bucket: str, s3_server: str) -> None:
        filesystem, root = store.arrow()
        filesystem.create_dir(f"{root}/tree/below", recursive=True)  # objects whose names end in a slash
        filesystem.create_dir(f"{root}/trees")
        client = boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1")
        bucket = bucket_of(s3_bucket)
        client.put_object(Bucket=bucket, Key="some/prefix/tree/a//b", Body=b"")
        store.write("tree/below/x", b"")
        store.delete_tree("tree")
        left = client.list_objects_v2(Bucket=bucket, Prefix="some/prefix/")["Contents"]
        assert [item["Key"] for item in left if "/tree" in item["Key"]] == ["some/prefix/trees/"]

    def test_large_files_come_and_go(self, store: Store, tmp_path: Path) -> None:
        data = bytes(range(256)) * (20 * 4096)  # 20 MiB: several parts
        (tmp_path / "source").write_bytes(data)
        store.upload(tmp_path / "source", "large")
        store.download("large", tmp_path / "new" / "target")
        assert (tmp_path / "new" / "target").read_bytes() == data == store.read("large")
        assert store.info("large").version.endswith("-3"), "uploaded in three parts"
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["target"]

    def test_missing_ends_of_a_copy_are_named(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="no-source"):
            store.upload(tmp_path / "no-source", "x")
        with pytest.raises(NotFoundError, match="no-object"):
            store.download("no-object", tmp_path / "target")
        store.write("x", b"")
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StorageError, match=r"cannot write .*file/target") as caught:
            store.download("x", tmp_path / "file" / "target")
        assert type(caught.value) is StorageError

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
    @given(data=st.binary(max_size=32), offset=st.integers(-2, 40), length=st.integers(-2, 40))
    def test_ranges(self, store: Store, data: bytes, offset: int, length: int) -> None:
        store.write("x", data)
        if offset >= 0 and length >= 0 and len(data[offset : offset + length]) == length:
            assert store.read_range("x", offset, length) == data[offset : offset + length]
        else:
            with pytest.raises(StorageError, match=rf"{length} bytes at offset {offset} of s3://.*/x") as caught:
                store.read_range("x", offset, length)
            assert type(caught.value) is StorageError

    def test_arrow_reads_the_same_objects(self, store: Store) -> None:
        store.write("a/b", b"arrow")
        filesystem, root = store.arrow()
        with filesystem.open_input_file(f"{root}/a/b") as stream:
            assert stream.read() == b"arrow"


class TestVersions:
    def test_the_indexed_object_is_read(self, store: Store) -> None:
        store.write("x", b"0123456789")
        version = store.list()[0].version
        assert store.read("x", version=version) == b"0123456789"
        assert store.read_range("x", 2, 3, version=version) == b"234"
        assert store.read_range("x", 2, 0, version=version) == b""

    def test_another_one_is_refused(self, store: Store) -> None:
        store.write("x", b"0123456789")
        version = store.info("x").version
        store.write("x", b"9876543210")
        for act in (
            operator.methodcaller("read", "x", version=version),
            operator.methodcaller("read_range", "x", 2, 3, version=version),
            operator.methodcaller("read_range", "x", 0, 0, version=version),
        ):
            with pytest.raises(ChangedError, match=r"s3://.*/some/prefix/x changed since it was indexed"):
                act(store)
        with store.open_file("x", 10, version) as file, pytest.raises(ChangedError, match="some/prefix/x"):
            file.read()
        store.delete("x")
        with pytest.raises(NotFoundError, match="there is no such object"):
            store.read_range("x", 2, 3, version=version)


class TestConditions:
    """The server enforces If-None-Match and If-Match, so what is tested is the protocol, not our belief in it."""

    def test_write_once(self, store: Store) -> None:
        store.write_once("x", b"first")
        with pytest.raises(AlreadyExistsError, match="some/prefix/x"):
            store.write_once("x", b"second")
        assert store.read("x") == b"first"

    def test_compare_and_set(self, store: Store) -> None:
        old = store.compare_and_set("x", b"1", None)
        new = store.compare_and_set("x", b"2", old)
        assert old != new == store.read_with_version("x")[1]
        for path, version in (("x", old), ("x", None), ("missing", old)):
            with pytest.raises(ConflictError, match=path):
                store.compare_and_set(path, b"3", version)
        assert store.read("x") == b"2"
        assert not store.exists("missing")

    def test_one_winner(self, store: Store) -> None:
        for number in range(10):
            path, wins = f"race/{number}", []
            wins.append(winners(lambda writer, path=path: store.compare_and_set(path, b"%d" % writer, None)))  # type: ignore[misc]
            version = store.read_with_version(path)[1]
            wins.append(winners(lambda writer, p=path, v=version: store.compare_and_set(p, b"n%d" % writer, v)))  # type: ignore[misc]
            assert [len(each) for each in wins] == [1, 1]
            assert store.read(path) == b"n%d" % wins[-1][0]

    def test_two_processes_write(self, store: Store) -> None:
        version = store.compare_and_set("x", b"1", None)
        assert isinstance(in_another_process(store, "compare_and_set", "x", b"theirs", version), str)
        with pytest.raises(ConflictError, match="was changed"):
            store.compare_and_set("x", b"ours", version)
        with pytest.raises(AlreadyExistsError):
            in_another_process(store, "write_once", "x", b"theirs again")
        assert store.read("x") == b"theirs"


class TestFailures:
    def test_missing_object(self, store: Store) -> None:
        for act in READS[:-1]:
            with pytest.raises(NotFoundError, match="some/prefix/x: there is no such object"):
                operator.methodcaller(act, "x")(store)
        for length in (0, 1):
            with pytest.raises(NotFoundError, match="some/prefix/x: there is no such object"):
                store.read_range("x", 0, length)
        assert not store.exists("x")

    def test_missing_bucket(self, nowhere: Store, tmp_path: Path) -> None:
        (tmp_path / "source").write_bytes(b"")
        acts = [operator.methodcaller(act, "x") for act in (*READS[:-1], "list", "delete", "delete_tree")]
        acts += [operator.methodcaller(act, "x", b"") for act in ("write", "write_once")]
        acts += [operator.methodcaller("compare_and_set", "x", b"", version) for version in (None, "0" * 32)]
        acts += [operator.methodcaller("upload", tmp_path / "source", "x")]
        acts += [operator.methodcaller("download", "x", tmp_path / "target"), operator.methodcaller("list")]
        for act in acts:
            with pytest.raises(NotFoundError, match=r"no bucket 'no-such-bucket' at http://127\.0\.0\.1:.*create it"):
                act(nowhere)

    @pytest.mark.usefixtures("short_patience")
    @pytest.mark.parametrize("act", [*READS, "list"])
    def test_closed_port(self, closed_port: int, act: str) -> None:
        store = open_store(f"s3://bucket/x?endpoint_override=http://127.0.0.1:{closed_port}")
        with pytest.raises(UnreachableError, match=f"http://127.0.0.1:{closed_port} does not answer") as caught:
            operator.methodcaller(act, "x")(store)
        assert "'bucket'" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_store_that_is_down_is_reported_in_time(self, closed_port: int) -> None:
        began = time.monotonic()
        with pytest.raises(UnreachableError, match=f"http://127.0.0.1:{closed_port} does not answer"):
            open_store(f"s3://bucket/x?endpoint_override=http://127.0.0.1:{closed_port}").read("x")
        assert 0.5 < time.monotonic() - began < 15

    @pytest.mark.usefixtures("short_patience", "s3_environment")
    def test_an_unknown_host(self) -> None:
        with pytest.raises(UnreachableError, match=r"http://no-such-host\.invalid:9000 does not answer"):
            open_store("s3://bucket/x?endpoint_override=http://no-such-host.invalid:9000").read("x")

    @pytest.mark.usefixtures("short_patience")
    def test_closed_port_for_writers(self, closed_port: int, tmp_path: Path) -> None:
        store = open_store(f"s3://bucket/x?endpoint_override=http://127.0.0.1:{closed_port}")
        (tmp_path / "source").write_bytes(b"")
        for act in ("write", "write_once"):
            with pytest.raises(UnreachableError, match="does not answer"):
                operator.methodcaller(act, "x", b"")(store)
        with pytest.raises(UnreachableError, match="does not answer"):
            store.upload(tmp_path / "source", "x")

    @pytest.mark.parametrize("act", [operator.methodcaller("read", "x"), operator.methodcaller("arrow")])
    def test_missing_profile(
        self, no_credentials: str, monkeypatch: pytest.MonkeyPatch, act: operator.methodcaller
    ) -> None:
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(UnreachableError, match=r"cannot .* s3://bucket/x.*profile \(nobody\)"):
            act(open_store(f"s3://bucket/x?endpoint_override={no_credentials}&region=af-south-1"))

    @pytest.mark.parametrize("act", ["read", "list"])
    def test_missing_credentials(self, no_credentials: str, act: str) -> None:
        # Clients are kept per endpoint and region; a region of its own makes a new one.
        store = open_store(f"s3://bucket/x?endpoint_override={no_credentials}&region=af-south-1")
        with pytest.raises(UnreachableError, match=r"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.*anonymous=true"):
            operator.methodcaller(act, "x")(store)

    def test_anonymous_needs_no_credentials(self, public_uri: str, no_credentials: str) -> None:
        assert no_credentials in public_uri
        public = open_store(public_uri)
        assert public.read("x") == b"x"
        assert [info.path for info in public.list()] == ["private", "x"]
        with pytest.raises(UnreachableError, match="refuses access"):
            public.read("private")

    @pytest.mark.parametrize("act", [*READS, "list"])
    def test_refused_access(self, stored: Store, s3_server: str, act: str) -> None:
        check_keys_after(s3_server, "0")
        try:
            with pytest.raises(UnreachableError, match=r"refuses access .*check credentials and policy"):
                operator.methodcaller(act, "x")(stored)
        finally:
            check_keys_after(s3_server, "inf")


def check_keys_after(s3_server: str, requests: str) -> None:
    """From then on the server refuses keys that it does not know; it knows none."""
    kind = {"Content-Type": "application/octet-stream"}
    url = f"{s3_server}/moto-api/reset-auth"
    urllib.request.urlopen(urllib.request.Request(url, data=requests.encode(), headers=kind)).close()


def test_a_store_travels_to_another_process(store: Store) -> None:
    store.write("x", b"0123456789")
    assert in_another_process(store, "read_range", "x", 3, 4) == b"3456"
    assert in_another_process(store, "list") == store.list()
