"""Where trials fail: one latent Gaussian process for each failure class, and what earlier tasks tell of it.

The latent function is regressed on -1 (went well) and +1 (failed this way), and squashed (least-squares
classification; Rasmussen & Williams 2006, section 6.5). One or two failures are enough to keep a search away from
their surroundings; how far these reach, and along which columns, is learned as any process is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.surrogates.acquisition import Valued

Floats = np.ndarray
_SOFT = 0.3  # standard deviation of a label about the latent function
NO_FAULT = ("lost",)  # failures that say nothing of the params


def classes(failure: Sequence[str]) -> list[str]:
    """The failure classes that params can be blamed for, in order."""
    return sorted({name for name in failure if name and name not in NO_FAULT})


def labels(failure: Sequence[str], kind: str) -> Floats:
    """(n,): +1 where a trial failed that way."""
    return np.array([1.0 if name == kind else -1.0 for name in failure])


def log_spared(mean: Floats, std: Floats) -> Valued:
    """Log-probability that a latent value means no failure, and its derivatives by mean and std."""
    spread = np.sqrt(std * std + _SOFT * _SOFT)
    return _log_below(mean, spread, 0.0, by_spread=std / spread)


def log_within(mean: Floats, std: Floats, bound: float) -> Valued:
    """Log-probability that a metric is at most `bound`, and its derivatives by mean and std."""
    return _log_below(mean, std, bound, by_spread=np.ones_like(std))


def _log_below(mean: Floats, spread: Floats, bound: float, *, by_spread: Floats) -> Valued:
    from scipy.special import log_ndtr

    z = (bound - mean) / spread
    value = log_ndtr(z)
    by_z = np.exp(np.minimum(-0.5 * z * z - 0.5 * math.log(2.0 * math.pi) - value, 50.0))
    return value, -by_z / spread, -by_z * z / spread * by_spread


_CLEAR = 0.02  # share of pairs against the trend from which a knob has none
_MOST = 400  # rows of a task that are looked at
_WRONG = 0.1  # chance that a task which is like this one still differs at a point
_GUESS = 0.25  # chance of failure beside a point that went well, and of success beside one that failed
_SURE = 1e-6
UP, DOWN, FREE, FIXED = 1.0, -1.0, 0.0, 2.0


@dataclass(frozen=True, slots=True)
class TaskFeasibility:
    """Where earlier tasks failed. X (N, d): rows of all tasks; failed (N,) 0 or 1; task (N,): whose row it is.

    directions (d,): UP where more of a knob only ever brings failures, DOWN where less does, FREE where it changes
    nothing, FIXED where points with different values are not compared. A point that needs no more than one that
    went well goes well; one that needs no less than one that failed, fails.
    """

    X: Floats
    failed: Floats
    task: Floats
    directions: Floats

    @classmethod
    def of(cls, tasks: Sequence[tuple[Floats, Floats]], words: Floats) -> "TaskFeasibility":
        """tasks: (X (n, d), failed (n,) with NaN where that is unknown)."""
        kept = []
        for X, failed in tasks:
            known = np.flatnonzero(np.isfinite(failed))
            known = known[np.linspace(0, len(known) - 1, min(len(known), _MOST)).round().astype(int)]
            kept.append((X[known], failed[known]))
        directions = _directions(kept, words)
        task = np.concatenate([np.full(len(f), float(t)) for t, (_, f) in enumerate(kept)])
        return cls(np.concatenate([x for x, _ in kept]), np.concatenate([f for _, f in kept]), task, directions)

    def to_arrays(self) -> dict[str, Floats]:
        return {"X": self.X, "failed": self.failed, "task": self.task, "directions": self.directions}

    def needs(self, A: Floats, B: Floats) -> Floats:
        """(a, b): whether A needs no less than B."""
        return _needs(A, B, self.directions)

    def _by_task(self, Z: Floats) -> Floats:
        """(T, m): chance that each task would have succeeded at Z."""
        rows = []
        for t in np.unique(self.task):
            X, failed = self.X[self.task == t], self.failed[self.task == t] > 0.0
            gap = np.nansum(np.abs(Z[:, None, :] - X[None, :, :]), axis=2)
            near = np.argmin(gap, axis=1)
            chance = np.where(failed[near], _GUESS, 1.0 - _GUESS)
            chance[self.needs(X[~failed], Z).any(axis=0)] = 1.0
            chance[self.needs(Z, X[failed]).any(axis=1)] = 0.0
            exact = gap[np.arange(len(Z)), near] < 1e-9
            chance[exact] = 1.0 - failed[near[exact]]
            rows.append(chance)
        return np.array(rows)

    def log_chance(self, Z: Floats, X: Floats, failed: Floats) -> Floats:
        """Z (m, d), and what was tried: X (n, d), failed (n,) -> (m,): log-probability of success.

        Tasks count by how well they agree with what was tried, and so does the view that none of them is alike, which
        knows only the neighbourhood of what was tried."""
        if not self.failed.any() and not failed.any():
            return np.zeros(len(Z))
        tasks = self._by_task(Z)
        seen = self._by_task(X) if len(X) else np.zeros((len(tasks), 0))
        right = np.where(failed > 0.0, 1.0 - seen, seen)
        weights = np.concatenate([np.log(_WRONG + (1.0 - 2.0 * _WRONG) * right).sum(axis=1), [len(X) * math.log(0.5)]])
        weights = np.exp(weights - weights.max())
        weights[-1] *= _WRONG * len(tasks)
        views = np.vstack([0.02 + 0.96 * tasks, self._around(Z, X, failed)])
        chance = weights @ views / weights.sum()
        if len(X):
            bad = failed > 0.0
            chance[self.needs(X[~bad], Z).any(axis=0)] = 1.0
            chance[self.needs(Z, X[bad]).any(axis=1)] = _SURE
        result: Floats = np.log(np.maximum(chance, _SURE))
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


def _needs(A: Floats, B: Floats, directions: Floats) -> Floats:
    more = np.ones((len(A), len(B)), bool)
    for j, direction in enumerate(directions):
        a, b = A[:, None, j], B[None, :, j]
        if direction == FREE:
            continue
        same = (np.abs(a - b) < 1e-9) | (np.isnan(a) & np.isnan(b))
        more &= same if direction == FIXED else same | (direction * (a - b) > 0.0)
    return more


def _directions(tasks: Sequence[tuple[Floats, Floats]], words: Floats) -> Floats:
    """By pairs of one task that differ in one knob; all FIXED where the rule that follows is broken."""
    d = len(words)
    up, down, pairs = np.zeros(d), np.zeros(d), np.zeros(d)
    for X, failed in tasks:
        filled = np.nan_to_num(X, nan=-9.0)
        for j in range(d):
            if words[j]:
                continue
            rest = np.delete(filled, j, axis=1)
            alike = np.all(np.abs(rest[:, None] - rest[None]) < 1e-9, axis=2)
            more = alike & (filled[:, None, j] > filled[None, :, j] + 1e-9)
            pairs[j] += more.sum()
            up[j] += (more & (failed[:, None] > failed[None])).sum()
            down[j] += (more & (failed[:, None] < failed[None])).sum()
    made = np.full(d, FIXED)
    made[(up > 0) & (down <= _CLEAR * up)] = UP
    made[(down > 0) & (up <= _CLEAR * down)] = DOWN
    made[(pairs >= 30) & (up == 0) & (down == 0)] = FREE
    broken = holds = 0
    for X, failed in tasks:
        more = _needs(X, X, made)
        broken += int((more & (failed[:, None] < failed[None])).sum())
        holds += int((more & (failed[:, None] > failed[None])).sum())
    return made if broken <= _CLEAR * (broken + holds) else np.full(d, FIXED)
