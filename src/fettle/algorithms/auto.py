"""The default: chooses and mixes by space, number of trials, noise, how well the model predicts, and recent credit.

Gaussian processes (`gp_bo`) propose most trials. Beside them, where each has shown to be better than they are alone:
a trust region on smooth functions, by its credit; a density or population search where the processes explain nothing,
and for most of the trials once there are so many that a model of all of them costs too much. A trial's note says which
one proposed it, and why it was its turn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fettle.algorithms.batches import one_by_one
from fettle.algorithms.gp_bo import GPBO, GaussianProcessSearch
from fettle.algorithms.nsga2 import NSGA2
from fettle.algorithms.tpe import TPE
from fettle.algorithms.trust_region import NOTE, TrustRegion
from fettle.core.protocols import Algorithm, Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial, TrialLog

if TYPE_CHECKING:
    from numpy.random import Generator

_MANY, _SELDOM = 1000, 10  # trials from which on a model of all is dear: then only every tenth is its
_FIRST = 8  # trials before the first mixing
_FEW = 8  # numbers of which a quadratic model is soon good; of 10 to 20 it was worse than none
_EVERY = {  # how many trials there are to one of the region: tried on smooth and on noisy functions
    "calm": (2, "few numbers and little noise"),
    "noisy": (4, "few numbers, with noise"),
}
_RECENT = 8  # trials of each that count for its credit
_JUDGED, _POOR = 30, 0.05  # trials after which the processes are judged; explained share of the variance that is poor


@dataclass(frozen=True, slots=True)
class Auto:
    """Nothing to set."""

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "AutoSearch":
        task = (space, objectives, constraints, seed, budget)
        plain: Algorithm = TPE().build(*task) if len(objectives) == 1 else NSGA2().build(*task)
        numbers = all(column.size is None for column in space.columns)
        region = TrustRegion().build(*task) if numbers and len(objectives) == 1 and 0 < len(space) <= _FEW else None
        return AutoSearch(GPBO().build(*task), plain, region)


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is, and why ("" where nothing has to be said)."""

    member: Algorithm
    why: str


class AutoSearch:
    """Its members are told everything; whose turn it is depends on what was told and on the trial's number alone."""

    def __init__(self, model: GaussianProcessSearch, plain: Algorithm, region: Algorithm | None) -> None:
        self._model, self._plain, self._region = model, plain, region
        self._best = math.inf
        self._gained: dict[int, tuple[bool, bool]] = {}  # trial -> the region's own, it became the best

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        for member in (self._model, self._plain, self._region):
            if member is not None:
                member.tell(trial, outcome)
        loss = outcome.losses[0] if outcome.feasible and not any(outcome.censored) else math.inf
        self._gained[trial.number] = (trial.note.startswith(NOTE), loss < self._best)
        self._best = min(self._best, loss)

    def recommend(self, log: TrialLog) -> int | None:
        return self._model.recommend(log)

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        def one(at: int, waiting: Sequence[Params]) -> Proposal:
            turn = self._turn(at)
            (made,) = turn.member.ask(1, at, waiting, rng)
            return replace(made, note=f"{made.note} ({turn.why})") if turn.why else made

        return one_by_one(n, number, pending, one)

    def _turn(self, number: int) -> Turn:
        n = len(self._gained)
        if n >= _MANY:
            if number % _SELDOM:
                return Turn(self._plain, f"a model of more than {_MANY} trials is dear: its turn is every {_SELDOM}th")
            return Turn(self._model, "the turn of the model")
        if n < _FIRST:
            return Turn(self._model, "")
        trust = self._model.trust()
        if n >= _JUDGED and trust.explained < _POOR and number % 2:
            return Turn(
                self._plain, f"the model explains {max(trust.explained, 0.0):.0%} of the losses: every 2nd trial"
            )
        if self._region is not None:
            every, why = self._share(trust.noisy)
            if number % every == 0:
                return Turn(self._region, why)
        return Turn(self._model, "")

    def _share(self, noisy: bool) -> tuple[int, str]:
        """Every how many trials are the region's: by noise, and by who has lately found the best so far."""
        every, why = _EVERY["noisy" if noisy else "calm"]
        recent = list(self._gained.values())[_FIRST:]
        own, others = ([gain for mine, gain in recent if mine is side][-_RECENT:] for side in (True, False))
        if len(own) == _RECENT and not any(own) and any(others):
            every, why = 2 * every, f"{why}, and none of its last {_RECENT} trials was the best so far"
        return every, f"{why}: every {every}th trial" if every > 2 else f"{why}: every 2nd trial"
