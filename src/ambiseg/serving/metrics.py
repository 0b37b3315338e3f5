"""What Prometheus reads of the service."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

PATHS = ("/predict", "/health", "/metrics", "/docs", "/openapi.json")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ambiseg_requests", "Requests by path and status", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "ambiseg_request_seconds",
            "Seconds from the head of a request to its answer",
            ("path",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "ambiseg_batch_images", "Images computed together", buckets=_IMAGES, registry=self._registry
        )
        self._queue = Gauge("ambiseg_queue_images", "Images that wait", registry=self._registry)
        ProcessCollector(registry=self._registry)

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Ask for the length of the queue whenever metrics are read."""
        self._queue.set_function(waiting)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request; unknown paths are counted together."""
        known = path if path in PATHS else "other"
        self._requests.labels(known, str(status)).inc()
        self._seconds.labels(known).observe(seconds)

    def batch(self, images: int) -> None:
        """Count a batch."""
        self._batches.observe(images)

    def text(self) -> bytes:
        """All of it in the format of Prometheus."""
        return generate_latest(self._registry)
