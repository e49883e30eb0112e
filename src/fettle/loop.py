"""The loop that runs a study's trials in an executor."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

from fettle import registry
from fettle.core.errors import Exhausted, FettleError, StorageError
from fettle.core.protocols import Evaluator, Executor, Job, Storage
from fettle.core.result import missing
from fettle.core.space import Space
from fettle.core.trial import Event, Objective, Report, State, Trial, TrialLog
from fettle.proposing import LEASE_S, Limits
from fettle.surrogates.gain import is_spent
from fettle.surrogates.regret import checked, is_enough

_log = logging.getLogger(__name__)


class Watch(Protocol):
    """A live view."""

    def on_event(self, log: TrialLog, event: Event) -> None: ...
    def on_progress(self, number: int, info: Mapping[str, Any]) -> None: ...
    def tick(self, left_s: float | None) -> None: ...


class Searched(Protocol):
    """What the loop needs of a study."""

    name: str
    seed: int
    space: Space
    objectives: tuple[Objective, ...]
    storage: Storage
    log: TrialLog

    def propose(self, n: int, limits: Limits, *, lease_s: float | None) -> list[Trial]: ...
    def record(self, events: Sequence[Event]) -> None: ...
    def report(self, trial: Trial, fidelity: float, metrics: Mapping[str, float]) -> bool: ...
    def beat(self, number: int, lease_s: float) -> None: ...


S = TypeVar("S", bound=Searched)


class _Loop:
    def __init__(self, study: Searched, evaluate: Evaluator, limits: Limits, executor: Executor, watch: Watch | None):
        self.study, self.evaluate, self.limits, self.executor, self.watch = study, evaluate, limits, executor, watch
        self.active: dict[int, Trial] = {}
        self.deadline = None if limits.timeout_s is None else time.monotonic() + limits.timeout_s
        self.open = True  # whether anything may still be started
        self.looked_at = 0  # ended trials at which the stop rule was looked at last

    def run(self) -> None:
        while True:
            self.start()
            if not self.active:
                return
            events = self.executor.poll(0.5, self.on_report)
            self.finish(events)
            if self.watch is not None:
                self.watch.tick(self.left_s())

    def left_s(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()

    def start(self) -> None:
        free = self.executor.capacity - len(self.active)
        left = self.left_s()
        if left is not None and left <= self.shortest_s():
            self.open = False
        counts = self.study.log.counts
        hopeless = self.limits.failures is not None and counts[State.FAILED] >= self.limits.failures
        if (hopeless and not counts[State.COMPLETE]) or self.is_enough():
            self.open = False
        if free <= 0 or not self.open:
            return
        try:
            trials = self.study.propose(free, self.limits, lease_s=LEASE_S)
        except Exhausted:
            trials = []
        self.open = bool(trials) or bool(self.active)
        for trial in trials:
            self.active[trial.number] = trial
            self.executor.submit(self.job(trial, left), self.evaluate)
            self.tell_watch(Event("started", trial.number, {"params": trial.params}, time.time()))

    def is_enough(self) -> bool:
        """The stop rules. The remaining regret is looked at where the count of ended trials has passed another of its
        fixed ones."""
        gain = self.limits.stop_gain
        if gain is not None and is_spent(self.study.log, gain):
            _log.info("study %r ends: the last trials were expected to gain less than %g", self.study.name, gain)
            return True
        count, below = checked(len(self.study.log.ended)), self.limits.stop_regret
        if below is None or count == self.looked_at:
            return False
        self.looked_at = count
        enough = is_enough(self.study.log, self.study.space, below)
        if enough:
            _log.info("study %r ends: less than %g could still be gained", self.study.name, below)
        return enough

    def shortest_s(self) -> float:
        """A trial with a limit that could not end in time is not worth starting."""
        finished = sum(self.study.log.counts[s] for s in (State.COMPLETE, State.STOPPED, State.FAILED))
        if self.limits.trial_limit_s is None or not finished:
            return 0.0
        return min(0.8 * self.study.log.seconds / finished, self.limits.trial_limit_s)

    def job(self, trial: Trial, left_s: float | None) -> Job:
        limit = self.limits.trial_limit_s
        best = self.study.log.incumbent
        return Job(
            trial.number,
            trial.params,
            seed=self.study.seed * 1_000_003 + trial.number,
            workdir=self.study.storage.folder(self.study.name) / f"trial-{trial.number}",
            fidelity=trial.fidelity,
            limit_s=limit,
            incumbent=None if best is None or best.number == trial.number else dict(best.metrics),
            predicted=trial.predicted,
        )

    def on_report(self, number: int, report: Report) -> bool:
        return self.study.report(self.active[number], report.fidelity, report.metrics)

    def finish(self, events: Sequence[Event]) -> None:
        events = [self.checked(e) for e in events]
        if events:
            self.study.record(events)
        for event in events:
            self.active.pop(event.number, None)
            self.tell_watch(event)

    def checked(self, event: Event) -> Event:
        """An evaluator that returns without the objectives has failed."""
        if event.kind != "told" or not (lacking := missing(event.payload, self.study.objectives)):
            return event
        error = f"the evaluator returned no {', '.join(lacking)}"
        payload = {**event.payload, "state": str(State.FAILED), "failure": "other", "error": error}
        return Event("told", event.number, payload, event.time_s)

    def tell_watch(self, event: Event) -> None:
        if self.watch is not None:
            self.watch.on_event(self.study.log, event)


@contextmanager
def _signs_of_life(study: Searched, active: Mapping[int, Trial]) -> Iterator[None]:
    """Beats for the running trials, also while an evaluator keeps the caller's thread."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(LEASE_S / 3):
            for number in list(active):
                with suppress(StorageError):  # the loop's own next write will say so
                    study.beat(number, LEASE_S)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run(
    study: S, evaluate: Evaluator, *, limits: Limits, executor: Any, workers: int = 1, watch: Watch | None = None
) -> S:
    """Runs trials until the limits are reached or the space is used up; everything it started is ended."""
    own = isinstance(executor, str)
    if own:
        on_progress = None if watch is None else watch.on_progress
        executor = registry.load("executors", executor)(workers=workers, on_progress=on_progress)
    loop = _Loop(study, evaluate, limits, executor, watch)
    try:
        with _signs_of_life(study, loop.active):
            loop.run()
    except BaseException:
        executor.close()
        lost = {"error": "the run was interrupted"}
        with suppress(FettleError):  # what cannot be recorded now will be when its lease has run out
            study.record([Event("lost", number, lost, time.time()) for number in loop.active])
        raise
    finally:
        if own:
            executor.close()
    return study
