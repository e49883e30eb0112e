"""The default: quasi-random points first, then evolution on what they found."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fettle.algorithms.evolution import AgingEvolution, Evolution
from fettle.algorithms.qmc import QuasiRandom
from fettle.core.errors import Exhausted
from fettle.core.protocols import Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial

if TYPE_CHECKING:
    from numpy.random import Generator

_LEAST = 4  # quasi-random points, however small the budget
_MOST = 24
_SHARE = 3  # at most a third of a known budget goes into quasi-random points


@dataclass(frozen=True, slots=True)
class Auto:
    """2 d quasi-random points (at least 8, at most 24 and a third of the budget), then regularised evolution."""

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "AutoSearch":
        points = min(max(8, 2 * len(space)), _MOST)
        if budget is not None:
            points = min(points, max(_LEAST, budget // _SHARE))
        return AutoSearch(space, seed, points)


class AutoSearch:
    def __init__(self, space: Space, seed: int, points: int) -> None:
        self.points = points
        self._first = QuasiRandom(space, seed)
        self._then = AgingEvolution(space, Evolution(population=24, tournament=8, initial=1))
        self._measured: set[int] = set()

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        known = len(self._measured) + len(pending)
        first = min(n, max(0, self.points - known)) if self._then.population else n
        made: list[Proposal] = []
        if first:
            why = f"quasi-random: {self.points} measured points come first"
            made = [replace(p, note=why) for p in self._first.ask(first, number, pending, rng)]
        if first < n and len(made) == first:
            busy = [*pending, *(p.params for p in made)]
            try:
                rest = self._then.ask(n - first, number + first, busy, rng)
            except Exhausted:
                if not made:
                    raise
                rest = []
            made += [replace(p, note=f"evolution: {p.note}") for p in rest]
        return made

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._first.tell(trial, outcome)
        self._then.tell(trial, outcome)
        if outcome.ok and len(self._measured) <= self.points:
            self._measured.add(trial.number)
