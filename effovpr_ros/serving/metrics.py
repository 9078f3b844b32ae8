"""Prometheus metrics of a server of maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from effovpr_ros.recognition.latency import Latency

_BUCKETS_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class _Figures(Collector):
    """Gauges that are asked for when somebody looks."""

    def __init__(self, figures: Callable[[], Mapping[str, float]]) -> None:
        self._figures = figures

    def collect(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily(f"effovpr_{name}", name.replace("_", " "), value=value)
            for name, value in self._figures().items()
        ]


class Metrics:
    """Counters and histograms of one application, in a registry of their own."""

    def __init__(self, figures: Callable[[], Mapping[str, float]]) -> None:
        """Start at zero.

        Args:
            figures: of the service, by name.
        """
        self.registry = CollectorRegistry()
        self.registry.register(_Figures(figures))
        self._requests = Counter(
            "effovpr_requests", "Requests by path and status", ("path", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "effovpr_request_seconds", "From receipt to answer", ("path",), buckets=_BUCKETS_S, registry=self.registry
        )
        self._stages = Histogram(
            "effovpr_stage_seconds", "Stages of recognition", ("stage",), buckets=_BUCKETS_S, registry=self.registry
        )
        self._answers = Counter("effovpr_answers", "Answers by status", ("status",), registry=self.registry)
        self.waiting = Gauge("effovpr_questions_waiting", "Questions at hand", registry=self.registry)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request; unknown paths are one, whatever they are called."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_answer(self, status: str, latency: Latency) -> None:
        """Count an answer with its stages, those that ran."""
        self._answers.labels(status).inc()
        for stage, milliseconds in asdict(latency).items():
            if milliseconds > 0.0:
                self._stages.labels(stage).observe(milliseconds / 1e3)

    def page(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
