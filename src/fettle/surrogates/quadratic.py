"""A quadratic polynomial about a point, with a posterior: the model of a trust region.

Bayesian regression on 1, z and z z^T, in the form of its kernel, 1 + a <z, x> / d + b <z, x>^2 / d^2: with fewer points
than coefficients the smallest ones that fit are taken, as in Powell's NEWUOA and BOBYQA (2009, DAMTP NA2009/06).
Points far out count less, since a polynomial of higher degree would differ there.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from fettle.surrogates.acquisition import Floats

_CONSTANT = 4.0  # prior variance of the value in the centre
_LEAST_VARIANCE = 1e-12
_BEYOND = 0.3  # variance of the misfit at a typical point of the region's border, in units of the noise
_SLOPE, _BEND = (0.0, 1.0, 2.0), (-2.0, 0.0, 1.0, 2.0)  # logarithms of sds that are tried
_NOISE = (-6.0, -4.0, -2.0, -0.7)
_CENTRE, _SPREAD = np.array([0.5, -0.5, -4.0]), np.array([1.5, 1.5, 2.0])  # prior of these three


@dataclass(frozen=True, slots=True)
class Quadratic:
    """points (n, d): offsets from the centre in units of the region's radius. slope, bend: prior variances."""

    points: Floats
    slope: float
    bend: float
    noise: float
    inverse: Floats
    weights: Floats

    @classmethod
    def fit(cls, S: Floats, y: Floats) -> "Quadratic":
        """S (n, d), y (n,) of about mean 0 and variance 1; the prior's scales by evidence, on a grid."""
        n, d = S.shape
        inner = S @ S.T
        square = inner * inner / (d * d)
        beyond = 1.0 + _BEYOND * (np.einsum("nd,nd->n", S, S) / d) ** 2
        best: tuple[float, Quadratic] | None = None
        for sds in itertools.product(_SLOPE, _BEND, _NOISE):
            slope, bend, noise = np.exp(2.0 * np.array(sds)).tolist()
            K = (slope / d) * inner + bend * square + _CONSTANT
            K[np.diag_indices(n)] += noise * beyond + 1e-10
            L = np.linalg.cholesky(K)
            half = np.linalg.solve(L, y)
            off = (np.array(sds) - _CENTRE) / _SPREAD
            score = -0.5 * float(half @ half) - float(np.log(np.diag(L)).sum()) - 0.5 * float(off @ off)
            if best is None or score > best[0]:
                inverse = np.linalg.inv(K)
                best = (score, cls(S, slope / d, bend / (d * d), noise, inverse, inverse @ y))
        assert best is not None
        return best[1]

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        """Z (m, d) -> mean (m,), standard deviation (m,)."""
        inner, own = Z @ self.points.T, np.einsum("md,md->m", Z, Z)
        K = self._kernel(inner)
        variance = self._kernel(own) - np.einsum("mn,mn->m", K @ self.inverse, K)
        return K @ self.weights, np.sqrt(np.maximum(variance, _LEAST_VARIANCE))

    def slopes(self, z: Floats) -> tuple[float, float, Floats, Floats]:
        """z (d,) -> mean, standard deviation, and their gradients (d,)."""
        inner, own = self.points @ z, float(z @ z)
        k = self._kernel(inner)
        by_z = (self.slope + 2.0 * self.bend * inner)[:, None] * self.points
        solved = self.inverse @ k
        std = math.sqrt(max(float(self._kernel(np.array(own))) - float(k @ solved), _LEAST_VARIANCE))
        by_own = (self.slope + 2.0 * self.bend * own) * z
        return float(k @ self.weights), std, self.weights @ by_z, (by_own - solved @ by_z) / std

    def _kernel(self, inner: Floats) -> Floats:
        result: Floats = _CONSTANT + self.slope * inner + self.bend * inner * inner
        return result
