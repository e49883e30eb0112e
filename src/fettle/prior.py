"""Where a search starts from: what earlier tasks say of a new problem, as settings of the few-shot search.

Two sources are put together: measurements of other models, which the problem itself tells in its own params and metrics
(some ship with Fettle), and finished studies of the user's own store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fettle.core.protocols import Experienced, Problem
from fettle.problems.serve.collect.rows import Measurements
from fettle.surrogates.meta.model import train
from fettle.surrogates.meta.store import Store
from fettle.surrogates.meta.task import Row, Task

_LATEST = 8  # tasks of the user's own that are used
METHOD = "prior_gp"


@dataclass(frozen=True, slots=True)
class Prior:
    """algorithm: settings of the few-shot search, None where the default is as good. record: for the study: method,
    names of the tasks, source ("shipped", "store" or both), and the reason where there are none."""

    algorithm: Any
    record: dict[str, Any]


def prior(problem: Problem, store: Store) -> Prior:
    """What is known of a problem before its first trial; takes some seconds. Raises InvalidInput where the store is
    damaged."""
    from fettle.algorithms.fewshot import FewShot

    if not isinstance(problem, Experienced):
        return _none("no earlier task is known to be like this one")
    objective, plain = problem.objectives[0].metric, FewShot(cost="wall_s", hot=sorted(problem.hot))
    fallback = plain if plain.hot else None  # the default does not know what a warm server saves
    if len(problem.objectives) > 1:
        return _none("earlier tasks are used for a single objective only", fallback)
    kept = store.tasks()
    own = [task for task in kept if _alike(task, problem)][-_LATEST:]
    told = problem.earlier(_collected(kept))
    others = [Task(e.name, e.rows, features=e.features, space=problem.space) for e in told]
    if not own and not others:
        reason = "neither what ships nor the own store knows this target's knobs and this model's features"
        return _none(reason, fallback)
    model = train([*others, *own], problem.space, method=METHOD)
    if objective not in model.metrics:
        return _none(f"no earlier task has measured {objective}", fallback)
    source = " and ".join(name for name, tasks in (("shipped", others), ("store", own)) if tasks)
    record = {"method": METHOD, "tasks": model.tasks, "source": source, "reason": ""}
    return Prior(replace(plain, model=model, features=problem.features), record)


def said(record: Mapping[str, Any]) -> str:
    """In a sentence."""
    if record["reason"]:
        return f"it starts from nothing: {record['reason']}"
    return f"it starts from {len(record['tasks'])} earlier tasks ({record['source']}); --algorithm auto uses none"


def _none(reason: str, algorithm: Any = None) -> Prior:
    return Prior(algorithm, {"method": "", "tasks": [], "source": "", "reason": reason})


def _collected(tasks: Sequence[Task]) -> list[Measurements]:
    """Those of `fettle meta collect`, which know the machine they were measured on."""
    return [
        Measurements(t.name, tuple(map(_plain, t.rows)), t.space, t.features or {}, t.context)
        for t in tasks
        if t.space is not None and t.context and {"probe", "fingerprint"} <= t.context.keys()
    ]


def _plain(row: Row) -> Any:
    return (row.params, dict(row.metrics), row.failure) if row.failure else (row.params, dict(row.metrics))


def _alike(task: Task, problem: Problem) -> bool:
    """A study of the same kind of problem and target, with a knob and the objective in common."""
    context = task.context or {}
    spec = problem.spec()
    same = all(context.get(name) == _name(spec.get(part)) for name, part in (("problem", "name"), ("target", "target")))
    knobs = {name for row in task.rows for name in row.params}
    return same and bool(knobs & set(problem.space.names)) and problem.objectives[0].metric in task.metrics


def _name(part: Any) -> Any:
    return part.get("name") if isinstance(part, dict) else part
