"""Settings of a service, from options and files to deployments, and what its clients make of refusals."""

import asyncio
import json
import math
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ray.serve import Application
from typer.testing import CliRunner

from raylens.config import validated
from raylens.errors import ConfigError, OverloadedError, ServingError
from raylens.registry import Lineage, Registry, Version
from raylens.serve import AsyncEmbeddingClient, ServiceConfig
from raylens.serve.api.responses import Limits
from raylens.serve.client.codec import MAX_RETRY_DELAY_S, classify_bodies, embed_bodies, inputs, retry_delay
from raylens.serve.deploy import checks
from raylens.serve.deploy.autoscale import replicas_for_items
from raylens.serve.deploy.checks import check_port, port_holder
from raylens.serve.deploy.deployments import build_application
from raylens.serve.deploy.serve_config import serve_config_yaml
from raylens.serve.gateway.app import build_app
from raylens.serve.gateway.keys import KeyRing
from raylens.serve.replica.batcher import BULK_YIELD_S, PACE_WINDOW, Batcher, Pace
from raylens.serve.replica.device import Device
from raylens.serve.replica.replica import EncoderReplica
from raylens.workloads.cli.app import app
from raylens.workloads.service_config import logical_cpus, service_config
from tests.helpers.serving_app import SETTINGS, catalogue_of, picture, random_bundle


def test_options_change_the_file_and_single_changes_come_last(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("models: [{model: pets@prod, text: {cpus: 2}}]\nport: 9000\nlimits: {max_items: 64}\n")
    config = service_config(file, None, ["limits.max_items=32"], port=9001, replicas="1:3", keys="keys.json")
    [model] = config.models
    assert (config.port, config.limits.max_items, config.security.keys) == (9001, 32, "keys.json")
    assert (model.text.min_replicas, model.text.max_replicas, model.text.cpus) == (1, 3, 2)
    assert logical_cpus(config) >= 3 * 2 + 3 * 1
    assert [one.model for one in service_config(file, ["plants"], None).models] == ["plants"]


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"models": []}, "models"),
        ({"models": [{"model": "a"}, {"model": "a@prod"}]}, "models: 'a'"),
        ({"models": [{"model": "a", "text": {"min_replicas": 2}}]}, "max_replicas = 1: must be at least"),
        ({"models": [{"model": "a", "txt": {}}]}, "unknown key 'models.0.txt'"),
        ({"models": [{"model": "a", "precision": "fp8"}]}, "precision"),
        ({"models": [{"model": "a"}], "port": 0}, "port"),
        ({"models": [{"model": "a"}], "limits": {"capacity": 1}}, "capacity = 1: must be at least max_items = 2048"),
        ({"models": [{"model": "a"}], "security": {"urls": {"host": ["x"]}}}, "did you mean 'hosts'"),
    ],
)
def test_settings_that_cannot_be_are_explained(tree: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validated(ServiceConfig, tree)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("reference", "alias"), [("a", None), ("a@3", None), ("a@prod", "prod"), ("a@latest", "latest")]
)
def test_only_an_alias_is_followed(reference: str, alias: str | None) -> None:
    [model] = validated(ServiceConfig, {"models": [{"model": reference}]}).models
    assert model.alias == alias


def test_the_serve_config_names_a_builder_that_takes_its_arguments() -> None:
    tree = {"models": [{"model": "a@prod"}], "host": "0.0.0.0", "registry": "/models"}
    config = validated(ServiceConfig, tree)
    tree = yaml.safe_load(serve_config_yaml(config))
    [application] = tree["applications"]
    assert application["import_path"] == "raylens.serve.deploy.serve_config:build"
    assert validated(ServiceConfig, application["args"]) == config
    assert tree["http_options"]["host"] == "0.0.0.0"


def test_a_serve_config_leads_to_the_same_places_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    built = CliRunner().invoke(app, ["serve", "build", "a", "--registry", "models", "--keys", "keys.json"])
    [application] = yaml.safe_load(built.stdout)["applications"]
    assert application["args"]["registry"] == str(tmp_path / "models")
    assert application["args"]["security"]["keys"] == str(tmp_path / "keys.json")
    far = ["serve", "build", "a", "--registry", "s3://models/r?region=x", "--keys", "gs://k/keys.json"]
    arguments = yaml.safe_load(CliRunner().invoke(app, far).stdout)["applications"][0]["args"]
    assert (arguments["registry"], arguments["security"]["keys"]) == ("s3://models/r?region=x", "gs://k/keys.json")


def test_a_new_replica_is_there_before_an_old_one_goes() -> None:
    config = validated(ServiceConfig, {"models": [{"model": "a", "text": {"max_replicas": 4}}]})
    gateway = build_application(
        config, "registry", [Version("a", 1, "0" * 64, "2026-11-01T00:00:00Z", Lineage())]
    )._bound_deployment
    towers = [one._bound_deployment for one in gateway.init_args if isinstance(one, Application)]
    assert len(towers) == 2
    for deployment in (gateway, *towers):
        assert deployment._deployment_config.max_surge_percent > 0


def test_a_taken_port_is_told_with_its_holder() -> None:
    holds = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        said = rf"port {port} \(Address already in use\): "
        if sys.platform == "linux":
            said += rf"process {process.pid} \(python.*\) holds it: stop that or choose"
        with pytest.raises(ServingError, match=said):
            check_port("127.0.0.1", port)
        process.communicate(b"\n")
    check_port("127.0.0.1", port)
    assert port_holder(port) is None


def test_where_the_system_tells_nothing_the_message_says_how_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "PROC", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(ServingError, match=r"stop what holds it \(ss -ltnp shows it\)"):
            check_port("127.0.0.1", port)


LIMITS = Limits(max_items=7, max_body_bytes=3000, max_text_chars=100, max_pixels=100)


@given(items=st.lists(st.text(max_size=400) | st.binary(max_size=900), max_size=30), classes=st.lists(st.text()))
def test_bodies_are_within_the_limits_unless_an_item_alone_is_not(items: list[str | bytes], classes: list[str]) -> None:
    options: dict[str, Any] = {"model": "pets", "classes": classes}
    bodies = list(embed_bodies(items, options, LIMITS))
    assert [item for body in bodies for item in body["input"]] == inputs(items)
    sizes = [len(httpx.Request("POST", "http://x", json=body).content) for body in bodies]
    for body, size in zip(bodies, sizes, strict=True):
        assert 1 <= len(body["input"]) <= LIMITS.max_items
        assert size <= LIMITS.max_body_bytes or len(body["input"]) == 1
    images = [item for item in items if isinstance(item, bytes)]
    told = list(classify_bodies(images, options, LIMITS))
    assert sum(len(body["images"]) for body in told) == len(images)
    assert [body["input"] for body in embed_bodies(items, {})] == ([inputs(items)] if items else [])


def test_clients_keep_to_the_limits_of_the_service(tmp_path: Path) -> None:
    Registry(str(tmp_path)).publish("tiny", random_bundle())
    served = build_app(catalogue_of(EncoderReplica(str(tmp_path), "tiny", SETTINGS)), SETTINGS)
    texts = [f"a cat {number}" for number in range(3 * SETTINGS.max_items + 1)]

    async def scene() -> tuple[int, ...]:
        # One after the other: all at once would be more than the replica's capacity.
        async with AsyncEmbeddingClient("http://test", max_concurrency=1, retries=0) as client:
            client._http = httpx.AsyncClient(transport=httpx.ASGITransport(app=served), base_url="http://test")
            many = await client.embed(texts)
            chances = await client.classify([picture() for _ in range(SETTINGS.max_items + 1)], ["cat", "dog"])
            return *many.shape, *chances.shape

    assert asyncio.run(scene()) == (37, 32, 13, 2)


def test_the_commands_make_keys_and_serve_configs(tmp_path: Path) -> None:
    run = CliRunner()
    file = tmp_path / "keys.json"
    made = [run.invoke(app, ["serve", "key", name, "--keys", str(file)]) for name in ("one", "two")]
    assert [one.exit_code for one in made] == [0, 0]
    secrets = [one.stdout.splitlines()[0] for one in made]
    assert len(json.loads(file.read_text())["keys"]) == 2
    assert file.stat().st_mode & 0o077 == 0, "nobody else reads it"
    caller = asyncio.run(KeyRing(str(file)).caller(f"Bearer {secrets[1]}"))
    assert caller is not None
    assert caller.name == "two"
    built = run.invoke(app, ["serve", "build", "a@prod", "--replicas", "2:8"])
    assert yaml.safe_load(built.stdout)["applications"][0]["args"]["models"][0]["image"]["max_replicas"] == 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "run"], "no model to serve"),
        (["serve", "a", "--replicas", "many"], "--replicas many"),
        (["serve", "--config", "none.yaml"], "there is no such file"),
        (["serve", "key", "a b", "--keys", "keys.json"], "use up to 100 letters"),
        (["serve", "build", "a", "--out", "."], "is a folder"),
    ],
)
def test_mistakes_are_said_before_anything_starts(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, ConfigError)
    assert says in str(result.exception)


def test_a_file_that_holds_no_keys_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.json"
    file.write_text("[1, 2]")
    result = CliRunner().invoke(app, ["serve", "key", "me", "--keys", str(file)])
    assert isinstance(result.exception, ConfigError)
    assert file.read_text() == "[1, 2]"


@given(items=st.lists(st.floats(0, 5000), max_size=8), target=st.floats(1, 500))
def test_replicas_bring_the_items_of_each_to_the_target(items: list[float], target: float) -> None:
    ctx: Any = SimpleNamespace(
        aggregated_metrics={"items": dict(enumerate(items))}, config=SimpleNamespace(target_ongoing_requests=target)
    )
    wanted, _ = replicas_for_items(ctx)
    assert wanted >= 1
    assert sum(items) <= wanted * target * (1 + 1e-9)
    assert wanted == 1 or sum(items) > (wanted - 1) * target * (1 - 1e-9)


def test_bulk_items_wait_for_the_others_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is busy while they line up; then everything in line goes in batches of two."""
    order: list[str] = []
    clock = [100.0]
    # Of the module alone: the event loop goes by the real one.
    monkeypatch.setattr(
        "raylens.serve.replica.batcher.time",
        SimpleNamespace(monotonic=lambda: clock[0], perf_counter=time.perf_counter),
    )

    def compute(items: list[str]) -> list[str]:
        order.extend(items)
        time.sleep(0.02)
        return items

    async def scene() -> None:
        device = Device()
        batcher: Batcher[str, str] = Batcher(device, compute, max_batch=2, capacity=100)
        with batcher.reserve(9) as reservation:
            first = asyncio.create_task(reservation.run(["first"]))
            await asyncio.sleep(0.005)
            bulk = asyncio.create_task(reservation.run(["b1", "b2", "b3"], bulk=True))
            await asyncio.sleep(0)
            people = asyncio.create_task(reservation.run(["p1", "p2", "p3"]))
            await asyncio.gather(first, people, bulk)
            await reservation.run(["alone"], bulk=True)
        await device.close()

    asyncio.run(scene())
    assert order[:7] == ["first", "p1", "p2", "p3", "b1", "b2", "b3"]
    assert BULK_YIELD_S > 0


def test_an_old_bulk_item_is_as_good_as_any(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    # Of the module alone: the event loop goes by the real one.
    monkeypatch.setattr(
        "raylens.serve.replica.batcher.time",
        SimpleNamespace(monotonic=lambda: clock[0], perf_counter=time.perf_counter),
    )

    async def scene() -> list[str]:
        device = Device()
        batcher: Batcher[str, str] = Batcher(device, lambda items: items, max_batch=2, capacity=100)
        device.closed = True  # nothing is taken but by this test
        batcher.enqueue(["old"], bulk=True)
        clock[0] += BULK_YIELD_S + 1
        batcher.enqueue(["new"], bulk=True)
        batcher.enqueue(["p1", "p2"])
        return [waiting.item for waiting in batcher.take(1)]

    assert asyncio.run(scene()) == ["old", "p1"]


def test_more_work_than_patience_is_refused_at_once() -> None:
    async def scene() -> list[bool]:
        device = Device()

        def compute(items: list[int]) -> list[int]:
            time.sleep(0.05 * len(items))
            return items

        batcher: Batcher[int, int] = Batcher(device, compute, max_batch=4, capacity=1000, max_wait_s=0.5)
        with batcher.reserve(4) as reservation:
            await reservation.run([1, 2, 3, 4])  # it knows its pace now
        assert math.isclose(batcher.expected_wait_s, 0.0)
        taken = []
        with batcher.reserve(100):  # where nothing waits, the largest request is served
            try:
                with batcher.reserve(1):
                    taken.append(True)
            except OverloadedError:
                taken.append(False)
        with batcher.reserve(1):
            taken.append(True)
        await device.close()
        return taken

    assert asyncio.run(scene()) == [False, True]


def test_one_slow_item_does_not_speak_for_a_crowd() -> None:
    async def scene() -> None:
        device = Device()

        def compute(items: list[int]) -> list[int]:
            time.sleep(0.3)  # for one as for eight
            return items

        batcher: Batcher[int, int] = Batcher(device, compute, max_batch=8, capacity=1000, max_wait_s=1.0)
        with batcher.reserve(1) as reservation:
            await reservation.run([1])
        with batcher.reserve(8), batcher.reserve(1):
            assert math.isclose(batcher.expected_wait_s, 0.0)
        with batcher.reserve(8) as reservation:
            await reservation.run(list(range(8)))
        with batcher.reserve(9):
            assert batcher.expected_wait_s > 0.3  # known now
        await device.close()

    asyncio.run(scene())


@given(batches=st.lists(st.tuples(st.integers(1, 64), st.floats(0.001, 0.1)), min_size=1, max_size=30))
def test_a_pace_is_the_mean_and_then_that_of_late(batches: list[tuple[int, float]]) -> None:
    pace, items, seconds = Pace(1), 0, 0.0
    for count, each in batches:
        pace.add(count, count * each)
        items, seconds = items + count, seconds + count * each
        if items <= PACE_WINDOW:
            assert math.isclose(pace.seconds, seconds / items)
        assert min(each for _, each in batches) * 0.999 <= pace.seconds <= max(each for _, each in batches) * 1.001
    for _ in range(20):
        pace.add(64, 64 * 5.0)
    assert math.isclose(pace.seconds, 5.0, rel_tol=1e-3)


@given(attempt=st.integers(0, 20), asked=st.sampled_from(["", "0", "3", "600", "soon"]))
def test_clients_come_back_when_they_are_asked_to(attempt: int, asked: str) -> None:
    for status, again in ((200, False), (400, False), (429, True), (500, False), (503, True)):
        seconds = retry_delay(attempt, httpx.Response(status, headers={"retry-after": asked}))
        assert (seconds is not None) == again
        if seconds is not None:
            assert 0 < seconds <= MAX_RETRY_DELAY_S
            assert seconds >= min(MAX_RETRY_DELAY_S, float(asked) if asked.isdecimal() else 0.25)
    assert retry_delay(attempt, None) is not None
