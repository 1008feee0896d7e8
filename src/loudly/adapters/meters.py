"""Prometheus metrics of one server; what is counted by the request is kept in plain numbers until somebody measures.

Workers of one port count in files that they share (PROMETHEUS_MULTIPROC_DIR), so that a scrape tells the sum, whoever answers it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from loudly.serve.front import Answered

SECONDS = "loudly_request_seconds"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Meters:
    """All that is counted."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
        self.requests = Counter("loudly_requests_total", "Requests by path and status.", ["path", "status"], registry=registry)
        self.rows = Counter("loudly_rows_total", "Rows answered, by version and arm.", ["version", "arm"], registry=registry)
        self.fallbacks = Counter("loudly_fallbacks_total", "Rows answered by a fallback.", registry=registry)
        self.seconds = Histogram(SECONDS, "Seconds a request took.", ["path"], registry=registry, buckets=BUCKETS)
        self.labels = Counter("loudly_labels_total", "Labels received, by what became of them.", ["what"], registry=registry)
        self.batches = Counter("loudly_batches_total", "Batches given to the model.", registry=registry)
        self.alarms = Gauge("loudly_open_alarms", "Alarms that are open.", registry=registry, multiprocess_mode="livemostrecent")
        self.log_refused = Gauge(
            "loudly_log_refused", "1 while the disk refuses the traffic log.", registry=registry, multiprocess_mode="livemostrecent"
        )
        self.log_lost = Gauge(
            "loudly_log_lost", "Records of traffic that had no room.", registry=registry, multiprocess_mode="livemostrecent"
        )
        self.catching_up = Gauge(
            "loudly_catching_up",
            "1 while the traffic of before a restart is folded in again: nothing is decided, labels wait.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.waiting = Gauge("loudly_rows_waiting", "Rows that wait for the model.", registry=registry, multiprocess_mode="livesum")
        self.stuck = Gauge(
            "loudly_threads_stuck",
            "Threads that a model has not given back in time.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._requests: dict[tuple[str, int], int] = {}
        self._rows: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, Any] = {}
        self._batches = 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests[path, status] = self._requests.get((path, status), 0) + 1
        seen = self._seconds.get(path)
        if seen is None:
            seen = self._seconds[path] = self.seconds.labels(path)
        seen.observe(seconds)

    def answered(self, answered: Answered, first: int, last: int) -> None:
        """Counts the rows `first` to `last` of an answer."""
        if last - first == 1:
            self._row(answered.versions[first], answered.arms[first], 1)
            if answered.fallbacks[first]:
                self.fallbacks.inc()
            return
        pairs = list(zip(answered.versions[first:last], answered.arms[first:last], strict=True))
        for version, arm in set(pairs):
            self._row(version, arm, pairs.count((version, arm)))
        self.fallbacks.inc(sum(answered.fallbacks[first:last]))

    def told(self, status: Mapping[str, Any], waiting: int, stuck: int, batches: int) -> bytes:
        """The text for Prometheus. status: of the front."""
        self.alarms.set(len(status.get("alarms", ())))
        self.log_refused.set(bool(status.get("log", {}).get("refused")))
        self.catching_up.set(status.get("catching_up") is not None)
        self.log_lost.set(status.get("log", {}).get("lost", 0))
        self.measured(waiting, stuck, batches)
        return bytes(generate_latest(self._all()))

    def figures(self, waiting: int, stuck: int, batches: int) -> dict[str, Any]:
        """What a page shows of it, over all workers: requests, rows, labels; p50, p99: seconds of a prediction, at most."""
        self.measured(waiting, stuck, batches)
        found: dict[str, list[Sample]] = {}
        for family in self._all().collect():
            for sample in family.samples:
                if sample.value:
                    found.setdefault(sample.name, []).append(sample)
        below = {float(s.labels["le"]): s.value for s in found.get(f"{SECONDS}_bucket", ()) if s.labels["path"] == "/predict"}
        return {
            "requests": _counts(found, "loudly_requests_total", "path", "status"),
            "rows": _counts(found, "loudly_rows_total", "version", "arm"),
            "labels": _counts(found, "loudly_labels_total", "what"),
            "fallbacks": sum(int(s.value) for s in found.get("loudly_fallbacks_total", ())),
            "stuck": sum(int(s.value) for s in found.get("loudly_threads_stuck", ())),
            "p50": _quantile(below, 0.5),
            "p99": _quantile(below, 0.99),
        }

    def _all(self) -> CollectorRegistry:
        """What was counted here, or by all who share a folder."""
        if not self.shared:
            return self.registry
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody, self.shared)  # type: ignore[no-untyped-call]
        return everybody

    def measured(self, waiting: int, stuck: int, batches: int) -> None:
        """What the batchers of this process say now."""
        self.waiting.set(waiting)
        self.stuck.set(stuck)
        self.batches.inc(batches - self._batches)
        self._batches = batches
        requests, self._requests = self._requests, {}
        for (path, status), count in requests.items():
            self.requests.labels(path, str(status)).inc(count)
        rows, self._rows = self._rows, {}
        for pair, count in rows.items():
            self.rows.labels(*pair).inc(count)

    def _row(self, version: str, arm: str, count: int) -> None:
        self._rows[version, arm] = self._rows.get((version, arm), 0) + count


def _counts(found: Mapping[str, Sequence[Sample]], name: str, *labels: str) -> list[tuple[Any, ...]]:
    """The values of a counter's labels with its count, in their order."""
    return sorted((*(s.labels[label] for label in labels), int(s.value)) for s in found.get(name, ()))


def _quantile(below: Mapping[float, float], share: float) -> float | None:
    """The lowest bound of a bucket that so many lie below; None where there is none, or they lie above all bounds.

    >>> _quantile({0.1: 50.0, 0.5: 99.0, math.inf: 100.0}, 0.99), _quantile({math.inf: 3.0}, 0.5)
    (0.5, None)
    """
    all_of = below.get(math.inf, 0.0)
    return next((bound for bound in sorted(below) if below[bound] >= share * all_of and bound < math.inf), None)
