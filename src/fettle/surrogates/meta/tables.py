"""Tasks as arrays over common knobs: one row per params, repeats averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.core.errors import InvalidInput
from fettle.core.space import Space
from fettle.surrogates.meta.knobs import Knobs
from fettle.surrogates.meta.task import Task

Floats = np.ndarray
NO_FAULT = ("lost", "nan")  # say nothing of whether the params can run


@dataclass(frozen=True, slots=True)
class Table:
    """One task. X (n, d); y: metric -> (n,), NaN where unknown; failed (n,): 1 it did, 0 it did not, NaN unknown."""

    name: str
    X: Floats
    y: dict[str, Floats]
    failed: Floats


def keys(X: Floats) -> list[bytes]:
    """Identity of rows, as dict keys."""
    rounded = np.round(np.nan_to_num(X, nan=-9.0), 9) + 0.0  # -0.0 is 0.0
    return [row.tobytes() for row in rounded]


def tabulated(tasks: Sequence[Task], space: Space) -> tuple[Knobs, list[Table]]:
    """The knobs of `space`, and all tasks over them. Raises InvalidInput."""
    if not tasks or not all(isinstance(task, Task) for task in tasks):
        raise InvalidInput(f"expected a list of fettle.meta.Task with at least one, got {tasks!r:.80}")
    known = set(space.names)
    for task in tasks:
        if not any(known & row.params.keys() for row in task.rows):
            have = sorted({name for row in task.rows for name in row.params})
            raise InvalidInput(
                f"task {task.name!r} shares no knob with the space: it has {', '.join(have) or 'none'}",
                f"the space has {', '.join(space.names) or 'none'}",
            )
    knobs = Knobs.of(space, [([row.params for row in task.rows], task.space) for task in tasks])
    return knobs, [_table(task, knobs) for task in tasks]


def _table(task: Task, knobs: Knobs) -> Table:
    X = knobs.encode([row.params for row in task.rows], task.space)
    places: dict[bytes, int] = {}
    at = np.array([places.setdefault(key, len(places)) for key in keys(X)])
    n = len(places)
    first = np.unique(at, return_index=True)[1]
    y = {}
    for metric in task.metrics:
        values = np.array([np.nan if row.failure else row.metrics.get(metric, np.nan) for row in task.rows])
        y[metric] = _means(at, values, n)
    fault = [np.nan if row.failure in NO_FAULT else float(bool(row.failure)) for row in task.rows]
    return Table(task.name, X[first], y, _means(at, np.array(fault), n))


def _means(at: Floats, values: Floats, n: int) -> Floats:
    known = np.isfinite(values)
    count = np.bincount(at[known], minlength=n)
    total = np.bincount(at[known], weights=values[known], minlength=n)
    result: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return result
