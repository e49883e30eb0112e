"""Uniform random search."""

import numpy as np

from fettle.core.space import Params
from fettle.problems.synthetic import Synthetic
from peers import Single, Told


class Random:
    def __init__(self, problem: Synthetic, budget: int) -> None:
        self.space, self.rng, self.single = problem.space, np.random.default_rng([9, problem.seed]), Single()
        self.asked: Params = {}

    def ask(self) -> Params:
        self.asked = self.space.sample(1, self.rng)[0]
        return self.asked

    def tell(self, told: Told) -> None:
        self.single(told, self.asked)

    def answer(self) -> Params | None:
        return self.single.best
