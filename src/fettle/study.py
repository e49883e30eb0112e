"""A study: asks an algorithm for params, writes every fact to a journal, and names the answer."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from fettle import registry
from fettle.core import answer as answers
from fettle.core.errors import Exhausted, InvalidInput, StudyMismatch
from fettle.core.protocols import Assignment, Done, Journal, Proposal, Recommender, Storage, Wait
from fettle.core.result import missing, result
from fettle.core.space import Space
from fettle.core.trial import Constraint, Estimate, Event, Objective, Params, State, Trial, TrialLog
from fettle.loop import Limits, run
from fettle.storage import open_storage

_TURN_LEASE_S = 30.0
_log = logging.getLogger(__name__)


class Study:
    """One search. Same name and same space in the same storage resumes; everything after `space` is keyword-only.

    storage: None keeps it in memory; a path, a sqlite:/// URL or a Storage keeps it. experiment: further
    JSON for the record (problem, prices, budget, fingerprint). Raises StudyMismatch where the stored study
    has another space, objectives or constraints.
    """

    def __init__(
        self,
        space: Space,
        *,
        objectives: Sequence[Objective | str],
        constraints: Sequence[Constraint] = (),
        algorithm: Any = "auto",
        scheduler: Any = None,
        seed: int = 0,
        storage: str | Path | Storage | None = None,
        name: str | None = None,
        experiment: Mapping[str, Any] | None = None,
    ) -> None:
        self.space, self.seed = space, seed
        self.objectives = tuple(Objective(o) if isinstance(o, str) else o for o in objectives)
        self.constraints = tuple(constraints)
        if not self.objectives:
            raise InvalidInput("a study needs at least one objective", "objectives=[fettle.Objective('loss')]")
        self.storage = open_storage(storage)
        self.name = name if name is not None else _free_name(self.storage)
        settings = registry.settings("algorithms", algorithm)
        record = {
            "name": self.name,
            "space": space.to_json(),
            "objectives": [{"metric": o.metric, "goal": o.goal} for o in self.objectives],
            "constraints": [{"metric": c.metric, "upper": c.upper, "lower": c.lower} for c in self.constraints],
            "algorithm": registry.describe("algorithms", settings),
            "scheduler": None if scheduler is None else registry.describe("schedulers", scheduler),
            "seed": seed,
            **(experiment or {}),
        }
        self.journal: Journal = self.storage.open(self.name, create=True)
        self.log = TrialLog(self.objectives, self.constraints)
        trials = (record.get("budget") or {}).get("trials")
        self._algorithm = settings.build(space, self.objectives, self.constraints, seed, trials)
        self._scheduler = registry.settings("schedulers", scheduler or "full")
        self._one_by_one = scheduler is not None
        with self.journal.turn(_TURN_LEASE_S) as turn:
            self.sync()
            if self.log.experiment:
                self._check_same(record)
            else:
                self.journal.append([Event("created", -1, record, time.time())], turn)
                self.sync()

    @classmethod
    def open(cls, name: str, storage: str | Path | Storage) -> "Study":
        """The stored study of that name. Raises StudyNotFound."""
        storage = open_storage(storage, must_exist=True)
        first = next(iter(storage.open(name).read()), None)
        if first is None or first.kind != "created":
            raise InvalidInput(f"study {name!r} was never begun: its first event is missing", "start it again")
        made = first.payload
        return cls(
            Space.from_json(made["space"]),
            objectives=[Objective(**o) for o in made["objectives"]],
            constraints=[Constraint(**c) for c in made["constraints"]],
            algorithm=made["algorithm"],
            scheduler=made.get("scheduler"),
            seed=made["seed"],
            storage=storage,
            name=name,
            experiment={k: v for k, v in made.items() if k not in _RECORD},
        )

    # -- reading ------------------------------------------------------------------------------------------

    def sync(self) -> TrialLog:
        """Folds what other processes, too, have written since."""
        for event in self.journal.read(self.log.seen):
            trial = self.log.append(event)
            if trial is not None and trial.source != "outside":
                self._algorithm.tell(trial, self.log.outcome(trial))
        return self.log

    @property
    def trials(self) -> list[Trial]:
        return list(self.sync().trials)

    @property
    def answer(self) -> answers.Answer:
        """The recommended trial, the front and the reason, from all events so far."""
        recommender = self._algorithm if isinstance(self._algorithm, Recommender) else None
        return answers.answer(self.sync(), recommender)

    @property
    def best(self) -> Trial | None:
        """The recommended feasible trial with its confirmed figures, or None."""
        best = self.answer.best
        return None if best is None else answers.effective(self.log.trials[best])

    @property
    def pareto(self) -> list[Trial]:
        """The non-dominated feasible trials."""
        return [answers.effective(self.log.trials[n]) for n in self.answer.front]

    # -- ask and tell -------------------------------------------------------------------------------------

    @overload
    def ask(self) -> Trial: ...
    @overload
    def ask(self, n: int) -> list[Trial]: ...
    def ask(self, n: int | None = None) -> Trial | list[Trial]:
        """The next trial to run, or n of them. Raises Exhausted when a finite space is used up."""
        trials = self.propose(1 if n is None else n, Limits(), lease_s=None)
        if not trials:
            raise Exhausted("the scheduler starts nothing more now", "tell the running trials first")
        return trials[0] if n is None else trials

    def propose(self, n: int, limits: Limits, *, lease_s: float | None) -> list[Trial]:
        """Starts up to n trials within the limits, in one turn; fewer, or none, where they are reached."""
        with self.journal.turn(_TURN_LEASE_S) as turn:
            self.sync()
            if overdue := self.journal.overdue():
                self.journal.append(self._lose(overdue, "its worker gave no sign of life"), turn)
                self.sync()
            numbers: list[int] = []
            while len(numbers) < n:
                wanted = 1 if self._one_by_one else n - len(numbers)
                starts = limits.admit(self.log, self._starts(wanted, lease_s))
                if not starts:
                    break
                self.journal.append(starts, turn)
                numbers += [e.number for e in starts]
                self.sync()
        return [self.log.trials[number] for number in numbers]

    def _starts(self, n: int, lease_s: float | None) -> list[Event]:
        """`started` events for up to n trials, by one call of the algorithm."""
        log, now, number = self.log, time.time(), len(self.log.trials)
        best = log.incumbent
        common = {"seen": log.seen, "lease_s": lease_s, "incumbent": None if best is None else best.number}
        rng = np.random.default_rng([self.seed, number])
        assigned = self._scheduler.assign(log, rng)
        if isinstance(assigned, Wait | Done):
            return []
        common["fidelity"] = assigned.fidelity
        waiting = list(log.waiting)[:n]
        if waiting or assigned.params is not None or assigned.resume is not None:
            return [Event("started", w, common, now) for w in waiting] or [_assigned(assigned, log, common, number)]
        proposals = self._algorithm.ask(n, number, list(log.running.values()), rng)
        return [
            Event("started", number + i, {"params": p.params, **_extras(p), **common}, now)
            for i, p in enumerate(proposals)
        ]

    def enqueue(self, params: Params, *, note: str = "", baseline: bool = False) -> Trial:
        """Puts params first in line. baseline: they may lie outside the space, and then cannot win."""
        outside = baseline and not self.space.contains(params)
        params = dict(params) if outside else self.space.validate(params)
        with self.journal.turn(_TURN_LEASE_S) as turn:
            number = len(self.sync().trials)
            payload = {"params": params, "note": note, **({"outside": True} if outside else {})}
            self.journal.append([Event("enqueued", number, payload, time.time())], turn)
        return self.sync().trials[number]

    def tell(
        self,
        trial: Trial | Params,
        metrics: Mapping[str, float | Estimate] | None = None,
        *,
        error: str = "",
        failure: str = "",
        fidelity: float | None = None,
    ) -> Trial:
        """Records a result: of an asked trial, or of params from elsewhere (a warm start).

        Of several tells for one trial the first counts. Figures that are NaN or infinite make it a failure
        of class 'nan'; `error` or `failure` (one of the failure classes) make it that failure.
        """
        if not isinstance(trial, Trial):
            return self._tell_elsewhere(trial, metrics, error, failure)
        number = trial.number
        if number >= len(self.sync().trials) or trial.params != self.log.trials[number].params:
            raise InvalidInput(f"trial {number} is not of study {self.name!r}", "tell trials that its ask() gave")
        if self.log.trials[number].state.finished and self.log.trials[number].failure != "lost":
            _log.warning("trial %d of %r was told before: the first tell counts", number, self.name)
        payload = self._result(metrics, error, failure)
        payload["fidelity"] = fidelity if fidelity is not None else trial.fidelity
        self.record([Event("told", number, payload, time.time())])
        return self.log.trials[number]

    def _result(self, metrics: Any, error: str, failure: str) -> dict[str, Any]:
        payload = result({} if metrics is None else metrics, error=error, failure=failure)
        if lacking := missing(payload, self.objectives):
            told = sorted(payload["metrics"]) or "nothing"
            raise InvalidInput(f"metrics lack the objective {', '.join(lacking)}", f"told: {told}")
        return payload

    def _tell_elsewhere(self, params: Params, metrics: Any, error: str, failure: str) -> Trial:
        payload = self._result(metrics, error, failure)
        payload["params"] = self.space.validate(params)
        with self.journal.turn(_TURN_LEASE_S) as turn:
            number = len(self.sync().trials)
            self.journal.append([Event("told", number, payload, time.time())], turn)
        return self.sync().trials[number]

    def report(self, trial: Trial, fidelity: float, metrics: Mapping[str, float]) -> bool:
        """Intermediate figures; True: go on, False: stop the trial."""
        values = {k: float(v) for k, v in metrics.items() if math.isfinite(v)}
        payload = {"fidelity": fidelity, "metrics": values}
        self.journal.append([Event("reported", trial.number, payload, time.time())])
        self.sync()
        return bool(self._scheduler.decide(self.log, self.log.trials[trial.number]))

    def record(self, events: Sequence[Event]) -> None:
        """Appends what an executor or a confirmation gave; params of lost trials are put in line once more."""
        lost = [e.number for e in events if e.kind == "lost"]
        if rest := [e for e in events if e.kind != "lost"]:
            self.journal.append(rest)
        if lost:
            reasons = {e.number: e.payload.get("error", "") for e in events if e.kind == "lost"}
            with self.journal.turn(_TURN_LEASE_S) as turn:
                self.sync()
                for number in lost:
                    self.journal.append(self._lose([number], reasons[number]), turn)
                    self.sync()
        self.sync()

    def _lose(self, numbers: Iterable[int], error: str) -> list[Event]:
        """`lost` events, and an `enqueued` one for each second try."""
        now, events, number = time.time(), [], len(self.log.trials)
        for lost in numbers:
            trial = self.log.trials[lost]
            if trial.state is not State.RUNNING:
                continue
            events.append(Event("lost", lost, {"error": error}, now))
            retried = trial.parent is not None and self.log.trials[trial.parent].failure == "lost"
            if not retried:
                again = {"params": trial.params, "note": f"second try of lost trial {lost}", "parent": lost}
                events.append(Event("enqueued", number, again, now))
                number += 1
        return events

    def run(
        self,
        evaluate: Any,
        *,
        trials: int | None = None,
        timeout_s: float | None = None,
        budget_units: float | None = None,
        executor: Any = "inline",
        workers: int = 1,
        trial_limit_s: float | None = None,
        failures: int | None = None,
        watch: Any = None,
    ) -> "Study":
        """Runs trials until `trials` have been started in the study, the time or the units are used up, or
        the space is exhausted. No trial starts after `timeout_s`; a running one may end after it."""
        limits = Limits(trials=trials, units=budget_units, timeout_s=timeout_s, trial_limit_s=trial_limit_s, failures=failures)
        return run(self, evaluate, limits=limits, executor=executor, workers=workers, watch=watch)

    def beat(self, number: int, lease_s: float) -> None:
        self.journal.beat(number, lease_s)

    def close(self) -> None:
        self.storage.close()

    def _check_same(self, record: Mapping[str, Any]) -> None:
        stored = self.log.experiment
        for key in ("space", "objectives", "constraints"):
            if stored[key] != record[key]:
                difference = f"stored {stored[key]}, now {record[key]}"
                if key == "space":
                    difference = Space.from_json(stored["space"]).describe_difference(self.space)
                raise StudyMismatch(
                    f"study {self.name!r} exists with other {key}: {difference}",
                    "choose another name, or the same space",
                )


_RECORD = ("name", "space", "objectives", "constraints", "algorithm", "scheduler", "seed")


def _extras(proposal: Proposal) -> dict[str, Any]:
    pairs = {"note": proposal.note, "predicted": proposal.predicted, "repeat": proposal.repeat}
    return {key: value for key, value in pairs.items() if value}


def _assigned(assigned: Assignment, log: TrialLog, common: Mapping[str, Any], number: int) -> Event:
    """`started` for an assignment that brings its params: a promotion, or a child of another trial."""
    if assigned.resume is not None:
        resumed = log.trials[assigned.resume]
        return Event("started", resumed.number, {**common, "resume_from": resumed.fidelity}, time.time())
    payload = {"params": assigned.params, "parent": assigned.copy_from, **common}
    return Event("started", number, payload, time.time())


def _free_name(storage: Storage) -> str:
    taken = set(storage.studies())
    return next(name for i in range(1, len(taken) + 2) if (name := f"study-{i}") not in taken)
