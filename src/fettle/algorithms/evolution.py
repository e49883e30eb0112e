"""Regularised (aging) evolution (Real et al. 2019, arXiv:1802.01548, algorithm 1).

The population is the last P trials; a tournament of S picks a parent, and its mutant is proposed. Failed trials
are never parents. A stopped (censored) trial's loss is only a lower bound: it loses against every trial with
a full measurement. With several objectives the parent is drawn from the tournament's Pareto front.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fettle.algorithms.used import Used
from fettle.core.errors import InvalidInput
from fettle.core.pareto import front
from fettle.core.protocols import Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial

if TYPE_CHECKING:
    from numpy.random import Generator

_FAILURES = 2  # discrete values that failed so often are not proposed again, as far as draws can avoid it


@dataclass(frozen=True, slots=True)
class Evolution:
    """population: P. tournament: S. initial: uniform draws before the first mutant (default: P)."""

    population: int = 24
    tournament: int = 8
    initial: int | None = None

    def __post_init__(self) -> None:
        initial = self.population if self.initial is None else self.initial
        if not 1 <= self.tournament <= self.population or not 1 <= initial <= self.population:
            raise InvalidInput(
                f"evolution: expected 1 <= tournament, initial <= population, got {self!r}",
                "e.g. Evolution(population=24, tournament=8)",
            )

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "AgingEvolution":
        return AgingEvolution(space, self)


class AgingEvolution:
    def __init__(self, space: Space, settings: Evolution) -> None:
        self.space = space
        self.settings = settings
        self.initial = settings.population if settings.initial is None else settings.initial
        self.population: dict[int, tuple[Params, Outcome]] = {}  # by trial number, the oldest first
        self._used = Used(space)
        self._failed: Counter[Hashable] = Counter()
        self._discrete = [column.name for column in space.columns if column.size is not None]

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        notes: dict[Hashable, str] = {}
        mature = len(self.population) >= self.initial

        def draw(attempt: int) -> Params:
            for _ in range(4):
                if mature and self.space.size != 1:
                    parent = self._parent(rng)
                    params = self.space.mutate(self.population[parent][0], rng, n=1 + attempt // 4)
                    notes[self.space.key(params)] = f"mutant of trial {parent}"
                else:
                    params = self.space.sample(1, rng)[0]
                if not self._discrete or self._failed[self._values(params)] < _FAILURES:
                    break
            return params

        found = self._used.fresh(n, pending, rng, draw)
        return [Proposal(params, notes.get(self.space.key(params), "uniform draw")) for params in found]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._used.add(trial.params)
        self.population.pop(trial.number, None)  # a later rung replaces the earlier
        if not outcome.ok:
            self._failed[self._values(trial.params)] += 1
        elif self.space.contains(trial.params):
            self.population[trial.number] = (trial.params, outcome)
            if len(self.population) > self.settings.population:
                del self.population[next(iter(self.population))]

    def _values(self, params: Params) -> Hashable:
        return tuple((type(value), value) for value in map(params.get, self._discrete))

    def _parent(self, rng: "Generator") -> int:
        numbers: list[int] = list(self.population)
        entrants: list[int] = [numbers[i] for i in rng.permutation(len(numbers))[: self.settings.tournament].tolist()]
        outcomes = {number: self.population[number][1] for number in entrants}
        ranks = {number: _rank(outcomes[number]) for number in entrants}
        best = min(ranks.values())
        leaders = [number for number in entrants if ranks[number] == best]
        if len(outcomes[leaders[0]].losses) > 1:
            losses = np.array([outcomes[number].losses for number in leaders], dtype=float)
            first: int = front(np.nan_to_num(losses, nan=math.inf, posinf=math.inf))[0]
            return leaders[first]  # entrants stand in random order
        return min(leaders, key=lambda number: outcomes[number].order)


def _rank(outcome: Outcome) -> tuple[float, bool, float]:
    """Feasible first, then fully measured, then by violation; the losses decide among equals."""
    infeasible, violation, _ = outcome.order
    return infeasible, any(sign > 0 for sign in outcome.censored), violation
