"""Grid search: all params in row order, the last parameter changing fastest."""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fettle.algorithms.used import Used
from fettle.core.errors import Exhausted, InvalidInput
from fettle.core.protocols import Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial

if TYPE_CHECKING:
    from numpy.random import Generator


@dataclass(frozen=True, slots=True)
class Grid:
    """`levels`: evenly spaced values, ends included, of each continuous parameter; others take all their values."""

    levels: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.levels, bool) or not isinstance(self.levels, int) or self.levels < 1:
            raise InvalidInput(f"grid: expected levels >= 1, got {self.levels!r}")

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
    """The next points are the first of the grid that are neither told nor pending, so workers never collide."""

    def __init__(self, space: Space, levels: int) -> None:
        self.space = space
        self._used = Used(space)
        self._grid: Iterator[Params | None] = iter(space.grid(levels))
        self._ahead: deque[tuple[Hashable, Params]] = deque()  # cache: read from the grid, and not told yet

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        busy = self._used.pending(pending)
        while self._ahead and self._ahead[0][0] in self._used.keys:
            self._ahead.popleft()
        found: list[Params] = []
        for i in range(len(self._ahead)):
            if len(found) == n:
                break
            key, params = self._ahead[i]
            if key not in self._used.keys and key not in busy:
                found.append(params)
        while len(found) < n and (point := next(self._grid, None)) is not None:
            key, params = self.space.key(point), point
            if key not in self._used.keys:
                self._ahead.append((key, params))
                if key not in busy:
                    found.append(params)
        if n and not found:
            raise Exhausted("all points of the grid have been proposed", "raise `levels` for a finer grid")
        return [Proposal(dict(params)) for params in found]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._used.add(trial.params)
