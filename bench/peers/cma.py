"""CMA-ES of the package `cmaes`, in the unit cube, from its middle with step 0.3. Numeric spaces only."""

import cmaes
import numpy as np

from fettle.core.space import Params
from fettle.problems.synthetic import Synthetic
from peers import Single, Told


class CMAES:
    def __init__(self, problem: Synthetic, budget: int) -> None:
        self.problem, d = problem, len(problem.space)
        bounds = np.tile([0.0, 1.0], (d, 1))
        self.cma = cmaes.CMA(mean=np.full(d, 0.5), sigma=0.3, bounds=bounds, seed=problem.seed)
        self.single, self.generation = Single(), list[tuple[np.ndarray, float]]()

    def ask(self) -> Params:
        self.x = self.cma.ask()
        self.asked = self.problem.space.decode(self.x[None])[0]
        return self.asked

    def tell(self, told: Told) -> None:
        self.generation.append((self.x, self.single(told, self.asked)))
        if len(self.generation) == self.cma.population_size:
            self.cma.tell(self.generation)
            self.generation = []

    def answer(self) -> Params | None:
        """The mean of the search distribution, which averages noise out."""
        return self.problem.space.decode(np.clip(self.cma.mean, 0, 1)[None])[0]
