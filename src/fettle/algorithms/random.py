"""Random search: uniform draws from the allowed params (Bergstra & Bengio 2012, JMLR 13)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fettle.algorithms.used import Used
from fettle.core.protocols import Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial

if TYPE_CHECKING:
    from numpy.random import Generator


@dataclass(frozen=True, slots=True)
class Random:
    """Uniform draws."""

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "RandomSearch":
        return RandomSearch(space)


class RandomSearch:
    def __init__(self, space: Space) -> None:
        self.space = space
        self._used = Used(space)

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        drawn = self._used.fresh(n, pending, rng, lambda attempt: self.space.sample(1, rng)[0])
        return [Proposal(params) for params in drawn]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._used.add(trial.params)
