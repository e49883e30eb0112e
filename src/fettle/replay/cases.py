"""One measured task as a search to replay: the params that were measured, their figures, and what counts as best."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fettle.core.errors import InvalidInput, SpaceError
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective
from fettle.surrogates.meta import Row, Task

LEAST_ROWS, LEAST_OTHERS = 16, 2
_ENDS = ("upper", "lower")


def key(params: Params) -> str:
    """What params are known by in every task."""
    return json.dumps(params, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Case:
    """space: the measured params alone. rows: key -> the mean of its repeats. best: the figure that counts as 1; worst:
    the figure that counts as 0, where figures are not all above zero."""

    task: Task
    space: Space
    rows: Mapping[str, Row]
    objective: Objective
    constraints: tuple[Constraint, ...]
    best: float
    worst: float | None

    @classmethod
    def of(cls, task: Task, objective: Objective) -> "Case":
        """Under the bounds that the task's own study had. Raises InvalidInput, which says what the task lacks."""
        if task.space is None:
            raise InvalidInput("its space is not known")
        if objective.metric not in task.metrics:
            raise InvalidInput(f"{objective.metric} was not measured")
        bounds = _bounds(task)
        rows = _averaged(task, [objective.metric, *(c.metric for c in bounds)])
        if len(rows) < LEAST_ROWS:
            raise InvalidInput(f"{len(rows)} rows, expected at least {LEAST_ROWS}")
        figures = [row.metrics[objective.metric] for row in rows.values() if _allowed(row, bounds)]
        if not figures:
            raise InvalidInput("nothing holds its constraints")
        try:
            space = Space(task.space.domains, where=task.space.where, only=[row.params for row in rows.values()])
        except SpaceError as error:
            raise InvalidInput(f"its rows do not fit its space: {error}") from error
        best, worst = (min(figures), max(figures)) if objective.sign > 0 else (max(figures), min(figures))
        positive = min(best, worst) > 0.0
        return cls(task, space, rows, objective, bounds, best, None if positive else worst)

    def share(self, row: Row) -> float:
        """Of the best figure: 1 is as good, 0.5 is half the throughput or twice the cost; 0 for what is not allowed.
        On the range of the figures, where they are not all above zero."""
        if not _allowed(row, self.constraints):
            return 0.0
        value = row.metrics[self.objective.metric]
        if self.worst is not None:
            return 1.0 if self.best == self.worst else (value - self.worst) / (self.best - self.worst)
        return self.best / value if self.objective.sign > 0 else value / self.best


def others(case: Case, cases: Sequence[Task]) -> list[Task]:
    """The tasks that the search may have learned from: those that share a knob and the metric, and are not of the same
    model. A model is known by its hash, or by its features."""
    names = set(case.space.names)
    return [
        task
        for task in cases
        if task.name != case.task.name
        and case.objective.metric in task.metrics
        and any(names & row.params.keys() for row in task.rows)
        and not _same_model(task, case.task)
    ]


def _same_model(one: Task, other: Task) -> bool:
    known = [(task.context or {}).get("models") for task in (one, other)]
    hashes = [set(map(str, found.values())) if isinstance(found, Mapping) else set() for found in known]
    return bool(hashes[0] & hashes[1]) or (bool(one.features) and one.features == other.features)


def _bounds(task: Task) -> tuple[Constraint, ...]:
    given = (task.context or {}).get("constraints") or ()
    try:
        return tuple(
            Constraint(str(one["metric"]), *(None if (end := one.get(key)) is None else float(end) for key in _ENDS))
            for one in given
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InvalidInput(f"its constraints cannot be read: {error}") from error


def _allowed(row: Row, constraints: Sequence[Constraint]) -> bool:
    return not row.failure and all(c.violation(row.metrics[c.metric]) <= 0.0 for c in constraints)


def _averaged(task: Task, metrics: Sequence[str]) -> dict[str, Row]:
    """One row per params inside the space: the mean of those repeats that have all metrics, else the failure."""
    found: dict[str, list[Row]] = {}
    for row in task.rows:
        known = row.failure or all(metric in row.metrics for metric in metrics)
        if task.space is not None and known and task.space.contains(row.params):
            params = task.space.validate(row.params)
            found.setdefault(key(params), []).append(replace(row, params=params))
    return {name: _mean(rows, metrics) for name, rows in found.items()}


def _mean(rows: Sequence[Row], metrics: Sequence[str]) -> Row:
    good = [row for row in rows if not row.failure]
    if not good:
        return rows[0]
    figures: dict[str, Any] = {metric: float(np.mean([row.metrics[metric] for row in good])) for metric in metrics}
    return Row(rows[0].params, figures)
