"""A Gaussian process whose prior is what earlier tasks have in common (HyperBO; Wang et al. 2021, arXiv:2109.08215).

    y(x) = a + b (mu(x) + delta(x)),   delta ~ GP(0, s (w C + (1 - w) v k))

mu: mean of the tasks; C: their empirical covariance; v: its mean variance; k: Matérn; a: any level. Several (w, s) are
mixed by the evidence of the points so far, and by how likely they made each task when it was left out. Tasks come in
kinds, and the mean of two kinds is neither: so some of the processes have a single task for mu. Others know nothing of
the tasks: their share is the prior's missing credit.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fettle.core.domains import Column
from fettle.surrogates.kernel import Points, cross, unordered
from fettle.surrogates.meta.anchors import Anchors, Basis

Floats = np.ndarray
SHARES = (0.2, 0.6, 0.9)  # w, about the mean of the tasks
FACTORS = (0.35, 1.0, 2.8)  # s, about the mean
ALONE = 0.2  # w, about a single task
NEAR = (0.1, 0.5, 2.0)  # s, about a single task: less is left beside one of its kind
_EVEN = 4.0  # tasks that the prior of the weights counts for: half of it about the mean, half about single tasks
_STEPS = 50  # of expectation-maximisation
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

    weights (W + 1, S): prior shares of each w (about the mean; at last, about single tasks) and s; noise: a share of v;
    unit, unit_sd: mean and standard deviation of log b; fit: mean log-density of a left-out figure, in the metric
    itself, which is what scales are compared by (NaN for a single task); unlike: share of the process without tasks;
    skill: mean rank correlation of what the other tasks and a few figures of a left-out one foretell of the rest of it.
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
        return Hyper(_even(), 0.03, float(logs.mean()), 1.0, math.nan, 0.2)
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
    table, n = np.array(evidence), np.array(count)  # (subsets, noises, W + 1, S)
    best = int(np.argmax(np.logaddexp.reduce(table, axis=(2, 3)).sum(axis=0)))
    weights = _weights(table[:, best], min(T, _LEFT_OUT))
    spread = 0.0 if log else float(np.sqrt(np.var(logs) + np.var(np.log(slopes))))
    # the unknown unit of a new task takes something away (Laplace's approximation)
    fit = np.logaddexp.reduce(table[:, best], axis=(1, 2)) - np.array(drop) - 0.5 * np.log1p(2.0 * n * spread**2)
    unlike = float(np.clip(np.mean(without), *_UNLIKE))
    known = [s for s in skills if math.isfinite(s)]  # not where all figures of a task are the same
    skill = float(np.mean(known)) if known else 0.0
    return Hyper(weights, NOISES[best], float(logs.mean()), spread, float(fit.sum() / n.sum()), unlike, skill)


def _even() -> Floats:
    """Weights (W + 1, S) before anything is known of them."""
    made = np.full((len(SHARES) + 1, len(FACTORS)), 0.5 / len(SHARES) / len(FACTORS))
    made[-1] = 0.5 / len(FACTORS)
    return made


def _weights(evidence: Floats, tasks: int) -> Floats:
    """Those that make the subsets (n, W + 1, S) of so many tasks likeliest (expectation-maximisation, with a Dirichlet
    prior: there are few tasks, and their subsets are much alike)."""
    likely = np.exp(evidence - evidence.max(axis=(1, 2), keepdims=True))
    weights = _even()
    for _ in range(_STEPS):
        each = likely * weights
        found = (each / each.sum(axis=(1, 2), keepdims=True)).mean(axis=0)
        weights = (tasks * found + _EVEN * _even()) / (tasks + _EVEN)
    return weights


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
        """noise -> w -> s -> log-density."""
        parts, off = self._parts(some), self.z[some] - self.mean[some]
        alone = off[:, None] - self.R[some]

        def among(s: float, noise: float) -> float:
            found = parts.evidence(alone, ALONE, s, noise)
            return float(np.logaddexp.reduce(found)) - math.log(len(found))

        about = [[[float(parts.evidence(off, w, s, noise)) for s in FACTORS] for w in SHARES] for noise in NOISES]
        return [[*rows, [among(s, noise) for s in NEAR]] for rows, noise in zip(about, NOISES, strict=True)]

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
        knowing = [parts.evidence(z - parts.mean, w, s, noise) for w in SHARES for s in FACTORS]
        total = 1.0 + float(self.mean.var()) / self.anchors.variance
        free = [parts.evidence(z, 0.0, f * total, noise) for f in PLAIN]
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

    def evidence(self, off: Floats, w: float, s: float, noise: float) -> Floats:
        """log-density () of figures whose distance from a mean is `off` (n,), up to a constant, for any level; (q,) of
        distances (n, q) from several."""
        L = np.linalg.cholesky(self.covariance(w, s, noise))
        white = np.linalg.solve(L, off - off.mean(axis=0))
        result: Floats = -0.5 * (white * white).sum(axis=0) - np.log(np.diag(L)).sum()
        return result


class PriorGP:
    """The prior of one metric. columns: of the knobs that the tasks know; more may follow them."""

    def __init__(self, anchors: Anchors, hyper: Hyper, columns: Sequence[Column]) -> None:
        self.anchors, self.hyper = anchors, hyper
        self.basis = Basis(anchors, unordered(columns))
        self.d = len(columns)

    def under(self, limit: float) -> "PriorGP":
        """The same, told before any figure that `limit`, on the scale, is a limit of this metric: whoever sets one
        expects that some configurations hold it, and not all. So it counts as the figure of one drawn at random."""
        mu, unit = self.anchors.mean, math.exp(self.hyper.unit)
        level, variance = limit - unit * float(mu.mean()), unit**2 * (float(mu.var()) + self.anchors.variance)
        if self.anchors.foretold is not None:
            other, error = self.anchors.foretold
            share = variance / (variance + error**2)
            level, variance = share * other + (1.0 - share) * level, share * error**2
        made = copy.copy(self)
        made.anchors = replace(self.anchors, foretold=(level, math.sqrt(variance)))
        return made

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
        if prior.anchors.foretold is not None and not len(y):  # one figure says more of the level
            self._level, error = prior.anchors.foretold
            self._parts = replace(self._parts, level=(error / self.unit) ** 2)
        self._mixed(y)

    def _unit(self, y: Floats) -> float:
        """b, by the evidence under the middle process."""
        hyper = self.prior.hyper
        if not hyper.unit_sd or len(y) < 2:
            return float(np.exp(hyper.unit))
        scores = []
        for g in UNITS:
            off = y / np.exp(hyper.unit + g) - self._parts.mean
            jacobian = -(len(y) - 1) * g
            scores.append(self._parts.evidence(off, 0.6, 1.0, hyper.noise) + jacobian - 0.5 * (g / hyper.unit_sd) ** 2)
        return float(np.exp(hyper.unit + UNITS[int(np.argmax(scores))]))

    def _mixed(self, y: Floats) -> None:
        """The mixture's processes."""
        from scipy.special import softmax

        hyper, n, T = self.prior.hyper, len(y), self._G.shape[1] - 1
        z, means = (y - self._level) / self.unit, _means(self._G)
        trusted = (1.0 - hyper.unlike) * (0.9 * hyper.weights + 0.1 * _even())
        middle, tasks = np.array([1]), np.arange(2, T + 2)
        made = [(trusted[i, j], w, s, middle) for i, w in enumerate(SHARES) for j, s in enumerate(FACTORS)]
        made += [(trusted[-1, j] / T, ALONE, s, tasks) for j, s in enumerate(NEAR)]
        nothing, free = np.array([0]), self._total / self._parts.variance
        made += [(hyper.unlike / len(PLAIN), 0.0, f * free, nothing) for f in PLAIN]
        parts, scores = [], list[Floats]()
        for weight, w, s, about in made:
            L = np.linalg.cholesky(self._parts.covariance(w, s, hyper.noise)) if n else np.zeros((0, 0))
            off = np.linalg.solve(L, z[:, None] - means[:, about]) if n else np.zeros((0, len(about)))
            parts.append((w, s, about, L, off))
            scores.append(np.log(weight) - 0.5 * (off * off).sum(axis=0) - np.log(np.diag(L)).sum())
        shares = np.split(softmax(np.concatenate(scores)), np.cumsum([len(one) for one in scores])[:-1])
        self.credit = float(sum(p.sum() for p, one in zip(shares, parts, strict=True) if one[2][0]))
        kept = [p >= _LEAST for p in shares]
        rest = float(sum(p[k].sum() for p, k in zip(shares, kept, strict=True)))
        self._mixture = [
            _Process(w, s, about[k], p[k] / rest, L, off[:, k])
            for p, k, (w, s, about, L, off) in zip(shares, kept, parts, strict=True)
            if k.any()
        ]

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        """Z (m, D) -> mean (m,), standard deviation (m,) of the function on the scale, without noise."""
        variance, points = self._parts.variance, Points(Z)
        G = self.prior.basis(Z[:, : self.prior.d])
        R, T = G[:, 1:], max(1, G.shape[1] - 2)
        C = R @ self._G[:, 1:].T / T
        K = variance * cross(self._theta, points, self._points, self._words)
        own, d = np.einsum("mt,mt->m", R, R) / T, len(self._words)
        matern = variance * (1.0 - np.exp(self._theta[-2]) * (1.0 - points.shares(d))) if d else variance
        first, second, means = np.zeros(len(Z)), np.zeros(len(Z)), _means(G)
        for one in self._mixture:
            k = one.s * (one.w * C + (1.0 - one.w) * K) + self._parts.level
            V = np.linalg.solve(one.L, k.T) if len(one.L) else np.zeros((0, len(Z)))
            mean = V.T @ one.off + means[:, one.about]
            spread = one.s * (one.w * own + (1.0 - one.w) * matern) + self._parts.level - np.einsum("nm,nm->m", V, V)
            first += mean @ one.shares
            second += np.maximum(spread, 1e-10) * one.shares.sum() + (mean * mean) @ one.shares
        std = np.sqrt(np.maximum(second - first * first, 1e-10))
        return self._level + self.unit * first, self.unit * std


@dataclass(frozen=True, slots=True)
class _Process:
    """One covariance about each of q means. about (q,): columns of `_means`; shares (q,) of the mixture; L (n, n):
    Cholesky factor; off (n, q): whitened distances from the means."""

    w: float
    s: float
    about: Floats
    shares: Floats
    L: Floats
    off: Floats


def _means(G: Floats) -> Floats:
    """G (n, 1 + T): mu and the deviations -> (n, 2 + T): zero, mu, and each task."""
    return np.hstack([np.zeros((len(G), 1)), G[:, :1], G[:, :1] + G[:, 1:]])


def _widened(theta: Floats, columns: Sequence[Column], d: int) -> Floats:
    """theta with lengths for columns that the tasks do not have."""
    more = columns[d:]
    lengths = [np.log(0.7) if column.kind in ("categorical", "choice") else np.log(0.4) for column in more]
    return np.concatenate([theta[:d], lengths, theta[d:]])
