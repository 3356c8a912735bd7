"""What S3 does seldom and no test server does on request: broken bodies, busy answers, resets, conflicts in flight."""

import operator
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raylens.errors import (
    AlreadyExistsError,
    ChangedError,
    ConflictError,
    NotFoundError,
    StorageError,
    UnreachableError,
)
from raylens.storage import Store, open_store
from raylens.storage.s3 import clients, reads

CONTENT = b"0123456789"
BUSY = (503, "SlowDown")
BROKEN_INSIDE = (500, "InternalError")
TIMED_OUT = (400, "RequestTimeout")
CONFLICT = (409, "ConditionalRequestConflict")
TAKEN = (412, "PreconditionFailed")
GONE = (404, "NoSuchKey")
BROKEN_OFF = (0, "")
"""Half of the body comes."""
RESET = (-1, "")
"""Half of the body comes, then the connection is torn down."""
SILENT = (-2, "")
"""Half of the body comes, then nothing any more."""
SWAPPED = (-3, "")
"""Half of the body comes, and the object is another one from then on."""
SLOW = (-4, "")
"""The body comes late and in two parts, but comes."""
UNRANGED = (-5, "")
"""The range that was asked for is ignored."""
REFUSED_AND_RESET = (-6, "NoSuchKey")
"""A refusal, of which half comes before the connection is torn down."""
FINE = (200, "")
PASSING = {
    "broken-off": BROKEN_OFF,
    "busy": BUSY,
    "error": BROKEN_INSIDE,
    "timed-out": TIMED_OUT,
    "reset": RESET,
    "silent": SILENT,
    "refused-and-reset": REFUSED_AND_RESET,
}
READS = [
    operator.methodcaller("read", "x"),
    operator.methodcaller("read_range", "x", 2, 5),
    operator.methodcaller("read_with_version", "x"),
]


class Server(ThreadingHTTPServer):
    """Speaks S3 for one object, and answers the first requests as the test wants."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag = CONTENT, '"tag"'
        self.faults: list[tuple[int, str]] = []
        self.requests: list[str] = []
        self.asked: list[tuple[str | None, str | None]] = []
        """The ``Range`` and ``If-Match`` of each GET."""
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_HEAD(self) -> None:
        self.answer(200, self.server.content)

    def do_GET(self) -> None:
        span, condition, content = self.headers.get("Range"), self.headers.get("If-Match"), self.server.content
        self.server.asked.append((span, condition))
        if self.server.faults[:1] == [UNRANGED]:
            span = None
        if condition not in (None, self.server.tag):
            self.answer(*TAKEN)
        elif span is None:
            self.answer(200, content)
        else:
            first, last = (int(end) for end in span.removeprefix("bytes=").split("-"))
            part = content[first : last + 1]
            self.answer(206, part, f"bytes {first}-{first + len(part) - 1}/{len(content)}")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, b"")

    def answer(self, status: int, body: bytes | str, span: str | None = None) -> None:
        self.server.requests.append(self.command)
        fault, code = self.server.faults.pop(0) if self.server.faults else FINE
        if isinstance(body, str):
            fault, code = status, body
        if code:
            status, body = (
                404 if fault < 0 else fault,
                f"<Error><Code>{code}</Code><Message>so says the test</Message></Error>".encode(),
            )
        assert isinstance(body, bytes)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", self.server.tag)
        if span and not code:
            self.send_header("Content-Range", span)
        self.end_headers()
        if self.command != "HEAD":
            self.send(body, fault)

    def send(self, body: bytes, fault: int) -> None:
        if fault > 0 or fault == UNRANGED[0]:
            self.wfile.write(body)
            return
        time.sleep(0.2 if fault == SLOW[0] else 0)
        self.wfile.write(body[: len(body) // 2])
        if fault == SLOW[0]:
            time.sleep(0.2)
            self.wfile.write(body[len(body) // 2 :])
            return
        self.close_connection = True
        if fault == SILENT[0]:
            self.server.over.wait(20)
        if fault == SWAPPED[0]:
            self.server.content, self.server.tag = b"9876543210", '"other"'
        if fault in (RESET[0], REFUSED_AND_RESET[0]):
            time.sleep(0.02)  # what was sent arrives first
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(clients, "STALL_SECONDS", 0.5)


@pytest.fixture
def server(s3_environment: None) -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # how soon it hears that it is over
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def store(server: Server) -> Store:
    return open_store(f"s3://bucket/p?endpoint_override=http://127.0.0.1:{server.server_port}&region=us-east-1")


@pytest.mark.parametrize("read", READS, ids=["whole", "range", "version"])
def test_a_read_is_one_request(store: Store, server: Server, read: operator.methodcaller) -> None:
    read(store)
    assert server.requests == ["GET"]


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
@pytest.mark.parametrize("read", READS, ids=["whole", "range", "version"])
def test_a_read_is_tried_again(
    store: Store, server: Server, read: operator.methodcaller, fault: tuple[int, str]
) -> None:
    wanted = read(store)
    server.faults = [fault, fault]
    assert read(store) == wanted
    assert server.requests == ["GET"] * 4
    assert store.read_range("x", 2, 5) == CONTENT[2:7]


@pytest.mark.parametrize("fault", [BROKEN_OFF, BUSY, RESET], ids=["broken-off", "busy", "reset"])
@pytest.mark.parametrize("read", READS, ids=["whole", "range", "version"])
def test_not_for_ever(store: Store, server: Server, read: operator.methodcaller, fault: tuple[int, str]) -> None:
    server.faults = [fault] * 20
    server.content = bytes(1000)  # so that half of the rest is never nothing
    with pytest.raises(UnreachableError, match=r"cannot read s3://bucket/p/x.* http://127\.0\.0\.1") as caught:
        read(store)
    assert "\n" not in str(caught.value)
    assert server.requests == ["GET"] * reads.ATTEMPTS


@pytest.mark.parametrize(
    ("act", "fault"), [("info", BUSY), ("list", BUSY), ("list", BROKEN_OFF), ("list", RESET)]
)  # what answers info has no body that could break off
def test_questions_are_asked_again(store: Store, server: Server, act: str, fault: tuple[int, str]) -> None:
    server.faults = [fault] * (reads.ATTEMPTS - 1) + [(200, "")]
    server.content = b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
    operator.methodcaller(act, "x")(store)
    assert len(server.requests) == reads.ATTEMPTS


@pytest.mark.parametrize("fault", [BROKEN_OFF, SILENT], ids=["broken-off", "silent"])
def test_a_read_goes_on_after_the_last_byte_that_came(store: Store, server: Server, fault: tuple[int, str]) -> None:
    server.content = bytes(range(256)) * 4096  # 1 MiB
    server.faults = [fault, BROKEN_OFF, BUSY]
    assert store.read("x") == server.content
    half, rest = 2**19, 2**18
    assert server.asked == [
        (None, None),
        (f"bytes={half}-{2**20 - 1}", '"tag"'),
        (f"bytes={half + rest}-{2**20 - 1}", '"tag"'),
        (f"bytes={half + rest}-{2**20 - 1}", '"tag"'),
    ]
    server.asked.clear()
    server.faults = [BROKEN_OFF]
    assert store.read_range("x", 100, 1000, version="tag") == server.content[100:1100]
    assert server.asked == [("bytes=100-1099", '"tag"'), ("bytes=600-1099", '"tag"')]


def test_a_reset_connection_loses_little(store: Store, server: Server) -> None:
    server.content = random.Random(1).randbytes(4 * 2**20)
    server.faults = [RESET, RESET]
    assert store.read("x") == server.content
    assert len(server.asked) == 3


def test_two_versions_are_never_glued(store: Store, server: Server) -> None:
    server.faults = [SWAPPED]
    with pytest.raises(ChangedError, match="s3://bucket/p/x changed while it was read"):
        store.read("x")
    assert store.read("x") == server.content != CONTENT
    server.content, server.tag, server.faults = CONTENT, '"tag"', [SWAPPED]
    with pytest.raises(ChangedError, match="s3://bucket/p/x changed since it was indexed"):
        store.read_range("x", 2, 5, version="tag")
    server.faults = [BROKEN_OFF, GONE]
    with pytest.raises(NotFoundError, match="no such object"):
        store.read("x")


def test_a_changed_object_is_no_passing_fault(store: Store, server: Server) -> None:
    for act in (
        operator.methodcaller("read", "x", version="old"),
        operator.methodcaller("read_range", "x", 2, 5, version="old"),
    ):
        with pytest.raises(ChangedError, match="changed since it was indexed"):
            act(store)
    assert server.asked == [(None, '"old"'), ("bytes=2-6", '"old"')]


def test_a_slow_answer_is_no_fault(store: Store, server: Server) -> None:
    server.faults = [SLOW, SLOW]
    assert store.read("x") == CONTENT
    assert store.read_range("x", 2, 5) == CONTENT[2:7]
    assert server.requests == ["GET"] * 2


def test_a_server_without_ranges_is_refused(store: Store, server: Server) -> None:
    server.faults = [UNRANGED]
    with pytest.raises(StorageError, match="bytes from 2"):
        store.read_range("x", 2, 5)
    server.faults = [BROKEN_OFF, UNRANGED]
    with pytest.raises(StorageError, match="bytes from 5"):
        store.read("x")


def test_one_fault_in_twenty_requests_goes_unnoticed(store: Store, server: Server) -> None:
    draw, count = random.Random(1), 1000
    server.content = bytes(range(256))
    kinds = [fault for fault in PASSING.values() if fault != SILENT]  # which takes its time
    server.faults = [draw.choice(kinds) if draw.random() < 0.05 else FINE for _ in range(2 * count)]
    for number in range(count):
        assert store.read_range("x", number % 100, 100) == server.content[number % 100 : number % 100 + 100]
    assert count * 1.02 < len(server.requests) < count * 1.1


def test_a_download_that_breaks_off(store: Store, server: Server, tmp_path: Path) -> None:
    server.content = random.Random(1).randbytes(2**20)
    server.faults = [BUSY, FINE, BROKEN_OFF, RESET]
    store.download("x", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == server.content
    server.faults = [FINE] + [BROKEN_OFF] * 20
    with pytest.raises(UnreachableError, match=r"cannot read s3://bucket/p/x at http://127\.0\.0\.1"):
        store.download("x", tmp_path / "second")
    server.faults = [FINE, SWAPPED]
    with pytest.raises(ChangedError, match="x changed while it was downloaded"):
        store.download("x", tmp_path / "third")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_conflict_in_flight_decides_nothing(store: Store, server: Server) -> None:
    server.faults = [CONFLICT]
    store.write_once("x", b"")
    server.faults = [CONFLICT]
    assert store.compare_and_set("x", b"", "tag") == "tag"
    server.faults = [CONFLICT, TAKEN]
    with pytest.raises(AlreadyExistsError, match="s3://bucket/p/x"):
        store.write_once("x", b"")
    server.faults = [CONFLICT, TAKEN]
    with pytest.raises(ConflictError, match="was changed"):
        store.compare_and_set("x", b"", "tag")
    assert server.requests == ["PUT"] * 8


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ((403, "AccessDenied"), UnreachableError, "refuses access .AccessDenied"),
        ((403, "InvalidAccessKeyId"), UnreachableError, "check credentials and policy"),
        ((403, "QuotaExceeded"), UnreachableError, "bucket 'bucket' at .* is full .QuotaExceeded."),
        ((507, "XMinioStorageFull"), UnreachableError, "is full .XMinioStorageFull."),
        ((400, "ExpiredToken"), UnreachableError, "check credentials and policy"),
        ((301, "PermanentRedirect"), UnreachableError, "not in this region"),
        ((400, "EntityTooLarge"), StorageError, "EntityTooLarge: so says the test"),
    ],
)
def test_refusals(store: Store, server: Server, fault: tuple[int, str], kind: type[StorageError], says: str) -> None:
    server.faults = [fault] * 20
    with pytest.raises(StorageError, match=rf"cannot write s3://bucket/p/x: .*{says}") as caught:
        store.write("x", b"")
    assert type(caught.value) is kind
