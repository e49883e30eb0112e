"""Cases of the few-shot benchmark: a measured table with one task left out, an objective, and a bound.

The data is not part of the project: FETTLE_DATA names the folder of benchmark tables (default: shared/data/benchmarks
beside the checkout); the serving tables lie beside it.
"""

import csv
import gzip
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import measured
import numpy as np

from fettle.core.space import Categorical, Ordinal, Space
from fettle.core.trial import Constraint, Objective
from fettle.surrogates.meta import Task

Rows = dict[tuple[Any, ...], tuple[dict[str, Any], Any]]
_SINGLE = 1.15  # a row that is so much above all its neighbours is no option that a search can be asked to find
_TABLE_TASKS, _TABLE_TRAIN, _TABLE_ROWS, _TABLE_OPTIONS = 4, 12, 250, 1000


@dataclass(frozen=True, slots=True)
class Case:
    """group: what is left out together (the tasks of one model). best: the figure that counts as 100 %; zero: as 0.

    judged: one row per point, what a find is worth; None: what was told. factor: the bound as a multiple of the task's
    least figure, which says what the same bound is in another task; 0: the same figure. size: of the space, points that
    do not differ counted once; 0: unknown.
    """

    set: str
    task: Task
    space: Space
    group: str
    objective: Objective
    constraints: tuple[Constraint, ...]
    label: str
    best: float
    zero: float
    others: tuple[Task, ...]
    judged: Task | None = None
    factor: float = 0.0
    size: int = 0

    def bounds(self, task: Task) -> tuple[Constraint, ...]:
        """The case's, for another task."""
        if not self.factor:
            return self.constraints
        least = {c.metric: min(row.metrics.get(c.metric, math.inf) for row in task.rows) for c in self.constraints}
        return tuple(Constraint(name, upper=self.factor * value * (1 + 1e-9)) for name, value in least.items())

    @property
    def name(self) -> str:
        return f"{self.task.name}|{self.objective.metric}|{self.label}"

    def share(self, value: float) -> float:
        """Of the best option that `value` is: 1 is the best, 0 nothing."""
        return (value - self.zero) / (self.best - self.zero) if self.best != self.zero else 1.0


def serving() -> Path:
    return measured.DATA.parent / "serving"


def _figures(task: Task, metric: str, constraints: Iterable[Constraint]) -> dict[int, float]:
    """Row -> figure, of those that are allowed."""
    return {
        i: row.metrics[metric]
        for i, row in enumerate(task.rows)
        if not row.failure and metric in row.metrics
        and all(c.violation(row.metrics.get(c.metric, math.inf)) <= 0 for c in constraints)
    }  # fmt: skip


# -- the A100 table -----------------------------------------------------------------------------------------------


def a100() -> Iterator[Case]:
    tasks = {}
    for path in sorted((serving() / "parvagpu").glob("*.csv")):
        rows: list[Any] = []
        for line in csv.DictReader(path.open()):
            params = {
                "slices": int(line["Mig instance"]), "batch": int(line["Batch size"]),
                "processes": int(line["Workload Number"]),
            }  # fmt: skip
            total = float(line["Throughput"]) * params["processes"]
            figures = {"total_rps": total, "slice_rps": total / params["slices"], "latency_s": float(line["Latency"])}
            rows.append((params, figures) if total > 0 else (params, "oom"))
        tasks[path.stem] = rows
    knobs = {k: sorted({row[0][k] for row in next(iter(tasks.values()))}) for k in ("slices", "batch", "processes")}
    space = Space({k: Ordinal(values) for k, values in knobs.items()})
    made = [Task(name, rows, space=space) for name, rows in tasks.items()]
    for task in made:
        at = next(r for r in task.rows if r.params == {"slices": 7, "batch": 8, "processes": 1}).metrics["latency_s"]
        others = tuple(t for t in made if t is not task)
        for metric in ("slice_rps", "total_rps"):
            for factor in (1.5, 3.0, 8.0, None):
                bounds = () if factor is None else (Constraint("latency_s", upper=factor * at * (1 + 1e-9)),)
                figures = _figures(task, metric, bounds)
                best = max(figures.values()) if bounds else _solid(task, figures, knobs)
                label = "none" if factor is None else f"x{factor:g}"
                goal = Objective(metric, "maximize")
                yield Case("a100", task, space, task.name, goal, bounds, label, best, 0.0, others)


def _solid(task: Task, figures: Mapping[int, float], knobs: Mapping[str, list[Any]]) -> float:
    """The best figure, of rows that do not stand out from all their neighbours on the grid that are left."""
    index = {tuple(row.params[k] for k in knobs): i for i, row in enumerate(task.rows)}
    left = dict(figures)
    while left:
        i = max(left, key=left.__getitem__)
        place = [values.index(task.rows[i].params[k]) for k, values in knobs.items()]
        beside = []
        for j, values in enumerate(knobs.values()):
            for step in (-1, 1):
                if 0 <= place[j] + step < len(values):
                    at = [p + step * (k == j) for k, p in enumerate(place)]
                    beside.append(index[tuple(v[p] for v, p in zip(knobs.values(), at, strict=True))])
        if left[i] <= _SINGLE * max((left[k] for k in beside if k in left), default=0.0):
            return left[i]
        del left[i]
    raise ValueError(f"{task.name}: every row stands out")


# -- simulated language models --------------------------------------------------------------------------------------


def llm() -> Iterator[Case]:
    tables: dict[tuple[str, str], list[Any]] = {}
    domains: dict[str, set[Any]] = {"system": set(), "backend": set(), "tp": set(), "batch_size": set()}
    with gzip.open(serving() / "llm_grid_simulated" / "grid.csv.gz", "rt") as lines:
        for line in csv.DictReader(lines):
            params = {
                "system": line["system"], "backend": line["backend"],
                "tp": int(line["tp"]), "batch_size": int(line["batch_size"]),
            }  # fmt: skip
            for name, value in params.items():
                domains[name].add(value)
            if line["status"] == "no_data":
                continue
            figures = {m: float(line[m]) for m in ("tokens_per_s_per_gpu", "tpot_ms")}
            row = (params, figures) if line["status"] == "ok" else (params, "oom")
            tables.setdefault((line["model"], f"{line['isl']}-{line['osl']}"), []).append(row)
    kinds: Mapping[str, Callable[[Any], Any]] = {"system": Categorical, "backend": Categorical}
    whole = {name: kinds.get(name, Ordinal)(sorted(values)) for name, values in domains.items()}
    made = {key: Task(f"{key[0].split('/')[-1]} {key[1]}", rows) for key, rows in tables.items()}
    for (model, _), task in made.items():
        space = Space(whole, only=[row.params for row in task.rows])
        others = tuple(t for (m, _), t in made.items() if m != model)
        for bound in (None, 100.0, 50.0, 30.0):
            bounds = () if bound is None else (Constraint("tpot_ms", upper=bound),)
            figures = _figures(task, "tokens_per_s_per_gpu", bounds)
            if figures:
                goal, label = Objective("tokens_per_s_per_gpu", "maximize"), "none" if bound is None else f"{bound:g}ms"
                yield Case("llm", task, space, model, goal, bounds, label, max(figures.values()), 0.0, others)


# -- Triton's published tables --------------------------------------------------------------------------------------


def triton() -> Iterator[Case]:
    """Tasks with at least 16 rows, one model left out; the bound is at the quartiles of the task's own p99."""
    tables: dict[tuple[str, str], list[Any]] = {}
    with gzip.open(serving() / "triton_tables" / "rows.csv.gz", "rt") as lines:
        for line in csv.DictReader(lines):
            numbers = {k: int(float(line[k])) for k in ("batch", "concurrency", "seq_len") if line[k]}
            words = {k: line[k] or "none" for k in ("backend", "precision", "variant")}
            params = {"batch": 1, "concurrency": 1, "seq_len": 1, **numbers, **words}
            figures = {"throughput_rps": float(line["inf_per_s"]), "latency_p99_s": float(line["p99_ms"]) / 1e3}
            key = (line["model"], f"{line['scenario']} {line['gpu'].removeprefix('NVIDIA ')}")
            tables.setdefault(key, []).append((params, figures))
    made = {key: Task(" ".join(key), rows) for key, rows in tables.items()}
    values = {
        k: {row.params[k] for task in made.values() for row in task.rows} for k in made[next(iter(made))].rows[0].params
    }
    whole = {k: (Categorical if isinstance(next(iter(v)), str) else Ordinal)(sorted(v)) for k, v in values.items()}
    for (model, _), task in made.items():
        if len(task.rows) < 16:
            continue
        space = Space(whole, only=[row.params for row in task.rows])
        others = tuple(t for (m, _), t in made.items() if m != model)
        for share in (0.25, 0.5, 0.75):
            bound = float(np.quantile([row.metrics["latency_p99_s"] for row in task.rows], share))
            bounds = (Constraint("latency_p99_s", upper=bound),)
            best = max(_figures(task, "throughput_rps", bounds).values())
            goal = Objective("throughput_rps", "maximize")
            yield Case("triton", task, space, model, goal, bounds, f"p99 q{share:g}", best, 0.0, others)


# -- other people's tables ------------------------------------------------------------------------------------------


def tables(name: str) -> Iterator[Case]:
    """Some tasks of one set, each left out; 0 is the median option."""
    found = [t for t in measured.loader().load(name) if np.isfinite(_main(t)).sum() >= 20]
    if len(found) < 3:
        return
    out = sorted({round(x) for x in np.linspace(0, len(found) - 1, _TABLE_TASKS)})
    for i in out:
        rest = [t for j, t in enumerate(found) if j != i]
        rest = [rest[j] for j in sorted({round(x) for x in np.linspace(0, len(rest) - 1, _TABLE_TRAIN)})]
        space, task, others = _joined(name, found[i], rest)
        figures = _figures(task, "figure", ())
        goal = Objective("figure", "minimize" if found[i]["direction"] == "min" else "maximize")
        best = (min if goal.goal == "minimize" else max)(figures.values())
        zero = float(np.median(list(figures.values())))
        if best != zero:
            yield Case(name, task, space, task.name, goal, (), "", best, zero, others)


def _main(task: Mapping[str, Any]) -> np.ndarray:
    return measured._figures(task)


def _joined(name: str, own: Mapping[str, Any], rest: list[dict[str, Any]]) -> tuple[Space, Task, tuple[Task, ...]]:
    rng = np.random.default_rng(0)
    import pandas as pd

    parts, all_X = [], []
    for t, most in ((own, _TABLE_OPTIONS), *((t, _TABLE_ROWS) for t in rest)):
        y = _main(t)
        rows = np.sort(rng.permutation(len(y))[:most])
        parts.append(y[rows])
        all_X.append(t["X"].iloc[rows])
    X = pd.concat(all_X, ignore_index=True)
    logs = {p["name"]: bool(p.get("log")) for p in own["space"]}
    domains, columns = {}, {}
    for i, column in enumerate(X):
        series = X[column].astype(str) if isinstance(X[column].dtype, pd.CategoricalDtype) else X[column]
        made = measured._column(series, logs.get(column, False))
        if made is not None:
            domains[f"p{i}"], columns[f"p{i}"] = made
    whole = Space(domains)
    listed = [whole.validate(dict(zip(columns, v, strict=True))) for v in zip(*columns.values(), strict=True)]
    tasks, ends = [], np.cumsum([0, *map(len, parts)])
    for t, y, (a, b) in zip((own, *rest), parts, pairwise(ends), strict=True):
        rows = [(p, {"figure": v}) if np.isfinite(v) else (p, "crash") for p, v in zip(listed[a:b], y, strict=True)]
        if any(len(row[1]) for row in rows if isinstance(row[1], dict)):
            tasks.append(Task(str(t["name"]), rows))
    space = Space(domains, only=listed[: ends[1]])
    return space, tasks[0], tuple(tasks[1:])


@cache
def sets() -> list[str]:
    """Names of all sets of cases."""
    return ["a100", "llm", "triton", *(measured.loader().sets() if (measured.DATA / "load.py").exists() else [])]


def cases(name: str) -> Iterator[Case]:
    return {"a100": a100, "llm": llm, "triton": triton}.get(name, lambda: tables(name))()
