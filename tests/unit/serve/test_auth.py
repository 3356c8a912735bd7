"""Keys, rates, and the addresses that images may be fetched from."""

import asyncio
import hashlib
import json
import os
import socket
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.errors import ConfigError
from raylens.registry import Registry
from raylens.serve.config import SecurityConfig, UrlConfig
from raylens.serve.gateway import keys as keys_module
from raylens.serve.gateway.app import build_app
from raylens.serve.gateway.fetch import Fetcher
from raylens.serve.gateway.keys import KeyRing, new_key
from raylens.serve.gateway.rate_limit import BURST_SECONDS, TokenBuckets
from raylens.serve.messages import Failed, ImageFile
from raylens.serve.replica.replica import EncoderReplica
from tests.unit.serve.test_app import SETTINGS, catalogue_of, picture, random_bundle, refused, uri


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> EncoderReplica:
    folder = tmp_path_factory.mktemp("registry")
    Registry(str(folder)).publish("tiny", random_bundle())
    return EncoderReplica(str(folder), "tiny@1", SETTINGS)


class Service:
    """An application that keeps its state between requests, as a process does."""

    def __init__(self, replica: EncoderReplica, security: SecurityConfig, fetcher: Fetcher | None = None) -> None:
        self._app = build_app(catalogue_of(replica), SETTINGS, security, fetcher)

    def send(self, method: str, path: str, *, key: str = "", headers: Any = None, **body: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                given = {"authorization": f"Bearer {key}".encode("latin-1")} if key else {}
                return await client.request(method, path, headers=given | (headers or {}), **body)

        return asyncio.run(once())


def write_keys(path: Path, *entries: Any) -> None:
    path.write_text(json.dumps({"keys": [entry.model_dump(mode="json") for entry in entries]}))


def test_only_keys_of_the_file_may_call(replica: EncoderReplica, tmp_path: Path) -> None:
    (mine, entry), (other, _) = new_key("me"), new_key("you")
    write_keys(tmp_path / "keys.json", entry)
    assert mine not in (tmp_path / "keys.json").read_text()
    service = Service(replica, SecurityConfig(keys=str(tmp_path / "keys.json")))
    assert service.send("POST", "/v1/embeddings", key=mine, json={"input": "a"}).status_code == 200
    wrong = ("", other, mine[:-1], mine + "x", entry.sha256, "x" * 10_000, "\u00e9")
    for path in ("/v1/embeddings", "/v1/models", "/v1/classify", "/metrics", "/v1/nothing"):
        for key in wrong:
            response = service.send("POST", path, key=key, json={"input": "a"})
            assert refused(response, 401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
    refused(service.send("GET", "/v1/models", headers={"authorization": f"Basic {mine}"}), 401, "invalid_api_key")
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert service.send("GET", path).status_code == 200
    assert service.send("GET", "/openapi.json").json()["security"] == [{"key": []}]


def test_keys_come_go_and_expire_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "RELOAD_SECONDS", 0.0)
    path = tmp_path / "keys.json"
    (first, of_first), (second, of_second) = new_key("first"), new_key("second")
    write_keys(path, of_first)

    async def who(ring: KeyRing, key: str) -> str | None:
        caller = await ring.caller(f"Bearer {key}")
        return caller.name if caller else None

    async def scene() -> list[str | None]:
        ring = KeyRing(str(path))
        told = [await who(ring, first), await who(ring, second)]
        write_keys(path, of_first, of_second)
        told += [await who(ring, first), await who(ring, second)]
        path.write_text("{")  # half written
        told += [await who(ring, first), await who(ring, second)]
        write_keys(path, of_first.model_copy(update={"expires": datetime(2020, 1, 1, tzinfo=UTC)}), of_second)
        return [*told, await who(ring, first), await who(ring, second)]

    assert asyncio.run(scene()) == ["first", None, "first", "second", "first", "second", None, "second"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Invalid JSON"),
        ("[]", "object"),
        ('{"keys": []}', "at least 1"),
        ('{"keys": [{"name": "a", "sha256": "rl-secret"}]}', "keys.0.sha256"),
        ('{"keys": [{"name": "a", "sha256": "HASH", "key": "x"}]}', "keys.0.key"),
        ('{"keys": [{"name": "a", "sha256": "HASH"}, {"name": "b", "sha256": "HASH"}]}', "twice"),
    ],
)
def test_a_file_that_is_none_is_named_and_not_repeated(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "keys.json").write_text(text.replace("HASH", "0" * 64))
    with pytest.raises(ConfigError, match=says) as raised:
        KeyRing(str(tmp_path / "keys.json"))
    assert "rl-secret" not in str(raised.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"security\.keys = .*none\.json"):
        KeyRing(str(tmp_path / "none.json"))


def test_a_file_in_the_root_is_not_looked_for_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, entry = new_key("me")
    write_keys(tmp_path / "raylens-keys.json", entry)
    KeyRing("raylens-keys.json")
    KeyRing(f"file://{tmp_path}/raylens-keys.json")
    for in_root in ("/raylens-keys.json", "file:///raylens-keys.json"):
        with pytest.raises(ConfigError, match="cannot be read"):
            KeyRing(in_root)


def test_the_time_of_a_refusal_says_nothing_of_the_key(tmp_path: Path) -> None:
    """Medians of many calls: a key that shares its beginning with a valid one against one that shares nothing."""
    made = [new_key(f"k{number}") for number in range(50)]
    write_keys(tmp_path / "keys.json", *(entry for _, entry in made))
    near, far = f"Bearer {made[0][0][:-1]}~", "Bearer rl-" + "~" * 43

    async def seconds() -> tuple[float, float]:
        ring = KeyRing(str(tmp_path / "keys.json"))
        told: tuple[list[float], list[float]] = ([], [])
        for _ in range(3000):
            for place, key in enumerate((near, far)):
                began = time.perf_counter()
                await ring.caller(key)
                told[place].append(time.perf_counter() - began)
        return statistics.median(told[0]), statistics.median(told[1])

    one, other = asyncio.run(seconds())
    # What is compared are hashes: were it the keys themselves, byte by byte, the medians would lie far apart.
    assert 0.5 < one / other < 2
    assert made[0][1].sha256 == hashlib.sha256(made[0][0].encode()).hexdigest()


def test_over_its_rate_a_key_is_told_when_to_come_back(replica: EncoderReplica, tmp_path: Path) -> None:
    (slow, of_slow), (fast, of_fast) = new_key("slow"), new_key("fast")
    write_keys(tmp_path / "keys.json", of_slow.model_copy(update={"items_per_second": 0.5}), of_fast)
    service = Service(replica, SecurityConfig(keys=str(tmp_path / "keys.json")))
    body = {"input": ["a"] * 12}
    assert service.send("POST", "/v1/embeddings", key=slow, json=body).status_code == 200  # overdrawn by 7
    response = service.send("POST", "/v1/embeddings", key=slow, json={"input": "a"})
    refused(response, 429, "rate_limit_exceeded")
    assert 12 <= int(response.headers["retry-after"]) <= 15
    for _ in range(3):
        assert service.send("POST", "/v1/embeddings", key=fast, json=body).status_code == 200
    text = service.send("GET", "/metrics", key=fast).text
    assert 'raylens_requests_total{caller="slow",route="/v1/embeddings",status="429"} 1.0' in text
    assert 'raylens_items_total{kind="text",model="tiny",outcome="ok"} 48.0' in text


@given(
    rate=st.floats(0.1, 1000),
    asked=st.lists(st.tuples(st.floats(0, 30), st.integers(1, 2048)), min_size=1, max_size=40),
)
def test_a_bucket_never_gives_more_than_rate_and_burst(rate: float, asked: list[tuple[float, int]]) -> None:
    clock = [0.0]
    buckets = TokenBuckets(lambda: clock[0])
    given_items, last = 0.0, 0
    for pause, items in asked:
        clock[0] += pause
        wait = buckets.take("a", items, rate)
        assert wait >= 0
        if wait == 0:
            # The newest request may overdraw; all before it are paid for.
            assert given_items <= rate * (clock[0] + BURST_SECONDS) + 1e-6 * (1 + rate * clock[0])
            given_items, last = given_items + items, items
        else:
            clock[0] += wait * (1 + 1e-9) + 1e-6
            assert buckets.take("a", 0, rate) == 0, "who waits as told is served"
    assert last <= 2048


def test_web_pages_of_the_list_may_call(replica: EncoderReplica, tmp_path: Path) -> None:
    _, entry = new_key("me")
    write_keys(tmp_path / "keys.json", entry)
    security = SecurityConfig(keys=str(tmp_path / "keys.json"), origins=("https://good.example",))
    service = Service(replica, security)
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    good = service.send("OPTIONS", "/v1/embeddings", headers=asks | {"origin": "https://good.example"})
    assert good.headers["access-control-allow-origin"] == "https://good.example"
    bad = service.send("OPTIONS", "/v1/embeddings", headers=asks | {"origin": "https://evil.example"})
    assert bad.status_code == 400
    assert "access-control-allow-origin" not in bad.headers


def test_ids_of_requests_are_kept_where_they_are_plain(replica: EncoderReplica) -> None:
    service = Service(replica, SecurityConfig())
    for given_id, kept in (("mine-1", True), ("a b", False), ("x" * 200, False), ("", False)):
        found = service.send("GET", "/healthz", headers={"x-request-id": given_id}).headers.get_list("x-request-id")
        assert len(found) == 1
        assert (found[0] == given_id) == kept


# Images by URL.

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
