"""The highest offered rate that holds an SLO in steady state, by probes of a server, with its 95 % interval.

First a bracket: the rate goes up or down by factors until both sides of the boundary are seen. Then probes
close to the boundary, all of them put together by `rate_model`, until the interval is narrow or the time is
spent; the last part of it goes to the operating point, a little below the estimate. A pure function of the
probe: against a simulated server it runs in virtual time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fettle.core.errors import InvalidInput
from fettle.core.trial import Estimate
from fettle.problems.serve.operating_point import (
    UNSTEADY,
    OperatingPoint,
    Probe,
    ProbeRecord,
    batch_n,
    measure_at,
    operating_point,
    percentile_estimate,
    probe_record,
    warmup_s,
    wilson,
)
from fettle.problems.serve.rate_model import Boundary, Counted, dispersion, fit_boundary
from fettle.problems.serve.samples import Floats, Samples, required_n
from fettle.problems.serve.slo import METRICS, PERCENTILES, SLO

__all__ = ["SLO", "OperatingPoint", "ProbeRecord", "RateResult", "RateSearch", "measure_at", "search"]

Ending = Literal["ok", "infeasible", "not_enough_requests", "stopped", "server_failed"]
_ODDS = (1.0, 3.0, 1.5, 0.7)  # probes are put where the odds of a slow request are so many times the limit's
_NEAR = 0.35  # probes further away (in the logarithm of the rate) say nothing about the boundary
_MAX_BRACKET = 14
_LEAST_NEAR = 5  # probes near the boundary before the search may end early
_LEAST_SLOW, _FURTHER = 10, 1.05
_DOWN, _DEEP_DOWN, _UP = 0.72, 0.5, 1.4


@dataclass(frozen=True, slots=True)
class RateSearch:
    """budget_s: seconds of probing. half_width: relative half-width of the interval that is good enough.

    operating_share: part of the budget kept for the operating point. probe_s: length of one probe, None to
    fit it to the SLO.
    """

    budget_s: float = 10.0
    half_width: float = 0.06
    operating_share: float = 0.25
    probe_s: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.budget_s) and self.budget_s > 0.0):
            raise InvalidInput(f"rate search: budget_s must be positive, got {self.budget_s!r}", "give it some seconds")
        if not 0.0 <= self.operating_share < 1.0 or not self.half_width > 0.0:
            raise InvalidInput(
                f"rate search: expected operating_share in [0, 1) and half_width > 0, got {self}", "use the defaults"
            )

    def seconds(self, slo: SLO) -> float:
        """Length of one probe: long against the time in which a queue at the boundary forgets."""
        return self.probe_s or min(max(0.4, 15.0 * slo.limit_s), 0.1 * self.budget_s)


@dataclass(frozen=True, slots=True)
class RateResult:
    """rate: None unless a boundary was found. ending: how it came out, reason: the same in words.

    optimistic_rate: where `stopped`, what the rate could be at best. best_p99_s: where infeasible, the best
    attainable p99, None if the requests did not suffice. binding: the metric that limits the rate.
    """

    ending: Ending
    reason: str
    rate: Estimate | None = None
    binding: str = ""
    operating: OperatingPoint | None = None
    optimistic_rate: float | None = None
    best_p99_s: Estimate | None = None
    probes: tuple[ProbeRecord, ...] = ()
    seconds: float = 0.0
    client_limited: bool = False
    drifting: bool = False

    @property
    def feasible(self) -> bool:
        return self.ending == "ok"

    @property
    def stopped(self) -> bool:
        return self.ending == "stopped"


def search(
    probe: Probe,
    slo: SLO,
    settings: RateSearch | None = None,
    *,
    start_rate: float,
    floor_rate: float | None = None,
    clock: Callable[[], float] | None = None,
) -> RateResult:
    """The highest rate at which `slo` holds.

    probe(rate, seconds) -> Samples under Poisson arrivals. start_rate: a first guess, such as the capacity
    in a closed loop. floor_rate: the rate to beat; a server that surely cannot is not measured further.
    clock: seconds, counted against the budget; without it the windows of the probes are.
    """
    for name, value in (("start_rate", start_rate), ("floor_rate", floor_rate)):
        if value is not None and not (math.isfinite(value) and value > 0.0):
            raise InvalidInput(f"rate search: {name} must be positive, got {value!r}", "requests per second")
    run = _Search(probe, slo, settings or RateSearch(), floor_rate, clock)
    return run.bracket(start_rate) or run.refine()


@dataclass(slots=True)
class _Search:
    probe: Probe
    slo: SLO
    settings: RateSearch
    floor_rate: float | None
    clock: Callable[[], float] | None
    seen: list[Samples] = field(default_factory=list)
    low: float = 0.0
    high: float = math.inf
    begun: float = 0.0

    def __post_init__(self) -> None:
        self.begun = self.clock() if self.clock else 0.0

    @property
    def used_s(self) -> float:
        return self.clock() - self.begun if self.clock else sum(s.seconds for s in self.seen)

    @property
    def operating_s(self) -> float:
        return self.settings.operating_share * self.settings.budget_s

    def measure(self, rate: float, seconds: float) -> Samples:
        samples = self.probe(rate, seconds)
        self.seen.append(samples)
        return samples

    # bracket

    def bracket(self, start_rate: float) -> RateResult | None:
        """Sets low and high around the boundary; a result where the search ends here."""
        rate = start_rate if self.floor_rate is None else self.floor_rate
        length = 0.7 * self.settings.seconds(self.slo)
        for _ in range(_MAX_BRACKET):
            samples = self.measure(rate, min(max(length, 25.0 / rate), 0.2 * self.settings.budget_s))
            if _dead(samples):
                return self.end("server_failed", f"no request was answered: {_kinds(samples)}")
            factor, sure = self.judge(samples)
            if factor > 1.0:
                self.high = min(self.high, rate)
                if sure and self.floor_rate is not None and rate <= self.floor_rate:
                    return self.stopped(rate)
            else:
                self.low = max(self.low, rate)
            if self.low >= self.high:  # noise: the rates contradict each other; open the bracket again
                self.low, self.high = self.low / 1.3, self.high * 1.3
                return None
            if self.high / max(self.low, 1e-300) <= 1.6:
                return None
            if self.low and math.isfinite(self.high):
                rate = math.sqrt(self.low * self.high)
            else:
                if factor > 1.0 and not self.low and self.load_matters_not():
                    break
                rate *= _UP if factor <= 1.0 else (_DEEP_DOWN if samples.oversaturated or factor > 20.0 else _DOWN)
            starving = rate * (self.settings.budget_s - self.used_s) < required_n(0.9)
            if self.used_s >= self.settings.budget_s - self.operating_s or (not self.low and starving):
                break
        return None if self.low else self.infeasible()

    def judge(self, samples: Samples) -> tuple[float, bool]:
        """(worst share over its limit / share allowed, whether that is beyond doubt). Over 1: the rate fails."""
        if samples.oversaturated:
            return math.inf, True
        worst, sure = 0.0, False
        for metric, share in self.criteria().items():
            over = self.over(samples, metric)[samples.scheduled_s >= warmup_s(samples.seconds, self.slo)]
            if not over.size:
                continue
            inflation = max(3.0, dispersion(over, min(batch_n(samples.offered_rate, self.slo), over.size // 8)))
            low, _ = wilson(float(over.mean()), over.size / inflation)
            worst, sure = max(worst, float(over.mean()) / max(share, 1e-9)), sure or low > share
        return worst, sure

    def load_matters_not(self) -> bool:
        """Nearly every request was too slow, and at half the rate it was the same."""
        last = [s for s in self.seen if not s.oversaturated][-2:]
        worst = [max(float(self.over(s, metric).mean()) for metric in self.criteria()) for s in last]
        return len(last) == 2 and min(worst) > 0.9 and last[1].offered_rate <= 0.6 * last[0].offered_rate

    def criteria(self) -> dict[str, float]:
        """Metric -> share of requests that may be over its limit."""
        latency = {METRICS[name]: 1.0 - PERCENTILES[name] for name in self.slo.latency_s}
        return latency | {"error_ratio": self.slo.error_ratio}

    def over(self, samples: Samples, metric: str) -> Floats:
        """1.0 per request over the metric's limit; failed ones are over any."""
        if metric != "error_ratio":
            return (~(samples.latency_s <= self.slo.constraints()[metric])).astype(float)
        failed = np.isnan(samples.latency_s).astype(float)
        hidden = round(samples.error_ratio * samples.n - float(failed.sum()))  # wrong bodies among the unchecked
        failed[np.flatnonzero(failed == 0.0)[: max(0, hidden)]] = 1.0
        return failed

    # refine

    def refine(self) -> RateResult:
        """Probes near the boundary, then the operating point; if that widens the interval again, more probes."""
        settings = self.settings
        middle = math.sqrt(self.low * self.high) if math.isfinite(self.high) else self.low * _UP
        fits = self.approach(self.fit(middle), settings.budget_s - self.operating_s)
        operating = None
        if isinstance(fits, dict) and self.operating_s > 0.0:
            fit = min(fits.values(), key=lambda f: f.rate.value)
            below = fit.rate.value * math.exp(-min(0.7 * fit.sd_log, 0.08))
            samples = self.measure(below, self.operating_s)
            if _dead(samples):
                return self.end("server_failed", f"the server stopped answering: {_kinds(samples)}")
            operating = operating_point(samples, self.slo)
            fits = self.approach(self.fit(fit.rate.value, thorough=True), settings.budget_s)
        return self.answer(fits, operating) if isinstance(fits, dict) else fits

    def approach(self, fits: dict[str, Boundary], until_s: float) -> dict[str, Boundary] | RateResult:
        """Probes until the interval is narrow or so many seconds are used; then the thorough fits."""
        settings, length, turn = self.settings, self.settings.seconds(self.slo), 0
        while self.used_s + length <= until_s:
            binding = min(fits, key=lambda m: fits[m].rate.value)
            fit = fits[binding]
            counted = self.counted(binding, fit.rate.value)
            near, slow = len(counted), sum(float(c.over[c.scheduled_s >= c.start_s].sum()) for c in counted)
            if self.floor_rate is not None and near >= 3 and fit.rate.high < self.floor_rate:
                return self.stopped(fit.rate.high)
            if near >= _LEAST_NEAR and 1.5 * fit.half_width_ratio <= settings.half_width:
                fits = self.fit(fit.rate.value, thorough=True)
                if max(f.half_width_ratio for f in fits.values()) <= settings.half_width:
                    return fits
            factor = fit.rate_at(_ODDS[turn % len(_ODDS)]) / fit.rate.value
            if slow < _LEAST_SLOW:  # the limit has hardly been seen to be passed: look for it further up
                factor *= _FURTHER
            samples = self.measure(fit.rate.value * min(max(factor, 0.85), 1.15), length)
            turn += 1
            if _dead(samples):
                return self.end("server_failed", f"the server stopped answering: {_kinds(samples)}")
            fits = self.fit(fit.rate.value)
        return self.fit(min(f.rate.value for f in fits.values()), thorough=True)

    def fit(self, around: float, *, thorough: bool = False) -> dict[str, Boundary]:
        """The boundary by metric; the error ratio only where errors came near its limit."""
        fits = {}
        limits = self.slo.constraints() | {"error_ratio": self.slo.limit_s}  # of time: the scale of the waiting work
        for metric, share in self.criteria().items():
            counted = self.counted(metric, around)
            over = np.concatenate([c.over[c.scheduled_s >= c.start_s] for c in counted])
            if metric == "error_ratio" and over.sum() <= 0.2 * share * over.size:
                continue
            fits[metric] = fit_boundary(
                counted, max(share, 1e-4), limit_s=limits[metric], around=around, thorough=thorough
            )
        return fits

    def counted(self, metric: str, around: float) -> list[Counted]:
        """The probes near the boundary; the very first one warmed the server up."""
        seen = self.seen[1:] if len(self.seen) > 3 else self.seen
        seen = [s for s in seen if s.after(warmup_s(s.seconds, self.slo)).size] or self.seen
        near = [s for s in seen if abs(math.log(s.offered_rate / around)) <= _NEAR]
        return [self.count(s, metric) for s in near or seen]

    def count(self, samples: Samples, metric: str) -> Counted:
        start_s = warmup_s(samples.seconds, self.slo)
        return Counted(
            samples.offered_rate, samples.scheduled_s, self.over(samples, metric), samples.latency_s, start_s
        )

    # results

    def answer(self, fits: dict[str, Boundary], operating: OperatingPoint | None) -> RateResult:
        binding = min(fits, key=lambda m: fits[m].rate.value)
        fit = fits[binding]
        needed = required_n(1.0 - max(self.criteria()[binding], 1e-4))
        if fit.rate.n < needed or fit.half_width_ratio > 0.6:
            return self.end(
                "not_enough_requests",
                f"not enough requests: {binding} takes at least {needed} near the limit, there were {fit.rate.n}"
                + ("" if fit.rate.n < needed else ", which vary too much to tell the rate"),
            )
        rate = Estimate(
            fit.rate.value,
            min(f.rate.low for f in fits.values()),
            min(f.rate.high for f in fits.values()),
            fit.rate.n,
        )
        if self.floor_rate is not None and rate.high < self.floor_rate:
            return self.stopped(rate.high)
        return self.end("ok", f"{binding} limits the rate", rate=rate, binding=binding, operating=operating)

    def stopped(self, optimistic: float) -> RateResult:
        reason = f"at best {optimistic:.4g} requests/s, under the {self.floor_rate:.4g} to beat"
        return self.end("stopped", reason, optimistic_rate=optimistic)

    def infeasible(self) -> RateResult:
        """Every rate failed. If the lowest one surely did, the server and not the load is to blame."""
        settings, lowest = self.settings, min(self.seen, key=lambda s: s.offered_rate)
        sure = self.judge(lowest)[1]
        left_s = max(settings.budget_s - self.used_s, settings.seconds(self.slo))
        enough = 1.3 * required_n(0.99) / left_s  # requests per second for a p99, where that is still a low rate
        rate = max(lowest.offered_rate, min(enough, 0.3 * self.seen[0].offered_rate)) if sure else lowest.offered_rate
        samples = self.measure(rate, left_s)
        if _dead(samples):
            return self.end("server_failed", f"the server stopped answering: {_kinds(samples)}")
        latency = samples.after(warmup_s(samples.seconds, self.slo))
        best = percentile_estimate(latency, 0.99, batch_n(rate, self.slo))
        if sure or self.judge(samples)[1]:
            reason = f"the SLO does not hold even at {lowest.offered_rate:.4g} requests/s"
            return self.end("infeasible", reason, best_p99_s=best)
        return self.end("not_enough_requests", f"not enough requests: {latency.size} at {rate:.4g} requests/s")

    def end(
        self,
        ending: Ending,
        reason: str,
        *,
        rate: Estimate | None = None,
        binding: str = "",
        operating: OperatingPoint | None = None,
        optimistic_rate: float | None = None,
        best_p99_s: Estimate | None = None,
    ) -> RateResult:
        records = tuple(probe_record(s, self.slo) for s in self.seen)
        near = [s for s in self.seen if rate is not None and abs(math.log(s.offered_rate / rate.value)) < 0.2]
        return RateResult(
            ending=ending,
            reason=reason,
            rate=rate,
            binding=binding,
            operating=operating,
            optimistic_rate=optimistic_rate,
            best_p99_s=best_p99_s,
            probes=records,
            seconds=self.used_s,
            client_limited=any(s.client_limited for s in near),
            drifting=self.drifts(records),
        )

    def drifts(self, records: tuple[ProbeRecord, ...]) -> bool:
        """Latency rises within several probes at rates that the server can bear (a full queue wanders anyway)."""
        allowed = self.criteria()
        calm = [r for r in records if all(share <= 2.0 * allowed[metric] for metric, share in r.over.items())]
        if sum(UNSTEADY in r.marks for r in calm) >= max(2, len(calm) // 3):
            return True
        return self.moved()

    def moved(self) -> bool:
        """Whether the boundary of the later half of the probes lies surely apart from that of the earlier."""
        seen = [s for s in self.seen[1:] if s.completed and s.after(warmup_s(s.seconds, self.slo)).size >= 60]
        if len(seen) < 6:
            return False
        halves = []
        for part in (seen[: len(seen) // 2], seen[len(seen) // 2 :]):
            around = float(np.median([s.offered_rate for s in part]))
            name, limit_s = min(self.slo.latency_s.items(), key=lambda item: item[1])
            halves.append(
                fit_boundary(
                    [self.count(s, METRICS[name]) for s in part], 1 - PERCENTILES[name], limit_s=limit_s, around=around
                )
            )
        shift = abs(math.log(halves[1].rate.value / halves[0].rate.value))
        return shift > max(0.06, 4.0 * math.hypot(halves[0].sd_log, halves[1].sd_log))


def _dead(samples: Samples) -> bool:
    """Nothing came back, and connections failed: no server, rather than a slow one."""
    gone = sum(samples.errors.get(kind, 0) for kind in ("connect", "reset", "closed"))
    return samples.n > 0 and gone > 0.5 * samples.n and (samples.completed == 0 or _tail_failed(samples))


def _tail_failed(samples: Samples) -> bool:
    tail = samples.latency_s[-max(5, samples.n // 10) :]
    return bool(np.isnan(tail).all())


def _kinds(samples: Samples) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(samples.errors.items())) or "no answer"
