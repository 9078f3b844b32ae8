"""What the node tells `/diagnostics`."""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from effovpr_ros.recognition.recognizer import Latency

_WINDOW = 100
_STAGES = ("extract", "search", "rerank", "verify", "pose", "decide", "total")
_RATE_WINDOW_S = 10.0


class Statistics:
    """Counts and recent latencies; written by the worker, read by the diagnostics timer."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self._latencies: deque[Latency] = deque(maxlen=_WINDOW)
        self._finished_s: deque[float] = deque()
        self.by_status: dict[str, int] = {}
        self.errors = 0
        self.last_error = ""
        self.last_error_s = 0.0

    def add_result(self, status: str, latency: Latency, now_s: float) -> None:
        """Count a recognition."""
        with self._lock:
            self._latencies.append(latency)
            self._finished_s.append(now_s)
            self._forget(now_s)
            self.by_status[status] = self.by_status.get(status, 0) + 1

    def count(self, name: str) -> None:
        """Count something else that has a name."""
        with self._lock:
            self.by_status[name] = self.by_status.get(name, 0) + 1

    def add_error(self, text: str, now_s: float) -> None:
        """Count an image that failed."""
        with self._lock:
            self.errors += 1
            self.last_error, self.last_error_s = text, now_s

    def values(self, now_s: float) -> dict[str, str]:
        """Rate over the last ten seconds, counts, the share that was verified, median and 95th percentile by stage."""
        with self._lock:
            self._forget(now_s)
            rate_hz = len(self._finished_s) / _RATE_WINDOW_S
            values = {"rate_hz": f"{rate_hz:.2f}", "errors": str(self.errors), "last_error": self.last_error}
            values.update({f"count_{name.lower()}": str(count) for name, count in self.by_status.items()})
            if self._latencies:
                ran = sum(latency.verify > 0.0 for latency in self._latencies)
                values["verified_share"] = f"{ran / len(self._latencies):.2f}"
            for stage in _STAGES:
                figures = [getattr(latency, stage) for latency in self._latencies]
                if len(figures) > 1:
                    values[f"{stage}_ms_p50"] = f"{statistics.median(figures):.2f}"
                    values[f"{stage}_ms_p95"] = f"{statistics.quantiles(figures, n=20)[-1]:.2f}"
            return values

    def _forget(self, now_s: float) -> None:
        while self._finished_s and now_s - self._finished_s[0] > _RATE_WINDOW_S:
            self._finished_s.popleft()


def diagnostic_array(
    name: str, hardware_id: str, level: bytes, message: str, values: Mapping[str, str]
) -> DiagnosticArray:
    """One status as diagnostic_msgs/DiagnosticArray; the stamp is the caller's."""
    status = DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id)
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticArray(status=[status])
