"""Measuring the best candidates again: the best of many noisy measurements is otherwise too good to be true.

Candidates are measured in turn, round by round, each time on a fresh server, so that slow changes of the
machine hit all of them alike. Spread is pooled over the candidates: three rounds of one tell little about it.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fettle.core.protocols import Confirmation, Measure
from fettle.core.trial import Objective, Params, Trial

MAX_ROUNDS = 5
_LEAST_ROUNDS = 2
_BELOW = 0.97  # the reported rate lies a little below the boundary that the searches have found
_STEP_DOWN = 0.95  # to the next lower rate, where a reported rate does not hold the SLO again
_STEPS = 4
_MANY = 1000
_FLOOR_SD = 0.005  # of the logarithm: no two fresh servers agree better than half a per cent for certain


@dataclass
class _Candidate:
    number: int
    params: Params
    rate: float  # the rate to begin the next search at
    may_win: bool = True  # False: the defaults, where they lie outside the space
    rounds: list[Mapping[str, float] | None] = field(default_factory=list)  # None: that round failed
    failures: list[str] = field(default_factory=list)
    passed: Mapping[str, Any] | None = None  # payload of the run that held the SLO at the reported rate
    tested: bool = False
    wall_s: float = 0.0

    @property
    def good(self) -> list[Mapping[str, float]]:
        return [r for r in self.rounds if r is not None]


def confirm(
    candidates: Sequence[Trial],
    measure: Measure,
    objectives: Sequence[Objective],
    *,
    budget_s: float,
    reported: Sequence[int],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Confirmation]:
    """Yields one confirmation per candidate. measure(params, settings) starts a fresh server: settings
    {"mode": "search", "rate": near} finds the highest rate; {"mode": "rate", "rate": r} tests one rate.

    candidates: the best first. reported: those whose figures stand in the answer whatever wins, the defaults
    first; their rates are tested, too. Of the others, the best by the rounds is tested, and the next one only
    where it fails. Nothing starts that would probably not end within budget_s, save what an answer needs: a
    search of the best and of the defaults, and tests of the best one's rate; a short budget leaves out the others.
    """
    begun = clock()
    run = _Run(measure, clock, begun + budget_s, ("throughput_rps", *(o.metric for o in objectives)))
    pool = [_Candidate(t.number, t.params, _rate(t), t.source != "outside") for t in candidates]
    best, tests = pool[0].number, 1 + len(reported)
    pool.sort(key=lambda c: (c.number != best, c.number not in reported[:1], c.number not in reported))
    least = len({best, *reported[:1]})
    for candidate in pool[:least]:
        run.search(candidate)
    # Two rounds of fewer candidates tell more than one of all: spread takes repetition.
    taking = pool[: max(least, (least + run.room(tests)) // _LEAST_ROUNDS)]
    for round_ in range(MAX_ROUNDS):
        turn = round_ % len(taking)
        for candidate in taking[turn:] + taking[:turn]:
            if len(candidate.rounds) == round_ and run.room(tests) >= 1:
                run.search(candidate)
    sign = {"minimize": 1.0, "maximize": -1.0}[objectives[0].goal]
    ranked = sorted((c for c in pool if c.good), key=lambda c: sign * _centre(c, objectives[0].metric))
    for candidate in ranked:
        run.verify(candidate)
        if candidate.passed is not None and candidate.may_win:
            break
    for candidate in ranked:
        if candidate.number in reported and not candidate.tested and run.room(0) >= 1:
            run.verify(candidate)
    spread = _pooled(pool, objectives[0].metric)
    reference = next((c for c in pool if c.number in reported[:1]), None)
    for candidate in pool:
        yield Confirmation(candidate.number, _payload(candidate, reference, objectives, spread))


@dataclass
class _Run:
    """Measures, and knows the time."""

    measure: Measure
    clock: Callable[[], float]
    end: float
    wanted: tuple[str, ...]  # metrics that a good round has
    longest_s: float = 0.0

    def room(self, kept: int) -> int:
        """How many measurements would still end in time, beyond so many that are kept for later."""
        left_s = self.end - self.clock()
        return max(0, int(left_s / self.longest_s) - kept) if self.longest_s > 0 else _MANY

    def _once(self, candidate: _Candidate, mode: str, rate: float) -> Mapping[str, Any]:
        begun = self.clock()
        payload = self.measure(candidate.params, {"mode": mode, "rate": rate})
        took = self.clock() - begun
        candidate.wall_s += took
        self.longest_s = max(self.longest_s, took)
        return payload

    def search(self, candidate: _Candidate) -> None:
        payload = self._once(candidate, "search", candidate.rate)
        if _good(payload) and all(metric in payload["metrics"] for metric in self.wanted):
            candidate.rounds.append(payload["metrics"])
            candidate.rate = float(np.median([r["throughput_rps"] for r in candidate.good]))
        else:
            candidate.rounds.append(None)
            candidate.failures.append(payload.get("error") or "no rate held the SLO")

    def verify(self, candidate: _Candidate) -> None:
        """The reported rate has to hold the SLO on one more fresh server; else the next lower one is tried."""
        candidate.tested = True
        rate = _BELOW * _centre(candidate, "throughput_rps")
        for step in range(_STEPS):
            if step > 1 and self.room(0) < 1:
                return
            payload = self._once(candidate, "rate", rate)
            if _good(payload):
                candidate.passed = payload
                return
            candidate.failures.append(payload.get("error") or f"the SLO did not hold at {rate:.4g} requests/s")
            rate *= _STEP_DOWN


def _good(payload: Mapping[str, Any]) -> bool:
    return payload["state"] == "complete" and bool(payload.get("artifacts", {}).get("feasible", True))


def _rate(trial: Trial) -> float:
    return float(trial.metrics.get("throughput_rps", 0.0))


def _centre(candidate: _Candidate, metric: str) -> float:
    """Geometric mean over the rounds."""
    return math.exp(float(np.mean([math.log(max(r[metric], 1e-300)) for r in candidate.good])))


def _pooled(pool: Sequence[_Candidate], metric: str) -> tuple[float, int]:
    """Standard deviation of the logarithm between fresh servers, and its degrees of freedom."""
    squares, freedom = 0.0, 0
    for candidate in pool:
        values = [math.log(r[metric]) for r in candidate.good if r.get(metric, 0.0) > 0]
        if len(values) > 1:
            squares += float(np.sum((np.array(values) - np.mean(values)) ** 2))
            freedom += len(values) - 1
    return (max(math.sqrt(squares / freedom), _FLOOR_SD), freedom) if freedom else (math.nan, 0)


def _payload(
    candidate: _Candidate,
    reference: _Candidate | None,
    objectives: Sequence[Objective],
    spread: tuple[float, int],
) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "source": "confirm",
        "passed": candidate.passed is not None if candidate.tested else None,  # None: its rate was not tested
        "rounds": [dict(r) for r in candidate.good],
        "failures": candidate.failures,
        "wall_s": candidate.wall_s,
        "metrics": {},
        "intervals": {},
        "prediction": {},
    }
    if candidate.passed is None:
        return payload
    payload["metrics"] = dict(candidate.passed["metrics"])
    payload["intervals"] = dict(candidate.passed.get("intervals", {}))
    sd, freedom = spread
    t = _student(freedom)
    scale = {o.metric for o in objectives} | {"throughput_rps", "cost_per_million"}
    for metric in sorted(scale & set(payload["metrics"])):
        logs = [math.log(r[metric]) for r in candidate.good if r.get(metric, 0.0) > 0]
        if not logs or not freedom:
            payload["intervals"][metric] = [None, None, 1]  # one look at each tells nothing of the spread
            continue
        told, centre, n = payload["metrics"][metric], math.exp(float(np.mean(logs))), len(logs)
        half, wide = t * sd / math.sqrt(n), t * sd * math.sqrt(1 + 1 / n)
        ends = [min(told, centre * math.exp(-half)), max(told, centre * math.exp(half)), n]
        payload["intervals"][metric] = ends
        payload["prediction"][metric] = [min(told, centre * math.exp(-wide)), max(told, centre * math.exp(wide))]
    if reference is not None and reference is not candidate and freedom:
        payload["ratio"] = _ratio(candidate, reference, objectives[0].metric, sd, t)
    return payload


def _ratio(candidate: _Candidate, reference: _Candidate, metric: str, sd: float, t: float) -> dict[str, Any] | None:
    """Candidate / defaults over the rounds that both have: pairs share the machine's slow changes."""
    pairs = [
        math.log(a[metric] / b[metric])
        for a, b in zip(candidate.rounds, reference.rounds, strict=False)
        if a and b and a.get(metric, 0.0) > 0 and b.get(metric, 0.0) > 0
    ]
    if not pairs:
        return None
    half = t * sd * math.sqrt(2 / len(pairs))
    centre = float(np.mean(pairs))
    ends = {"low": math.exp(centre - half), "high": math.exp(centre + half)}
    return {"metric": metric, "value": math.exp(centre), **ends, "n": len(pairs)}


def _student(freedom: int) -> float:
    """97.5 % point of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1), 0.975))
