"""Exact Gaussian process regression for a few to some hundred points (Rasmussen & Williams 2006).

Hyper-parameters are the mode of their posterior: lengths are log-normal about a median that grows with the square
root of the dimension (Hvarfner et al. 2024, arXiv:2402.02229), but shorter and tighter than there, and share a common
factor. What is learned starts from the prior's centre, or from where the caller says.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fettle.core.domains import Column
from fettle.core.protocols import Posterior
from fettle.surrogates.kernel import (
    NOISE,
    PRODUCT,
    SUM,
    Floats,
    Pairs,
    Points,
    Slopes,
    cross,
    unordered,
)
from fettle.surrogates.warping import MOST, Warp, warpable

if TYPE_CHECKING:
    from numpy.random import Generator

_JITTER = 1e-6
_REACH = 4.0  # hyper-parameters stay within so many units (in logarithms) of the prior's centre
_LEAST_VARIANCE = 1e-10
_STEP = 1e-3  # of a logarithm: between the gradients that give the curvature


@dataclass(frozen=True, slots=True)
class GP:
    """The prior. y is expected to have mean 0 and variance 1, or nearly so.

    length: median length scale per square root of the dimension; word: that of unordered values, whose distance is
    1. own, common: sd of the logarithm of a length, on its own and together with all others. noise: median variance.
    steps: of learning. bend: sd of the strength of a warp.
    """

    length: float = 0.2
    word: float = 0.7
    own: float = 0.5
    common: float = 0.3
    noise: float = 0.1
    steps: int = 20
    bend: float = 2.0

    def learn(
        self,
        X: Floats,
        y: Floats,
        columns: Sequence[Column],
        noise: Floats | float = 0.0,
        start: Floats | None = None,
        steps: int | None = None,
    ) -> tuple[Floats, float]:
        """X (n, d) in the unit cube, NaN where inactive; y (n,); noise: known variances (n,); start: theta to begin
        from; steps: at most so many, instead of the settings' -> theta (d + 4,), and log p(y, theta) there."""
        from scipy.optimize import minimize

        prior = _Prior.of(self, columns)
        pairs = Pairs.of(Points(X), unordered(columns))
        found = minimize(
            lambda theta: _loss(theta, prior, pairs, y, noise),
            prior.centre if start is None else start,
            jac=True,
            method="L-BFGS-B",
            bounds=prior.bounds,
            options={"maxiter": steps or self.steps},
        )
        theta: Floats = found.x
        return theta, -float(found.fun)

    def learn_warp(
        self, X: Floats, y: Floats, columns: Sequence[Column], noise: Floats | float, start: Floats
    ) -> tuple[Floats, Warp, float]:
        """theta and a warp of the inputs, learned together from theta `start` and no warp -> theta (d + 4,) for warped
        inputs, the warp, and log p(y, theta, warp), which compares with what `learn` returns."""
        from scipy.optimize import minimize

        prior, words, m = _Prior.of(self, columns), unordered(columns), len(start)
        reach = MOST * warpable(columns)

        def loss(both: Floats) -> tuple[float, Floats]:
            warp = Warp(both[m:])
            pairs, rates = Pairs.of(Points(warp(X)), words), np.nan_to_num(warp.by_strength(X))
            value, gradient = _loss(both[:m], prior, pairs, y, noise, rates)
            off = warp.strengths / self.bend**2
            gradient[m:] += off
            return value + 0.5 * float(off @ warp.strengths), gradient

        found = minimize(
            loss,
            np.concatenate([start, np.zeros(len(columns))]),
            jac=True,
            method="L-BFGS-B",
            bounds=[*prior.bounds, *zip((-reach).tolist(), reach.tolist(), strict=True)],
            options={"maxiter": self.steps},
        )
        return found.x[:m], Warp(found.x[m:]), -float(found.fun)

    def spread(
        self, theta: Floats, X: Floats, y: Floats, columns: Sequence[Column], noise: Floats | float = 0.0
    ) -> Floats:
        """Covariance (d + 4, d + 4) of the hyper-parameters about their mode theta: Laplace's approximation, whose
        curvature is taken from differences of the gradient, and is nowhere less than a tenth of the prior's."""
        prior, pairs = _Prior.of(self, columns), Pairs.of(Points(X), unordered(columns))
        steps = _STEP * np.eye(len(theta))
        slopes = [[_loss(theta + side * step, prior, pairs, y, noise)[1] for side in (1.0, -1.0)] for step in steps]
        curvature = np.array([(ahead - behind) / (2.0 * _STEP) for ahead, behind in slopes])
        scaled = prior.sd[:, None] * (curvature + curvature.T) / 2.0 * prior.sd
        values, vectors = np.linalg.eigh(scaled)
        root = prior.sd[:, None] * vectors / np.sqrt(np.maximum(values, 0.1))
        result: Floats = root @ root.T
        return result

    def posterior(
        self,
        theta: Floats,
        X: Floats,
        y: Floats,
        columns: Sequence[Column],
        noise: Floats | float = 0.0,
        warp: Warp | None = None,
    ) -> "GPPosterior":
        """The process with these hyper-parameters, given X (n, d) and y (n,). warp: theta is of inputs warped by it."""
        return GPPosterior(theta, X, y, unordered(columns), noise, warp)

    def fit(
        self,
        X: Floats,
        y: Floats,
        *,
        columns: Sequence[Column],
        noise: Floats | None = None,
        censored: Floats | None = None,
    ) -> "GPPosterior":
        """See `fettle.core.protocols.Surrogate`. censored (n,): +1 where y is only a lower bound, -1 an upper one."""
        known: Floats | float = 0.0 if noise is None else np.nan_to_num(noise) ** 2
        if censored is not None and np.any(censored):
            y = self.imputed(X, y, columns, known, censored)
        return self.posterior(self.learn(X, y, columns, known)[0], X, y, columns, known)

    def imputed(
        self, X: Floats, y: Floats, columns: Sequence[Column], noise: Floats | float, censored: Floats
    ) -> Floats:
        """y with bounds replaced by what the exact points expect beyond them: the mean of the truncated normal
        (Hutter et al. 2011, arXiv:1310.1947, whose trees draw it instead)."""
        exact = censored == 0
        if exact.sum() < 2:
            return y
        known = noise if isinstance(noise, float) else noise[exact]
        theta, _ = self.learn(X[exact], y[exact], columns, known)
        process = self.posterior(theta, X[exact], y[exact], columns, known)
        return imputed(process, X, y, censored)


@dataclass(frozen=True, slots=True)
class _Prior:
    """Normal in the logarithms, but for a common factor of all lengths."""

    centre: Floats
    sd: Floats
    common: float

    @classmethod
    def of(cls, settings: GP, columns: Sequence[Column]) -> "_Prior":
        d = len(columns)
        lengths = np.full(d, math.log(settings.length * math.sqrt(d)) if d else 0.0)
        lengths[unordered(columns)] = math.log(settings.word)
        centre = np.concatenate([lengths, [0.0, 0.0, -1.0, math.log(settings.noise)]])
        sd = np.concatenate([np.full(d, settings.own), [0.7, 1.0, 1.0, 2.0]])
        return cls(centre, sd, settings.common)

    @property
    def bounds(self) -> list[tuple[float, float]]:
        low, high = self.centre - _REACH, self.centre + _REACH
        low[NOISE], high[NOISE] = -13.0, 1.0
        return list(zip(low.tolist(), high.tolist(), strict=True))

    def __call__(self, theta: Floats) -> tuple[float, Floats]:
        """-log p(theta) up to a constant, and its gradient."""
        d = len(theta) - 4
        off = theta - self.centre
        gradient = off / self.sd**2
        if d and self.common:
            own, shared = self.sd[0] ** 2, self.common**2
            gradient[:d] = (off[:d] - shared / (own + d * shared) * off[:d].sum()) / own
        return 0.5 * float(off @ gradient), gradient


def _loss(
    theta: Floats, prior: _Prior, pairs: Pairs, y: Floats, noise: Floats | float, rates: Floats | None = None
) -> tuple[float, Floats]:
    """-log p(y, theta) and its gradient, then (d,) that by steps of the points along rates (n, d), where given; the
    constant mean is the generalised least squares one."""
    covariance = pairs.covariance(theta)
    factored = _Factored.of(covariance.K, theta, noise)
    if factored is None:
        return 1e10, np.zeros(len(theta) + (0 if rates is None else rates.shape[1]))
    residual = y - factored.mean(y)
    alpha = factored.inverse @ residual
    W = factored.inverse - np.outer(alpha, alpha)
    gradient = covariance.gradient(W)
    gradient[NOISE] *= math.exp(theta[NOISE])
    penalty, its_gradient = prior(theta)
    gradient += its_gradient
    if rates is not None:
        gradient = np.concatenate([gradient, covariance.moved(W, rates)])
    return 0.5 * float(residual @ alpha) + factored.half_log_determinant + penalty, gradient


@dataclass(slots=True)
class _Factored:
    """(K + noise)^-1 (n, n)."""

    inverse: Floats
    half_log_determinant: float

    @classmethod
    def of(cls, K: Floats, theta: Floats, noise: Floats | float) -> "_Factored | None":
        """None where the matrix is not positive definite to working precision."""
        from scipy.linalg import lapack

        n = len(K)
        A = K.copy()
        A[np.diag_indices(n)] += math.exp(theta[NOISE]) + _JITTER + noise
        L, failed = lapack.dpotrf(A, lower=1)
        if failed:
            return None
        inverse, _ = lapack.dpotri(L, lower=1)
        lower = np.tril_indices(n, -1)
        inverse.T[lower] = inverse[lower]
        return cls(inverse, float(np.log(np.diag(L)).sum()))

    def mean(self, y: Floats) -> float:
        ones = self.inverse.sum(axis=1)
        return float(ones @ y) / float(ones.sum())


class GPPosterior:
    """See `fettle.core.protocols.Posterior`. theta: the hyper-parameters; points, y: what it was given. All methods
    take points as they are; `points` are warped."""

    def __init__(
        self, theta: Floats, X: Floats, y: Floats, words: Floats, noise: Floats | float, warp: Warp | None = None
    ) -> None:
        self._words, self._warp = words, warp
        points = self._seen(X)
        K = cross(theta, points, points, words)
        theta = theta.copy()
        while (factored := _Factored.of(K, theta, noise)) is None:
            theta[NOISE] += 1.0  # points that are too close to each other
        self.theta = theta
        self._given(points, y, factored)

    def _seen(self, Z: Floats) -> Points:
        return Points(Z if self._warp is None else self._warp(Z))

    def _given(self, points: Points, y: Floats, factored: "_Factored") -> None:
        self.points, self.y, self._inverse = points, y, factored.inverse
        self._mean = factored.mean(y)
        self._alpha = self._inverse @ (y - self._mean)
        self._slopes: Slopes | None = None  # cache

    def revalued(self, y: Floats) -> "GPPosterior":
        """The process that has seen y (n,) instead, at the same points: O(n^2)."""
        made = copy.copy(self)
        made._given(self.points, y, _Factored(self._inverse, math.nan))
        return made

    def condition(self, Z: Floats, values: Floats) -> "GPPosterior":
        """The process that has also seen `values` (m,) at Z (m, d), by a block update: O(n^2 m)."""
        more = self._seen(Z)
        K = cross(self.theta, more, self.points, self._words)
        S = cross(self.theta, more, more, self._words)
        S[np.diag_indices(len(S))] += self.noise + _JITTER
        left = K @ self._inverse
        corner = np.linalg.inv(S - left @ K.T)
        side = -corner @ left
        inverse = np.block([[self._inverse - left.T @ side, side.T], [side, corner]])
        inverse = (inverse + inverse.T) / 2.0  # rounding errors of one update would otherwise grow in the next
        made = copy.copy(self)
        y = np.concatenate([self.y, values])
        made._given(self.points.joined(more), y, _Factored(inverse, math.nan))
        return made

    @property
    def noise(self) -> float:
        return math.exp(self.theta[NOISE])

    @property
    def mean(self) -> float:
        """The constant that the process returns to, far from all points."""
        return self._mean

    def solved(self, R: Floats) -> Floats:
        """(K + noise)^-1 R, for R (n, s)."""
        result: Floats = self._inverse @ R
        return result

    def smoothed(self) -> Floats:
        """Mean (n,) at its own points, where no noise was known of them: O(n), since K a = y - m - noise a."""
        result: Floats = self.y - (self.noise + _JITTER) * self._alpha
        return result

    def left_out(self) -> tuple[Floats, Floats]:
        """Mean (n,) and standard deviation (n,), noise included, of each y as the other points predict it, at the
        same hyper-parameters (Dubrule 1983, doi:10.1007/BF01033232: the constant mean is estimated anew, too)."""
        ones = self._inverse.sum(axis=1)
        precision = np.maximum(np.diag(self._inverse) - ones**2 / ones.sum(), _LEAST_VARIANCE)
        return self.y - self._alpha / precision, 1.0 / np.sqrt(precision)

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        """Z (m, d) -> mean (m,), standard deviation (m,) of the function, without noise."""
        points = self._seen(Z)
        K = cross(self.theta, points, self.points, self._words)
        variance = self._prior_variance(points) - np.einsum("mn,mn->m", K @ self._inverse, K)
        return self._mean + K @ self._alpha, np.sqrt(np.maximum(variance, _LEAST_VARIANCE))

    def _prior_variance(self, points: Points) -> Floats:
        d = len(self._words)
        result: Floats = math.exp(self.theta[PRODUCT]) + math.exp(self.theta[SUM]) * points.shares(d)
        return result

    def slopes(self, z: Floats) -> tuple[float, float, Floats, Floats]:
        """z (d,) -> mean, standard deviation, and their gradients (d,); those of unordered columns mean nothing."""
        if self._slopes is None:
            self._slopes = Slopes(self.theta, self.points, self._words)
        if self._warp is None:
            k, by_z = self._slopes(z)
        else:
            k, by_w = self._slopes(self._warp(z))
            by_z = by_w * self._warp.slope(z)
        weights = self._inverse @ k
        active = 1.0 - float(np.isnan(z).mean()) if len(z) else 0.0
        prior = math.exp(self.theta[PRODUCT]) + math.exp(self.theta[SUM]) * active
        variance = max(prior - float(k @ weights), _LEAST_VARIANCE)
        std = math.sqrt(variance)
        return self._mean + float(k @ self._alpha), std, self._alpha @ by_z, -(weights @ by_z) / std

    def sample(self, Z: Floats, n: int, rng: "Generator") -> Floats:
        """n draws of the function at Z (m, d), jointly: (n, m)."""
        points = self._seen(Z)
        K = cross(self.theta, points, self.points, self._words)
        S = cross(self.theta, points, points, self._words) - K @ self._inverse @ K.T
        values, vectors = np.linalg.eigh((S + S.T) / 2.0)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        result: Floats = self._mean + K @ self._alpha + rng.standard_normal((n, len(Z))) @ root.T
        return result


def imputed(process: Posterior, X: Floats, y: Floats, censored: Floats) -> Floats:
    """y (n,) where bounds (censored +1: y is at least that, -1: at most) are replaced by what `process`, which knows
    the exact ones, expects beyond them: the mean of a truncated normal."""
    from scipy.special import erfcx

    bound = censored != 0
    if not bound.any():
        return y
    mean, std = process.predict(X[bound])
    side = np.sign(censored[bound])
    z = side * (y[bound] - mean) / std
    hazard = math.sqrt(2.0 / math.pi) / erfcx(np.minimum(z, 25.0) / math.sqrt(2.0))  # phi(z) / (1 - Phi(z))
    filled: Floats = y.copy()
    filled[bound] = mean + side * std * np.maximum(hazard, z)
    return filled
