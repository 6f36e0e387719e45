"""Metrics for Prometheus: requests by route, jobs by state, live workers."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..store.store import Store

__all__ = ["Metrics"]

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The metrics of one application; jobs and workers are counted in the store on request."""

    def __init__(self, store: Store) -> None:
        """Make the metrics of an open store."""
        self._registry = CollectorRegistry()
        names = ["route", "method", "status"]
        self._requests = Counter("interbasis_requests", "Number of answered requests.", names, registry=self._registry)
        self._seconds = Histogram(
            "interbasis_request_seconds",
            "Seconds to answer a request.",
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
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Stored(Collector):
    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Describe nothing, so that registering reads nothing from the store."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Count jobs by state, and workers."""
        jobs = GaugeMetricFamily("interbasis_jobs", "Number of jobs in each state.", labels=["state"])
        for state, count in self._store.count_jobs().items():
            jobs.add_metric([state], count)
        yield jobs
        alive = sum(worker.alive for worker in self._store.workers())
        yield GaugeMetricFamily("interbasis_workers", "Number of live workers.", value=alive)
