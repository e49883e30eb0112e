"""Told trials from best to worst: constrained dominance, fronts, crowding (Deb et al. 2002, doi:10.1109/4235.996017).

Feasible trials come first, front by front, then infeasible ones by their total violation. Trials that say too
little stay out: failed ones, those whose losses are missing, and stopped ones, whose losses are only lower bounds
(what stopped them was that they looked worse than others).
"""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from fettle.core.pareto import front
from fettle.core.trial import Outcome

_Key = tuple[float, float, float, int]  # infeasible, violation, loss, trial number


def measured(outcome: Outcome) -> bool:
    """Whether the trial can be ranked. Where a constraint is violated the losses need not be known."""
    if not outcome.ok or any(sign > 0 for sign in outcome.censored):
        return False
    return outcome.order[0] > 0.0 or all(map(math.isfinite, outcome.losses))


class Ranking:
    """Fold of outcomes by trial number; a later outcome replaces the earlier."""

    def __init__(self, objectives: int) -> None:
        self._keys: dict[int, _Key] = {}  # of measured trials, in the order of their first tell
        self._losses: dict[int, tuple[float, ...]] = {}  # of feasible ones
        self._sorted: list[_Key] = []
        self._several = objectives > 1

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, number: int, outcome: Outcome) -> None:
        if (old := self._keys.pop(number, None)) is not None:
            del self._sorted[bisect_left(self._sorted, old)]
            self._losses.pop(number, None)
        if measured(outcome):
            self._keys[number] = key = (*outcome.order, number)
            insort(self._sorted, key)
            if self._several and key[0] == 0.0:
                self._losses[number] = outcome.losses

    def best(self, n: int) -> list[int]:
        """Numbers of the n best measured trials (fewer where there are fewer), the best first.

        Several objectives: within a front those with the most room around them come first.
        """
        if not self._several:
            return [key[3] for key in self._sorted[:n]]
        numbers = np.array(list(self._losses), dtype=int)
        order = numbers[by_front(np.array(list(self._losses.values()), dtype=float), n)].tolist() if n else []
        first = len(self._losses)  # feasible ones are sorted first
        return order + [key[3] for key in self._sorted[first : first + n - len(order)]]


def ordered(outcomes: Sequence[Outcome], objectives: int) -> list[int]:
    """All places from best to worst: measured ones, then stopped ones, then failures, each in the given order."""
    ranking = Ranking(objectives)
    for place, outcome in enumerate(outcomes):
        ranking.put(place, outcome)
    best = ranking.best(len(outcomes))
    others = sorted(set(range(len(outcomes))) - set(best), key=lambda i: (not outcomes[i].ok, i))
    return best + others


def by_front(losses: np.ndarray, n: int) -> np.ndarray:
    """losses (m, k) -> places (at most n,) front by front, each by falling crowding distance."""
    left, found, count = np.arange(len(losses)), [], 0
    while len(left) and count < n:
        here = (_front_of_two if losses.shape[1] == 2 else front)(losses[left])
        members = left[here]
        found.append(members[np.argsort(-crowding(losses[members]), kind="stable")])
        count += len(members)
        left = np.delete(left, here)
    return np.concatenate(found)[:n] if found else np.empty(0, dtype=int)


def _front_of_two(losses: np.ndarray) -> np.ndarray:
    """As `pareto.front` for (m, 2), by one sort and a running minimum."""
    order = np.lexsort((losses[:, 1], losses[:, 0]))
    a, b = losses[order].T
    new = np.ones(len(order), dtype=bool)  # where a row differs from the one before: equal points share their fate
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    kept = np.ones(len(order), dtype=bool)
    kept[1:] = b[1:] < np.minimum.accumulate(b)[:-1]
    return np.sort(order[kept[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]])


def crowding(losses: np.ndarray) -> np.ndarray:
    """Crowding distance (m,) of a front's points (m, k): the sum over objectives of the gap between both
    neighbours, as a share of the front's range; infinite at the ends (Deb et al. 2002, section III.B)."""
    m, k = losses.shape
    total = np.zeros(m)
    for j in range(k):
        order = np.argsort(losses[:, j], kind="stable")
        y = losses[order, j]
        total[order[[0, -1]]] = np.inf
        if y[-1] > y[0]:
            total[order[1:-1]] += (y[2:] - y[:-2]) / (y[-1] - y[0])
    return total
