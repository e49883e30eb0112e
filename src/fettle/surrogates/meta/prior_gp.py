"""A Gaussian process whose prior is what earlier tasks have in common (HyperBO; Wang et al. 2021, arXiv:2109.08215).

    y(x) = a + b (mu(x) + delta(x)),   delta ~ GP(0, s (w C + (1 - w) v k))

mu: mean of the tasks; C: their empirical covariance; v: its mean variance; k: Matérn; a: any level. Several (w, s) are
mixed by the evidence of the points so far, and by what was likely when each task in turn was left out. One more process
knows nothing of the tasks: its share is the prior's missing credit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fettle.core.domains import Column
from fettle.surrogates.kernel import Points, cross, unordered
from fettle.surrogates.meta.anchors import Anchors, Basis

Floats = np.ndarray
SHARES = (0.2, 0.6, 0.9)  # w
FACTORS = (0.35, 1.0, 2.8)  # s
NOISES = (0.0003, 0.003, 0.01, 0.03, 0.1, 0.3)  # variance, as a share of v
UNITS = np.array([-1.2, -0.8, -0.4, -0.2, 0.0, 0.2, 0.4, 0.8, 1.2])  # log b, about its mean over the tasks
_UNLIKE = (0.02, 0.49)  # least and most share of the process without tasks, before any trial
PLAIN = (0.25, 1.0, 4.0)  # its variances, in units of the total one
_WIDE = 30.0  # variance of the level, in units of that over the tasks, and of the tasks' own
_SIZES, _DRAWS, _LEFT_OUT = (4, 10), 6, 12
_JUDGED = 30  # points of a task by which it is said to be like the others, or not
_JITTER = 1e-9
_LEAST = 1e-3  # share of a mixture from which a process is worth its time


@dataclass(frozen=True, slots=True)
class Hyper:
    """What leaving out tasks has taught.

    weights (w, s): prior shares of the mixture; noise: a share of v; unit, unit_sd: mean and standard deviation of
    log b; fit: mean log-density of a left-out figure, in the metric itself, which is what scales are compared by (NaN
    for a single task); unlike: share of the process without tasks; skill: mean rank correlation of what the other tasks
    and a few figures of a left-out one foretell of the rest of it.
    """

    weights: Floats
    noise: float
    unit: float
    unit_sd: float
    fit: float
    unlike: float
    skill: float = 0.0


def left_out(anchors: Anchors, columns: Sequence[Column], rng: np.random.Generator, *, log: bool) -> Hyper:
    """Evidence of small subsets of each task under the prior that the other tasks make. log: the scale is one."""
    T, logs = len(anchors.R), np.log(anchors.units)
    if T < 2:
        return Hyper(np.full((len(SHARES), len(FACTORS)), 1.0 / 9.0), 0.03, float(logs.mean()), 1.0, math.nan, 0.2)
    slopes, evidence, without, drop, count, skills = [], [], [], [], [], []
    for t in rng.permutation(T)[:_LEFT_OUT].tolist():
        one = _Left.out(anchors, t, unordered(columns))
        slopes.append(one.slope)
        without.append(one.unlike(rng.permutation(len(one.z))[:_JUDGED]))
        skills += [one.skill(rng.permutation(len(one.z))[: _SIZES[0] + _JUDGED]) for _ in range(_DRAWS)]
        for some in (rng.permutation(len(one.z))[:size] for size in _SIZES for _ in range(_DRAWS)):
            evidence.append(one.evidence(some))
            drop.append(float((anchors.levels[t] + one.z[some]).sum()) if log else len(some) * logs[t])
            count.append(len(some))
    table, n = np.array(evidence), np.array(count)  # (subsets, noises, shares, factors)
    best = int(np.argmax(np.logaddexp.reduce(table, axis=(2, 3)).sum(axis=0)))
    likely = np.exp(table[:, best] - table[:, best].max(axis=(1, 2), keepdims=True))
    weights = (likely / likely.sum(axis=(1, 2), keepdims=True)).mean(axis=0)
    spread = 0.0 if log else float(np.sqrt(np.var(logs) + np.var(np.log(slopes))))
    # the unknown unit of a new task takes something away (Laplace's approximation)
    fit = np.logaddexp.reduce(table[:, best], axis=(1, 2)) - np.array(drop) - 0.5 * np.log1p(2.0 * n * spread**2)
    unlike = float(np.clip(np.mean(without), *_UNLIKE))
    known = [s for s in skills if math.isfinite(s)]  # not where all figures of a task are the same
    skill = float(np.mean(known)) if known else 0.0
    return Hyper(weights, NOISES[best], float(logs.mean()), spread, float(fit.sum() / n.sum()), unlike, skill)


@dataclass(frozen=True, slots=True)
class _Left:
    """One task, and the prior that the others make at its points."""

    points: Floats
    z: Floats
    mean: Floats
    R: Floats
    anchors: Anchors
    words: Floats

    @classmethod
    def out(cls, anchors: Anchors, t: int, words: Floats) -> "_Left":
        known = np.flatnonzero(anchors.known[t])
        others = np.delete(anchors.R, t, axis=0)[:, known]
        middle = others.mean(axis=0)
        z = anchors.mean[known] + anchors.R[t, known]
        return cls(anchors.A[known], z, anchors.mean[known] + middle, (others - middle).T, anchors, words)

    @property
    def slope(self) -> float:
        """Of the task by the mean of the others."""
        centred = self.mean - self.mean.mean()
        return max(0.1, float(centred @ self.z) / max(float(centred @ centred), 1e-12))

    def _parts(self, some: Floats) -> "Parts":
        points, theta = Points(self.points[some]), self.anchors.theta
        return Parts.of(points, self.mean[some], self.R[some], self.anchors, theta, self.words)

    def evidence(self, some: Floats) -> list[list[list[float]]]:
        parts, z = self._parts(some), self.z[some]
        return [[[parts.evidence(z, w, s, noise) for s in FACTORS] for w in SHARES] for noise in NOISES]

    def skill(self, some: Floats) -> float:
        """Rank correlation of the last points, as foretold by the others and the first few, with their figures."""
        n, parts = min(_SIZES[0], len(some) // 2), self._parts(some)
        K, z = parts.covariance(0.6, 1.0, NOISES[3]), self.z[some]
        if len(some) - n < 3 or not z[n:].std():
            return math.nan
        mean = parts.mean[n:] + K[n:, :n] @ np.linalg.solve(K[:n, :n], z[:n] - parts.mean[:n])
        foretold, found = (np.argsort(np.argsort(values)) for values in (mean, z[n:]))
        return float(np.corrcoef(foretold, found)[0, 1])

    def unlike(self, some: Floats) -> float:
        """Chance that the task is none of theirs, were both as likely before."""
        parts, z, noise = self._parts(some), self.z[some], NOISES[3]
        knowing = [parts.evidence(z, w, s, noise) for w in SHARES for s in FACTORS]
        unknown = replace(parts, mean=np.zeros(len(some)))
        total = 1.0 + float(self.mean.var()) / self.anchors.variance
        free = [unknown.evidence(z, 0.0, f * total, noise) for f in PLAIN]
        gain = np.logaddexp.reduce(knowing) - math.log(len(knowing)) - np.logaddexp.reduce(free) + math.log(len(free))
        return float(1.0 / (1.0 + np.exp(np.clip(gain, -50.0, 50.0))))


@dataclass(frozen=True, slots=True)
class Parts:
    """Prior of n points: mean (n,), C (n, n) and v k (n, n)."""

    mean: Floats
    C: Floats
    K: Floats
    variance: float
    level: float

    @classmethod
    def of(cls, points: Points, mean: Floats, R: Floats, anchors: Anchors, theta: Floats, words: Floats) -> "Parts":
        """R (n, T): deviations at the points."""
        variance, units = anchors.variance, anchors.units
        spread = float((anchors.levels / units).var()) if len(units) > 1 else float(anchors.mean.var())
        K = variance * cross(theta, points, points, words)
        return cls(mean, R @ R.T / max(1, R.shape[1] - 1), K, variance, _WIDE * (spread + variance))

    def covariance(self, w: float, s: float, noise: float) -> Floats:
        result: Floats = s * (w * self.C + (1.0 - w) * self.K) + self.level
        jitter = _JITTER * (self.level + s * self.variance)  # tasks that hardly differ leave nothing else to stand on
        result[np.diag_indices(len(result))] += noise * self.variance + jitter
        return result

    def evidence(self, z: Floats, w: float, s: float, noise: float) -> float:
        """log p(z), up to a constant, for any level."""
        L = np.linalg.cholesky(self.covariance(w, s, noise))
        off = np.linalg.solve(L, z - self.mean - (z - self.mean).mean())
        return -0.5 * float(off @ off) - float(np.log(np.diag(L)).sum())


class PriorGP:
    """The prior of one metric. columns: of the knobs that the tasks know; more may follow them."""

    def __init__(self, anchors: Anchors, hyper: Hyper, columns: Sequence[Column]) -> None:
        self.anchors, self.hyper = anchors, hyper
        self.basis = Basis(anchors, unordered(columns))
        self.d = len(columns)

    def fit(self, X: Floats, y: Floats, *, columns: Sequence[Column]) -> "PriorPosterior":
        """X (n, D), D >= d: columns beyond those of the tasks are left to the Matérn kernel; y (n,) on the scale."""
        return PriorPosterior(self, X, y, columns)


class PriorPosterior:
    """See `fettle.core.protocols.Posterior`. credit: share of the processes that know the tasks, by the evidence."""

    def __init__(self, prior: PriorGP, X: Floats, y: Floats, columns: Sequence[Column]) -> None:
        self.prior, self._words = prior, unordered(columns)
        self._theta = _widened(prior.anchors.theta, columns, prior.d)
        self._points = Points(X)
        self._G = prior.basis(X[:, : prior.d])
        variance = prior.anchors.variance
        mean = self._G[:, 0]
        self._parts = Parts.of(self._points, mean, self._G[:, 1:], prior.anchors, self._theta, self._words)
        self._total = float(prior.anchors.mean.var()) + variance
        self.unit = self._unit(y)
        self.noise = self.unit * float(np.sqrt(prior.hyper.noise * variance))
        self._level = prior.anchors.level
        self._mixed(y)

    def _unit(self, y: Floats) -> float:
        """b, by the evidence under the middle process."""
        hyper = self.prior.hyper
        if not hyper.unit_sd or len(y) < 2:
            return float(np.exp(hyper.unit))
        scores = []
        for g in UNITS:
            z = y / np.exp(hyper.unit + g)
            jacobian = -(len(y) - 1) * g
            scores.append(self._parts.evidence(z, 0.6, 1.0, hyper.noise) + jacobian - 0.5 * (g / hyper.unit_sd) ** 2)
        return float(np.exp(hyper.unit + UNITS[int(np.argmax(scores))]))

    def _mixed(self, y: Floats) -> None:
        """The processes of the mixture, each as (share, w, s, Cholesky factor, whitened residual)."""
        hyper, n = self.prior.hyper, len(y)
        z = (y - self._level) / self.unit
        made = []
        for i, w in enumerate(SHARES):
            for j, s in enumerate(FACTORS):
                weight = (1.0 - hyper.unlike) * (0.9 * hyper.weights[i, j] + 0.1 / hyper.weights.size)
                made.append((weight, w, s, True))
        made += [(hyper.unlike / len(PLAIN), 0.0, f * self._total / self._parts.variance, False) for f in PLAIN]
        scores, kept = [], []
        for weight, w, s, knows in made:
            mean = self._parts.mean if knows else np.zeros(n)
            L = np.linalg.cholesky(self._parts.covariance(w, s, hyper.noise)) if n else np.zeros((0, 0))
            off = np.linalg.solve(L, z - mean) if n else np.zeros(0)
            scores.append(np.log(weight) - 0.5 * float(off @ off) - float(np.log(np.diag(L)).sum()))
            kept.append((w, s, knows, L, off))
        share = np.exp(np.array(scores) - max(scores))
        share /= share.sum()
        self.credit = float(sum(p for p, one in zip(share, kept, strict=True) if one[2]))
        worth = [i for i in range(len(kept)) if share[i] >= _LEAST]
        self._mixture = [(share[i] / share[worth].sum(), *kept[i]) for i in worth]

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        """Z (m, D) -> mean (m,), standard deviation (m,) of the function on the scale, without noise."""
        variance, points = self._parts.variance, Points(Z)
        G = self.prior.basis(Z[:, : self.prior.d])
        R, T = G[:, 1:], max(1, G.shape[1] - 2)
        C = R @ self._G[:, 1:].T / T
        K = variance * cross(self._theta, points, self._points, self._words)
        own, d = np.einsum("mt,mt->m", R, R) / T, len(self._words)
        matern = variance * (1.0 - np.exp(self._theta[-2]) * (1.0 - points.shares(d))) if d else variance
        first, second = np.zeros(len(Z)), np.zeros(len(Z))
        for share, w, s, knows, L, off in self._mixture:
            k = s * (w * C + (1.0 - w) * K) + self._parts.level
            V = np.linalg.solve(L, k.T) if len(off) else np.zeros((0, len(Z)))
            mean = V.T @ off + (G[:, 0] if knows else 0.0)
            spread = s * (w * own + (1.0 - w) * matern) + self._parts.level - np.einsum("nm,nm->m", V, V)
            first += share * mean
            second += share * (np.maximum(spread, 1e-10) + mean * mean)
        std = np.sqrt(np.maximum(second - first * first, 1e-10))
        return self._level + self.unit * first, self.unit * std


def _widened(theta: Floats, columns: Sequence[Column], d: int) -> Floats:
    """theta with lengths for columns that the tasks do not have."""
    more = columns[d:]
    lengths = [np.log(0.7) if column.kind in ("categorical", "choice") else np.log(0.4) for column in more]
    return np.concatenate([theta[:d], lengths, theta[d:]])
