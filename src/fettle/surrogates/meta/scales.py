"""On which scale tasks are alike: in logarithms, where a task's level is a factor, or in units of a task's own spread.

Both are invertible, so that a bound on a metric keeps its meaning. Which one is taken is decided by how well the other
tasks then predict one that is left out, never by the metric's name.
"""

from collections.abc import Sequence

import numpy as np

Floats = np.ndarray
LOG, LINEAR = "log", "linear"


def possible(figures: Sequence[Floats]) -> list[str]:
    """Scales that can hold all of the figures."""
    positive = all((y[np.isfinite(y)] > 0.0).all() for y in figures)
    return [LOG, LINEAR] if positive else [LINEAR]


def forward(kind: str, y: Floats) -> Floats:
    """NaN where the scale cannot hold a figure."""
    if kind == LINEAR:
        return np.asarray(y, float)
    positive = y > 0.0
    result: Floats = np.where(positive, np.log(np.where(positive, y, 1.0)), np.nan)
    return result


def backward(kind: str, values: Floats) -> Floats:
    result: Floats = np.exp(np.minimum(values, 700.0)) if kind == LOG else values
    return result
