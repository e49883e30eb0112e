"""Where earlier tasks failed, and what that says of a new one: agreement so far, monotone dominance, and demand.

Every task has a view: it fails at a point, or it does not. A demand, linear in the knobs, is fitted to each task, and
more tasks are drawn from how these demands vary: a new task may well need more, or less, than all before it. Views are
weighted by how well they agree with what was tried.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Floats = np.ndarray
_CLEAR = 0.02  # share of pairs against the trend from which a knob has none
_MOST = 400  # rows of a task that are looked at
_WRONG = 0.1  # chance that a task which is like this one still differs at a point
_GUESS = 0.25  # chance of failure beside a point that went well, and of success beside one that failed
CERTAIN = -1e9  # log-probability of success where a failure is certain
_EQUAL = 1e-10  # squared distance of points that are the same
UP, DOWN, FREE, FIXED = 1.0, -1.0, 0.0, 2.0


@dataclass(frozen=True, slots=True)
class TaskFeasibility:
    """Where earlier tasks failed. X (N, d): rows of all tasks; failed (N,) 0 or 1; task (N,): whose row it is.

    demands (S, D): weights of drawn tasks' demands; choices (d,): number of a knob's words, 0 where it has none.
    directions (d,): UP where more of a knob only ever brings failures, DOWN where less does, FREE where it changes
    nothing, FIXED where points with different values are not compared. A point that needs no more than one that
    went well goes well; one that needs no less than one that failed, fails.
    """

    X: Floats
    failed: Floats
    task: Floats
    directions: Floats
    choices: Floats
    demands: Floats

    @classmethod
    def of(cls, tasks: Sequence[tuple[Floats, Floats]], choices: Floats, rng: np.random.Generator) -> "TaskFeasibility":
        """tasks: (X (n, d), failed (n,) with NaN where that is unknown)."""
        kept = []
        for X, failed in tasks:
            known = np.flatnonzero(np.isfinite(failed))
            known = known[np.linspace(0, len(known) - 1, min(len(known), _MOST)).round().astype(int)]
            kept.append((X[known], failed[known]))
        directions = _directions(kept, choices > 0)
        task = np.concatenate([np.full(len(f), float(t)) for t, (_, f) in enumerate(kept)])
        X, failed = np.concatenate([x for x, _ in kept]), np.concatenate([f for _, f in kept])
        demands = _drawn([(_spelt(x, choices), f) for x, f in kept], rng) if failed.any() else np.zeros((0, 1))
        return cls(X, failed, task, directions, choices, demands)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> "TaskFeasibility":
        return cls(**{name: arrays[name] for name in cls.__slots__})

    def to_arrays(self) -> dict[str, Floats]:
        return {name: getattr(self, name) for name in self.__slots__}

    def needs(self, A: Floats, B: Floats) -> Floats:
        """(a, b): whether A needs no less than B."""
        return _needs(A, B, self.directions)

    def _by_task(self, Z: Floats) -> Floats:
        """(T, m): chance that each task would have succeeded at Z."""
        rows = []
        for t in np.unique(self.task):
            X, failed = self.X[self.task == t], self.failed[self.task == t] > 0.0
            gap = _squares(Z, X)
            near = np.argmin(gap, axis=1)
            chance = np.where(failed[near], _GUESS, 1.0 - _GUESS)
            chance[self.needs(X[~failed], Z).any(axis=0)] = 1.0
            chance[self.needs(Z, X[failed]).any(axis=1)] = 0.0
            exact = gap[np.arange(len(Z)), near] < _EQUAL
            chance[exact] = 1.0 - failed[near[exact]]
            rows.append(chance)
        return np.array(rows)

    def views(self, Z: Floats) -> Floats:
        """(V, m): chance of success at Z (m, d), as each task, and each drawn one, has it."""
        if not self.failed.any():
            return np.ones((1, len(Z)))
        return np.vstack([self._by_task(Z), self._by_demand(Z)])

    def log_chance(self, Z: Floats, views: Floats, X: Floats, failed: Floats, seen: Floats) -> Floats:
        """Z (m, d) with views (V, m), and what was tried: X (n, d), failed (n,), seen (V, n) -> (m,): log-probability
        of success.

        Views count by how well they agree with what was tried, and so does the one that no task is like this one,
        which knows only the neighbourhood of what was tried."""
        if not self.failed.any() and not failed.any():
            return np.zeros(len(Z))
        right = np.where(failed > 0.0, 1.0 - seen, seen)
        weights = np.log(_WRONG + (1.0 - 2.0 * _WRONG) * right).sum(axis=1)
        S = len(self.demands)
        own = len(views) - S
        weights -= np.log(np.concatenate([np.full(own, float(own)), np.full(S, float(max(S, 1)))]))
        weights = np.append(weights, math.log(_WRONG) + len(X) * math.log(0.5))
        weights = np.exp(weights - weights.max())
        chance = weights @ np.vstack([0.02 + 0.96 * views, self._around(Z, X, failed)]) / weights.sum()
        result: Floats = np.log(chance)
        if len(X):
            bad = failed > 0.0
            result[self.needs(X[~bad], Z).any(axis=0)] = 0.0
            result[self.needs(Z, X[bad]).any(axis=1)] = CERTAIN
        return result

    def _by_demand(self, Z: Floats) -> Floats:
        """(S, m): the same of the drawn tasks."""
        logits = self.demands @ _spelt(Z, self.choices).T
        result: Floats = 1.0 / (1.0 + np.exp(np.clip(logits, -30.0, 30.0)))
        return result

    def _around(self, Z: Floats, X: Floats, failed: Floats) -> Floats:
        """Chance of success by the distance to what was tried, of which failures count as near as they are."""
        if not len(X):
            return np.full(len(Z), 0.5)
        gap = np.nan_to_num(np.abs(Z[:, None, :] - X[None, :, :]), nan=0.5)
        weight = np.exp(-0.5 * (np.minimum(gap, 1.0) ** 2).sum(axis=2) / 0.15**2)
        good, bad = weight @ (failed <= 0.0), weight @ (failed > 0.0)
        result: Floats = (0.5 + good) / (1.0 + good + bad)
        return result


def _squares(A: Floats, B: Floats) -> Floats:
    """(a, b): squared distances, what is absent in the middle."""
    A, B = np.nan_to_num(A, nan=0.5), np.nan_to_num(B, nan=0.5)
    result: Floats = (A * A).sum(axis=1)[:, None] + (B * B).sum(axis=1) - 2.0 * A @ B.T
    return result


def _needs(A: Floats, B: Floats, directions: Floats) -> Floats:
    more = np.ones((len(A), len(B)), bool)
    for j, direction in enumerate(directions):
        if direction == FREE:
            continue
        off = A[:, None, j] - B[None, :, j]
        holds = np.abs(off) < 1e-9 if direction == FIXED else direction * off > -1e-9
        absent = np.isnan(A[:, j]), np.isnan(B[:, j])
        if absent[0].any() and absent[1].any():
            holds |= absent[0][:, None] & absent[1]
        more &= holds
    return more


def _directions(tasks: Sequence[tuple[Floats, Floats]], words: Floats) -> Floats:
    """By pairs of one task that differ in one knob; all FIXED where the rule that follows is broken."""
    d = len(words)
    up, down, pairs = np.zeros(d), np.zeros(d), np.zeros(d)
    for X, failed in tasks:
        filled = np.nan_to_num(X, nan=-9.0)
        for j in range(d):
            rest = np.delete(filled, j, axis=1)
            alike = np.all(np.abs(rest[:, None] - rest[None]) < 1e-9, axis=2)
            more = alike & (filled[:, None, j] > filled[None, :, j] + 1e-9)
            pairs[j] += more.sum()
            up[j] += (more & (failed[:, None] > failed[None])).sum()
            down[j] += (more & (failed[:, None] < failed[None])).sum()
    made = np.full(d, FIXED)
    made[~words & (up > 0) & (down <= _CLEAR * up)] = UP
    made[~words & (down > 0) & (up <= _CLEAR * down)] = DOWN
    made[(pairs >= 30) & (up == 0) & (down == 0)] = FREE
    broken = holds = 0
    for X, failed in tasks:
        more = _needs(X, X, made)
        broken += int((more & (failed[:, None] < failed[None])).sum())
        holds += int((more & (failed[:, None] > failed[None])).sum())
    return made if broken <= _CLEAR * (broken + holds) else np.full(d, FIXED)


_DRAWN = 200  # tasks that are drawn
_TIGHT = 0.002  # how strongly a task's weights are held at those of all tasks
_STEPS = 25


def _spelt(X: Floats, choices: Floats) -> Floats:
    """(n, D): numbers as they are, words as indicators, and a constant."""
    parts = [np.ones((len(X), 1))]
    for j, k in enumerate(choices.astype(int).tolist()):
        column = X[:, j : j + 1]
        parts.append((column == np.arange(k)).astype(float) if k else np.nan_to_num(column, nan=0.5))
    return np.concatenate(parts, axis=1)


def _logistic(F: Floats, y: Floats, centre: Floats, hold: Floats) -> Floats:
    """Weights of the most likely logistic regression, held at `centre` by a normal prior of precision `hold`; damped
    Newton steps."""
    beta = centre.copy()
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(F @ beta, -30.0, 30.0)))
        slope = F.T @ (p - y) + hold * (beta - centre)
        curvature = (F.T * np.maximum(p * (1.0 - p), 1e-4)) @ F + np.diag(hold)
        step = np.linalg.solve(curvature, slope)
        beta = beta - step * min(1.0, 5.0 / max(1e-9, float(np.abs(step).max())))
    return beta


def _drawn(tasks: Sequence[tuple[Floats, Floats]], rng: np.random.Generator) -> Floats:
    """(S, D): demands as they vary over the tasks, which share what they do not tell apart."""
    D, T = tasks[0][0].shape[1], len(tasks)
    hold = np.full(D, _TIGHT)
    F = np.concatenate([f for f, _ in tasks])
    own = np.repeat(np.eye(T), [len(f) for f, _ in tasks], axis=0)
    y = np.concatenate([y for _, y in tasks])
    pooled = _logistic(np.hstack([F, own]), y, np.zeros(D + T), np.full(D + T, _TIGHT))
    fitted = []
    for t, (f, failed) in enumerate(tasks):
        centre = pooled[:D].copy()
        centre[0] += pooled[D + t]
        fitted.append(_logistic(f, failed, centre, 25.0 * hold))
    betas = np.array(fitted)
    off = betas - betas.mean(axis=0)
    far = 1.0 / np.sqrt(rng.gamma(2.0, 0.5, size=(_DRAWN, 1)))  # Student's t of four degrees: some are far from all
    spread = far * rng.standard_normal((_DRAWN, T)) @ off * math.sqrt((T + 1.0) / T / max(1, T - 1))
    result: Floats = betas.mean(axis=0) + spread
    return result
