"""Measured tables of other people's tuning problems as search problems: kind `measured`.

The data is not part of the project: FETTLE_DATA names its folder (default: shared/data/benchmarks beside the checkout),
whose load.py reads it; pandas and pyarrow are needed. A problem `set#i` is the i-th of three tasks of a set, evenly
spaced. Its space lists the rows (at most 20,000 of them, drawn with a fixed seed); repeats and equal rows are averaged,
empty figures are failures, an empty numeric entry takes the column's lowest value. Sets with fewer than 100 different
rows are left out. `signal` is the loader's rank correlation of a neighbour's guess: about 0 where a table is noise.
"""

import importlib.util
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.domains import Domain
from fettle.core.errors import TrialFailure
from fettle.core.space import Categorical, Float, Int, Ordinal, Params, Space
from fettle.core.trial import Objective
from fettle.problems.synthetic import Synthetic

KIND = "measured"
DATA = Path(os.environ.get("FETTLE_DATA") or Path(__file__).parents[2] / "shared" / "data" / "benchmarks")
_TASKS, _MOST, _LEAST = 3, 20_000, 100


@cache
def loader() -> Any:
    """The data's own load.py."""
    spec = importlib.util.spec_from_file_location("measured_tables", DATA / "load.py")
    if spec is None or spec.loader is None or not (DATA / "load.py").exists():
        raise SystemExit(f"no load.py in {DATA}: set FETTLE_DATA to the folder of measured tables")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=2)
def _set(name: str) -> list[dict[str, Any]]:
    tasks = loader().load(name)
    return [tasks[i] for i in sorted({round(x) for x in np.linspace(0, len(tasks) - 1, _TASKS)})]


@cache
def names() -> list[str]:
    """All problems whose tables are large enough."""
    found = []
    for name in loader().sets():
        for i, task in enumerate(_set(name)):
            if len(task["X"].drop_duplicates()) >= _LEAST:
                found.append(f"{name}#{i}")
    return found


def make(name: str, seed: int) -> Synthetic:
    """The table does not depend on the seed; the optimiser's random numbers do."""
    return replace(_made(name), seed=seed)


@lru_cache(maxsize=4)
def signal(name: str) -> float:
    task = _task(name)
    return float(loader().knn_rank_corr(task["X"], _figures(task)))


def _task(name: str) -> dict[str, Any]:
    of, _, index = name.partition("#")
    return _set(of)[int(index)]


def _figures(task: Mapping[str, Any]) -> np.ndarray:
    y = np.asarray(task["y"][task["main"]], float)
    if y.ndim == 1:
        return y
    known = ~np.isnan(y)
    return np.where(known.any(1), np.nansum(y, 1) / np.maximum(1, known.sum(1)), np.nan)


@lru_cache(maxsize=4)
def _made(name: str) -> Synthetic:
    task = _task(name)
    X, y = task["X"], _figures(task)
    if len(X) > _MOST:
        rows = np.sort(np.random.default_rng(0).choice(len(X), _MOST, replace=False))
        X, y = X.iloc[rows], y[rows]
    logs = {p["name"]: bool(p.get("log")) for p in task["space"]}
    domains, columns = {}, {}
    for i, column in enumerate(X):
        made = _column(X[column], logs.get(column, False))
        if made is not None:
            domains[f"p{i}"], columns[f"p{i}"] = made
    listed = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    space = Space(domains, only=listed)
    figures: dict[Any, list[float]] = {}
    for params, value in zip(listed, y.tolist(), strict=True):
        figures.setdefault(space.key(space.validate(params)), []).append(value)
    table = {key: float(np.nanmean(v)) if not np.isnan(v).all() else math.nan for key, v in figures.items()}

    def law(params: Params) -> dict[str, float]:
        value = table[space.key(params)]
        if math.isnan(value):
            raise TrialFailure("the measurement failed", failure="crash")
        return {"figure": value}

    objective = Objective("figure", "minimize" if task["direction"] == "min" else "maximize")
    scored = [(objective.sign * table[space.key(p)], i) for i, p in enumerate(space.only or ())]
    optimum, at = min((loss, i) for loss, i in scored if not math.isnan(loss))
    best = dict((space.only or ())[at])
    return Synthetic(name, KIND, 0, space, law, best, optimum, objectives=(objective,))


def _column(values: Any, log: bool) -> tuple[Domain, list[Any]] | None:
    """A column's domain and its values in it; None where it is constant."""
    if values.dtype.kind not in "iufb":  # categories, text
        text = [str(v) for v in values]
        different = sorted(set(text))
        return (Categorical(different), text) if len(different) > 1 else None
    numbers = values.to_numpy(float)
    if np.isnan(numbers).all() or np.nanmin(numbers) == np.nanmax(numbers):
        return None
    numbers = np.where(np.isnan(numbers), np.nanmin(numbers), numbers)
    low, high, different = float(numbers.min()), float(numbers.max()), np.unique(numbers)
    if len(different) == 2:
        return Categorical([low, high]), numbers.tolist()
    if len(different) <= 32:
        return Ordinal(different.tolist()), numbers.tolist()
    log = log and low > 0
    if np.all(numbers == np.round(numbers)):
        return Int(int(low), int(high), log=log), [int(v) for v in numbers]
    return Float(low, high, log=log), numbers.tolist()
