"""The record of one test problem: its space, its noise-free law, and the answer that is known of it."""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fettle.core.errors import TrialFailure
from fettle.core.pareto import hypervolume
from fettle.core.protocols import Context, Metrics
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective

if TYPE_CHECKING:
    from numpy.random import Generator

LOSS = (Objective("loss"),)
Law = Callable[[Params], Mapping[str, float]]
_DRAWS = 2000  # random points whose median is the `typical` loss


def stream(name: str, seed: int, *more: int) -> "Generator":
    """The random numbers of one problem: the same for a name and a seed, everywhere."""
    return np.random.default_rng([zlib.crc32(name.encode()), seed, *more])


def _same(value: float) -> float:
    return value


@dataclass(frozen=True)
class Synthetic:
    """One test problem. Everything but `noise` is deterministic in (name, seed).

    law: the noise-free metrics of params; raises TrialFailure, or gives NaN, where a trial fails.
    best, optimum: feasible params of the lowest true loss, and that loss. Losses are minimised: the sign of a
    metric to maximise is flipped. noise: standard deviation added to the first objective's metric.
    scale: strictly increasing; what is shown is scale(truth), while regrets are counted on the truth.
    reference, ideal: for several objectives, the hypervolume's reference point, and that of the true front.
    """

    name: str
    kind: str
    seed: int
    space: Space
    law: Law
    best: Params
    optimum: float
    objectives: tuple[Objective, ...] = LOSS
    constraints: tuple[Constraint, ...] = ()
    noise: Callable[[Params], float] | None = None
    scale: Callable[[float], float] = field(default=_same)
    reference: tuple[float, ...] = ()
    ideal: float = math.nan

    def evaluate(self, params: Params, rng: "Generator") -> dict[str, float]:
        """What an optimiser is shown. Raises TrialFailure; NaN is a failure, too."""
        metrics = dict(self.law(params))
        first = self.objectives[0].metric
        metrics[first] = self.scale(metrics[first])
        if self.noise is not None:
            metrics[first] += self.noise(params) * float(rng.standard_normal())
        return metrics

    def __call__(self, params: Params, ctx: Context) -> Metrics:
        """As an evaluator of `Study.run`."""
        return self.evaluate(params, np.random.default_rng(ctx.seed))

    def truth(self, params: Params) -> float:
        """The noise-free loss, minimised; infinite where the trial fails or a constraint is violated."""
        try:
            metrics = self.law(params)
        except TrialFailure:
            return math.inf
        if any(not c.violation(metrics[c.metric]) <= 0 for c in self.constraints):
            return math.inf
        objective = self.objectives[0]
        loss = objective.sign * metrics[objective.metric]
        return loss if math.isfinite(loss) else math.inf

    @cached_property
    def typical(self) -> float:
        """The loss of the median random feasible point, of 2,000 draws that are the same every time."""
        drawn = self.space.sample(_DRAWS, stream(self.name, self.seed, 1))
        losses = np.array([self.truth(params) for params in drawn])
        return float(np.median(losses[np.isfinite(losses)]))

    def regret(self, params: Params) -> float:
        """0 at the optimum, 1 at the median random point; infinite where the trial fails or is infeasible."""
        return self.distance(self.truth(params))

    def distance(self, truth: float) -> float:
        """The regret of a true loss."""
        return max(0.0, (truth - self.optimum) / (self.typical - self.optimum))

    def losses(self, params: Params) -> tuple[float, ...] | None:
        """All true losses; None where the trial fails or is infeasible."""
        if not math.isfinite(self.truth(params)):
            return None
        metrics = self.law(params)
        return tuple(o.sign * metrics[o.metric] for o in self.objectives)

    def coverage(self, losses: Iterable[tuple[float, ...]]) -> float:
        """Hypervolume of points as a share of the true front's; about 1 is all there is."""
        points = np.array(list(losses), float).reshape(-1, len(self.objectives))
        return hypervolume(points, self.reference) / self.ideal


Maker = Callable[[str, int], Synthetic]
