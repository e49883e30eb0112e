"""The records of a study, and the fold that turns its events into trials.

An `Event` is the only thing ever stored. `TrialLog` folds events, in the journal's order, into `Trial`s;
nothing else keeps state, so reading a journal again gives the same study.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from fettle.core.errors import InvalidInput

SCHEMA = 1
KINDS = ("created", "enqueued", "started", "reported", "told", "lost", "remeasured")
FAILURES = ("oom", "crash", "timeout", "start_timeout", "bad_request", "nan", "lost", "other")

Params = dict[str, Any]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _NOTHING  # one shared empty mapping: 10,000 trials need not hold 50,000 empty dicts


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        return self in (State.COMPLETE, State.STOPPED, State.FAILED)


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. `number` is the trial's (-1 for `created`); `seq` is given by the journal, from 1 on."""

    kind: str
    number: int
    payload: Mapping[str, Any]
    time_s: float
    schema: int = SCHEMA
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured figure with its 95 % interval from n samples.

    An infinite end says that the value is only a bound: `high=inf` that the truth is at least `value`.
    """

    value: float
    low: float
    high: float
    n: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """Intermediate figures of a running trial at a fidelity."""

    fidelity: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric to `minimize` or `maximize`. The only place where a sign is flipped."""

    metric: str
    goal: str = "minimize"

    def __post_init__(self) -> None:
        if self.goal not in ("minimize", "maximize"):
            raise InvalidInput(
                f"objective {self.metric!r}: expected goal 'minimize' or 'maximize', got {self.goal!r}",
                "write fettle.Objective('loss', 'minimize')",
            )

    @property
    def sign(self) -> float:
        return 1.0 if self.goal == "minimize" else -1.0


@dataclass(frozen=True, slots=True)
class Constraint:
    """A bound on a metric, kept apart from the loss."""

    metric: str
    upper: float | None = None
    lower: float | None = None

    def __post_init__(self) -> None:
        if (self.upper is None) == (self.lower is None):
            raise InvalidInput(
                f"constraint on {self.metric!r}: expected exactly one of upper= and lower=",
                "write fettle.Constraint('latency_p99_s', upper=0.05)",
            )

    def violation(self, value: float) -> float:
        """Relative excess over the bound (absolute where the bound is 0); 0 where it holds."""
        bound = self.upper if self.upper is not None else self.lower
        assert bound is not None
        excess = value - bound if self.upper is not None else bound - value
        return max(0.0, excess) / (abs(bound) or 1.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trial as algorithms see it: everything is minimised.

    losses: one per objective; NaN where unknown. violations: one per constraint, >= 0; NaN where unknown.
    noise: standard error per loss, NaN where unknown. censored: per loss 0 (exact), +1 (the true loss is
    at least this: the trial was stopped) or -1 (at most this: the load generator was the limit).
    ok: the trial gave its figures; otherwise `failure` names the class.
    """

    losses: tuple[float, ...]
    violations: tuple[float, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=_nothing)
    noise: tuple[float, ...] = ()
    ok: bool = True
    censored: tuple[int, ...] = ()
    failure: str = ""

    @property
    def feasible(self) -> bool:
        return self.ok and all(v <= 0 for v in self.violations)

    @property
    def order(self) -> tuple[float, float, float]:
        """Sort key: feasible first, then by total violation, then by the first loss; failures last."""
        if not self.ok:
            return (2.0, 0.0, 0.0)
        violation = sum(v if v == v else 1.0 for v in self.violations)
        loss = self.losses[0] if self.losses and self.losses[0] == self.losses[0] else math.inf
        return (0.0 if violation <= 0 else 1.0, violation, loss)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial, as folded from its events.

    intervals: metric -> (low, high, n). parent: the trial whose params or checkpoint it took.
    confirmed: the payload of the last `remeasured` event that counts for the answer.
    source: 'algorithm', 'enqueued', 'elsewhere', or 'outside' (the space: measured, but it cannot win).
    """

    number: int
    params: Params
    state: State
    fidelity: float | None = None
    reports: tuple[Report, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=_nothing)
    intervals: Mapping[str, tuple[float, float, int]] = field(default_factory=_nothing)
    failure: str = ""
    error: str = ""
    parent: int | None = None
    resume_from: float | None = None
    timings: Mapping[str, float] = field(default_factory=_nothing)
    note: str = ""
    artifacts: Mapping[str, Any] = field(default_factory=_nothing)
    confirmed: Mapping[str, Any] | None = None
    source: str = "algorithm"


def outcome(trial: Trial, objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> Outcome:
    """What an algorithm is told of a finished or paused trial."""
    metrics, intervals = trial.metrics, trial.intervals
    losses, noise, censored = [], [], []
    for objective in objectives:
        value = metrics.get(objective.metric, math.nan)
        losses.append(objective.sign * value)
        low, high, _ = intervals.get(objective.metric, (math.nan, math.nan, 0))
        bound = int(high == math.inf) - int(low == -math.inf)  # +1: the metric is at least its value
        if trial.state is State.STOPPED:
            bound = int(objective.sign)
        censored.append(int(objective.sign) * bound)
        noise.append((high - low) / (2 * 1.96) if math.isfinite(high - low) else math.nan)
    return Outcome(
        losses=tuple(losses),
        violations=tuple(_violation(c, metrics) for c in constraints),
        metrics=metrics,
        noise=tuple(noise),
        ok=trial.state is not State.FAILED,
        censored=tuple(censored),
        failure=trial.failure,
    )


def _violation(constraint: Constraint, metrics: Mapping[str, float]) -> float:
    value = metrics.get(constraint.metric, math.nan)
    return math.nan if value != value else constraint.violation(value)


class TrialLog:
    """Fold of events. Appending one costs O(log n); nothing rescans the history."""

    def __init__(self, objectives: Sequence[Objective] = (), constraints: Sequence[Constraint] = ()) -> None:
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.experiment: Mapping[str, Any] = _NOTHING
        self.trials: list[Trial] = []
        self.waiting: dict[int, Params] = {}
        self.running: dict[int, Params] = {}
        self.rungs: dict[float, list[tuple[float, int]]] = {}  # fidelity -> sorted (loss, number)
        self.counts = dict.fromkeys(State, 0)
        self.ended: list[int] = []  # trial numbers in the order of their first end that was told
        self.elsewhere = 0  # trials told from elsewhere: they do not count against trials=N
        self.units = 0.0  # fidelity units reserved by `started` events
        self.seen = 0
        self.seconds = 0.0  # spent in trials and re-measurements: what a budget counts
        self.last_s = 0.0  # time of the latest event: the study's last sign of life
        self._start_s: dict[int, float] = {}
        self._ranked: dict[tuple[float, int], float] = {}  # (fidelity, number) -> loss in `rungs`
        self._told: set[tuple[int, float | None]] = set()
        self._ended: set[int] = set()
        self._best: tuple[tuple[float, float, float], int] | None = None

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def started(self) -> int:
        """Trials that count against `trials=N`: all that were started here, retries included."""
        return len(self.trials) - self.elsewhere - len(self.waiting)

    @property
    def incumbent(self) -> Trial | None:
        """The best feasible trial by what was told, before any confirmation."""
        return None if self._best is None else self.trials[self._best[1]]

    def was_told(self, number: int, fidelity: float | None) -> bool:
        """Whether a result of this trial at this fidelity counts already: a further one will not."""
        return (number, fidelity) in self._told

    @property
    def baseline(self) -> Trial | None:
        """The trial of the defaults, where the study has one: trial 0, or a later try where that gave no figures."""
        if not self.experiment.get("baseline") or not self.trials:
            return None
        first = self.trials[0]
        if first.state is not State.FAILED:
            return first
        tries = [first, *(t for t in self.trials if t.parent == 0 and t.params == first.params)]
        return next((t for t in tries if t.state is State.COMPLETE), tries[-1])

    def outcome(self, trial: Trial) -> Outcome:
        return outcome(trial, self.objectives, self.constraints)

    def extend(self, events: Iterable[Event]) -> list[Trial]:
        """Fold events; returns the trials that were told by them, in order."""
        return [trial for event in events if (trial := self.append(event)) is not None]

    def append(self, event: Event) -> Trial | None:
        """Fold one event; returns the trial where algorithms have to be told of it."""
        if event.schema > SCHEMA:
            raise InvalidInput(
                f"event {event.seq} has schema {event.schema}, this version of Fettle knows up to {SCHEMA}",
                "update Fettle to read this study",
            )
        self.seen = event.seq or self.seen + 1
        if event.kind not in KINDS:
            raise InvalidInput(f"unknown kind of event {event.kind!r}", "update Fettle to read this study")
        self.last_s = max(self.last_s, event.time_s)
        told: Trial | None = getattr(self, f"_fold_{event.kind}")(event)
        return told

    def _put(self, trial: Trial) -> None:
        if trial.number == len(self.trials):
            self.trials.append(trial)
        else:
            self.counts[self.trials[trial.number].state] -= 1
            self.trials[trial.number] = trial
        self.counts[trial.state] += 1
        self.waiting.pop(trial.number, None)
        self.running.pop(trial.number, None)
        if trial.state is State.WAITING:
            self.waiting[trial.number] = trial.params
        elif trial.state is State.RUNNING:
            self.running[trial.number] = trial.params

    def _fold_created(self, event: Event) -> None:
        self.experiment = event.payload

    def _fold_enqueued(self, event: Event) -> None:
        p = event.payload
        self._put(
            Trial(
                event.number,
                p["params"],
                State.WAITING,
                parent=p.get("parent"),
                note=p.get("note", ""),
                source="outside" if p.get("outside") else "enqueued",
            )
        )

    def _fold_started(self, event: Event) -> None:
        p, number = event.payload, event.number
        fidelity, resume_from = p.get("fidelity"), p.get("resume_from")
        self._start_s[number] = event.time_s
        self.units += (1.0 if fidelity is None else fidelity) - (resume_from or 0.0)
        if number < len(self.trials):  # waiting, or paused and now promoted
            old = self.trials[number]
            note = p.get("note") or old.note
            self._put(replace(old, state=State.RUNNING, fidelity=fidelity, resume_from=resume_from, note=note))
            return
        self._put(
            Trial(
                number,
                p["params"],
                State.RUNNING,
                fidelity=fidelity,
                parent=p.get("parent"),
                resume_from=resume_from,
                note=p.get("note", ""),
            )
        )

    def _fold_reported(self, event: Event) -> None:
        trial, p = self.trials[event.number], event.payload
        report = Report(p["fidelity"], p["metrics"])
        self.trials[event.number] = replace(trial, reports=(*trial.reports, report))
        self._rank(trial.number, report.fidelity, report.metrics)

    def _fold_told(self, event: Event) -> Trial | None:
        p, number = event.payload, event.number
        if number == len(self.trials):
            trial = Trial(number, p["params"], State.RUNNING, source="elsewhere")
            self.elsewhere += 1
        else:
            trial = self.trials[number]
        rung = (number, p.get("fidelity", trial.fidelity))
        if rung in self._told:
            return None  # of several tells for one rung the first counts
        self._told.add(rung)
        if (begun := self._start_s.pop(number, None)) is not None:
            self.seconds += max(0.0, event.time_s - begun)
        trial = replace(
            trial,
            state=State(p["state"]),
            fidelity=rung[1],
            metrics=p["metrics"],
            intervals={name: interval(ends) for name, ends in p["intervals"].items()}
            if p.get("intervals")
            else _NOTHING,
            failure=p.get("failure", ""),
            error=p.get("error", ""),
            timings=p.get("timings", _NOTHING),
            note=p.get("note") or trial.note,
            artifacts=p.get("artifacts", _NOTHING),
        )
        self._put(trial)
        if trial.state.finished and number not in self._ended:
            self._ended.add(number)
            self.ended.append(number)
        if self._best is not None and self._best[1] == number:  # a later rung of the incumbent itself
            self._best = min(filter(None, map(self._standing, self.trials)), default=None)
        elif (standing := self._standing(trial)) is not None and (self._best is None or standing < self._best):
            self._best = standing
        if trial.fidelity is not None and trial.state is not State.FAILED:
            self._rank(number, trial.fidelity, trial.metrics)
        return trial

    def _fold_lost(self, event: Event) -> Trial | None:
        trial = self.trials[event.number]
        if trial.state is not State.RUNNING:
            return None
        if (begun := self._start_s.pop(event.number, None)) is not None:
            self.seconds += max(0.0, event.payload.get("seen_s", event.time_s) - begun)
        error = event.payload.get("error", "its worker died")
        trial = replace(trial, state=State.FAILED, failure="lost", error=error)
        self._put(trial)
        return trial

    def _fold_remeasured(self, event: Event) -> None:
        self.seconds += event.payload.get("wall_s", 0.0)
        if event.payload.get("source") == "confirm":  # a later `fettle measure` never changes the answer
            self.trials[event.number] = replace(self.trials[event.number], confirmed=event.payload)

    def _standing(self, trial: Trial) -> tuple[tuple[float, float, float], int] | None:
        """Sort key among those that may be the incumbent; None for all others."""
        if trial.state is not State.COMPLETE or trial.source == "outside":
            return None
        order = self.outcome(trial).order
        return (order, trial.number) if order[0] == 0.0 else None

    def _rank(self, number: int, fidelity: float, metrics: Mapping[str, float]) -> None:
        """A trial stands once in each rung, with its latest figure."""
        value = metrics.get(self.objectives[0].metric, math.nan) if self.objectives else math.nan
        if value != value:
            return
        rung, loss = self.rungs.setdefault(fidelity, []), self.objectives[0].sign * value
        if (old := self._ranked.get((fidelity, number))) is not None:
            del rung[bisect_left(rung, (old, number))]
        insort(rung, (loss, number))
        self._ranked[fidelity, number] = loss


def interval(ends: Sequence[float | None]) -> tuple[float, float, int]:
    """[low, high, n] as stored (None: unbounded, JSON has no infinity) -> (low, high, n)."""
    low, high, n = ends
    return (-math.inf if low is None else low, math.inf if high is None else high, int(n or 0))
