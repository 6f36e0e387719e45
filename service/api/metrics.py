"""Counts for Prometheus: requests by route, jobs by state, workers that live."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..store.store import Store

__all__ = ["Metrics"]

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The counts of one application; those of jobs and workers are read from the store when asked for."""

    def __init__(self, store: Store) -> None:
        """For an open store."""
        self._registry = CollectorRegistry()
        names = ["route", "method", "status"]
        self._requests = Counter("interbasis_requests", "Requests answered.", names, registry=self._registry)
        self._seconds = Histogram(
            "interbasis_request_seconds",
            "Seconds until a request was answered.",
            ["route"],
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._registry.register(_Stored(store))

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, method if method in _METHODS else "other", status).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All counts in Prometheus' text format."""
        return generate_latest(self._registry)


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Stored(Collector):
    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is read when it is registered."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Jobs by state, and workers."""
        jobs = GaugeMetricFamily("interbasis_jobs", "Jobs by state.", labels=["state"])
        for state, count in self._store.count_jobs().items():
            jobs.add_metric([state], count)
        yield jobs
        alive = sum(worker.alive for worker in self._store.workers())
        yield GaugeMetricFamily("interbasis_workers", "Workers that live.", value=alive)
