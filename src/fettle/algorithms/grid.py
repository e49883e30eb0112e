"""Grid search: every point of the space, the last parameter changing fastest."""

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from numpy.random import Generator

from fettle.core.errors import Exhausted
from fettle.core.protocols import Proposal
from fettle.core.space import Space
from fettle.core.trial import Constraint, Objective, Outcome, Params, Trial


@dataclass(frozen=True, slots=True)
class Grid:
    """levels: evenly spaced values, ends included, for each continuous parameter."""

    levels: int = 5

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "GridSearch":
        return GridSearch(space, self.levels)


class GridSearch:
    """Proposes the first points of the grid that are neither told nor pending."""

    def __init__(self, space: Space, levels: int) -> None:
        self._key = space.key
        self._rest = space.grid(levels)
        self._seen: deque[Params] = deque()  # taken from the grid, not told yet
        self._told: set[Hashable] = set()

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: Generator) -> list[Proposal]:
        used = {self._key(p) for p in pending}
        while self._seen and self._key(self._seen[0]) in self._told:
            self._seen.popleft()
        picked: list[Params] = []
        for params in self._seen:
            if len(picked) < n and not self._is_used(params, used):
                picked.append(params)
        while len(picked) < n and (following := next(self._rest, None)) is not None:
            self._seen.append(following)
            if not self._is_used(following, used):
                picked.append(following)
        if not picked:
            raise Exhausted("every point of the grid has been proposed", "raise `levels`, or stop here")
        return [Proposal(dict(params)) for params in picked]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._told.add(self._key(trial.params))

    def _is_used(self, params: Params, used: set[Hashable]) -> bool:
        key = self._key(params)
        if key in self._told or key in used:
            return True
        used.add(key)
        return False
