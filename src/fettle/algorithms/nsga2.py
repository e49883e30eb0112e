"""NSGA-II (Deb et al. 2002, doi:10.1109/4235.996017), one child at a time.

The population is the best P of all told trials: feasible before infeasible, front by front, of the last front those
with the most room around them (`ranking`). It is renewed with every tell, so workers never wait for a generation to
end (steady state: Durillo et al. 2009, EMO). Binary tournaments by the same order pick
two parents; numbers cross by simulated binary crossover in the unit cube, other values come from either parent, a
choice with its whole branch; then a few parameters mutate. Failed and stopped trials are never parents. With a
single objective it is an elitist genetic algorithm.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fettle.algorithms.qmc import QuasiRandom
from fettle.algorithms.ranking import Ranking
from fettle.algorithms.used import Used
from fettle.core.errors import Exhausted, InvalidInput
from fettle.core.points import distances, is_active
from fettle.core.protocols import Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial

if TYPE_CHECKING:
    from numpy.random import Generator

_NUMBERS = ("float", "int", "ordinal")


@dataclass(frozen=True, slots=True)
class NSGA2:
    """population: P. initial: quasi-random points first (default: half of P, at least 4). crossover: the share of
    children with two parents. eta: distribution index of the crossover; the larger, the closer to the parents."""

    population: int = 24
    initial: int | None = None
    crossover: float = 0.9
    eta: float = 15.0

    def __post_init__(self) -> None:
        initial = 1 if self.initial is None else self.initial
        if self.population < 2 or initial < 1 or not 0 <= self.crossover <= 1 or not self.eta > 0:
            raise InvalidInput(
                "nsga2: expected a population of at least 2, initial of at least 1, crossover in [0, 1] and eta > 0, "
                f"got {self!r}",
                "e.g. NSGA2(population=24)",
            )

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "NonDominatedSorting":
        return NonDominatedSorting(space, len(objectives), seed, self)


class NonDominatedSorting:
    def __init__(self, space: Space, objectives: int, seed: int, settings: NSGA2) -> None:
        self.space = space
        self.settings = settings
        self.initial = settings.initial or max(4, settings.population // 2)
        self._first = QuasiRandom(space, seed)
        self._used = Used(space)
        self._ranking = Ranking(objectives)
        self._params: dict[int, Params] = {}  # by trial number
        self._population: list[int] | None = None  # cache: numbers, the best first; valid until the next tell

    @property
    def population(self) -> list[int]:
        """Trial numbers, the best first."""
        if self._population is None:
            self._population = self._ranking.best(self.settings.population)
        return self._population

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        ready = len(self._ranking)
        first = min(n, max(0, self.initial - ready - len(pending))) if ready else n
        made: list[Proposal] = []
        if first:
            why = f"quasi-random: {self.initial} measured points come first"
            made = [replace(p, note=why) for p in self._first.ask(first, number, pending, rng)]
        if first < n and len(made) == first:
            busy = [*pending, *(p.params for p in made)]
            try:
                made += self._children(n - first, busy, rng)
            except Exhausted:
                if not made:
                    raise
        return made

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._first.tell(trial, outcome)
        self._used.add(trial.params)
        if trial.number in self._params or self.space.contains(trial.params):
            self._params[trial.number] = trial.params
            self._ranking.put(trial.number, outcome)
            self._population = None

    def _children(self, n: int, busy: Sequence[Params], rng: "Generator") -> list[Proposal]:
        notes: dict[Hashable, str] = {}

        def draw(attempt: int) -> Params:
            params, note = self._child(rng, 1 + attempt // 4)
            notes[self.space.key(params)] = note
            return params

        found = self._used.fresh(n, busy, rng, draw)
        return [Proposal(p, notes.get(self.space.key(p), "one of the last unused points")) for p in found]

    def _parent(self, rng: "Generator") -> int:
        """Binary tournament: the better placed of two."""
        return self.population[int(rng.integers(len(self.population), size=2).min())]

    def _child(self, rng: "Generator", most: int) -> tuple[Params, str]:
        """An allowed child, mutated in `most` parameters or more, and where it comes from."""
        space, first, second = self.space, self._parent(rng), self._parent(rng)
        a, b = self._params[first], self._params[second]
        note = f"mutant of trial {first}"
        child = a
        if first != second and rng.random() < self.settings.crossover:
            child = self._listed(self._crossed(a, b, rng), rng)
            note = f"child of trials {first} and {second}"
        changes = int(rng.binomial(len(child), 1 / max(1, len(child)))) if most == 1 else most
        parents = (space.key(a), space.key(b))
        if not changes and space.key(child) not in parents and space.allows(child):
            return child, note
        return space.mutate(child, rng, n=max(1, changes)), note  # allowed, also where the crossed child is not

    def _crossed(self, a: Params, b: Params, rng: "Generator") -> Params:
        """Active columns in order: from the parent that has it; from either, or from between and around, where both
        do. So a branch comes whole from the parent that chose it, and is crossed inside where both chose it."""
        columns = self.space.columns
        child: Params = {}
        for column in columns:
            name = column.name
            if not is_active(columns, column, child):
                continue
            if name not in a or name not in b:
                child[name] = (a if name in a else b)[name]
            elif column.kind in _NUMBERS and rng.random() < 0.5:
                u = self._blend(column.domain.encode(a[name]), column.domain.encode(b[name]), rng)
                child[name] = column.domain.decode(u)
            else:
                child[name] = (a, b)[int(rng.integers(2))][name]
        return child

    def _blend(self, u: float, v: float, rng: "Generator") -> float:
        """Simulated binary crossover of two coordinates (Deb & Agrawal 1995), one of both children, reflected at the
        ends of the unit interval: (u + v) / 2 +- beta (v - u) / 2 with density ~ beta^eta within, beta^-(eta + 2)
        beyond the parents."""
        r, power = rng.random(), 1 / (self.settings.eta + 1)
        beta: float = (2 * r) ** power if r < 0.5 else (2 * (1 - r)) ** -power
        x = (u + v) / 2 + beta * (v - u) / 2 * (1 if rng.random() < 0.5 else -1)
        x = -x if x < 0.0 else 2.0 - x if x > 1.0 else x
        return min(1.0, max(0.0, x))

    def _listed(self, child: Params, rng: "Generator") -> Params:
        """Of a space that lists its params, the nearest of them."""
        space = self.space
        if space.only is None or space.place(child) is not None:
            return child
        gap = distances(space.columns, space.encode([child])[0], space.listed_cube)
        return dict(space.only[int(gap.argmin())])
