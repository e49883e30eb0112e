"""Quasi-random search: points of a shifted Sobol sequence, which leave no large holes.

All columns are spanned, those of branches that are not chosen included; a choice then picks the active ones.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fettle.algorithms.sobol import Sobol
from fettle.algorithms.used import Used
from fettle.core.protocols import Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial

if TYPE_CHECKING:
    from numpy.random import Generator

_BLOCK = 64
_MISSES = 32  # blocks without a new point, after which uniform draws take over


@dataclass(frozen=True, slots=True)
class QMC:
    """Shifted Sobol points; the shift comes from the study's seed."""

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "QuasiRandom":
        return QuasiRandom(space, seed)


class QuasiRandom:
    """Trial k gets the first unused point from the k-th on of the sequence of allowed, distinct params."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space = space
        self._used = Used(space)
        self._sobol = Sobol(len(space), seed)
        self._sequence: list[Params] = []  # cache; depends on space and seed only
        self._keys: set[Hashable] = set()
        self._index = 0
        self._dry = not len(space)

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        place = number

        def draw(attempt: int) -> Params:
            nonlocal place
            while self._extended(place):
                place += 1
                if self.space.key(self._sequence[place - 1]) not in self._used.keys:
                    return dict(self._sequence[place - 1])
            return self.space.sample(1, rng)[0]  # the sequence has no new point: finite, or hardly anything allowed

        return [Proposal(params) for params in self._used.fresh(n, pending, rng, draw)]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._used.add(trial.params)

    def _extended(self, place: int) -> bool:
        """Whether the sequence of allowed, distinct params reaches `place`, after computing as much of it."""
        misses = 0
        while len(self._sequence) <= place and not self._dry:
            before = len(self._sequence)
            for params in self._block():
                if (key := self.space.key(params)) not in self._keys and self.space.allows(params):
                    self._keys.add(key)
                    self._sequence.append(params)
            misses = misses + 1 if len(self._sequence) == before else 0
            self._dry = misses == _MISSES or len(self._sequence) == self.space.size
        return place < len(self._sequence)

    def _block(self) -> list[Params]:
        U = self._sobol.points(self._index, _BLOCK)
        self._index += _BLOCK
        if self.space.only is None:
            return self.space.decode(U)
        found = []
        for u in U:  # the nearest listed params; an inactive entry counts as half-way off
            gap = np.nan_to_num(np.abs(self.space.listed_cube - u), nan=0.25)
            found.append(self.space.only[int(np.argmin((gap**2).sum(axis=1)))])
        return found
