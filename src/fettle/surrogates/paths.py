"""Functions drawn from a Gaussian process given its points, which can be evaluated anywhere.

A draw is one from the prior, corrected at the points by the process itself (pathwise conditioning; Wilson et al. 2020,
arXiv:2002.09309). The prior is drawn by random Fourier features (Rahimi & Recht 2007), whose frequencies follow the
spectral density of Matérn 5/2, Student's t with 5 degrees of freedom; unordered values are the corners of a simplex.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fettle.core.domains import Column
from fettle.surrogates.gp import GPPosterior
from fettle.surrogates.kernel import PRODUCT, SUM, C, Floats, Points, cross, unordered

if TYPE_CHECKING:
    from numpy.random import Generator

_WHOLE, _OWN = 256, 32  # features of the product, and of each column's term of the sum
_DEGREES = 5.0
_JITTER = 1e-6
_BLOCK = 2048  # points at a time


class Paths:
    """Of one process. variances (n,): known ones of its points. n: how many functions."""

    def __init__(
        self, process: GPPosterior, variances: Floats, columns: Sequence[Column], n: int, rng: "Generator"
    ) -> None:
        self._process, self._prior = process, _Prior(process.theta, columns, n, rng)
        self._words = unordered(columns)
        y = process.y[:, None]
        noise = np.sqrt(process.noise + _JITTER + variances)[:, None] * rng.standard_normal((len(y), n))
        drawn = y - self._prior(process.points) - noise
        self._weights = process.solved(np.hstack([y - process.mean, drawn - process.mean]))

    def __call__(self, U: Floats) -> Floats:
        """U (m, d), NaN where inactive -> (m, 1 + n): the mean of the process, then the draws."""
        return np.concatenate([self._block(U[i : i + _BLOCK]) for i in range(0, max(len(U), 1), _BLOCK)])

    def _block(self, U: Floats) -> Floats:
        points = Points(U)
        values = cross(self._process.theta, points, self._process.points, self._words) @ self._weights
        values += self._process.mean
        values[:, 1:] += self._prior(points)
        return values


class _Prior:
    """n functions (without the constant mean): features of all columns together, and of each on its own."""

    def __init__(self, theta: Floats, columns: Sequence[Column], n: int, rng: "Generator") -> None:
        self._places = [_places(c) if word else None for c, word in zip(columns, unordered(columns), strict=True)]
        lengths, longer = np.exp(theta[: len(columns)]), math.exp(theta[C])
        heavy = np.sqrt(_DEGREES / rng.chisquare(_DEGREES, _WHOLE))
        self._shift = 2.0 * math.pi * rng.random(_WHOLE)
        self._loads = math.sqrt(2.0 * math.exp(theta[PRODUCT]) / _WHOLE) * rng.standard_normal((_WHOLE, n))
        self._turns = [self._drawn(j, _WHOLE, rng) * heavy / lengths[j] for j in range(len(columns))]
        size = math.sqrt(2.0 * math.exp(theta[SUM]) / (_OWN * max(len(columns), 1)))
        self._own = []
        for j, length in enumerate(lengths):
            heavy = np.sqrt(_DEGREES / rng.chisquare(_DEGREES, _OWN))
            turns = self._drawn(j, _OWN, rng) * heavy / (length * longer)
            self._own.append((turns, 2.0 * math.pi * rng.random(_OWN), size * rng.standard_normal((_OWN, n))))

    def _drawn(self, j: int, f: int, rng: "Generator") -> Floats:
        """Frequencies (1, f) of a number, or (k, f), one for each corner of a simplex with edges of length 1."""
        places = self._places[j]
        return rng.standard_normal((1, f)) if places is None else math.sqrt(0.5) * rng.standard_normal((len(places), f))

    def _phase(self, j: int, turns: Floats, u: Floats) -> Floats:
        places = self._places[j]
        result: Floats = u[:, None] * turns if places is None else turns[np.abs(u[:, None] - places).argmin(axis=1)]
        return result

    def __call__(self, points: Points) -> Floats:
        """(m, n)."""
        phase: Floats = self._shift
        total: Floats = np.zeros(1)
        for j, (turns, shift, loads) in enumerate(self._own):
            u = points.filled[:, j]
            phase = phase + self._phase(j, self._turns[j], u)
            own = np.cos(self._phase(j, turns, u) + shift) @ loads
            total = total + (own if points.present is None else own * points.present[:, j, None])
        return total + np.cos(phase) @ self._loads


def _places(column: Column) -> Floats:
    """Where the values of an unordered column lie, and where inactive entries do."""
    return np.unique(np.append(column.domain.encode_many(list(column.domain.values())), 0.5).round(12))
