"""What S3 does seldom and no test server does on request: broken bodies, busy answers, conflicts in flight."""

import operator
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raylens.errors import AlreadyExistsError, ConflictError, StorageError, UnreachableError
from raylens.storage import Store, open_store

CONTENT = b"0123456789"
BUSY = (503, "SlowDown")
CONFLICT = (409, "ConditionalRequestConflict")
TAKEN = (412, "PreconditionFailed")
BROKEN_OFF = (0, "")
FINE = (200, "")
READS = [
    operator.methodcaller("read", "x"),
    operator.methodcaller("read_range", "x", 2, 5),
    operator.methodcaller("read_with_version", "x"),
]


class Server(ThreadingHTTPServer):
    """Speaks S3 for one object, and answers the first requests as the test wants."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[tuple[int, str]] = []
        self.requests: list[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self.answer(200, CONTENT)

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        first, last = (int(end) for end in span.removeprefix("bytes=").split("-")) if span else (0, len(CONTENT))
        self.answer(206 if span else 200, CONTENT[first : last + 1])

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, b"")

    def answer(self, status: int, body: bytes) -> None:
        self.server.requests.append(self.command)
        faulty = self.command != "HEAD" and self.server.faults
        fault, code = self.server.faults.pop(0) if faulty else FINE
        if code:
            status, body = fault, f"<Error><Code>{code}</Code><Message>so says the test</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"tag"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if fault == 0 else body)
        self.close_connection = fault == 0

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(s3_environment: None) -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def store(server: Server) -> Store:
    return open_store(f"s3://bucket/p?endpoint_override=http://127.0.0.1:{server.server_port}&region=us-east-1")


@pytest.mark.parametrize("read", READS, ids=["whole", "range", "version"])
def test_a_read_is_one_request(store: Store, server: Server, read: operator.methodcaller) -> None:
    read(store)
    assert server.requests == ["GET"]


@pytest.mark.parametrize("fault", [BROKEN_OFF, BUSY], ids=["broken-off", "busy"])
@pytest.mark.parametrize("read", READS, ids=["whole", "range", "version"])
def test_a_read_is_tried_again(
    store: Store, server: Server, read: operator.methodcaller, fault: tuple[int, str]
) -> None:
    wanted = read(store)
    server.faults = [fault, fault]
    assert read(store) == wanted
    assert server.requests == ["GET"] * 4
    assert store.read_range("x", 2, 5) == CONTENT[2:7]


@pytest.mark.parametrize("fault", [BROKEN_OFF, BUSY], ids=["broken-off", "busy"])
@pytest.mark.parametrize("read", READS, ids=["whole", "range", "version"])
def test_not_for_ever(store: Store, server: Server, read: operator.methodcaller, fault: tuple[int, str]) -> None:
    server.faults = [fault] * 20
    with pytest.raises(UnreachableError, match=r"cannot read s3://bucket/p/x: http://127\.0\.0\.1") as caught:
        read(store)
    assert "\n" not in str(caught.value)
    assert server.requests == ["GET"] * 3


def test_a_download_that_breaks_off(store: Store, server: Server, tmp_path: Path) -> None:
    server.faults = [BROKEN_OFF]
    store.download("x", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == CONTENT
    server.faults = [BROKEN_OFF] * 20
    with pytest.raises(UnreachableError, match=r"cannot read s3://bucket/p/x at http://127\.0\.0\.1"):
        store.download("x", tmp_path / "second")
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
    with pytest.raises(ConflictError, match="changed by somebody else"):
        store.compare_and_set("x", b"", "tag")
    assert server.requests == ["PUT"] * 8


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ((403, "AccessDenied"), UnreachableError, "refuses access .AccessDenied"),
        ((403, "InvalidAccessKeyId"), UnreachableError, "check credentials and policy"),
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
