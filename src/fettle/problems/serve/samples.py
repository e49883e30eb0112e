"""What one probe measured: raw samples, and the figures that may be drawn from them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fettle.problems.serve.slo import METRICS, PERCENTILES

Floats = NDArray[np.float64]
_BUCKETS_PER_DECADE = 2400  # neighbours differ by 0.096 %: three significant digits


@dataclass(frozen=True, slots=True)
class Samples:
    """The requests of one probe, in the order of their schedule.

    scheduled_s (n,): when each was due, from the probe's start. latency_s (n,): from *then* to the last
    byte of its answer; NaN where there was no good answer. send_late_s (n,): how late the generator
    itself woke up to send (waiting for a free connection is the server's doing and not in it).
    errors: kind -> count, of all requests. checked, bad: how many bodies were checked, and failed.
    oversaturated: sending was cut short because the backlog could no longer hold the SLO.
    limited: why the client, and not the server, was the limit; "" if it was not.
    """

    scheduled_s: Floats
    latency_s: Floats
    offered_rate: float
    seconds: float
    send_late_s: Floats = field(default_factory=lambda: np.zeros(0))
    errors: Mapping[str, int] = field(default_factory=dict)
    checked: int = 0
    bad: int = 0
    client_cpu_ratio: float = 0.0
    received_bytes: int = 0
    oversaturated: bool = False
    limited: str = ""

    @property
    def n(self) -> int:
        return int(self.scheduled_s.size)

    @property
    def completed(self) -> int:
        return int(np.count_nonzero(np.isfinite(self.latency_s)))

    @property
    def client_limited(self) -> bool:
        return bool(self.limited)

    @property
    def error_ratio(self) -> float:
        """Failed share of the requests; what the checked sample of bodies showed holds for the unchecked, too."""
        if not self.n:
            return 0.0
        good = self.completed
        hidden = self.bad / self.checked * max(0, good + self.bad - self.checked) if self.checked else 0.0
        return float(min(1.0, (self.n - good + hidden) / self.n))

    @property
    def throughput_rps(self) -> float:
        """Good answers that arrived inside the window, by its length: the drain after it does not count."""
        if self.seconds <= 0.0:
            return 0.0
        return float(np.count_nonzero(self.scheduled_s + self.latency_s <= self.seconds)) / self.seconds

    def percentile(self, q: float) -> float:
        """Latency in seconds that a share q in (0, 1) of the requests stays under; a failed one counts as infinite."""
        return percentile(self.latency_s, q)

    def after(self, start_s: float) -> "Floats":
        """Latencies of the requests that were due at start_s or later: the warm-up cut."""
        return self.latency_s[self.scheduled_s >= start_s]

    def histogram(self) -> dict[str, list[int]]:
        """Sparse logarithmic histogram: bucket b holds latencies around 10 ** (b / 2400) seconds."""
        good = self.latency_s[np.isfinite(self.latency_s)]
        buckets = np.rint(np.log10(np.maximum(good, 1e-9)) * _BUCKETS_PER_DECADE).astype(np.int64)
        values, counts = np.unique(buckets, return_counts=True)
        return {"bucket": values.tolist(), "count": counts.tolist()}

    def summary(self) -> dict[str, Any]:
        """A compact record for JSON; percentiles that the number of requests cannot carry are None."""
        record: dict[str, Any] = {
            "offered_rate": self.offered_rate,
            "seconds": self.seconds,
            "n": self.n,
            "completed": self.completed,
            "throughput_rps": self.throughput_rps,
            "error_ratio": self.error_ratio,
            "errors": dict(self.errors),
            "send_late_p99_s": _finite(percentile(self.send_late_s, 0.99)),
            "client_cpu_ratio": self.client_cpu_ratio,
            "client_limited": self.client_limited,
            "limited": self.limited,
            "oversaturated": self.oversaturated,
            "received_bytes": self.received_bytes,
            "histogram": {"buckets_per_decade": _BUCKETS_PER_DECADE, **self.histogram()},
        }
        for name, q in PERCENTILES.items():
            record[METRICS[name]] = _finite(self.percentile(q)) if self.n >= required_n(q) else None
        return record


def percentile(latency_s: Floats, q: float) -> float:
    """The smallest latency that at least a share q stays at or under; NaN counts as infinite, no sample gives NaN."""
    n = latency_s.size
    if n == 0:
        return math.nan
    rank = min(n - 1, max(0, math.ceil(q * n - 1e-9) - 1))
    return float(np.partition(np.where(np.isnan(latency_s), np.inf, latency_s), rank)[rank])


def required_n(q: float, confidence: float = 0.95) -> int:
    """Smallest number of independent samples whose order statistics bound the quantile q on both sides.

    The extreme one bounds it from the outer side with probability 1 - q ** n (1 - (1 - q) ** n below the
    median); both tails together may miss with 1 - confidence. p99 takes 368 at 95 %, p99.9 3,688.
    """
    return math.ceil(math.log((1.0 - confidence) / 2.0) / math.log(max(q, 1.0 - q)))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
