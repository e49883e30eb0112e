"""The covariance of the Gaussian processes: a product and a sum of one-dimensional Matérn kernels.

    k(x, z) = s_p m(|x - z| / l) + s_a / d * sum_j m(|x_j - z_j| / (c l_j)),   m: Matérn 5/2

The product has a length per column (ARD) and knows interactions; the sum (Duvenaud et al. 2011, arXiv:1112.4394) learns
from points that have only some coordinates in common. Points are in the unit cube; unordered values differ by 1. An
inactive entry (NaN) lies in the middle for the product, and takes no part in the sum.

Hyper-parameters are one vector of logarithms, theta (d + 4,): l (d,), c, s_p, s_a, and the variance of the noise.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fettle.core.domains import Column

Floats = np.ndarray
C, PRODUCT, SUM, NOISE = -4, -3, -2, -1  # places in theta, after the lengths
_S5 = math.sqrt(5.0)
_MIDDLE = 0.5
_BLOCK = 32_768  # entries of a block, of 8 bytes
_MANY = 500  # points from which on it is asked whether their columns have few values
_VALUES, _SHARING = 100, 8  # values of a column, and points to each of them, on average


def unordered(columns: Sequence[Column]) -> Floats:
    """(d,) bool: columns whose values differ or do not, and are never near each other."""
    return np.array([column.kind in ("categorical", "choice") for column in columns], bool)


class Points:
    """X (n, d) as the kernel sees them. present: None where everything is active."""

    def __init__(self, X: Floats) -> None:
        missing = np.isnan(X)
        self.filled = np.where(missing, _MIDDLE, X)
        self.present: Floats | None = ~missing if missing.any() else None

    def __len__(self) -> int:
        return len(self.filled)

    def joined(self, more: "Points") -> "Points":
        """These points, then those."""
        present = [np.ones(p.filled.shape, bool) if p.present is None else p.present for p in (self, more)]
        filled = np.concatenate([self.filled, more.filled])
        return Points(np.where(np.concatenate(present), filled, np.nan))

    def shares(self, d: int) -> Floats:
        """(n,): how much of the sum is active."""
        if not d:
            return np.zeros(len(self))
        return np.ones(len(self)) if self.present is None else self.present.sum(axis=1) / d


def gaps(A: Floats, B: Floats, words: Floats) -> Floats:
    """|a - b| by column, broadcast; 1 where unordered values differ."""
    gap: Floats = np.abs(A - B)
    if words.any():
        gap[..., words] = gap[..., words] > 1e-9
    return gap


def matern(r: Floats) -> Floats:
    """Matérn 5/2 of scaled distances."""
    s = _S5 * r
    polynomial = s * s
    polynomial /= 3.0
    polynomial += s
    polynomial += 1.0
    np.negative(s, out=s)
    polynomial *= np.exp(s, out=s)
    return polynomial


@dataclass(slots=True)
class Pairs:
    """The gaps between all pairs i < j of n points, from which covariances at any theta are made."""

    upper: tuple[Floats, Floats]
    X: Floats  # (n, d)
    gap: Floats  # (p, d)
    both: Floats | None  # (p, d): 1 where both are active
    shares: Floats  # (n,)

    @classmethod
    def of(cls, points: Points, words: Floats) -> "Pairs":
        i, j = np.triu_indices(len(points), 1)
        gap = gaps(points.filled[i], points.filled[j], words)
        present = points.present
        both = None if present is None else (present[i] & present[j]).astype(float)
        return cls((i, j), points.filled, gap, both, points.shares(gap.shape[1]))

    def covariance(self, theta: Floats) -> "Covariance":
        return Covariance(self, theta)


class Covariance:
    """K (n, n) without noise, and what its derivatives need."""

    def __init__(self, pairs: Pairs, theta: Floats) -> None:
        self.pairs, self.theta = pairs, theta
        d = pairs.gap.shape[1]
        scaled = pairs.gap * np.exp(-theta[:d])
        self.squares = scaled * scaled
        s = _S5 * np.sqrt(self.squares.sum(axis=1))
        decay = np.exp(-s)
        self.product = math.exp(theta[PRODUCT]) * (1.0 + s + s * s / 3.0) * decay
        self.by_product = (5.0 / 3.0) * math.exp(theta[PRODUCT]) * (1.0 + s) * decay
        self.weight = math.exp(theta[SUM]) / max(d, 1)
        t = (_S5 * math.exp(-theta[C])) * scaled
        fade = np.exp(-t)
        if pairs.both is not None:
            fade *= pairs.both
        self.sum = self.weight * ((1.0 + t + t * t / 3.0) * fade).sum(axis=1)
        self.by_sum = (self.weight / 3.0) * (1.0 + t) * fade * (t * t)
        n = len(pairs.shares)
        self.K = np.empty((n, n))
        self.K[pairs.upper] = self.K.T[pairs.upper] = self.product + self.sum
        self.K[np.diag_indices(n)] = self.diagonal

    @property
    def diagonal(self) -> Floats:
        """k(x, x), (n,)."""
        result: Floats = math.exp(self.theta[PRODUCT]) + math.exp(self.theta[SUM]) * self.pairs.shares
        return result

    def gradient(self, W: Floats) -> Floats:
        """(d + 4,): derivative of tr(W K) / 2 by theta, for symmetric W (n, n); the noise's place is tr(W) / 2."""
        d = self.pairs.gap.shape[1]
        w, diagonal = W[self.pairs.upper], np.diag(W)
        by_length = w @ self.by_sum
        result = np.empty(d + 4)
        result[:d] = (w * self.by_product) @ self.squares + by_length
        result[C] = by_length.sum()
        result[PRODUCT] = w @ self.product + 0.5 * math.exp(self.theta[PRODUCT]) * diagonal.sum()
        result[SUM] = w @ self.sum + 0.5 * math.exp(self.theta[SUM]) * (diagonal @ self.pairs.shares)
        result[NOISE] = 0.5 * diagonal.sum()
        return result

    def moved(self, W: Floats, rates: Floats) -> Floats:
        """(d,): derivative of tr(W K) / 2 when the ordered coordinates of the points change at rates (n, d)."""
        (i, j), X, gap = self.pairs.upper, self.pairs.X, self.pairs.gap
        w = W[self.pairs.upper]
        shrinking = (w * self.by_product)[:, None] * self.squares + w[:, None] * self.by_sum  # by log(length)
        growth = (rates[i] - rates[j]) * np.sign(X[i] - X[j])
        growth /= np.where(gap > 0.0, gap, np.inf)
        result: Floats = -(shrinking * growth).sum(axis=0)
        return result


def cross(theta: Floats, A: Points, B: Points, words: Floats) -> Floats:
    """k(a, b): (m, n)."""
    m, n, d = len(A), len(B), len(words)
    if m >= _MANY and (listed := Listed.of(A)) is not None:
        return listed.cross(theta, B, words)
    K = np.empty((m, n))
    for rows in _blocks(m, n * d):
        K[rows] = _block(theta, A, rows, B, words)
    return K


def _blocks(m: int, width: int) -> Iterator[slice]:
    """m rows of so many entries, in blocks that fit a core's cache."""
    step = max(1, _BLOCK // max(1, width))
    return (slice(begin, min(begin + step, m)) for begin in range(0, m, step))


def _block(theta: Floats, A: Points, rows: slice, B: Points, words: Floats) -> Floats:
    d = len(words)
    scaled = gaps(A.filled[rows, None, :], B.filled[None, :, :], words)
    scaled *= np.exp(-theta[:d])
    K = matern(np.sqrt(np.einsum("mnd,mnd->mn", scaled, scaled)))
    K *= math.exp(theta[PRODUCT])
    scaled *= math.exp(-theta[C])
    terms = matern(scaled)
    if A.present is not None:
        terms *= A.present[rows, None, :]
    if B.present is not None:
        terms *= B.present[None, :, :]
    K += (math.exp(theta[SUM]) / max(d, 1)) * terms.sum(axis=2)
    return K


@dataclass(slots=True)
class Listed:
    """Points whose columns have few values each: what a value adds to a covariance is worked out once, in a table.

    values: by column, NaN where inactive. places (m, d): the row of the table for each point's value.
    """

    values: list[Floats]
    places: Floats

    @classmethod
    def of(cls, points: Points) -> "Listed | None":
        """None where there are too many values for that to pay."""
        m, d = points.filled.shape
        X = points.filled if points.present is None else np.where(points.present, points.filled, np.nan)
        values, places, count, most = list[Floats](), np.empty((m, d), int), 0, d * min(_VALUES, m // _SHARING)
        for j in range(d):
            values.append(np.unique(X[:, j]))
            places[:, j] = count + np.searchsorted(values[j], X[:, j])
            count += len(values[j])
            if count > most:
                return None
        return cls(values, places) if d else None

    def cross(self, theta: Floats, B: Points, words: Floats) -> Floats:
        """k(a, b): (m, n). The rows that a point needs are summed by a product with ones at its places: faster than
        any gathering of them."""
        m, n = len(self.places), len(B)
        table = np.concatenate([_added(theta, j, values, B, words) for j, values in enumerate(self.values)])
        K = np.empty((m, n))
        for rows in _blocks(m, max(table.shape)):
            marks = np.zeros((rows.stop - rows.start, len(table)))
            np.put_along_axis(marks, self.places[rows], 1.0, axis=1)
            sums = marks @ table
            K[rows] = math.exp(theta[PRODUCT]) * matern(np.sqrt(sums[:, :n])) + sums[:, n:]
        return K


def _added(theta: Floats, j: int, values: Floats, B: Points, words: Floats) -> Floats:
    """(v, 2n): what values (v,) of column j add to the squared distance from the points B, and to the sum."""
    column, d = Points(values[:, None]), len(words)
    scaled = gaps(column.filled[:, None], B.filled[None, :, [j]], words[[j]])[..., 0] * math.exp(-theta[j])
    terms = (math.exp(theta[SUM]) / d) * matern(math.exp(-theta[C]) * scaled)
    if column.present is not None:
        terms *= column.present
    if B.present is not None:
        terms *= B.present[:, j]
    return np.concatenate([scaled * scaled, terms], axis=1)


class Slopes:
    """One point's k(a, b) (n,) for B (n, d) at one theta, and its derivative by a (n, d)."""

    def __init__(self, theta: Floats, B: Points, words: Floats) -> None:
        d = len(words)
        self.B, self.words = B, words if words.any() else None
        self.inverse = np.exp(-theta[:d])
        self.product, self.weight = math.exp(theta[PRODUCT]), math.exp(theta[SUM]) / max(d, 1)
        self.rate = math.exp(-theta[C])

    def __call__(self, a: Floats) -> tuple[Floats, Floats]:
        """a (d,), NaN where inactive; the derivative by unordered columns means nothing."""
        absent = np.isnan(a)
        off = (np.where(absent, _MIDDLE, a) - self.B.filled) * self.inverse
        t = np.abs(off)
        if self.words is not None:
            t[:, self.words] = (t[:, self.words] > 1e-9) * self.inverse[self.words]
        s = _S5 * np.sqrt(np.einsum("nd,nd->n", t, t))
        decay = self.product * np.exp(-s)
        k = (1.0 + s + s * s / 3.0) * decay
        by_square = (1.0 + s) * decay
        t *= _S5 * self.rate
        fade = self.weight * np.exp(-t)
        if absent.any():
            fade *= ~absent
        if self.B.present is not None:
            fade *= self.B.present
        slow = (1.0 + t) * fade
        k += (slow + (t * t / 3.0) * fade).sum(axis=1)
        slow *= self.rate * self.rate
        slow += by_square[:, None]
        slow *= off
        slow *= (-5.0 / 3.0) * self.inverse
        return k, slow
