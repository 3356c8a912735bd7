"""Images by URL: which hosts and addresses may be reached, and what large, slow and missing images do."""

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from raylens.serve.config import SecurityConfig, UrlConfig
from raylens.serve.gateway.fetch import Fetcher
from raylens.serve.messages import Failed, ImageFile
from raylens.serve.replica.replica import EncoderReplica
from tests.helpers.serving_app import (
    Service,
    picture,
    uri,
)

ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {}


class Images(BaseHTTPRequestHandler):
    """A web server with what `ANSWERS` says."""

    hosts: list[str] = []  # noqa: RUF012 (of the only class)

    def do_GET(self) -> None:
        self.hosts.append(self.headers["host"])
        status, headers, body = ANSWERS[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.path == "/slow":
            time.sleep(3)
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def port() -> Any:
    with ThreadingHTTPServer(("127.0.0.1", 0), Images) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def resolver(**hosts: Sequence[str]) -> Any:
    """A DNS of the test: names with underscores for dots; a list of answers is given one after the other."""
    asked: dict[str, int] = {}

    async def resolve(host: str, port: int) -> Sequence[str]:
        del port
        answers = hosts.get(host.replace(".", "_"))
        if answers is None:
            # As the system would: addresses in any of their spellings, never a name.
            found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)
            return [str(one[4][0]) for one in found]
        asked[host] = asked.get(host, -1) + 1
        return [answers[min(asked[host], len(answers) - 1)]]

    return resolve


def fetched(fetcher: Fetcher, url: str) -> ImageFile | Failed:
    return asyncio.run(fetcher.fetch(url, fetcher.budget()))


def test_an_allowed_host_is_fetched_from_the_address_that_was_checked(port: int) -> None:
    file = picture()
    ANSWERS["/a.png"] = (200, {"content-type": "image/png"}, file)
    ANSWERS["/moved"] = (302, {"location": f"http://cdn.example.org:{port}/a.png"}, b"")
    config = UrlConfig(hosts=(f"good.test:{port}", f"*.example.org:{port}"), http=True, private=True)
    resolve = resolver(good_test=["127.0.0.1"], cdn_example_org=["127.0.0.1"])
    assert fetched(Fetcher(config, resolve), f"http://good.test:{port}/a.png") == ImageFile(file)
    Images.hosts.clear()
    assert fetched(Fetcher(config, resolve), f"http://good.test:{port}/moved") == ImageFile(file)
    assert Images.hosts == [f"good.test:{port}", f"cdn.example.org:{port}"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/a.png",
        "http://2130706433:{port}/a.png",  # decimal
        "http://0x7f000001:{port}/a.png",
        "http://0177.0.0.1:{port}/a.png",  # octal
        "http://127.1:{port}/a.png",
        "http://[::1]:{port}/a.png",
        "http://[::ffff:127.0.0.1]:{port}/a.png",
        "http://[64:ff9b::7f00:1]:{port}/a.png",  # NAT64
        "http://[2002:7f00:1::]:{port}/a.png",  # 6to4
        "http://[::127.0.0.1]:{port}/a.png",
        "http://[fe80::1]:{port}/a.png",
        "http://[fd00::1]:{port}/a.png",
        "http://[fec0::1]:{port}/a.png",
        "http://[feff::1]:{port}/a.png",
        "http://0.0.0.0:{port}/a.png",
        "http://169.254.169.254:{port}/latest/meta-data",
        "http://10.0.0.1:{port}/a.png",
        "http://100.64.0.1:{port}/a.png",
        "http://224.0.0.1:{port}/a.png",
        "http://inside.test:{port}/a.png",
        "http://both.test:{port}/a.png",
        "http://user:secret@public.test:{port}/a.png",
        "http://public.test:{port}/to-inside",
        "http://rebound.test:{port}/to-rebound",
    ],
)
def test_with_all_hosts_allowed_nothing_inside_is_reached(port: int, url: str) -> None:
    ANSWERS["/a.png"] = (200, {}, picture())
    config = UrlConfig(hosts=(f"*:{port}",), http=True)
    resolve = resolver(inside_test=["127.0.0.1"], both_test=["192.0.2.1"], public_test=["10.1.2.3"])
    Images.hosts.clear()
    answer = fetched(Fetcher(config, resolve), url.format(port=port))
    assert isinstance(answer, Failed)
    assert answer.code in ("url_not_allowed", "url_failed")
    assert Images.hosts == [], "the server behind it was reached"


def test_a_redirect_is_checked_like_a_url(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host is public by its address; where it leads, and what DNS says the second time, is not."""
    fetcher = Fetcher(
        UrlConfig(hosts=(f"*:{port}",), http=True),
        resolver(public_test=["93.184.216.34"], rebound_test=["93.184.216.34", "127.0.0.1"], inside_test=["127.0.0.1"]),
    )
    reached: list[str] = []

    async def get(url: str, host: str, address: Any, budget: Any) -> str:
        reached.append(f"{host} {address}")
        return {"public.test": f"http://inside.test:{port}/", "rebound.test": f"http://rebound.test:{port}/"}[host]

    monkeypatch.setattr(fetcher, "_get", get)
    for host in ("public.test", "rebound.test"):
        answer = fetched(fetcher, f"http://{host}:{port}/")
        assert isinstance(answer, Failed)
        assert answer.code == "url_not_allowed"
    assert reached == ["public.test 93.184.216.34", "rebound.test 93.184.216.34"]


def test_hosts_schemes_and_ports_beside_the_list_are_refused(port: int) -> None:
    fetcher = Fetcher(UrlConfig(hosts=("good.test", "*.example.org")), resolver())
    urls = [
        "https://evil.test/", "https://good.test.evil.test/", "https://example.org/", "https://evilexample.org/",
        "http://good.test/", f"https://good.test:{port}/", "ftp://good.test/", "file:///etc/passwd", "https:///x",
        "https://good.test\\@evil.test/", "https://", "gopher://good.test/", "https://[::1", "https://a b/",
    ]  # fmt: skip
    for url in urls:
        answer = fetched(fetcher, url)
        assert isinstance(answer, Failed), url
        assert answer.code in ("url_not_allowed", "url_failed")


def test_large_slow_endless_and_missing_images_fail_alone(port: int, replica: EncoderReplica) -> None:
    file = picture()
    ANSWERS.update(
        {
            "/a.png": (200, {}, file),
            "/large": (200, {}, b"x" * 70_000),
            "/declared": (200, {"content-length": "70000"}, b"x"),
            "/loop": (302, {"location": "/loop"}, b""),
            "/nowhere": (302, {}, b""),
            "/missing": (404, {}, b"secret inner page"),
            "/slow": (200, {"content-length": "9"}, b"x"),
        }
    )
    config = UrlConfig(hosts=(f"good.test:{port}",), http=True, private=True, max_bytes=60_000, timeout_s=1.5)
    service = Service(replica, SecurityConfig(urls=config), Fetcher(config, resolver(good_test=["127.0.0.1"])))
    paths = ["/a.png", "/large", "/declared", "/loop", "/missing", "/slow", "/nowhere"]
    body = {"input": [{"image": f"http://good.test:{port}{path}"} for path in paths] + [{"image": uri(file)}]}
    response = service.send("POST", "/v1/embeddings", json=body)
    answer = response.json()["data"]
    codes = [one.get("error", {}).get("code") for one in answer]
    assert codes[:6] == [None, "url_too_large", "url_too_large", "url_failed", "url_failed", "url_timeout"]
    assert codes[6] == "url_failed"
    assert answer[0]["embedding"] == answer[-1]["embedding"]
    assert "secret" not in response.text


def test_the_images_of_a_request_are_bounded_together(port: int, replica: EncoderReplica) -> None:
    ANSWERS.update({f"/{number}.png": (200, {}, picture()) for number in range(8)})
    size = len(ANSWERS["/0.png"][2])
    config = UrlConfig(
        hosts=(f"good.test:{port}",), http=True, private=True, max_total_bytes=int(3.5 * size), max_concurrency=1
    )
    fetcher = Fetcher(config, resolver(good_test=["127.0.0.1"]))
    body = {"input": [{"image": f"http://good.test:{port}/{number}.png"} for number in range(8)]}
    Images.hosts.clear()
    answer = (
        Service(replica, SecurityConfig(urls=config), fetcher).send("POST", "/v1/embeddings", json=body).json()["data"]
    )
    codes = [one.get("error", {}).get("code") for one in answer]
    assert codes == [None] * 3 + ["url_too_large"] * 5
    assert len(Images.hosts) == 4, "what is over the limit is not begun"
    assert f"over {int(3.5 * size)} bytes together" in answer[-1]["error"]["message"]
    assert fetcher.budget().exceeded is None, "each request has its own"


def test_proxies_of_the_machine_are_not_asked(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ANSWERS["/a.png"] = (200, {}, picture())
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:9")
    config = UrlConfig(hosts=(f"good.test:{port}",), http=True, private=True)
    answer = fetched(Fetcher(config, resolver(good_test=["127.0.0.1"])), f"http://good.test:{port}/a.png")
    assert isinstance(answer, ImageFile)
