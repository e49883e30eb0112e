"""A Gaussian process whose prior is what earlier tasks have in common (HyperBO; Wang et al. 2021, arXiv:2109.08215).

    y(x) = a + b (mu(x) + delta(x)),   delta ~ GP(0, s (w C + (1 - w) v k))

mu: mean of the tasks; C: their empirical covariance; v: its mean variance; k: Matérn; a: any level. Several (w, s) are
mixed by the evidence of the points so far, and by what was likely when each task in turn was left out. One more process
knows nothing of the tasks: its share is the prior's missing credit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.core.domains import Column
from fettle.surrogates.kernel import Points, cross, unordered
from fettle.surrogates.meta.anchors import Anchors, Basis

Floats = np.ndarray
SHARES = (0.2, 0.6, 0.9)  # w
FACTORS = (0.35, 1.0, 2.8)  # s
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3)  # variance, as a share of v
UNITS = np.array([-1.2, -0.8, -0.4, -0.2, 0.0, 0.2, 0.4, 0.8, 1.2])  # log b, about its mean over the tasks
_UNLIKE = 0.1  # credit of the process without tasks, before any trial
_WIDE = 100.0  # variance of the level, in units of the tasks' variance
_SIZES, _DRAWS, _LEFT_OUT = (4, 10), 6, 12
_LEAST = 1e-3  # share of a mixture from which a process is worth its time
_SAME_UNIT = 0.15  # sd of log b below which b is known


@dataclass(frozen=True, slots=True)
class Hyper:
    """What leaving out tasks has taught. weights (w, s): prior shares of the mixture; noise: a share of v;
    unit, unit_sd: mean and standard deviation of log b."""

    weights: Floats
    noise: float
    unit: float
    unit_sd: float


def left_out(anchors: Anchors, columns: Sequence[Column], rng: np.random.Generator) -> Hyper:
    """Evidence of small subsets of each task under the prior that the other tasks make."""
    T, words = len(anchors.R), unordered(columns)
    logs = np.log(anchors.units)
    slopes = []
    evidence = []
    variance = anchors.variance
    for t in rng.permutation(T)[:_LEFT_OUT].tolist() if T > 1 else []:
        others = [s for s in range(T) if s != t]
        mean = anchors.mean + anchors.R[others].mean(axis=0)
        R = anchors.R[others] - anchors.R[others].mean(axis=0)
        known = np.flatnonzero(anchors.known[t])
        z = anchors.mean[known] + anchors.R[t, known]
        centred = mean[known] - mean[known].mean()
        slopes.append(max(0.1, float(centred @ z) / max(float(centred @ centred), 1e-12)))
        for size in _SIZES:
            for _ in range(_DRAWS):
                some = rng.permutation(len(known))[:size]
                parts = Parts.of(
                    Points(anchors.A[known[some]]), mean[known[some]], R[:, known[some]].T, anchors.theta, words, variance
                )
                evidence.append([
                    [[parts.evidence(z[some], w, s, noise) for s in FACTORS] for w in SHARES] for noise in NOISES
                ])  # fmt: skip
    if not evidence:
        return Hyper(np.full((len(SHARES), len(FACTORS)), 1.0 / 9.0), 0.03, float(logs.mean()), 1.0)
    table = np.array(evidence)  # (subsets, noises, shares, factors)
    best = int(np.argmax(np.logaddexp.reduce(table, axis=(2, 3)).sum(axis=0)))
    likely = np.exp(table[:, best] - table[:, best].max(axis=(1, 2), keepdims=True))
    weights = (likely / likely.sum(axis=(1, 2), keepdims=True)).mean(axis=0)
    spread = float(np.sqrt(np.var(logs) + np.var(np.log(slopes))))
    return Hyper(weights, NOISES[best], float(logs.mean()), spread if spread > _SAME_UNIT else 0.0)


@dataclass(frozen=True, slots=True)
class Parts:
    """Prior of n points: mean (n,), C (n, n) and v k (n, n)."""

    mean: Floats
    C: Floats
    K: Floats
    variance: float

    @classmethod
    def of(cls, points: Points, mean: Floats, R: Floats, theta: Floats, words: Floats, variance: float) -> "Parts":
        """R (n, T): deviations at the points."""
        K = variance * cross(theta, points, points, words)
        return cls(mean, R @ R.T / max(1, R.shape[1] - 1), K, variance)

    def covariance(self, w: float, s: float, noise: float) -> Floats:
        result: Floats = s * (w * self.C + (1.0 - w) * self.K) + _WIDE * self.variance
        result[np.diag_indices(len(result))] += noise * self.variance
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
        self._parts = Parts.of(self._points, mean, self._G[:, 1:], self._theta, self._words, variance)
        self._total = float(prior.anchors.mean.var()) + variance
        self.unit = self._unit(y)
        self._level = float(prior.anchors.levels.mean())
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
                weight = (1.0 - _UNLIKE) * (0.9 * hyper.weights[i, j] + 0.1 / hyper.weights.size)
                made.append((weight, w, s, True))
        made += [(_UNLIKE / 3.0, 0.0, f * self._total / self._parts.variance, False) for f in (0.25, 1.0, 4.0)]
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
            k = s * (w * C + (1.0 - w) * K) + _WIDE * variance
            V = np.linalg.solve(L, k.T) if len(off) else np.zeros((0, len(Z)))
            mean = V.T @ off + (G[:, 0] if knows else 0.0)
            spread = s * (w * own + (1.0 - w) * matern) + _WIDE * variance - np.einsum("nm,nm->m", V, V)
            first += share * mean
            second += share * (np.maximum(spread, 1e-10) + mean * mean)
        std = np.sqrt(np.maximum(second - first * first, 1e-10))
        return self._level + self.unit * first, self.unit * std


def _widened(theta: Floats, columns: Sequence[Column], d: int) -> Floats:
    """theta with lengths for columns that the tasks do not have."""
    more = columns[d:]
    lengths = [np.log(0.7) if column.kind in ("categorical", "choice") else np.log(0.4) for column in more]
    return np.concatenate([theta[:d], lengths, theta[d:]])
