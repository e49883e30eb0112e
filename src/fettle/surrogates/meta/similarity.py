"""What its features say of a new task before any trial: which tasks it is like, and how large its figures are.

Features that all tasks have are compared on a standardised scale (of logarithms, where all are positive). Tasks that
are near count more in the prior's mean; how near is near is chosen for each metric by leaving out tasks, and where
features do not help, all tasks count alike. The level of a task (how fast a model is at all) is foretold by a linear
function of the features, for the first trial only: one figure says more of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fettle.surrogates.meta.anchors import Anchors

Floats = np.ndarray
_NEAR = (0.3, 0.6, 1.2)  # bandwidths, in units of the median distance between tasks
_BETTER = 0.9  # share of the squared error that has to be left for features to count
_RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # penalties
_TOLD = 0.5  # the same share, for levels
_LEAST_TOLD, _LEAST_SQUARE = 6, 0.01  # tasks; share of the squared error that is expected at least


@dataclass(frozen=True, slots=True)
class Likeness:
    """shares (T,): how much each task counts, summing to 1; None: all alike. level: where the figures of the new task
    lie, and the standard error; None: anywhere."""

    shares: Floats | None = None
    level: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Features:
    """names (q,); log (q,); middle, spread (q,); points (T, q): those of the tasks, standardised."""

    names: tuple[str, ...]
    log: tuple[bool, ...]
    middle: Floats
    spread: Floats
    points: Floats

    @classmethod
    def of(cls, given: Sequence[Mapping[str, float] | None]) -> "Features | None":
        """None where no feature is known of every task, and differs between them."""
        shared = set.intersection(*(set(one or {}) for one in given))
        names = [name for name in sorted(shared) if len({(one or {})[name] for one in given}) > 1]
        if not names or len(given) < 3:
            return None
        X = np.array([[(one or {})[name] for name in names] for one in given])
        log: Floats = np.min(X, axis=0) > 0.0
        X = np.where(log, np.log(np.where(log, X, 1.0)), X)
        middle, spread = X.mean(axis=0), X.std(axis=0)
        spread[spread == 0.0] = 1.0
        return cls(tuple(names), tuple(bool(log[j]) for j in range(len(names))), middle, spread, (X - middle) / spread)

    def place(self, features: Mapping[str, float] | None) -> Floats | None:
        """(q,): where a new task stands; None where one of the names is missing, or of no logarithm."""
        if features is None or not set(self.names) <= features.keys():
            return None
        raw = [float(features[name]) for name in self.names]
        if any(log and x <= 0.0 for log, x in zip(self.log, raw, strict=True)):
            return None
        x = np.array([np.log(x) if log else x for log, x in zip(self.log, raw, strict=True)])
        result: Floats = (x - self.middle) / self.spread
        return result

    def weights(self, place: Floats, tasks: Sequence[int], bandwidth: float) -> Floats:
        """Shares (len(tasks),) of some tasks by their distance from a place."""
        squares = ((self.points[list(tasks)] - place) ** 2).sum(axis=1)
        near = np.exp(-0.5 * (squares - squares.min()) / bandwidth**2)
        result: Floats = near / near.sum()
        return result

    def bandwidth(self, anchors: Anchors, tasks: Sequence[int]) -> float:
        """That by which the other tasks best foretell one that is left out; 0 where features do not help."""
        gaps = np.sqrt(((self.points[:, None] - self.points[None]) ** 2).sum(axis=2))
        unit = float(np.median(gaps[np.triu_indices(len(gaps), 1)])) or 1.0
        plain = self._error(anchors, tasks, 0.0)
        errors = [self._error(anchors, tasks, unit * near) for near in _NEAR]
        best = int(np.argmin(errors))
        return unit * _NEAR[best] if errors[best] < _BETTER * plain else 0.0

    def _error(self, anchors: Anchors, tasks: Sequence[int], bandwidth: float) -> float:
        total = 0.0
        for t, task in enumerate(tasks):
            rest = [s for s in range(len(tasks)) if s != t]
            even = np.full(len(rest), 1.0 / len(rest))
            p = self.weights(self.points[task], [tasks[s] for s in rest], bandwidth) if bandwidth else even
            known = anchors.known[t]
            off = anchors.R[t, known] - p @ anchors.R[rest][:, known]
            total += float(off.var())
        return total

    def levels(self, levels: Floats, tasks: Sequence[int]) -> Floats:
        """What `level_at` needs to foretell the levels (T,) of tasks by their features; empty where these are no use.
        Ridge regression, its penalty by the errors at left-out tasks, which need no further fits (Allen 1974,
        doi:10.1080/00401706.1974.10489157)."""
        T, middle, mean = len(tasks), self.points[list(tasks)].mean(axis=0), float(levels.mean())
        if T < _LEAST_TOLD:
            return np.empty(0)
        X, y = self.points[list(tasks)] - middle, levels - mean
        found = []
        for penalty in _RIDGES:
            inverse = np.linalg.inv(X.T @ X + penalty * np.eye(X.shape[1]))
            hat = X @ inverse @ X.T + 1.0 / T
            off = (y - hat @ y) / (1.0 - np.diag(hat))
            found.append((float((off * off).mean()), inverse))
        square, inverse = min(found, key=lambda pair: pair[0])
        plain = float(y @ y) * T / (T - 1) ** 2  # by the mean of the others
        if square >= _TOLD * plain:
            return np.empty(0)
        square = max(square, _LEAST_SQUARE * plain)
        return np.concatenate([inverse @ X.T @ y, middle, [mean, square], inverse.ravel()])

    def likeness(
        self, features: Mapping[str, float] | None, tasks: Sequence[int], bandwidth: float, line: Floats
    ) -> Likeness:
        """Of a new task. bandwidth, line: what `bandwidth` and `levels` gave for these tasks."""
        place = self.place(features)
        if place is None:
            return Likeness()
        shares = self.weights(place, tasks, bandwidth) if bandwidth else None
        return Likeness(shares, level_at(line, place) if len(line) else None)

    def to_json(self) -> dict[str, Any]:
        figures = {name: getattr(self, name).tolist() for name in ("middle", "spread", "points")}
        return {"names": list(self.names), "log": list(self.log), **figures}

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> "Features":
        figures = (np.array(form[name]) for name in ("middle", "spread", "points"))
        return cls(tuple(form["names"]), tuple(form["log"]), *figures)


def level_at(line: Floats, place: Floats) -> tuple[float, float]:
    """The level, and its standard error, by what `Features.levels` gave: the larger, the further the place is from all
    tasks."""
    q = len(place)
    slope, middle, (mean, square), inverse = np.split(line, [q, 2 * q, 2 * q + 2])
    off = place - middle
    return float(mean + slope @ off), math.sqrt(square * (1.0 + float(off @ inverse.reshape(q, q) @ off)))


def tilted(anchors: Anchors, likeness: Likeness) -> Anchors:
    """The same tasks about a weighted mean, and at the level that was foretold."""
    anchors, shares = replace(anchors, foretold=likeness.level), likeness.shares
    if shares is None:
        return anchors
    shift = shares @ anchors.R
    level = float(shares @ anchors.levels) - float(anchors.levels.mean())
    return replace(anchors, mean=anchors.mean + shift, R=anchors.R - shift, middle=level)
