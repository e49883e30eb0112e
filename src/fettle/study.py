"""A study: asks an algorithm for params, writes every fact to a journal, and names the answer."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from fettle import registry
from fettle.core import answer as answers
from fettle.core.errors import Exhausted, InvalidInput, StudyMismatch, TurnExpired
from fettle.core.protocols import Journal, Kept, Recommender, Storage, Turn
from fettle.core.result import missing, reported, result
from fettle.core.space import Space
from fettle.core.trial import Constraint, Estimate, Event, Objective, Params, Trial, TrialLog
from fettle.loop import run
from fettle.proposing import LEASE_S, Limits, Proposer, losses
from fettle.storage import open_storage
from fettle.surrogates.regret import Regret, remaining
from fettle.surrogates.whatif import predicted

T = TypeVar("T")
_TURNS = 5  # how often a turn that has run out is taken anew
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
        self.objectives = tuple(Objective(o) if isinstance(o, str) else o for o in _listed("objectives", objectives))
        self.constraints = tuple(_listed("constraints", constraints))
        _check(space, self.objectives, seed)
        algorithm = registry.settings("algorithms", algorithm)
        self._scheduler = registry.settings("schedulers", scheduler or "full")
        self._one_by_one = scheduler is not None  # each start of a batch is assigned with those before it in the log
        self.storage = open_storage(storage)
        self.name = name if name is not None else _free_name(self.storage)
        if isinstance(algorithm, Kept):
            self.storage.open(self.name, create=True)  # a study has a folder once it exists
            algorithm = algorithm.kept_in(self.storage.folder(self.name))
        record = {
            "name": self.name,
            "space": space.to_json(),
            "objectives": [{"metric": o.metric, "goal": o.goal} for o in self.objectives],
            "constraints": [{"metric": c.metric, "upper": c.upper, "lower": c.lower} for c in self.constraints],
            "algorithm": registry.describe("algorithms", algorithm),
            "scheduler": None if scheduler is None else registry.describe("schedulers", self._scheduler),
            "seed": seed,
            **(experiment or {}),
        }
        trials = (record.get("budget") or {}).get("trials")
        self._algorithm = algorithm.build(space, self.objectives, self.constraints, seed, trials)
        self._proposer = Proposer(self._algorithm, self._scheduler, seed)
        self.log = TrialLog(self.objectives, self.constraints)
        self._lock = threading.RLock()  # for threads that share this object; taken inside a turn, never around one
        self.journal: Journal = self.storage.open(self.name, create=True)
        self._in_turn(lambda turn: self._begin(turn, record))

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

    def _begin(self, turn: Turn, record: Mapping[str, Any]) -> None:
        if self.log.experiment:
            self._check_same(record)
        else:
            self.journal.append([Event("created", -1, record, time.time())], turn)
            self.sync()

    # -- reading ------------------------------------------------------------------------------------------

    def sync(self) -> TrialLog:
        """Folds what other processes, too, have written since."""
        with self._lock:
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

    def predict(self, params: Params) -> dict[str, Estimate]:
        """Metric -> value and 95 % interval of one measurement at any params of the space, by a surrogate of the trials
        so far; with `failure_ratio`, the chance that it fails, where a trial has failed.

        Raises ParamsError where params do not fit the space, InvalidInput where too little was measured.
        """
        return predicted(self.sync(), self.space, params)

    @property
    def regret(self) -> Regret | None:
        """At most how much of the first objective could still be gained; None where nothing can be said."""
        return remaining(self.sync(), self.space)

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
        numbers: list[int] = []

        def start(turn: Turn) -> None:
            if overdue := self.journal.overdue():
                reasons = dict.fromkeys(overdue, "its worker gave no sign of life")
                self.journal.append(losses(self.log, reasons, seen_s=self.log.last_s + LEASE_S), turn)
                self.sync()
            while len(numbers) < n:
                wanted = 1 if self._one_by_one else n - len(numbers)
                try:
                    starts = self._proposer.starts(self.log, wanted, limits, lease_s)
                except Exhausted:
                    if numbers:
                        break
                    raise
                if not starts:
                    break
                self.journal.append(starts, turn)
                numbers.extend(e.number for e in starts)
                self.sync()

        self._in_turn(start)
        return [self.log.trials[number] for number in numbers]

    def _in_turn(self, work: Callable[[Turn], T]) -> T:
        """Does `work` on the log as it is now, as the study's only proposer; once more where the turn ran out
        under it, as happens to a process that was suspended."""
        for left in reversed(range(_TURNS)):
            try:
                with self.journal.turn(LEASE_S) as turn, self._lock:
                    self.sync()
                    return work(turn)
            except TurnExpired:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _create(self, kind: str, payload: Mapping[str, Any]) -> Trial:
        """Appends the event that makes a new trial."""

        def create(turn: Turn) -> int:
            number = len(self.log.trials)
            self.journal.append([Event(kind, number, payload, time.time())], turn)
            return number

        number = self._in_turn(create)
        return self.sync().trials[number]

    def enqueue(self, params: Params, *, note: str = "", baseline: bool = False, parent: int | None = None) -> Trial:
        """Puts params first in line. baseline: they may lie outside the space, and then cannot win. parent: the
        trial that they are another try of."""
        outside = baseline and not self.space.contains(params)
        params = dict(params) if outside else self.space.validate(params)
        more = {"outside": True} if outside else {}
        return self._create("enqueued", {"params": params, "note": note, "parent": parent, **more})

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
        payload = self._result(metrics, error, failure)
        if not isinstance(trial, Trial):
            payload["params"] = self.space.validate(trial)
            return self._create("told", payload if fidelity is None else {**payload, "fidelity": fidelity})
        number = self._number(trial)
        payload["fidelity"] = fidelity if fidelity is not None else trial.fidelity
        if self.log.was_told(number, payload["fidelity"]):
            _log.warning("trial %d of %r was told before: the first tell counts", number, self.name)
        else:
            self.record([Event("told", number, payload, time.time())])
        return self.log.trials[number]

    def _number(self, trial: Trial) -> int:
        known = self.sync().trials
        if not 0 <= trial.number < len(known) or trial.params != known[trial.number].params:
            raise InvalidInput(f"trial {trial.number} is not of study {self.name!r}", "give trials that its ask() gave")
        return trial.number

    def _result(self, metrics: Any, error: str, failure: str) -> dict[str, Any]:
        payload = result({} if metrics is None else metrics, error=error, failure=failure)
        if lacking := missing(payload, self.objectives):
            told = sorted(payload["metrics"]) or "nothing"
            raise InvalidInput(f"metrics lack the objective {', '.join(lacking)}", f"told: {told}")
        return payload

    def report(self, trial: Trial, fidelity: float, metrics: Mapping[str, float]) -> bool:
        """Intermediate figures; True: go on, False: stop the trial."""
        payload, number = reported(fidelity, metrics), self._number(trial)
        if self.log.trials[number].state.finished and self.log.trials[number].failure != "lost":
            return False
        self.journal.append([Event("reported", number, payload, time.time())])
        self.sync()
        return bool(self._scheduler.decide(self.log, self.log.trials[number]))

    def record(self, events: Sequence[Event]) -> None:
        """Appends what an executor or a confirmation gave; params of lost trials are put in line once more."""
        if rest := [e for e in events if e.kind != "lost"]:
            self.journal.append(rest)
        if lost := {e.number: e.payload.get("error", "") for e in events if e.kind == "lost"}:
            self._in_turn(lambda turn: self.journal.append(losses(self.log, lost), turn))
        self.sync()

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
        stop_regret: float | None = None,
        stop_gain: float | None = None,
        watch: Any = None,
    ) -> "Study":
        """Runs trials until `trials` have been started in the study, the time or the units are used up, the space is
        exhausted, at most `stop_regret` of the first objective could still be gained (`regret`, looked at after 10, 15,
        20 ... ended trials), or the last three trials were each expected to gain less than `stop_gain` of it. No trial
        starts after `timeout_s`; a running one may end after it."""
        limits = Limits(trials, budget_units, timeout_s, trial_limit_s, failures, stop_regret, stop_gain)
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


def _listed(what: str, given: Any) -> Sequence[Any]:
    if isinstance(given, str | Objective | Constraint):
        raise InvalidInput(f"expected a list of {what}, got {given!r}", f"write {what}=[...]")
    return tuple(given)


def _check(space: Any, objectives: Sequence[Objective], seed: Any) -> None:
    if not isinstance(space, Space):
        raise InvalidInput(f"expected a fettle.Space, got {space!r:.200}", "write fettle.Space(lr=fettle.Float(0, 1))")
    if not objectives:
        raise InvalidInput("a study needs at least one objective", "objectives=[fettle.Objective('loss')]")
    if not isinstance(seed, int) or seed < 0:
        raise InvalidInput(f"expected a seed of 0 or more, got {seed!r}", "write seed=0")


def _free_name(storage: Storage) -> str:
    taken = set(storage.studies())
    return next(name for i in range(1, len(taken) + 2) if (name := f"study-{i}") not in taken)
