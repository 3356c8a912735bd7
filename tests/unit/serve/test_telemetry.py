"""Metrics of replicas at the gateway, spans in the caller's trace, and request ids in the log."""

import asyncio
import itertools
import logging
from collections.abc import Iterator
from contextvars import Context
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext
from prometheus_client.parser import text_string_to_metric_families

from raylens.serve.gateway import telemetry as telemetry_module
from raylens.serve.gateway.app import build_app
from raylens.serve.gateway.catalogue import Catalogue, ServedModel
from raylens.serve.gateway.ingress import HandleEmbedder
from raylens.serve.gateway.model_router import ModelRouter
from raylens.serve.gateway.telemetry import Telemetry
from raylens.serve.histograms import BOUNDS, SECONDS, Histogram, Meter
from raylens.serve.messages import ReplicaReport
from raylens.serve.replica.replica import EncoderReplica
from raylens.serve.replica.towers import TextTower
from tests.helpers.serving_app import SETTINGS, picture, uri

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Elsewhere:
    """A handle to a replica that knows nothing of the caller's task, as one in another process."""

    def __init__(self, replica: EncoderReplica) -> None:
        self._replica = replica
        self.embed = self

    def remote(self, *arguments: Any, **named: Any) -> Any:
        work = self._replica.embed(*arguments, **named)
        return asyncio.get_running_loop().create_task(work, context=Context())


def send(replica: EncoderReplica, *requests: tuple[str, str, Any], **headers: str) -> list[httpx.Response]:
    handle: Any = Elsewhere(replica)
    model = ModelRouter(HandleEmbedder(handle), HandleEmbedder(handle), SETTINGS)
    app = build_app(Catalogue([ServedModel("tiny@1", model)]), SETTINGS)

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            return [await client.request(method, path, json=body) for method, path, body in requests]

    return asyncio.run(all_of_them())


def samples(text: str) -> dict[tuple[str, str], float]:
    """Return the samples by name and labels."""
    return {
        (sample.name, ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_have_queues_batches_and_stages_of_the_replicas(replica: EncoderReplica) -> None:
    body = {"input": [*(f"cat {number}" for number in range(7)), {"image": uri(picture())}, {"image": uri(picture())}]}
    *_, answer = send(replica, ("POST", "/v1/embeddings", body), ("GET", "/metrics", None))
    found = samples(answer.text)
    assert found["raylens_batch_items_sum", "model=tiny,tower=text"] == 7
    assert found["raylens_batch_items_count", "model=tiny,tower=text"] >= 3, "batches of three at most"
    assert found["raylens_batch_items_bucket", "le=4,model=tiny,tower=text"] >= 3
    assert found["raylens_stage_seconds_count", "model=tiny,stage=prepare,tower=text"] == 1
    assert found["raylens_stage_seconds_count", "model=tiny,stage=prepare,tower=image"] == 2
    for tower, items in (("text", 7), ("image", 2)):
        assert found["raylens_stage_seconds_count", f"model=tiny,stage=queue,tower={tower}"] == items
        computed = found["raylens_stage_seconds_count", f"model=tiny,stage=compute,tower={tower}"]
        assert computed == found["raylens_batch_items_count", f"model=tiny,tower={tower}"]
        assert found["raylens_stage_seconds_sum", f"model=tiny,stage=compute,tower={tower}"] > 0
    queues = {labels: value for (name, labels), value in found.items() if name == "raylens_queue_items"}
    assert len(queues) == 2
    assert all(labels.startswith("model=tiny,replica=") and value == 0 for labels, value in queues.items())


def test_a_measure_is_told_once(replica: EncoderReplica) -> None:
    body = {"input": ["a dog"]}
    *_, once = send(replica, ("POST", "/v1/embeddings", body), ("GET", "/metrics", None))
    *_, again = send(replica, ("POST", "/v1/embeddings", body), ("GET", "/metrics", None))
    name = ("raylens_batch_items_count", "model=tiny,tower=text")
    assert samples(once.text)[name] == 1
    assert name not in samples(again.text), "another gateway hears of what came after, and that was known already"


def test_a_replica_that_says_no_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Telemetry()
    told.add_report("tiny", ReplicaReport("host:1", {"text": 5}, {}))
    told.add_report("tiny", ReplicaReport("host:2", {"text": 7}, {}))
    assert samples(told.text().decode())["raylens_queue_items", "model=tiny,replica=host:2,tower=text"] == 7
    monkeypatch.setattr(telemetry_module, "STALE_S", 0.0)
    assert not [name for name, _ in samples(told.text().decode()) if name == "raylens_queue_items"]


@given(parts=st.lists(st.lists(st.floats(0, 100), max_size=5), min_size=1, max_size=5))
def test_tallies_add_up(parts: list[list[float]]) -> None:
    meter, whole = Meter(), Histogram(SECONDS)
    for values in parts:
        meter.add("queue", *values)
        told = meter.drain().get("queue", Histogram(BOUNDS["queue"]))
        whole.merge(told)
    values = [value for part in parts for value in part]
    edges = [-1.0, *SECONDS, float("inf")]
    expected = [sum(low < value <= high for value in values) for low, high in itertools.pairwise(edges)]
    assert whole.counts == expected
    assert whole.total == pytest.approx(sum(values))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Of a provider that lasts as long as the test: a process may set its own only once."""
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield kept
    provider.shutdown()


def ids(context: SpanContext | None) -> tuple[str, str]:
    """Of a trace and a span, as ``traceparent`` has them."""
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def test_spans_of_gateway_and_replica_are_in_the_callers_trace(
    replica: EncoderReplica, spans: InMemorySpanExporter
) -> None:
    request = ("POST", "/v1/embeddings", {"input": ["old trees", {"image": uri(picture())}]})
    send(replica, request, traceparent=PARENT, **{"x-request-id": "mine-7"})
    *works, gateway = spans.get_finished_spans()
    assert [span.name for span in (*works, gateway)] == ["raylens.embed"] * 2 + ["POST /v1/embeddings"]
    assert ids(gateway.parent) == (PARENT[3:35], PARENT[36:52])
    assert ids(gateway.get_span_context())[0] == PARENT[3:35]
    for work in works:
        assert ids(work.parent) == ids(gateway.get_span_context())
    assert gateway.attributes is not None
    assert gateway.attributes["http.response.status_code"] == 200
    for span in (*works, gateway):
        assert (span.attributes or {})["raylens.request_id"] == "mine-7"


@pytest.mark.parametrize("given_parent", [None, "00-junk", "x" * 5000])
def test_without_a_trace_a_new_one_begins(
    replica: EncoderReplica, spans: InMemorySpanExporter, given_parent: str | None
) -> None:
    headers = {} if given_parent is None else {"traceparent": given_parent}
    [answer] = send(replica, ("POST", "/v1/embeddings", {"input": "a"}), **headers)
    assert answer.status_code == 200
    work, gateway = spans.get_finished_spans()
    assert gateway.parent is None
    assert ids(work.parent) == ids(gateway.get_span_context())


def test_the_id_of_a_request_is_in_the_lines_of_the_replica(
    replica: EncoderReplica, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("no memory")

    assert isinstance(replica._current._texts, TextTower)
    monkeypatch.setattr(replica._current._texts.batcher, "_compute", broken)
    with caplog.at_level(logging.INFO, "ray.serve"):
        [answer] = send(replica, ("POST", "/v1/embeddings", {"input": ["never seen"]}), **{"x-request-id": "mine-8"})
    assert answer.json()["data"][0]["error"]["code"] == "internal_error"
    lines = [record.message for record in caplog.records if "mine-8" in record.message]
    assert len(lines) == 3
    assert lines[0] == "request mine-8: a batch failed"
    assert lines[1].startswith("request mine-8: 1 items, ok")
    assert "/v1/embeddings 200" in lines[2]
