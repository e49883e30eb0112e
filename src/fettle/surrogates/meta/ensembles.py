"""Simple ways to use earlier tasks: their mean, the nearest of them, an ensemble weighted by ranks; and one without."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.core.domains import Column
from fettle.surrogates.gp import GP, GPPosterior
from fettle.surrogates.kernel import unordered
from fettle.surrogates.meta.anchors import Anchors, Basis
from fettle.surrogates.meta.prior_gp import Hyper

Floats = np.ndarray
_DRAWS = 50  # bootstraps of the ranking loss
_LEAST = 3  # points from which the new task has a process of its own
_RIDGE = 0.1


@dataclass(frozen=True, slots=True)
class Mixed:
    """A weighted mean of the tasks' own figures, each shifted by `shifts`, and of the new task's own process."""

    basis: Basis
    d: int
    weights: Floats
    shifts: Floats
    unit: float
    std: float
    own: GPPosterior | None = None
    own_scale: tuple[float, float] = (0.0, 1.0)
    credit: float = 1.0
    noise: float = 0.0

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        G = self.basis(Z[:, : self.d])
        figures = self.unit * (G[:, :1] + G[:, 1:]) + self.shifts
        total = float(self.weights.sum())
        mean, std = figures @ self.weights, np.full(len(Z), total * self.std)
        if self.own is not None and total < 1.0:
            middle, spread = self.own_scale
            own, its_std = self.own.predict(Z)
            mean = mean + (1.0 - total) * (middle + spread * own)
            std = np.hypot(std, (1.0 - total) * spread * its_std)
        return mean, std


class _OnTasks:
    def __init__(self, anchors: Anchors, hyper: Hyper, columns: Sequence[Column]) -> None:
        self.anchors, self.d = anchors, len(columns)
        self.basis = Basis(anchors, unordered(columns))
        self.unit = float(np.exp(hyper.unit))
        self.std = self.unit * float(np.sqrt(anchors.variance))
        self.T = len(anchors.R)

    def figures(self, X: Floats) -> Floats:
        """(n, T): the tasks' own, with their levels."""
        G = self.basis(X[:, : self.d])
        result: Floats = self.unit * (G[:, :1] + G[:, 1:]) + self.anchors.levels
        return result


class Static(_OnTasks):
    """The mean of the tasks; nothing is learned from the new one."""

    def fit(self, X: Floats, y: Floats, *, columns: Sequence[Column]) -> Mixed:
        even = np.full(self.T, 1.0 / self.T)
        return Mixed(self.basis, self.d, even, self.anchors.levels, self.unit, self.std)


class Nearest(_OnTasks):
    """The task whose figures, but for the level, are nearest to those of the new one (Selecta- and OtterTune-like)."""

    def fit(self, X: Floats, y: Floats, *, columns: Sequence[Column]) -> Mixed:
        weights, shifts = np.full(self.T, 1.0 / self.T), self.anchors.levels
        if len(y):
            off = y[:, None] - self.figures(X)
            middle = off.mean(axis=0)
            nearest = int(np.argmin(((off - (middle if len(y) > 1 else 0.0)) ** 2).sum(axis=0)))
            weights, shifts = np.eye(self.T)[nearest], shifts + middle
        return Mixed(self.basis, self.d, weights, shifts, self.unit, self.std)


class RGPE(_OnTasks):
    """Ranking-weighted Gaussian process ensemble (Feurer et al. 2018, arXiv:1802.02219)."""

    def fit(self, X: Floats, y: Floats, *, columns: Sequence[Column]) -> Mixed:
        even, levels = np.full(self.T, 1.0 / self.T), self.anchors.levels
        if len(y) < _LEAST:
            shift = (y[:, None] - self.figures(X)).mean(axis=0) if len(y) else 0.0
            return Mixed(self.basis, self.d, even, levels + shift, self.unit, self.std)
        scale = float(y.mean()), float(y.std()) or 1.0
        own = GP().fit(X, (y - scale[0]) / scale[1], columns=columns)
        figures = self.figures(X)
        rankings = np.column_stack([figures, own.left_out()[0]])
        rng = np.random.default_rng(len(y))
        best = np.zeros(self.T + 1)
        for _ in range(_DRAWS):
            some = rng.integers(len(y), size=len(y))
            order = y[some, None] < y[None, some]
            losses = [int((order ^ (f[some, None] < f[None, some])).sum()) for f in rankings.T]
            lowest = np.flatnonzero(np.array(losses) == min(losses))
            best[lowest] += 1.0 / len(lowest) / _DRAWS
        shifts = levels + (y[:, None] - figures).mean(axis=0)
        return Mixed(self.basis, self.d, best[:-1], shifts, self.unit, self.std, own, scale)


class Parametric(_OnTasks):
    """Regression on fixed terms of each knob, from the new task's figures alone (in the manner of Ernest; Venkataraman
    et al. 2016, NSDI); the tasks give the scale only."""

    def fit(self, X: Floats, y: Floats, *, columns: Sequence[Column]) -> "Regression":
        level = float(y.mean()) if len(y) else float(self.anchors.levels.mean())
        unit = self.unit * float(np.sqrt(self.anchors.mean.var() + self.anchors.variance))
        words = [
            np.unique(self.anchors.A[:, j]) if word else None for j, word in enumerate(unordered(columns[: self.d]))
        ]
        regression = Regression(level, unit, words)
        return regression.given(X[:, : self.d], y)


class Regression:
    """Bayesian linear regression: x and x^2 of a number, an indicator of each word."""

    def __init__(self, level: float, unit: float, words: Sequence[Floats | None]) -> None:
        self.level, self.unit, self.words = level, unit, words
        self.credit, self.noise = 1.0, 0.0

    def _terms(self, X: Floats) -> Floats:
        parts = [np.ones((len(X), 1))]
        for j, words in enumerate(self.words):
            x = np.nan_to_num(X[:, j : j + 1], nan=0.5)
            parts += [np.hstack([x, x * x])] if words is None else [(X[:, j : j + 1] == words).astype(float)]
        return np.hstack(parts)

    def given(self, X: Floats, y: Floats) -> "Regression":
        F = self._terms(X)
        precision = F.T @ F / _RIDGE + np.eye(F.shape[1])
        self._covariance = np.linalg.inv(precision)
        self._weights = self._covariance @ F.T @ ((y - self.level) / self.unit) / _RIDGE
        return self

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        F = self._terms(Z[:, : len(self.words)])
        variance = np.einsum("md,de,me->m", F, self._covariance, F) + _RIDGE
        return self.level + self.unit * (F @ self._weights), self.unit * np.sqrt(variance)
