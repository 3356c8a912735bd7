"""A replica beyond its API: which version it begins with, following an alias, readiness, and health that is gone."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import torch

from raylens.errors import ServingError
from raylens.registry import Registry, Version
from raylens.serve.config import ServeSettings
from raylens.serve.gateway import app as app_module
from raylens.serve.gateway.app import build_app
from raylens.serve.messages import Embeddings, Text
from raylens.serve.replica import replica as replica_module
from raylens.serve.replica.replica import EncoderReplica
from tests.helpers.serving_app import SETTINGS, call, catalogue_of, random_bundle, refused

QUICK = SETTINGS.model_copy(update={"follow_interval_s": 0.02, "overlap_s": 0.02})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    made = Registry(str(tmp_path_factory.mktemp("registry")))
    for _ in range(2):
        made.publish("tiny", random_bundle())
    return made


def replica(registry: Registry, settings: ServeSettings = SETTINGS, **more: Any) -> EncoderReplica:
    return EncoderReplica(registry.store.uri, "tiny@1", settings, **more)


async def version_of(asked: EncoderReplica) -> int:
    answer = await asked.embed([Text("a cat")])
    assert isinstance(answer, Embeddings)
    return answer.model.number


def test_a_replica_that_comes_later_begins_where_the_alias_points_now(registry: Registry) -> None:
    registry.promote("tiny", "later", 1)
    assert asyncio.run(version_of(replica(registry, follow="tiny@later"))) == 1
    registry.promote("tiny", "later", 2)
    assert asyncio.run(version_of(replica(registry, follow="tiny@later"))) == 2
    assert asyncio.run(version_of(replica(registry))) == 1


def test_an_error_of_any_kind_does_not_end_the_following(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replica_module, "RETRY_SECONDS", 0.02)
    registry.promote("tiny", "prod", 1)
    resolve, faults = Registry.resolve, [RuntimeError("a bug of a library"), MemoryError("no room")]

    def faulty(self: Registry, reference: str) -> Version:
        if faults and reference == "tiny@prod":
            raise faults.pop()
        return resolve(self, reference)

    async def scene() -> None:
        follower = replica(registry, QUICK, follow="tiny@prod")
        monkeypatch.setattr(Registry, "resolve", faulty)
        assert await version_of(follower) == 1
        registry.promote("tiny", "prod", 2)
        async with asyncio.timeout(60):
            while await version_of(follower) == 1:
                await asyncio.sleep(0.01)
        await follower.check_health()
        await follower.close()

    with caplog.at_level(logging.WARNING, "ray.serve"):
        asyncio.run(scene())
    said = [record for record in caplog.records if "cannot follow tiny@prod" in record.message]
    assert [record.message.rpartition(": ")[2] for record in said] == ["no room", "a bug of a library"]
    assert all(record.exc_info for record in said), "where it comes from is in the log"


async def ask_all(asked: EncoderReplica, count: int) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app=build_app(catalogue_of(asked), SETTINGS))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return list(await asyncio.gather(*(client.get("/readyz") for _ in range(count))))


def counted(asked: EncoderReplica, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    probes: list[None] = []
    alone = asked._device.run_in_lanes

    def counting(compute: Callable[[], Any]) -> Any:
        probes.append(None)
        return alone(compute)

    monkeypatch.setattr(asked._device, "run_in_lanes", counting)
    return probes


def test_readiness_is_asked_once_for_all_who_want_to_know(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two towers, each asked by way of the text and of the image replicas, which are one here.
    monkeypatch.setattr(app_module, "READINESS_TTL_S", 3600.0)
    asked = replica(registry)
    probes = counted(asked, monkeypatch)
    assert {answer.status_code for answer in asyncio.run(ask_all(asked, 100))} == {200}
    assert len(probes) == 4
    monkeypatch.setattr(app_module, "READINESS_TTL_S", -1.0)
    asyncio.run(ask_all(asked, 1))
    asyncio.run(ask_all(asked, 1))
    assert len(probes) == 12


def ruin(asked: EncoderReplica) -> None:
    """As a bit of memory that flips would."""
    for tower in (asked._current._encoder.model.visual, asked._current._encoder.model.text):
        for parameter in tower.parameters():
            parameter.data.fill_(torch.nan)


def test_other_vectors_than_known_are_503_and_the_end_of_the_replica(registry: Registry) -> None:
    asked = replica(registry)
    asyncio.run(asked.check_health())
    ruin(asked)
    error = refused(call(asked, "GET", "/readyz"), 503, "unavailable")
    assert "known inputs have cosine nan" in error["message"]
    with pytest.raises(ServingError, match="tower of tiny@1 is unusable"):
        asyncio.run(asked.check_health())


def test_a_replica_that_follows_no_more_is_not_healthy(registry: Registry) -> None:
    async def scene() -> None:
        registry.promote("tiny", "ended", 1)
        follower = replica(registry, follow="tiny@ended")
        await follower.check_health()
        await version_of(follower)
        assert follower._following is not None
        follower._following.cancel()
        await asyncio.wait([follower._following])
        with pytest.raises(ServingError, match="no longer follows its alias"):
            await follower.check_health()

    asyncio.run(scene())


def test_a_caller_who_leaves_takes_no_answer_from_the_others(registry: Registry) -> None:
    async def scene() -> None:
        asked = app_module.Readiness([replica(registry).probe], 60.0)
        callers = [asyncio.create_task(asked.check()) for _ in range(3)]
        await asyncio.sleep(0)
        callers[0].cancel()
        await asyncio.gather(*callers[1:])
        assert callers[0].cancelled()

    asyncio.run(scene())


def test_no_argument_of_a_replica_is_one_of_ray_serves_own() -> None:
    """Where processes call by gRPC, Ray Serve hands its arguments and ours to one function, by name."""
    for name, method in inspect.getmembers(EncoderReplica, inspect.isfunction):
        if not name.startswith("_"):
            assert not {"context", "request_metadata"} & set(inspect.signature(method).parameters), name
