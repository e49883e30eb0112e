"""Runs an algorithm on a synthetic problem as a study would, but without a journal, and keeps the true score.

    result = search({"name": "evolution"}, make("hartmann6", seed=0), evaluations=60)
    result.judge.best(60)  # the lowest true regret of 60 evaluations
    result.answers[60]  # the true regret of the algorithm's own answer after them

The rules are those of `fettle.Study`: rng from (seed, number), trials folded by a `TrialLog`, outcomes from it,
the answer by `core.answer`, which asks a Recommender. The evaluation's noise depends on (name, seed, number) alone.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fettle import registry
from fettle.core.answer import answer
from fettle.core.errors import Exhausted, TrialFailure
from fettle.core.protocols import Algorithm, Recommender
from fettle.core.result import result
from fettle.core.space import Params
from fettle.core.trial import Event, TrialLog
from fettle.problems.synthetic.record import Synthetic, stream

CHECKPOINTS = (30, 60, 100)
_EVERY = 10  # evaluations between two hypervolumes


class Judge:
    """Evaluates for an optimiser, and keeps what it must not see: the true score so far.

    steps: (evaluations, score) whenever the score got better; for several objectives every ten evaluations. The
    score is the lowest true regret, or the share of the true front's hypervolume.
    """

    def __init__(self, problem: Synthetic) -> None:
        self.problem = problem
        self.count = 0
        self.failures = 0
        self.steps: list[tuple[int, float]] = []
        self._points: list[tuple[float, ...]] = []

    def __call__(self, params: Params) -> dict[str, float]:
        """The metrics, with noise. Raises TrialFailure, also where a figure is not finite."""
        problem, number = self.problem, self.count
        self.count += 1
        self._score(params)
        try:
            metrics = problem.evaluate(params, stream(problem.name, problem.seed, 3, number))
        except TrialFailure:
            self.failures += 1
            raise
        if not all(map(math.isfinite, metrics.values())):
            self.failures += 1
            raise TrialFailure("a figure is not finite", failure="nan")
        return metrics

    def _score(self, params: Params) -> None:
        if not self.problem.reference:
            regret = self.problem.regret(params)
            if regret < self.best():
                self.steps.append((self.count, regret))
            return
        losses = self.problem.losses(params)
        self._points += [] if losses is None else [losses]
        if self.count % _EVERY == 0:
            self.steps.append((self.count, self.problem.coverage(self._points)))

    def best(self, evaluations: int | None = None) -> float:
        """The score after so many evaluations (None: after all)."""
        done = [score for count, score in self.steps if evaluations is None or count <= evaluations]
        return done[-1] if done else (0.0 if self.problem.reference else math.inf)


@dataclass(slots=True)
class Searched:
    """answers: at each checkpoint, the true regret of the algorithm's own answer. seconds: CPU of each trial's ask
    and tell. notes: each proposal's note."""

    judge: Judge
    log: TrialLog
    answers: dict[int, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def search(
    algorithm: Any,
    problem: Synthetic,
    *,
    evaluations: int = 100,
    budget: int | None = None,
    checkpoints: Sequence[int] = CHECKPOINTS,
    watch: Callable[[int, Params, Mapping[str, Any]], None] | None = None,
) -> Searched:
    """algorithm: a name, {"name": ..., setting: value} or frozen settings. budget: what it is told of the number of
    evaluations (None: just that number; 0: nothing). watch: called with each trial's number, params and result."""
    told = evaluations if budget is None else budget or None
    settings = registry.settings("algorithms", algorithm)
    made: Algorithm = settings.build(problem.space, problem.objectives, problem.constraints, problem.seed, told)
    run = Searched(Judge(problem), TrialLog(problem.objectives, problem.constraints))
    for number in range(evaluations):
        begun = time.process_time()
        try:
            (proposal,) = made.ask(1, number, (), np.random.default_rng([problem.seed, number]))
        except Exhausted:
            break
        asked = time.process_time() - begun
        payload = _told(run.judge, proposal.params)
        run.log.append(Event("started", number, {"params": proposal.params, "note": proposal.note}, float(number)))
        trial = run.log.append(Event("told", number, payload, float(number)))
        assert trial is not None
        outcome = run.log.outcome(trial)
        begun = time.process_time()
        made.tell(trial, outcome)
        run.seconds.append(asked + time.process_time() - begun)
        run.notes.append(proposal.note)
        if watch is not None:
            watch(number, proposal.params, payload)
        if number + 1 in checkpoints:
            run.answers[number + 1] = _answer(run, made)
    for count in checkpoints:
        if run.judge.count < count <= evaluations:  # the space was used up before
            run.answers[count] = _answer(run, made)
    return run


def _told(judge: Judge, params: Params) -> dict[str, Any]:
    try:
        return result(judge(params))
    except TrialFailure as failure:
        return result(failure.metrics, error=str(failure), failure=failure.failure)


def _answer(run: Searched, algorithm: Algorithm) -> float:
    if run.judge.problem.reference:
        return run.judge.best()
    best = answer(run.log, algorithm if isinstance(algorithm, Recommender) else None).best
    return math.inf if best is None else run.judge.problem.regret(run.log.trials[best].params)
