"""Stores in a server that speaks Google Cloud Storage's protocol on loopback, through pyarrow's real client."""

import operator
import pickle
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raylens.errors import ChangedError, NotFoundError, StorageError, UnreachableError
from raylens.storage import Store, gcs, open_store

SERVER = """
import sys, threading
from functools import partial
from http.server import ThreadingHTTPServer
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RequestHandler, Storage(use_memory_fs=True)))
threading.Thread(target=server.serve_forever).start()
print("127.0.0.1:%d" % server.server_port, flush=True)
sys.stdin.read()
server.shutdown()
"""
"""Ends with its standard input, so that it never outlives the tests."""
READS = [operator.methodcaller(act, "x") for act in ("read", "read_text", "read_with_version", "info")]
READS.append(operator.methodcaller("read_range", "x", 0, 1))
WRITES = {
    "write": ("x", b""),
    "write_once": ("x", b""),
    "compare_and_set": ("x", b"", None),
    "upload": (Path(__file__), "x"),
    "delete": ("x",),
    "delete_tree": ("x",),
}


@pytest.fixture(autouse=True)
def no_google_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that this machine may say about Google."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUD_STORAGE_EMULATOR_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "raylens-tests")  # whoever makes a bucket must belong to one
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def gcs_server() -> Iterator[str]:
    """``host:port`` of a server that lives as long as the module."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        host = process.stdout.readline().strip()
        assert host, "the server of gs:// did not start"
        yield host
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)


@pytest.fixture
def store(gcs_server: str) -> Store:
    """An empty prefix of a fresh bucket."""
    bucket = f"raylens-{uuid.uuid4().hex[:12]}"
    root = open_store(f"gs://{bucket}?endpoint_override={gcs_server}&scheme=http&anonymous=true")
    root.arrow()[0].create_dir(bucket)
    return root / "some" / "prefix"


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "RETRY_SECONDS", 1)


class Refusing(ThreadingHTTPServer):
    """Answers every request with one status."""

    status = 403

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RefusingHandler)


class RefusingHandler(BaseHTTPRequestHandler):
    server: Refusing

    def do_GET(self) -> None:
        body = b'{"error": {"code": %d, "message": "so says\\nthe test"}}' % self.server.status
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    with Refusing() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # how soon it hears that it is over
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def put(store: Store, path: str, data: bytes) -> None:
    """As somebody else does it: stores of this kind do not write."""
    filesystem, root = store.arrow()
    with filesystem.open_output_stream(f"{root}/{path}") as sink:
        sink.write(data)


def told(store: Store, act: Callable[[Store], object], kind: type[StorageError]) -> tuple[str, float]:
    """The one-line message of an error, and the seconds until it came."""
    began = time.monotonic()
    with pytest.raises(StorageError) as caught:
        act(store)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert "google::cloud" not in str(caught.value)
    return str(caught.value), time.monotonic() - began


class TestObjects:
    def test_what_others_wrote_is_read(self, store: Store) -> None:
        put(store, "a/b c#d?e%41.bin", b"\x00\xff")
        assert store.read("a/b c#d?e%41.bin") == b"\x00\xff"
        assert (store / "a").read("b c#d?e%41.bin") == b"\x00\xff"
        info = store.info("a/b c#d?e%41.bin")
        assert pickle.loads(pickle.dumps(open_store(store.uri))).list() == [info]
        assert store.read_with_version("a/b c#d?e%41.bin") == (b"\x00\xff", info.version)
        assert store.exists("a/b c#d?e%41.bin")
        assert not store.exists("a")

    def test_list_knows_its_folder(self, store: Store) -> None:
        for path in ("b/2", "b/10", "a", "b.txt"):
            put(store, path, path.encode())
        filesystem, root = store.arrow()
        filesystem.create_dir(f"{root}/marker")
        assert [(info.path, info.size) for info in store.list()] == [("a", 1), ("b.txt", 5), ("b/10", 4), ("b/2", 3)]
        assert [info.path for info in store.list("b")] == ["b/10", "b/2"]
        assert [info.path for info in (store / "b").list()] == ["10", "2"]
        assert store.list("missing") == [] == (store / "missing").list()

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
    @given(data=st.binary(max_size=32), offset=st.integers(-2, 40), length=st.integers(-2, 40))
    def test_ranges(self, store: Store, data: bytes, offset: int, length: int) -> None:
        put(store, "x", data)
        if offset >= 0 and length >= 0 and len(data[offset : offset + length]) == length:
            assert store.read_range("x", offset, length) == data[offset : offset + length]
        else:
            with pytest.raises(StorageError, match=rf"{length} bytes at offset {offset} of gs://.*/x"):
                store.read_range("x", offset, length)

    def test_large_objects_come_in_parts(self, store: Store, tmp_path: Path) -> None:
        data = bytes(range(256)) * (20 * 4096)  # 20 MiB
        put(store, "large", data)
        store.download("large", tmp_path / "new" / "target")
        assert (tmp_path / "new" / "target").read_bytes() == data
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["target"]

    def test_parquet_is_read_where_it_lies(self, store: Store, tmp_path: Path) -> None:
        table = pa.table({"a": list(range(1000)), "b": [str(number) for number in range(1000)]})
        pq.write_table(table, tmp_path / "x", row_group_size=100)
        put(store, "x", (tmp_path / "x").read_bytes())
        info = store.info("x")
        with store.open_file("x", info.size, info.version) as file:
            assert pq.ParquetFile(file).read_row_group(3, columns=["b"])["b"].to_pylist()[0] == "300"

    def test_another_version_is_refused(self, store: Store) -> None:
        put(store, "x", b"0123456789")
        version = store.list()[0].version
        assert store.read("x", version=version) == b"0123456789"
        assert store.read_range("x", 2, 3, version=version) == b"234"
        time.sleep(0.01)
        put(store, "x", b"9876543210")
        for act in (
            operator.methodcaller("read", "x", version=version),
            operator.methodcaller("read_range", "x", 2, 3, version=version),
            operator.methodcaller("read_range", "x", 0, 0, version=version),
        ):
            with pytest.raises(ChangedError, match=r"gs://.*/some/prefix/x changed since it was indexed"):
                act(store)
        assert store.read("x") == b"9876543210"

    @pytest.mark.parametrize("act", WRITES)
    def test_nothing_is_written(self, store: Store, act: str) -> None:
        put(store, "x", b"as it was")
        with pytest.raises(
            StorageError, match=r"cannot change gs://.*/x: gs:// holds data sets only.*s3:// or a folder"
        ):
            operator.methodcaller(act, *WRITES[act])(store)
        assert store.read("x") == b"as it was"


class TestFailures:
    @pytest.mark.parametrize("read", READS, ids=lambda read: str(read))
    def test_missing_object(self, store: Store, read: operator.methodcaller) -> None:
        message, seconds = told(store, read, NotFoundError)
        assert message == f"cannot read {store.describe()}/x: there is no such object"
        assert seconds < 5

    @pytest.mark.parametrize("act", [*READS, operator.methodcaller("list"), operator.methodcaller("list", "x")])
    def test_missing_bucket(self, gcs_server: str, act: operator.methodcaller) -> None:
        nowhere = open_store(f"gs://no-such-bucket/y?endpoint_override=http://{gcs_server}&anonymous=true")
        message, seconds = told(nowhere, act, NotFoundError)
        assert f"there is no bucket 'no-such-bucket' at http://{gcs_server}: create it" in message
        assert seconds < 5

    def test_missing_target(self, store: Store, tmp_path: Path) -> None:
        put(store, "x", b"")
        (tmp_path / "file").write_bytes(b"")
        message, _ = told(store, operator.methodcaller("download", "x", tmp_path / "file" / "target"), StorageError)
        assert message.startswith(f"cannot write {tmp_path}/file/target")

    @pytest.mark.parametrize("status", [401, 403])
    @pytest.mark.parametrize("act", [operator.methodcaller("read", "x"), operator.methodcaller("list")])
    def test_refused_access(self, refusing: Refusing, status: int, act: operator.methodcaller) -> None:
        refusing.status = status
        store = open_store(f"gs://bucket/y?endpoint_override=http://127.0.0.1:{refusing.server_port}&anonymous=true")
        message, seconds = told(store, act, UnreachableError)
        assert f"http://127.0.0.1:{refusing.server_port} refuses access" in message
        assert seconds < 5

    @pytest.mark.usefixtures("short_patience")
    @pytest.mark.parametrize("act", [operator.methodcaller("read", "x"), operator.methodcaller("list")])
    def test_nobody_listens(self, act: operator.methodcaller) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            where = f"http://127.0.0.1:{taken.getsockname()[1]}"
            message, seconds = told(
                open_store(f"gs://bucket/y?endpoint_override={where}&anonymous=true"), act, UnreachableError
            )
        assert f"{where} does not answer for bucket 'bucket'" in message
        assert seconds < 20

    @pytest.mark.usefixtures("short_patience")
    def test_busy(self, refusing: Refusing) -> None:
        refusing.status = 503
        store = open_store(f"gs://bucket/y?endpoint_override=http://127.0.0.1:{refusing.server_port}&anonymous=true")
        message, seconds = told(store, operator.methodcaller("info", "x"), UnreachableError)
        assert "does not answer" in message
        assert seconds < 20

    def test_missing_credentials(self, gcs_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        store = open_store(f"gs://bucket/{uuid.uuid4()}?endpoint_override=http://{gcs_server}")
        message, seconds = told(store, operator.methodcaller("read", "x"), UnreachableError)
        assert "no Google credentials (Cannot open credentials file" in message
        assert "anonymous=true" in message
        assert seconds < 5

    def test_an_environment_that_would_send_it_elsewhere(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        put(store, "x", b"")
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", "http://elsewhere:1")
        message, _ = told(store, operator.methodcaller("read", "x"), UnreachableError)
        assert "CLOUD_STORAGE_EMULATOR_ENDPOINT = 'http://elsewhere:1' overrules" in message
