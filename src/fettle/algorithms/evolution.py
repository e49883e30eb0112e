"""Regularised (ageing) evolution: Real et al. 2019, arXiv:1802.01548, algorithm 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from fettle.algorithms.qmc import QuasiRandom
from fettle.algorithms.unused import Unused
from fettle.core import pareto
from fettle.core.errors import InvalidInput
from fettle.core.protocols import Proposal
from fettle.core.space import Space
from fettle.core.trial import Constraint, Objective, Outcome, Params, Trial


@dataclass(frozen=True, slots=True)
class Evolution:
    """The `population` last good trials live; the best of a random `tournament` of them is mutated.

    Failed and early-stopped trials are never parents: of the one there is no loss, of the other only a bound.
    """

    population: int = 20
    tournament: int = 6

    def __post_init__(self) -> None:
        if not 1 <= self.tournament <= self.population:
            raise InvalidInput(
                f"expected 1 <= tournament <= population, got {self.tournament} and {self.population}",
                "e.g. fettle.Evolution(population=20, tournament=6)",
            )

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "RegularisedEvolution":
        return RegularisedEvolution(space, seed, self)


class RegularisedEvolution:
    def __init__(self, space: Space, seed: int, settings: Evolution) -> None:
        self._space, self._settings = space, settings
        self._unused = Unused(space)
        self._first = QuasiRandom(space, seed)
        self._living: dict[int, tuple[Params, Outcome]] = {}  # trial number -> member, oldest first

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: Generator) -> list[Proposal]:
        if len(self._living) < min(self._settings.population, 4) or not self._space.columns:
            return self._first.ask(n, number, pending, rng)
        picked = self._unused.pick(n, pending, lambda i, attempt: self._child(attempt, rng))
        return [Proposal(params) for params in picked]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._unused.add(trial.params)
        self._first.tell(trial, outcome)
        self._living.pop(trial.number, None)
        if outcome.ok and not any(c > 0 for c in outcome.censored) and all(x == x for x in outcome.losses):
            self._living[trial.number] = (trial.params, outcome)
            if len(self._living) > self._settings.population:
                del self._living[next(iter(self._living))]

    def _child(self, attempt: int, rng: Generator) -> Params:
        """One parameter of the parent changes; more of them, where that has led to used points only."""
        return self._space.mutate(self._parent(rng), rng, n=1 + attempt // 16)

    def _parent(self, rng: Generator) -> Params:
        members = list(self._living.values())
        drawn = rng.choice(len(members), size=min(self._settings.tournament, len(members)), replace=False)
        rivals = [members[i] for i in drawn]
        best = min(outcome.order[:2] for _, outcome in rivals)
        rivals = [rival for rival in rivals if rival[1].order[:2] == best]
        if len(rivals[0][1].losses) == 1:
            return min(rivals, key=lambda rival: rival[1].order)[0]
        front = pareto.front(np.array([outcome.losses for _, outcome in rivals]))
        return rivals[int(rng.choice(front))][0]
