"""What all tasks say of one metric, on common points: filled in where a task has no figure, and taken apart.

    y_t(x) = a_t + b_t (mu(x) + delta_t(x))

mu is the mean over the tasks, a_t and b_t the level and the unit of a task (b_t is 1 for metrics in logarithms), and
delta_t its deviation, a Gaussian process. Where task t was measured its figure counts; elsewhere its process says what
to expect, and how much that counts in the mean: nothing far from all of its points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.core.domains import Column
from fettle.surrogates.gp import GP
from fettle.surrogates.kernel import NOISE, PRODUCT, SUM, Points, cross, unordered
from fettle.surrogates.meta.tables import keys

Floats = np.ndarray
_MOST_SHARED, _MOST = 4000, 1200  # anchors: that several tasks have, and otherwise
_GIVEN = 400  # points of one task that its process is given
_LEARNED_TASKS, _LEARNED_POINTS = 6, 70
_ROUNDS = 6
_NOISE = 0.01  # of a task's deviation, as a share of its variance
_KEPT = 20_000  # interpolated values
_DIGITS = 10
_INTERPOLATED = 400  # anchors that values elsewhere are interpolated from


@dataclass(frozen=True, slots=True)
class Sample:
    """One task's figures of one metric, transformed. X (n, d); z (n,): (y - level) / unit."""

    X: Floats
    z: Floats
    level: float
    unit: float


def sample(X: Floats, y: Floats, *, own_unit: bool) -> Sample | None:
    """None where there are fewer than two figures. own_unit: the standard deviation becomes 1."""
    known = np.isfinite(y)
    if known.sum() < 2:
        return None
    values = y[known]
    unit = float(values.std()) or 1.0
    unit = unit if own_unit else 1.0
    level = float(values.mean())
    return Sample(X[known], (values - level) / unit, level, unit)


@dataclass(frozen=True, slots=True)
class Anchors:
    """A (M, d); mean (M,): mu; R (T, M): the tasks' deviations; levels, units (T,); theta (d + 4,): the kernel of
    the deviations, with k(x, x) = 1; known (T, M): where the task was measured itself; middle: how far the level of a
    new task is expected from the mean of the levels; foretold: what is known of its level before any
    figure, and the standard error."""

    A: Floats
    mean: Floats
    R: Floats
    levels: Floats
    units: Floats
    theta: Floats
    known: Floats
    middle: float = 0.0
    foretold: tuple[float, float] | None = None

    @property
    def level(self) -> float:
        """Where the level of a new task is expected."""
        return float(self.levels.mean()) + self.middle

    @property
    def variance(self) -> float:
        """Of a deviation, where tasks were measured."""
        T = len(self.R)
        if T < 2 or not self.known.any():
            return max(0.25 * float(self.mean.var()), 1e-6)
        return max(float((self.R[self.known] ** 2).mean()) * T / (T - 1), 1e-6)


def learned(samples: Sequence[Sample], columns: Sequence[Column], rng: np.random.Generator) -> Anchors:
    """Anchors from at least one task."""
    A = _chosen([s.X for s in samples], rng)
    index = {key: i for i, key in enumerate(keys(A))}
    found = np.full((len(samples), len(A)), np.nan)
    for t, s in enumerate(samples):
        places = np.array([index.get(key, -1) for key in keys(s.X)])
        found[t, places[places >= 0]] = s.z[places >= 0]
    theta = _unit(_centre(columns))
    mean, level = _decomposed(found, A, theta, unordered(columns), rounds=2)[:2]
    theta = _theta(found, mean, level, A, columns, rng)
    mean, level, filled = _decomposed(found, A, theta, unordered(columns), rounds=_ROUNDS)
    units = np.array([s.unit for s in samples])
    levels = np.array([s.level for s in samples]) + level * units
    return Anchors(A, mean, filled - level[:, None] - mean, levels, units, theta, np.isfinite(found))


def _chosen(sets: Sequence[Floats], rng: np.random.Generator) -> Floats:
    """The union of the points; of too many, those that most tasks have, and a random part of the others."""
    places: dict[bytes, int] = {}
    rows, count = list[Floats](), list[int]()
    for X in sets:
        for key, x in zip(keys(X), X, strict=True):
            if key not in places:
                places[key] = len(rows)
                rows.append(x)
                count.append(0)
            count[places[key]] += 1
    A, n = np.array(rows), np.array(count)
    most = _MOST_SHARED if len(sets) > 1 and n.mean() >= 1.5 else _MOST
    if len(A) <= most:
        return A
    order = np.lexsort((rng.random(len(A)), -n))[:most]
    result: Floats = A[np.sort(order)]
    return result


def _decomposed(
    found: Floats, A: Floats, theta: Floats, words: Floats, *, rounds: int
) -> tuple[Floats, Floats, Floats]:
    """mu (M,), levels (T,) of z, filled (T, M): alternating between the mean and the tasks' processes."""
    T, M = found.shape
    known = np.isfinite(found)
    weights = known.astype(float)
    maps: list[tuple[Floats, Floats, Floats]] = []
    for t in range(T):
        own, missing = np.flatnonzero(known[t]), np.flatnonzero(~known[t])
        own = own[np.linspace(0, len(own) - 1, min(len(own), _GIVEN)).round().astype(int)]
        given = Points(A[own])
        K = cross(theta, given, given, words) + _NOISE * np.eye(len(own))
        k = cross(theta, Points(A[missing]), given, words)
        W = np.linalg.solve(K, k.T).T
        weights[t, missing] = np.clip(np.einsum("mn,mn->m", W, k), 1e-3, 1.0) ** 2
        maps.append((own, missing, W))
    level, mean = np.zeros(T), np.zeros(M)
    filled = np.where(known, found, 0.0)
    for _ in range(rounds):
        for t, (own, missing, W) in enumerate(maps):
            filled[t, missing] = level[t] + mean[missing] + W @ (found[t, own] - level[t] - mean[own])
        mean = (weights * (filled - level[:, None])).sum(axis=0) / weights.sum(axis=0)
        off = (weights * (filled - mean)).sum(axis=1) / weights.sum(axis=1)
        level = off - off.mean()
    return mean, level, filled


def _theta(
    found: Floats,
    mean: Floats,
    level: Floats,
    A: Floats,
    columns: Sequence[Column],
    rng: np.random.Generator,
) -> Floats:
    """The geometric mean of what some tasks' deviations make likely."""
    learned = []
    for t in rng.permutation(len(found))[:_LEARNED_TASKS].tolist():
        known = np.flatnonzero(np.isfinite(found[t]))
        if len(known) < 5:
            continue
        some = rng.permutation(known)[:_LEARNED_POINTS]
        residual = found[t, some] - (level[t] + mean[some] if len(found) > 1 else 0.0)
        std = float(residual.std())
        if std > 1e-9:
            learned.append(GP().learn(A[some], (residual - residual.mean()) / std, columns)[0])
    return _unit(np.mean(learned, axis=0) if learned else _centre(columns))


def _centre(columns: Sequence[Column]) -> Floats:
    """The centre of the hyper-parameters' prior."""
    d, gp = len(columns), GP()
    lengths = np.full(d, np.log(gp.length * np.sqrt(d)) if d else 0.0)
    lengths[unordered(columns)] = np.log(gp.word)
    result: Floats = np.concatenate([lengths, [0.0, 0.0, -1.0, np.log(gp.noise)]])
    return result


def _unit(theta: Floats) -> Floats:
    """theta with k(x, x) = 1."""
    theta = theta.copy()
    theta[[PRODUCT, SUM]] -= np.logaddexp(theta[PRODUCT], theta[SUM])
    theta[NOISE] = np.log(_NOISE)
    return theta


class Basis:
    """mu and the deviations anywhere: what processes with this prior are built on."""

    def __init__(self, anchors: Anchors, words: Floats) -> None:
        self.anchors, self._words = anchors, words
        self._index = dict[bytes, int]()
        self._G = np.empty((0, 0))
        self._forget()
        self._some = np.linspace(0, len(anchors.A) - 1, min(len(anchors.A), _INTERPOLATED)).round().astype(int)
        self._solved: Floats | None = None  # cache

    def __call__(self, Z: Floats) -> Floats:
        """Z (m, d) -> (m, 1 + T). What was worked out once is kept: a finite space is asked for again and again."""
        names = keys(Z)
        new = list(dict.fromkeys(name for name in names if name not in self._index))
        if new:
            if len(self._G) + len(new) > len(self.anchors.A) + _KEPT:
                self._forget()
                new = list(dict.fromkeys(name for name in names if name not in self._index))
            first = {name: i for i, name in reversed(list(enumerate(names)))}
            values = self._interpolated(Z[[first[name] for name in new]])
            self._index.update({name: len(self._G) + i for i, name in enumerate(new)})
            self._G = np.concatenate([self._G, values])
        result: Floats = self._G[[self._index[name] for name in names]]
        return result

    def _forget(self) -> None:
        self._index = {key: i for i, key in enumerate(keys(self.anchors.A))}
        self._G = np.concatenate([self.anchors.mean[:, None], self.anchors.R.T], axis=1)

    def _interpolated(self, Z: Floats) -> Floats:
        given = Points(self.anchors.A[self._some])
        G = self._G[self._some]
        middle = G.mean(axis=0)
        if self._solved is None:
            K = cross(self.anchors.theta, given, given, self._words) + _NOISE * np.eye(len(self._some))
            self._solved = np.linalg.solve(K, G - middle)
        values = middle + cross(self.anchors.theta, Points(Z), given, self._words) @ self._solved
        result: Floats = np.round(values, _DIGITS)  # a row must not depend on those that it is worked out with
        return result
