"""Uniform random search."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from fettle.algorithms.unused import Unused
from fettle.core.protocols import Proposal
from fettle.core.space import Space
from fettle.core.trial import Constraint, Objective, Outcome, Params, Trial


@dataclass(frozen=True, slots=True)
class Random:
    """Independent uniform draws; without replacement in finite spaces."""

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
        self._space = space
        self._unused = Unused(space)

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: Generator) -> list[Proposal]:
        picked = self._unused.pick(n, pending, lambda i, attempt: self._space.sample(1, rng)[0])
        return [Proposal(params) for params in picked]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._unused.add(trial.params)
