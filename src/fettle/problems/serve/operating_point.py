"""One operating point: percentiles with intervals at one offered rate, where the requests suffice for them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fettle.core.trial import Estimate
from fettle.problems.serve.rate_model import dispersion
from fettle.problems.serve.samples import Floats, Samples, percentile, required_n
from fettle.problems.serve.slo import METRICS, PERCENTILES, SLO

Probe = Callable[[float, float], Samples]
_Z = 1.959964  # 97.5 % of the standard normal
_BATCH_LIMITS = 6.0  # a batch for the variance lasts so many times the latency limit
UNSTEADY = "unsteady"


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """One probe as the latency-rate curve needs it. over: metric -> share of requests over its limit.

    n, p50_s, p99_s are of the part after the warm-up cut; None where the requests do not suffice.
    marks: oversaturated, client_limited, unsteady, and the kinds of error that occurred.
    """

    rate: float
    seconds: float
    n: int
    p50_s: float | None
    p99_s: float | None
    throughput_rps: float
    error_ratio: float
    over: Mapping[str, float]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Figures at one offered rate. latency: metric name -> Estimate, None = not enough requests.

    holds: whether every limit that could be judged was kept; None where one could not be judged.
    """

    rate: float
    seconds: float
    n: int
    latency: Mapping[str, Estimate | None]
    throughput_rps: Estimate
    error_ratio: Estimate
    holds: bool | None
    record: ProbeRecord


def warmup_s(seconds: float, slo: SLO) -> float:
    """What is cut from the start of a probe: the queue has to fill to its steady state, a few limits long."""
    return min(0.25 * seconds, max(0.05, 4.0 * slo.limit_s))


def measure_at(probe: Probe, rate: float, slo: SLO, seconds: float) -> OperatingPoint:
    """Probes once at `rate` and judges it against the SLO."""
    return operating_point(probe(rate, seconds), slo)


def operating_point(samples: Samples, slo: SLO) -> OperatingPoint:
    """The figures of one probe, after the warm-up cut."""
    cut_s = warmup_s(samples.seconds, slo)
    latency = samples.after(cut_s)
    batch = batch_n(samples.offered_rate, slo)
    estimates = {METRICS[name]: percentile_estimate(latency, q, batch) for name, q in PERCENTILES.items()}
    span_s = max(samples.seconds - cut_s, 1e-9)
    done = samples.scheduled_s + samples.latency_s
    arrived = int(np.count_nonzero((done >= cut_s) & (done <= samples.seconds)))
    width = _Z * math.sqrt(max(arrived, 1)) / span_s
    throughput = Estimate(arrived / span_s, max(0.0, arrived / span_s - width), arrived / span_s + width, arrived)
    ratio = samples.error_ratio
    low, high = wilson(ratio, max(1, latency.size))
    verdicts: list[bool | None] = [ratio <= slo.error_ratio]
    for name, limit_s in slo.latency_s.items():
        estimate = estimates[METRICS[name]]
        verdicts.append(None if estimate is None else estimate.value <= limit_s)
    holds = False if samples.oversaturated or False in verdicts else None if None in verdicts else True
    return OperatingPoint(
        rate=samples.offered_rate,
        seconds=samples.seconds,
        n=int(latency.size),
        latency=estimates,
        throughput_rps=throughput,
        error_ratio=Estimate(ratio, low, high, int(latency.size)),
        holds=holds,
        record=probe_record(samples, slo),
    )


def batch_n(rate: float, slo: SLO) -> int:
    """Requests in one batch of the batch-means variance."""
    return max(5, math.ceil(rate * _BATCH_LIMITS * slo.limit_s))


def percentile_estimate(latency_s: Floats, q: float, batch: int) -> Estimate | None:
    """The quantile q with its 95 % interval from order statistics, or None: not enough requests.

    Requests of a busy period are slow together: for the interval, the number is divided by the dispersion of
    "over the quantile". Where that leaves too few for an upper end, or failed requests reach up to it, the
    upper end is infinite: the quantile is known from below only.
    """
    n = latency_s.size
    value = percentile(latency_s, q)
    if n < required_n(q) or not math.isfinite(value):
        return None
    over = (np.where(np.isnan(latency_s), np.inf, latency_s) > value).astype(float)
    inflation = dispersion(over, min(batch, n // 8))
    spread = _Z * math.sqrt(q * (1.0 - q) * inflation / n)
    high = percentile(latency_s, min(1.0, q + spread)) if n / inflation >= required_n(q) else math.inf
    return Estimate(value, percentile(latency_s, max(0.0, q - spread)), high, n)


def wilson(share: float, n: float) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927)."""
    z2 = _Z * _Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half) if share > 0.0 else 0.0, min(1.0, centre + half)


def probe_record(samples: Samples, slo: SLO) -> ProbeRecord:
    latency = samples.after(warmup_s(samples.seconds, slo))
    over = {METRICS[k]: over_share(latency, limit) for k, limit in slo.latency_s.items()}
    marks = [name for name in ("oversaturated", "client_limited") if getattr(samples, name)]
    if not steady(samples, slo):
        marks.append(UNSTEADY)
    p50_s, p99_s = (percentile(latency, q) if latency.size >= required_n(q) else math.inf for q in (0.5, 0.99))
    return ProbeRecord(
        rate=samples.offered_rate,
        seconds=samples.seconds,
        n=int(latency.size),
        p50_s=p50_s if math.isfinite(p50_s) else None,
        p99_s=p99_s if math.isfinite(p99_s) else None,
        throughput_rps=samples.throughput_rps,
        error_ratio=samples.error_ratio,
        over=over | {"error_ratio": samples.error_ratio},
        marks=(*marks, *sorted(samples.errors)),
    )


def over_share(latency_s: Floats, limit_s: float) -> float:
    """Share of requests over the limit; failed ones are over it."""
    return float(np.count_nonzero(~(latency_s <= limit_s))) / max(1, latency_s.size)


def steady(samples: Samples, slo: SLO) -> bool:
    """False where latency rises through the probe: the last third's batches all lie far above the first third's.

    Compares the mean logarithm of latency of both thirds by the spread of batch means; 4 standard errors
    and at least a tenth, since a queue near saturation wanders.
    """
    latency = samples.after(warmup_s(samples.seconds, slo))
    good = np.where(np.isnan(latency), slo.limit_s * 10.0, latency)
    if good.size < 60:
        return True
    batches = [float(np.log(np.maximum(b, 1e-9)).mean()) for b in np.array_split(good, 12)]
    first, last = np.array(batches[:4]), np.array(batches[8:])
    error = math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / 4.0)
    return not last.mean() - first.mean() > max(0.1, 4.0 * error)
