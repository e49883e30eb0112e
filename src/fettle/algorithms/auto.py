"""The default: quasi-random points first, then evolution from the best of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from fettle.algorithms.evolution import Evolution, RegularisedEvolution
from fettle.algorithms.qmc import QuasiRandom
from fettle.core.protocols import Proposal
from fettle.core.space import Space
from fettle.core.trial import Constraint, Objective, Outcome, Params, Trial


@dataclass(frozen=True, slots=True)
class Auto:
    """first: how many quasi-random trials; None: twice the parameters, at least 8, at most half of the budget."""

    first: int | None = None

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "AutoSearch":
        first = self.first if self.first is not None else max(8, 2 * len(space.columns))
        if budget is not None and self.first is None:
            first = min(first, max(1, budget // 2))
        return AutoSearch(space, seed, first)


class AutoSearch:
    def __init__(self, space: Space, seed: int, first: int) -> None:
        self._n_first = first
        self._first = QuasiRandom(space, seed)
        self._then = RegularisedEvolution(space, seed, Evolution())
        self._told: set[int] = set()

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: Generator) -> list[Proposal]:
        started = len(self._told) + len(pending)
        if started < self._n_first:
            note = f"quasi-random: {started} of the first {self._n_first} trials are started"
            proposals = self._first.ask(n, number, pending, rng)
        else:
            note = f"evolution: the {self._n_first} quasi-random trials are done"
            proposals = self._then.ask(n, number, pending, rng)
        return [Proposal(p.params, note=note) for p in proposals]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._told.add(trial.number)
        self._first.tell(trial, outcome)
        self._then.tell(trial, outcome)
