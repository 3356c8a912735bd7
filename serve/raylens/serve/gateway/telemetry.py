"""What a gateway has counted, and what replicas have told it, in Prometheus' text form."""

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
"""After which the queue of a replica that says no more is not shown."""


class Telemetry:
    """Of one gateway process, in a registry of its own: several may live in one process, as in tests."""

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
        """Take what a replica of a model has told."""
        self._replicas.add_report(model, report)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)


class _Replicas(Collector):
    """Each replica tells each value once, to whichever gateway asks it: their sum over all gateways is the truth."""

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
        """See `prometheus_client`."""
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
        self._queued = {key: seen for key, seen in self._queued.items() if seen[1] > alive}
        for labels, (queued, _) in self._queued.items():
            queues.add_metric(labels, queued)
        yield from (stages, batches, queues)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    told, below = [], 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        told.append(("+Inf" if bound == float("inf") else f"{bound:g}", float(below)))
    return told
