"""How each parameter goes with the first objective in the trials at hand: an association, not a cause."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fettle.core.trial import State
from fettle.report.figures import setting
from fettle.report.summary import Row, Summary
from fettle.report.text import plain

MAX_GROUPS = 8
MIN_TRIALS = 4


@dataclass(frozen=True, slots=True)
class Effect:
    """One parameter. share: part of the objective's variance that lies between its values, corrected for their
    number (epsilon squared, Kelley 1935); NaN where too few trials tell. points: (group, metric, trial number,
    exact) with exact False for a bound; medians: one per group, NaN where a group holds bounds only."""

    name: str
    groups: tuple[str, ...]
    points: tuple[tuple[int, float, int, bool], ...]
    medians: tuple[float, ...]
    share: float


def effects(summary: Summary) -> list[Effect]:
    """Of every parameter that varied, the strongest association first."""
    if not summary.objectives:
        return []
    metric = summary.objectives[0].metric
    rows = [r for r in summary.rows if r.trial.state in (State.COMPLETE, State.STOPPED) and metric in r.trial.metrics]
    names = list(dict.fromkeys(name for r in rows for name in r.trial.params))
    found = [e for name in names if (e := _effect(name, rows, metric)) is not None]
    return sorted(found, key=lambda e: -e.share if math.isfinite(e.share) else 1.0)


def note(found: Sequence[Effect]) -> str:
    """Which knob matters most, in words."""
    known = [e for e in found if math.isfinite(e.share)]
    if not known or known[0].share < 0.05:
        return "No single knob explains a visible part of the differences between these trials."
    return (
        f"Strongest association in these trials: {plain(known[0].name, limit=80)}, whose values go with "
        f"{100 * known[0].share:.0f} % of the variance. An association, not a proof of cause: other knobs moved too."
    )


def _effect(name: str, rows: Sequence[Row], metric: str) -> Effect | None:
    here = [r for r in rows if name in r.trial.params]
    grouped = _groups(name, [r.trial.params[name] for r in here])
    if grouped is None:
        return None
    index, groups = grouped
    y = np.array([r.trial.metrics[metric] for r in here], dtype=float)
    exact = np.array([r.trial.state is State.COMPLETE for r in here])
    members = [y[(index == g) & exact] for g in range(len(groups))]
    points = tuple((int(g), float(v), r.number, bool(e)) for g, v, r, e in zip(index, y, here, exact, strict=True))
    medians = tuple(float(np.median(m)) if len(m) else math.nan for m in members)
    return Effect(name, groups, points, medians, _share([m for m in members if len(m)]))


def _groups(name: str, values: Sequence[Any]) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Index (n,) of each value's group and the groups' names in order; None where nothing varied."""
    keys = [(type(v).__name__, v) for v in values]
    distinct = list(dict.fromkeys(keys))
    if len(distinct) < 2:
        return None
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for _, v in distinct)
    if numeric and len(distinct) > MAX_GROUPS:
        return _bins(np.array([float(v) for _, v in keys]))
    distinct.sort(key=lambda key: (float(key[1]), "") if numeric else (0.0, str(key[1])))
    order = {key: i for i, key in enumerate(distinct)}
    return np.array([order[k] for k in keys]), tuple(setting(name, v) for _, v in distinct)


def _bins(x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Four groups of about equal size."""
    edges = np.unique(np.quantile(x, [0.0, 0.25, 0.5, 0.75, 1.0]))
    index = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    return index, tuple(f"{a:.3g}\u2013{b:.3g}" for a, b in pairwise(edges))


def _share(members: Sequence[np.ndarray]) -> float:
    """(SS_between - (k - 1) MS_within) / SS_total, of logarithms where all figures are positive."""
    n, k = sum(map(len, members)), len(members)
    if n < MIN_TRIALS or k < 2 or n <= k:
        return math.nan
    if all((m > 0).all() for m in members):
        members = [np.log(m) for m in members]
    centre = float(np.mean(np.concatenate(members)))
    within = sum(float(((m - m.mean()) ** 2).sum()) for m in members)
    between = sum(len(m) * (float(m.mean()) - centre) ** 2 for m in members)
    total = between + within
    return max(0.0, (between - (k - 1) * within / (n - k)) / total) if total > 0 else math.nan
