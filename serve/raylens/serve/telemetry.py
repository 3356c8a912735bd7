"""Counters of a gateway, in Prometheus' text form."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

__all__ = ["Telemetry"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Telemetry:
    """Of one gateway process, in a registry of its own: several may live in one process, as in tests."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "raylens_requests", "Requests that were answered.", ["route", "status", "caller"], registry=self._registry
        )
        self.seconds = Histogram(
            "raylens_request_seconds", "From the first byte of a request to the last of its answer.", ["route"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self.items = Counter(
            "raylens_items", "Texts and images by what became of them.", ["model", "kind", "outcome"],
            registry=self._registry,
        )  # fmt: skip

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
