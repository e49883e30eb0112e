"""On which scale tasks are alike: in logarithms, where a task's level is a factor, in units of a task's own spread, or
by ranks alone.

The first two are invertible, so that a bound on a metric keeps its meaning. Ranks (normal scores, as in a Gaussian
copula; Salinas et al. 2020, arXiv:1909.13595) are for objectives whose figures have no common shape. Which one is taken
is decided by how well the other tasks then predict one that is left out, never by the metric's name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Floats = np.ndarray
LOG, LINEAR, RANKS = "log", "linear", "ranks"


def possible(figures: Sequence[Floats]) -> list[str]:
    """Scales that can hold all of the figures."""
    positive = all((y[np.isfinite(y)] > 0.0).all() for y in figures)
    return [LOG, LINEAR] if positive else [LINEAR]


def forward(kind: str, y: Floats) -> Floats:
    """NaN where the scale cannot hold a figure."""
    if kind == LINEAR:
        return np.asarray(y, float)
    positive = y > 0.0
    result: Floats = np.where(positive, np.log(np.where(positive, y, 1.0)), np.nan)
    return result


def backward(kind: str, values: Floats) -> Floats:
    result: Floats = np.exp(np.minimum(values, 700.0)) if kind == LOG else values
    return result


@dataclass(frozen=True, slots=True)
class Absolute:
    """A scale on which a figure has its place whatever else was seen."""

    kind: str

    def forward(self, y: Floats) -> Floats:
        return forward(self.kind, y)

    def backward(self, values: Floats) -> Floats:
        return backward(self.kind, values)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Normal scores of the figures of one task that were seen; between and beyond them by straight lines.

    figures (k,): ascending; scores (k,).
    """

    figures: Floats
    scores: Floats
    kind: str = RANKS

    @classmethod
    def of(cls, y: Floats) -> "Ranks":
        """y (n,): all that was seen; equal figures have equal scores."""
        from scipy.special import ndtri

        known = np.sort(y[np.isfinite(y)])
        figures, first, count = np.unique(known, return_index=True, return_counts=True)
        return cls(figures, ndtri((first + 0.5 * count) / max(1, len(known))))

    def forward(self, y: Floats) -> Floats:
        return _along(y, self.figures, self.scores)

    def backward(self, values: Floats) -> Floats:
        return _along(values, self.scores, self.figures)


def _along(x: Floats, xs: Floats, ys: Floats) -> Floats:
    """The line through ascending points, with the slope of the whole beyond its ends; NaN where there are too few."""
    if not len(xs):
        return np.full(np.shape(x), np.nan)
    if len(xs) == 1:
        return np.where(np.asarray(x) == xs[0], ys[0], np.nan)
    slope = (ys[-1] - ys[0]) / (xs[-1] - xs[0])
    inside = np.interp(x, xs, ys)
    result: Floats = inside + slope * (np.minimum(x - xs[0], 0.0) + np.maximum(x - xs[-1], 0.0))
    return result


Scale = Absolute | Ranks
