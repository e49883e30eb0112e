"""Told trials as arrays, for algorithms that model them. A fold: a later tell of a trial replaces the earlier."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial

Floats = np.ndarray


@dataclass(slots=True)
class Row:
    """One trial. excess: by constraint, how far above its bound a metric is (negative: within), in units of the
    bound; NaN where unknown. failure: "" unless it failed."""

    params: Params
    encoded: Floats
    losses: tuple[float, ...]
    noise: tuple[float, ...]
    censored: tuple[int, ...]
    excess: tuple[float, ...]
    failure: str
    cost: float
    start_s: float


@dataclass(slots=True)
class History:
    """The trials of a space in the order of their first tell. version: how often an earlier tell was replaced. apart:
    costs are seconds, and those of a start are kept apart."""

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    cost: str = ""  # the metric, or "wall_s", that says what a trial cost
    apart: bool = False
    rows: list[Row] = field(default_factory=list)
    version: int = 0
    _places: dict[int, int] = field(default_factory=dict)
    _arrays: "Arrays | None" = None

    def put(self, trial: Trial, outcome: Outcome) -> None:
        """Params outside the space (a baseline may be) are left out."""
        if not self.space.contains(trial.params):
            return
        row = self._row(trial, outcome)
        self._arrays = None
        if (place := self._places.get(trial.number)) is not None:
            self.rows[place] = row
            self.version += 1
        else:
            self._places[trial.number] = len(self.rows)
            self.rows.append(row)

    def _row(self, trial: Trial, outcome: Outcome) -> Row:
        k = len(self.objectives)
        losses = tuple(outcome.losses)
        failure = "" if outcome.ok else outcome.failure or "other"
        if not failure and not all(map(math.isfinite, losses)) and not self._infeasible(outcome):
            failure = "nan"  # complete, but without its figures
        value = outcome.metrics.get(self.cost, trial.timings.get(self.cost, math.nan)) if self.cost else math.nan
        start_s = trial.timings.get("start_s", 0.0) if self.apart else 0.0
        return Row(
            trial.params,
            self.space.encode([trial.params])[0],
            losses,
            tuple(outcome.noise) or (math.nan,) * k,
            tuple(outcome.censored) or (0,) * k,
            tuple(_excess(c, outcome.metrics.get(c.metric, math.nan)) for c in self.constraints),
            failure,
            value - start_s,
            start_s,
        )

    def _infeasible(self, outcome: Outcome) -> bool:
        """Where a constraint is broken the losses need not be known."""
        return any(v > 0 for v in outcome.violations)

    def numbers(self) -> list[int]:
        return list(self._places)

    @property
    def arrays(self) -> "Arrays":
        if self._arrays is None:
            self._arrays = Arrays.of(self)
        return self._arrays


def _excess(constraint: Constraint, value: float) -> float:
    bound = constraint.upper if constraint.upper is not None else constraint.lower
    assert bound is not None
    return (value - bound if constraint.upper is not None else bound - value) / (abs(bound) or 1.0)


@dataclass(frozen=True, slots=True)
class Arrays:
    """n rows. U (n, d) in the unit cube, NaN where inactive; losses, noise, censored (n, k); excess (n, c)."""

    U: Floats
    losses: Floats
    noise: Floats
    censored: Floats
    excess: Floats
    failure: Sequence[str]
    cost: Floats
    start_s: Floats

    @classmethod
    def of(cls, history: History) -> "Arrays":
        rows, k, c = history.rows, len(history.objectives), len(history.constraints)
        n, d = len(rows), len(history.space)

        def matrix(values: list[tuple[float, ...]], width: int) -> Floats:
            return np.array(values, float).reshape(n, width)

        return cls(
            np.array([row.encoded for row in rows], float).reshape(n, d),
            matrix([row.losses for row in rows], k),
            matrix([row.noise for row in rows], k),
            matrix([tuple(map(float, row.censored)) for row in rows], k),
            matrix([row.excess for row in rows], c),
            [row.failure for row in rows],
            np.array([row.cost for row in rows], float),
            np.array([row.start_s for row in rows], float),
        )

    @property
    def ok(self) -> Floats:
        return np.array([not failure for failure in self.failure], bool)

    @property
    def known(self) -> Floats:
        """(n,): all losses are there."""
        result: Floats = self.ok & np.isfinite(self.losses).all(axis=1)
        return result

    @property
    def feasible(self) -> Floats:
        """(n,): fully measured, and all constraints hold."""
        result: Floats = self.known & ~(self.censored > 0).any(axis=1) & (self.excess <= 0.0).all(axis=1)
        return result
