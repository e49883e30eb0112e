"""From probes to a trial's metrics: which figures the requests can carry, and what they cost. Pure functions."""

import math
from collections.abc import Mapping

import numpy as np

from fettle.core.errors import TrialFailure
from fettle.core.trial import Estimate
from fettle.problems.serve.cost import per_million
from fettle.problems.serve.operating_point import OperatingPoint, operating_point, warmup_s
from fettle.problems.serve.samples import Floats, Samples, percentile, required_n
from fettle.problems.serve.slo import METRICS, PERCENTILES, SLO

Figures = dict[str, float | Estimate]

P99_N = required_n(0.99)
_ENOUGH = 2.0  # times the least number of requests: a quarter of a probe is cut, and slow ones come in bursts
MORE = "give a larger --budget, or an SLO of a lower percentile"


def needed_n(slo: SLO) -> int:
    """Independent requests that the SLO's highest percentile takes."""
    return max(required_n(PERCENTILES[name]) for name in slo.latency_s)


def window_s(n: int, rate: float, *, times: float, least_s: float, most_s: float, left_s: float) -> float:
    """Seconds of a probe that is to carry a percentile of n requests: `times` as many, within least_s and most_s;
    longer only where a slow server would otherwise not get through enough of them; never more than left_s."""
    usual = min(max(least_s, times * n / rate), most_s)
    return min(max(usual, _ENOUGH * n / rate), max(1.0, left_s))


def least_s(n: int, rate: float) -> float:
    """Seconds of a probe that may just carry a percentile of n requests."""
    return _ENOUGH * n / rate


def judged(point: OperatingPoint, slo: SLO) -> OperatingPoint:
    """The point, if it could be judged. Raises TrialFailure: with too few requests there is no figure."""
    if point.holds is None:
        lacking = [name for name in slo.latency_s if point.latency[METRICS[name]] is None]
        bursts = ", the slow ones in bursts" if point.n >= needed_n(slo) else ""
        raise not_enough(f"{', '.join(lacking)} at {point.rate:.4g} requests/s, there were {point.n}{bursts}")
    return point


def not_enough(what: str) -> TrialFailure:
    return TrialFailure(f"not enough requests for {what}; {MORE}", failure="other")


def latencies(point: OperatingPoint) -> Figures:
    known = {metric: estimate for metric, estimate in point.latency.items() if estimate is not None}
    return {**known, "error_ratio": point.error_ratio}


def p99_at(samples: Samples, slo: SLO) -> Estimate:
    """p99 at a rate that may lie above what the server holds: then only a lower bound is known (high = inf).

    Raises TrialFailure where there were too few requests.
    """
    point = operating_point(samples, slo)
    found = point.latency["latency_p99_s"]
    if found is not None and not samples.oversaturated:
        return found
    worst = percentile(samples.latency_s[samples.latency_s == samples.latency_s], 0.99)
    if samples.oversaturated or point.holds is False:  # the queue grew for as long as it was watched
        bound = max(worst if math.isfinite(worst) else 0.0, min(slo.latency_s.values()))
        return Estimate(bound, bound, math.inf, point.n)
    raise not_enough(f"p99 at {samples.offered_rate:.4g} requests/s, there were {point.n}")


def infeasible(samples: Samples, slo: SLO, *, at_rate: bool) -> Figures:
    """No rate holds the SLO: what the lowest one gave, the best attainable. at_rate: latency is an objective.

    A percentile for which the requests do not suffice is given as a lower bound (high = inf); one that is under
    its limit all the same is left out, as the trial must not pass for feasible. Raises TrialFailure where the SLO
    held after all.
    """
    point, latency = operating_point(samples, slo), samples.after(warmup_s(samples.seconds, slo))
    if point.holds:
        what = f"a verdict: the SLO failed at first and then held at {point.rate:.4g} requests/s"
        raise not_enough(what)
    found: Figures = {"throughput_rps": samples.throughput_rps, **latencies(point)}
    for name in {**slo.latency_s, "p99": 0.0}:
        bound_s = _at_least(latency, PERCENTILES[name])
        if METRICS[name] not in found and slo.latency_s.get(name, 0.0) < bound_s < math.inf:
            found[METRICS[name]] = Estimate(bound_s, bound_s, math.inf, point.n)
    if at_rate:
        known = found.get("latency_p99_s", min(slo.latency_s.values()))
        bound_s = known.low if isinstance(known, Estimate) else known
        found["latency_p99_at_rate_s"] = Estimate(bound_s, bound_s, math.inf, point.n)
    return found


def _at_least(latency_s: Floats, q: float) -> float:
    """Lower 97.5 % bound of the quantile q from order statistics; the longest that was seen where it lies beyond
    (failed requests reach down to it); NaN without requests."""
    spread = 1.96 * math.sqrt(q * (1.0 - q) / max(1, latency_s.size))
    return min(percentile(latency_s, max(0.0, q - spread)), float(np.nanmax(latency_s, initial=0.0)))


def best_attainable(found: Mapping[str, float | Estimate]) -> str:
    """For the reason of an infeasible trial."""
    p99 = found.get("latency_p99_s")
    if not isinstance(p99, Estimate):
        return ""
    return f"; the best attainable p99 is {'' if math.isfinite(p99.high) else 'at least '}{p99.value * 1e3:.4g} ms"


def priced(figures: Figures, *, cost_per_hour: float, peak_bytes: float) -> Figures:
    """Adds what it costs. Raises TrialFailure where nothing was answered."""
    rate = figures["throughput_rps"]
    value = rate.value if isinstance(rate, Estimate) else rate
    if not value > 0:
        raise TrialFailure("no request was answered in time, at any rate", failure="timeout")
    cost: float | Estimate = per_million(cost_per_hour, value)
    if isinstance(rate, Estimate):
        low = per_million(cost_per_hour, rate.high) if math.isfinite(rate.high) else -math.inf
        cost = Estimate(per_million(cost_per_hour, value), low, per_million(cost_per_hour, rate.low), rate.n)
    return {**figures, "rss_bytes": float(peak_bytes), "cost_per_hour": cost_per_hour, "cost_per_million": cost}
