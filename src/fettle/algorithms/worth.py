"""What an evaluation is worth by a belief: an acquisition function, times the chance that it succeeds and is allowed.

Several objectives: the expected improvement of the hypervolume, exact for independent processes, by boxes of what is
not dominated yet (Yang et al. 2019, doi:10.1016/j.swevo.2018.10.007, for two and three objectives).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fettle.algorithms.belief import Belief
from fettle.core.pareto import front
from fettle.surrogates.acquisition import Valued, log_h

Floats = np.ndarray
_WIDE = 3  # one of so many times
_NEVER = -1e6  # of logarithms: worth nothing at all


@dataclass(frozen=True, slots=True)
class Worth:
    """One objective. value: of mean and std; extra: what else is added, at points U (m, d); it counts as flat."""

    belief: Belief
    value: Callable[[Floats, Floats], Valued] | None  # None: only the chances count
    extra: Callable[[Floats], Floats] | None = None

    def __call__(self, U: Floats) -> Floats:
        """(m,): the larger, the better."""
        total = self.belief.log_chance(U)
        if self.value is not None:
            total = total + self.value(*self.belief.losses[0].process.predict(self.belief.view(U)))[0]
        return total if self.extra is None else total + self.extra(U)

    def slopes(self, u: Floats) -> tuple[float, Floats]:
        """The same, without extra, at u (d,), and its gradient (d,)."""
        columns, z = self.belief.part.columns, self.belief.view(u)
        terms = [(chance.process, chance.value, self.belief.caution) for chance in self.belief.chances]
        if self.value is not None:
            terms.append((self.belief.losses[0].process, self.value, 1.0))
        total, gradient = 0.0, np.zeros(len(u))
        for process, value, weight in terms:
            mean, std, by_mean, by_std = process.slopes(z)
            worth, d_mean, d_std = value(np.array(mean), np.array(std))
            total += weight * float(worth)
            gradient[columns] += weight * (d_mean * by_mean + d_std * by_std)
        return total, gradient


@dataclass(frozen=True, slots=True)
class VolumeWorth:
    """Logarithm of the expected improvement of the hypervolume. boxes (b, 2, k): lower and upper corners."""

    belief: Belief
    boxes: Floats
    extra: Callable[[Floats], Floats] | None = None

    @classmethod
    def of(cls, belief: Belief, extra: Callable[[Floats], Floats] | None = None) -> "VolumeWorth":
        """Over the front of the feasible trials, and up to a tenth of its extent beyond it; every third time beyond the
        worst of all trials: ends of the front that lie far out count nothing before."""
        every = np.column_stack([loss.values for loss in belief.losses])
        points = every[belief.losses[0].feasible]
        best = points[front(points)] if len(points) else points
        low, high = (best.min(axis=0), best.max(axis=0)) if len(best) > 1 else (every.min(axis=0), every.max(axis=0))
        limit = every.max(axis=0) if len(every) % _WIDE == 0 else high
        reference = limit + 0.1 * np.maximum(high - low, 1e-9)
        return cls(belief, boxes(best, reference), extra)

    def __call__(self, U: Floats) -> Floats:
        Z = self.belief.view(U)
        volume = np.ones((len(U), len(self.boxes)))
        for k, loss in enumerate(self.belief.losses):
            edges, places = np.unique(self.boxes[:, :, k], return_inverse=True)  # boxes share most of their sides
            below = _below(edges, *loss.process.predict(Z))
            lower, upper = places.reshape(-1, 2).T
            volume *= np.maximum(below[:, upper] - below[:, lower], 0.0)
        with np.errstate(divide="ignore"):
            total: Floats = np.maximum(np.log(volume.sum(axis=1)), _NEVER) + self.belief.log_chance(U)
        return total if self.extra is None else total + self.extra(U)


def _below(limit: Floats, mean: Floats, std: Floats) -> Floats:
    """E[(limit - Y)+], (m, b), for Y ~ N(mean, std^2)."""
    z = (np.where(np.isfinite(limit), limit, 0.0) - mean[:, None]) / std[:, None]
    result: Floats = np.where(np.isfinite(limit), std[:, None] * np.exp(log_h(z)), 0.0)
    return result


def boxes(points: Floats, reference: Floats) -> Floats:
    """(b, 2, k): disjoint boxes that fill what no point (n, k) dominates, below the reference (k,)."""
    k = len(reference)
    if len(points):
        points = points[np.all(points < reference, axis=1)]
    if k == 1:
        top = min([float(reference[0]), *points[:, 0].tolist()])
        return np.array([[[-math.inf], [top]]])
    found: list[Floats] = []
    depths = np.unique(points[:, -1]).tolist() if len(points) else []
    edges = [-math.inf, *depths, float(reference[-1])]
    for low, high in itertools.pairwise(edges):
        above = points[points[:, -1] <= low][:, :-1] if len(points) else points.reshape(0, k)[:, :-1]
        inner = boxes(above[front(above)] if len(above) else above, reference[:-1])
        depth = np.broadcast_to(np.array([[low], [high]]), (len(inner), 2, 1))
        found.append(np.concatenate([inner, depth], axis=2))
    return np.concatenate(found)


def combined(extras: Sequence[Callable[[Floats], Floats]]) -> Callable[[Floats], Floats] | None:
    """The sum of several extras, None of none."""
    if not extras:
        return None

    def total(U: Floats) -> Floats:
        result: Floats = np.sum([extra(U) for extra in extras], axis=0)
        return result

    return total
