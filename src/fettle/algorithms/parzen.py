"""Parzen estimators on the unit cube of a space: one joint mixture of product kernels (Falkner et al. 2018,
arXiv:1807.01774; Watanabe 2023, arXiv:2304.11127), whose kernels know the tree of choices.

    p(z) = w_0 + sum_i w_i prod_{j active in z} k_j(z_j | x_ij)

Densities are relative to uniform draws from the space: the prior component is 1, and so is k_j where column j is not
active in x_i, which says nothing of a branch that it did not take. Hence p(z) = p(branches) p(parameters | branches),
each smoothed, and the mean of p over uniform draws is 1.

    numbers             Gaussian around x, truncated to [0, 1]; a grid value counts the mass of its bin
    categories, choices kept with probability 1 - b, else drawn anew from all (Aitchison & Aitken 1976)

All kernels of a mixture share their bandwidths, so that the logarithm of each is bilinear in features of z and of x:
one matrix product scores all candidates.

    log k_j = [-z^2 / 2s^2 - log(s sqrt(2 pi)), z / s^2, -1 / 2s^2, 1] . [1, x, x^2, -log Z(x)]    numbers
    log k_j = (row of z in a table of log masses) . (row of x in the identity)      categories, grids up to 64 values

Z is the mass inside [0, 1]; s^2 = h^2 + w^2 / 12 with w the width of z's bin (0 for real numbers): the mean density
in a fine grid's bin by moment matching, within 5 % around the kernel for bins up to three bandwidths wide.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fettle.core.domains import Column, slots
from fettle.core.numeric import Float, Int
from fettle.core.space import Space

if TYPE_CHECKING:
    from numpy.random import Generator

_TABLE = 64  # grids of numbers up to this size are tabulated
_LADDER = 8  # bandwidths are powers of 2^(1/8), so that what is computed from them stays valid for many tells
_LEAST = 0.02  # smallest bandwidth: share of the range
_LEAST_BINS = 0.5  # and in bins of a grid
_NARROW = 0.7  # share of Scott's bandwidth
_UNIFORM = 1 / math.sqrt(12)  # standard deviation of a uniform draw
_SQRT_2PI = math.sqrt(2 * math.pi)
_TINY = 1e-30
_UNORDERED = ("categorical", "choice")


class Axes:
    """The columns as kernels see them: numbers (m,) with Gaussians, tables (t,); those with one value are left out.

    Bandwidths h (d,) are standard deviations, and of unordered columns the share b that is drawn anew.
    """

    def __init__(self, space: Space) -> None:
        columns = space.columns
        moving = [j for j, column in enumerate(columns) if column.size != 1]
        tables = [j for j in moving if columns[j].kind in _UNORDERED or (columns[j].size or np.inf) <= _TABLE]
        self.space = space
        self.sizes = np.array([column.size or 0 for column in columns], dtype=int)  # 0: infinite
        self.tables = np.array(tables, dtype=int)
        self.numbers = np.array([j for j in moving if j not in set(tables)], dtype=int)
        self.ordered = np.array([j for j in moving if columns[j].kind not in _UNORDERED], dtype=int)
        self.unordered = np.array([j for j in moving if columns[j].kind in _UNORDERED], dtype=int)
        self._grids = [(i, columns[j]) for i, j in enumerate(self.numbers.tolist()) if columns[j].size]
        self.conditional = any(column.parent is not None for column in columns)
        self.m = len(self.numbers)
        ends = 4 * self.m + np.cumsum(self.sizes[self.tables])
        self.starts = ends - self.sizes[self.tables]  # (t,): first feature of each table
        self.width = int(ends[-1]) if len(ends) else 4 * self.m  # number of features
        centres = [columns[j].domain.encode(value) for j in tables for value in columns[j].domain.values()]
        self.centres = np.array(centres, dtype=float)  # (width - 4 m,)
        self.least = np.maximum(_LEAST, _LEAST_BINS / np.where(self.sizes > 0, self.sizes, np.inf))
        self._uneven = [(i, columns[j]) for i, j in enumerate(tables) if _is_log(columns[j])]
        self._tables: dict[tuple[int, float], np.ndarray] = {}  # cache by column and bandwidth

    def coefficients(self, X: np.ndarray) -> np.ndarray:
        """X (n, d), NaN where inactive -> (n, width): all that does not depend on bandwidths (-log Z is left 0)."""
        m = self.m
        C = np.zeros((len(X), self.width))
        x = X[:, self.numbers]
        C[:, :m] = ~np.isnan(x)
        C[:, m : 2 * m] = np.nan_to_num(x)
        C[:, 2 * m : 3 * m] = C[:, m : 2 * m] ** 2
        index = self._index(X)
        rows, tables = np.nonzero(index >= 0)
        C[rows, self.starts[tables] + index[rows, tables]] = 1.0
        return C

    def normalise(self, C: np.ndarray, h: np.ndarray, columns: Sequence[int] | np.ndarray) -> None:
        """Writes -log Z at the bandwidths h (m,) into C, for some of the numbers (by place)."""
        m = self.m
        x = C[:, m : 2 * m][:, columns]
        mass = _ndtr((1 - x) / h[columns]) - _ndtr(-x / h[columns])
        C[:, 3 * m + np.asarray(columns)] = -C[:, columns] * np.log(mass)

    def features(self, Z: np.ndarray, h: np.ndarray) -> np.ndarray:
        """Z (c, d), NaN where inactive -> (c, width)."""
        m = self.m
        F = np.zeros((len(Z), self.width))
        z = Z[:, self.numbers]
        on = ~np.isnan(z)
        z = np.nan_to_num(z)
        s2 = h[self.numbers] ** 2
        if self._grids:
            s2 = np.tile(s2, (len(z), 1))
            for i, column in self._grids:
                _, left, right = bins(column, z[:, i])
                z[:, i] = (left + right) / 2
                s2[:, i] += (right - left) ** 2 / 12
        F[:, :m] = on * (-0.5 * z * z / s2 - 0.5 * np.log(s2) - math.log(_SQRT_2PI))
        F[:, m : 2 * m] = on * z / s2
        F[:, 2 * m : 3 * m] = on * (-0.5 / s2)
        F[:, 3 * m : 4 * m] = on
        index = self._index(Z)
        for i, j in enumerate(self.tables.tolist()):
            F[:, self.starts[i] : self.starts[i] + self.sizes[j]] = self._table(j, float(h[j]))[index[:, i]]
        return F

    def _index(self, X: np.ndarray) -> np.ndarray:
        """X (n, d) -> place of the value in each table (n, t); -1 where inactive."""
        u, sizes = X[:, self.tables], self.sizes[self.tables]
        on = ~np.isnan(u)
        u = np.where(on, u, 0.0)
        index: np.ndarray = np.minimum((u * sizes).astype(np.int64), sizes - 1)
        for i, column in self._uneven:
            index[:, i] = bins(column, u[:, i])[0]
        index[~on] = -1
        return index

    def _table(self, j: int, h: float) -> np.ndarray:
        """[z, x]: log of (mass of z's bin under the kernel at x, over the bin's width), (size + 1, size): the last row
        is that of an inactive z."""
        if (found := self._tables.get((j, h))) is not None:
            return found
        column, size = self.space.columns[j], int(self.sizes[j])
        if column.kind in _UNORDERED:
            table = np.full((size, size), math.log(h))
            np.fill_diagonal(table, math.log(size * (1 - h) + h))
        else:
            centre = np.array(list(map(column.domain.encode, column.domain.values())))
            _, left, right = bins(column, centre)
            mass = _ndtr((right[:, None] - centre) / h) - _ndtr((left[:, None] - centre) / h)
            table = np.log(np.maximum(mass / mass.sum(axis=0), _TINY)) - np.log(right - left)[:, None]
        if len(self._tables) > 16 * len(self.tables):
            self._tables.clear()
        self._tables[j, h] = table = np.concatenate([table, np.zeros((1, size))])
        return table


def _is_log(column: Column) -> bool:
    return isinstance(column.domain, Float | Int) and column.domain.log


def bins(column: Column, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u (n,) -> index of the value of a finite column, left and right end of its bin in the unit interval."""
    size, domain = column.size or 1, column.domain
    if isinstance(domain, Float | Int) and domain.log:
        low, step = domain.low, float(domain.step or 0)
        start = math.log(max(low - step / 2, low / 2))
        width = math.log(low + (size - 0.5) * step) - start
        index = np.clip(np.floor((np.exp(start + u * width) - low) / step + 0.5), 0, size - 1).astype(np.int64)
        right = (np.log(low + (index + 0.5) * step) - start) / width
        left = np.where(index == 0, 0.0, (np.log(np.maximum(low + (index - 0.5) * step, low / 2)) - start) / width)
        return index, left, right
    index = slots(u, size)
    return index, index / size, (index + 1) / size


class Kernels:
    """Points of the space as kernels, in rows; a fold of `put`."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.n = 0
        self._X = np.empty((64, len(axes.space)))
        self._C = np.empty((64, axes.width))
        self._h = np.full(axes.m, np.nan)  # cache: bandwidths at which -log Z stands in the first `_ready` rows
        self._ready = 0

    @property
    def points(self) -> np.ndarray:
        """Encoded points (n, d)."""
        return self._X[: self.n]

    @property
    def coefficients(self) -> np.ndarray:
        """Coefficients (n, width); -log Z at any bandwidths."""
        return self._C[: self.n]

    def put(self, u: np.ndarray) -> int:
        """Appends an encoded point (d,), NaN where inactive; returns its row."""
        if self.n == len(self._X):
            self._X = np.concatenate([self._X, np.empty_like(self._X)])
            self._C = np.concatenate([self._C, np.empty_like(self._C)])
        self._X[self.n] = u
        self._C[self.n] = self.axes.coefficients(u[None])[0]
        self.n += 1
        return self.n - 1

    def at(self, h: np.ndarray) -> np.ndarray:
        """Coefficients (n, width) at the bandwidths h (d,)."""
        axes, h = self.axes, h[self.axes.numbers]
        if len(stale := np.flatnonzero(h != self._h)):
            axes.normalise(self._C[: self._ready], h, stale)
        if self._ready < self.n:
            axes.normalise(self._C[self._ready : self.n], h, np.arange(axes.m))
        self._h, self._ready = h, self.n
        return self.coefficients


def bandwidths(axes: Axes, totals: np.ndarray) -> np.ndarray:
    """Sums (width,) of the coefficients of n kernels -> h (d,), on the ladder.

    Ordered columns, eq. (1): h_j = 0.7 s_j n_j^(-1 / (a + 4)): Scott's rule, for n_j kernels with column j where
    a columns are active in the mean; s_j^2 = (sum (x - mean)^2 + 1 / 12) / (n_j + 1), one observation of the prior, so
    that few points do not pretend to know their spread. 0.7: good trials are seldom one bell, and Scott's rule blurs
    those that are not. Unordered columns: b_j = size / (n_j + size), one observation of each value.
    """
    m = axes.m
    n, sums, squares = (np.zeros(len(axes.space)) for _ in range(3))
    n[axes.numbers], sums[axes.numbers], squares[axes.numbers] = totals[: 3 * m].reshape(3, m)
    if len(t := axes.tables):
        counts = totals[4 * m :]
        moments = np.array([counts, counts * axes.centres, counts * axes.centres**2])
        n[t], sums[t], squares[t] = np.add.reduceat(moments, axes.starts - 4 * m, axis=1)
    active = n.sum() / max(1.0, n.max(initial=0.0))
    spread = np.sqrt((np.maximum(squares - sums**2 / np.maximum(1.0, n), 0.0) + _UNIFORM**2) / (n + 1))
    h = np.maximum(axes.least, _NARROW * spread * np.maximum(1.0, n) ** (-1 / (active + 4)))
    k = axes.unordered
    h[k] = axes.sizes[k] / (n[k] + axes.sizes[k])
    on_ladder: np.ndarray = np.exp2(np.round(np.log2(h) * _LADDER) / _LADDER)
    return on_ladder


def log_density(
    axes: Axes, Z: np.ndarray, h: np.ndarray, blocks: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """log p (c,) at Z (c, d) of the mixture of blocks of (coefficients (n, width) at h, weights (n,)) and the prior,
    whose weight is 1 (they are scaled to a sum of 1)."""
    F = axes.features(Z, h)
    exponents = [F @ C.T for C, _ in blocks]
    top = np.max([np.zeros(len(Z)), *(E.max(axis=1, initial=0.0) for E in exponents)], axis=0)
    p = np.exp(-top)
    for E, (_, weights) in zip(exponents, blocks, strict=True):
        E -= top[:, None]
        p += np.exp(E, out=E) @ weights
    logs: np.ndarray = np.log(p) + top - math.log(1.0 + sum(weights.sum() for _, weights in blocks))
    return logs


def sample(axes: Axes, n: int, X: np.ndarray, h: np.ndarray, weights: np.ndarray, rng: "Generator") -> np.ndarray:
    """n draws (n, d), NaN where inactive, of the mixture of kernels at X (k, d) with weights (k,) and the prior,
    whose weight is 1."""
    from scipy.special import ndtri

    ends = np.cumsum([*weights, 1.0])
    picked = np.searchsorted(ends, rng.random(n) * ends[-1], side="right")
    x = np.concatenate([X, np.full((1, X.shape[1]), np.nan)])[np.minimum(picked, len(X))]  # the last row: the prior
    Z = rng.random((n, X.shape[1]))
    j, k = axes.ordered, axes.unordered
    low = _ndtr(-x[:, j] / h[j])
    draw = x[:, j] + h[j] * ndtri(low + Z[:, j] * (_ndtr((1 - x[:, j]) / h[j]) - low))
    again = (rng.random((n, len(k))) < h[k]) | np.isnan(x[:, k])
    Z[:, j] = np.where(np.isnan(draw), Z[:, j], np.clip(draw, 0.0, 1.0))
    Z[:, k] = np.where(again, Z[:, k], x[:, k])
    if axes.conditional:
        Z[~axes.space.active(Z)] = np.nan
    return Z


def _ndtr(x: np.ndarray) -> np.ndarray:
    """Standard normal distribution function."""
    from scipy.special import ndtr

    p: np.ndarray = ndtr(x)
    return p
