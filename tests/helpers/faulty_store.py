"""A proxy before an S3 endpoint that answers one request in twenty as S3 does on a bad day."""

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

__all__ = ["FAULTS", "FULL", "READ_ONLY", "FaultyStore", "faulty_store"]

FAULTS = ("busy", "reset", "truncated", "slow")
EVERY = 20
"""One request of so many is faulty: 5%."""
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
READ_ONLY, FULL = (403, "AccessDenied"), (403, "QuotaExceeded")
"""How S3 refuses a write, and how Ceph does where a bucket has as much as it may."""
HOP_BY_HOP = ("connection", "transfer-encoding", "content-length", "date", "server")


class FaultyStore(ThreadingHTTPServer):
    """Forwards everything to ``endpoint``; each kind of fault takes its turn."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = urlsplit(endpoint).netloc
        self.requests = 0
        self.every = EVERY
        """0 for none."""
        self.refusal: tuple[int, str] | None = None
        """Status and code with which everything that would be written is refused; from a full store one may delete."""
        self.injected: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        """The endpoint that clients use."""
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self) -> str | None:
        """What happens to the next request."""
        with self._lock:
            self.requests += 1
            if not self.every or self.requests % self.every:
                return None
            kind = FAULTS[self.requests // self.every % len(FAULTS)]
            self.injected[kind] += 1
            return kind

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyStore

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault()
        refusal = self.server.refusal
        if refusal and (self.command in ("PUT", "POST") or (self.command == "DELETE" and refusal != FULL)):
            told = f"<Error><Code>{refusal[1]}</Code><Message>So it is.</Message></Error>".encode()
            self._answer(refusal[0], [("Content-Type", "application/xml")], told, None)
        elif fault == "busy":
            self._answer(503, [("Content-Type", "application/xml")], SLOW_DOWN, None)
        elif fault == "reset" and self.command != "GET":
            self._reset()  # before anything was done, so that nobody needs to know what became of it
        else:
            upstream = http.client.HTTPConnection(self.server.endpoint, timeout=60)
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            answer = upstream.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
            content = answer.read()
            if self.command == "HEAD":
                headers.append(("Content-Length", answer.headers["Content-Length"] or "0"))
            self._answer(answer.status, headers, content, fault)
            upstream.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, fault: str | None) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(content) // 2
        self.wfile.write(content if fault is None else content[:half])
        if fault == "slow":
            time.sleep(0.5)
            self.wfile.write(content[half:])
        elif fault == "truncated":
            self.close_connection = True
        elif fault == "reset":
            self._reset()

    def _reset(self) -> None:
        self.wfile.flush()
        time.sleep(0.02)  # what was sent arrives first
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def faulty_store(endpoint: str) -> Iterator[FaultyStore]:
    """Runs before ``endpoint`` as long as the block."""
    with FaultyStore(endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
