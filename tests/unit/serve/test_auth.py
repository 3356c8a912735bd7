"""API keys, rates, origins of web pages, and the ids of requests."""

import asyncio
import hashlib
import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.errors import ConfigError
from raylens.serve.config import SecurityConfig
from raylens.serve.gateway import keys as keys_module
from raylens.serve.gateway.keys import KeyRing, new_key
from raylens.serve.gateway.rate_limit import BURST_SECONDS, TokenBuckets
from raylens.serve.replica.replica import EncoderReplica
from tests.helpers.serving_app import (
    Service,
    refused,
)


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
