"""The metrics of a gateway and those that replicas reported to it, in Prometheus' text format."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client import Histogram as RequestHistogram
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from raylens.serve.histograms import BOUNDS, SECONDS, Histogram, Measure
from raylens.serve.messages import ReplicaReport, Tower

__all__ = ["Telemetry"]

STALE_S = 60.0
"""Time after which the queue of a silent replica is no longer exported."""


class Telemetry:
    """The metrics of one gateway, in a registry of their own, because tests have several gateways in one process."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "raylens_requests", "Requests that were answered.", ["route", "status", "caller"], registry=self._registry
        )
        self.seconds = RequestHistogram(
            "raylens_request_seconds", "From the first byte of a request to the last of its answer.", ["route"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self.items = Counter(
            "raylens_items", "Texts and images by what became of them.", ["model", "kind", "outcome"],
            registry=self._registry,
        )  # fmt: skip
        self._replicas = _Replicas()
        self._registry.register(self._replicas)

    def add_report(self, model: str, report: ReplicaReport) -> None:
        """Add the report of a replica of a model."""
        self._replicas.add_report(model, report)

    def text(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self._registry)


class _Replicas(Collector):
    """The metrics of replicas. A replica reports each value once, to one of the gateways, so gateways are summed up."""

    def __init__(self) -> None:
        self._histograms: dict[tuple[str, Tower, Measure], Histogram] = {}
        self._queued: dict[tuple[str, Tower, str], tuple[int, float]] = {}

    def add_report(self, model: str, report: ReplicaReport) -> None:
        now = time.monotonic()
        for tower, queued in report.queued.items():
            self._queued[model, tower, report.replica] = (queued, now)
        for (tower, measure), histogram in report.measured.items():
            self._histograms.setdefault((model, tower, measure), Histogram(BOUNDS[measure])).merge(histogram)

    def collect(self) -> Iterator[Metric]:
        """Implement `Collector.collect`: yield stages, batches and queues."""
        stages = HistogramMetricFamily(
            "raylens_stage_seconds",
            "prepare: until an image is decoded, or the texts of a request tokenised. queue: until an item is in a "
            "batch. compute: of a batch.",
            labels=["model", "tower", "stage"],
        )
        batches = HistogramMetricFamily("raylens_batch_items", "Items of a batch.", labels=["model", "tower"])
        for (model, tower, measure), histogram in self._histograms.items():
            if measure == "batch":
                batches.add_metric([model, tower], _buckets(histogram), histogram.total)
            else:
                stages.add_metric([model, tower, measure], _buckets(histogram), histogram.total)
        queues = GaugeMetricFamily(
            "raylens_queue_items", "Items that wait or are computed, when a replica last answered.",
            labels=["model", "tower", "replica"],
        )  # fmt: skip
        alive = time.monotonic() - STALE_S
        self._queued = {key: reported for key, reported in self._queued.items() if reported[1] > alive}
        for labels, (queued, _) in self._queued.items():
            queues.add_metric(labels, queued)
        yield from (stages, batches, queues)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    cumulative, below = [], 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        cumulative.append(("+Inf" if bound == float("inf") else f"{bound:g}", float(below)))
    return cumulative
