"""`fettle meta add`, `list` and `remove`: the user's own store of finished studies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fettle.cli.as_json import print_json
from fettle.cli.flags import json_option, storage_option, store_option, together
from fettle.core.errors import FettleError, InvalidInput

if TYPE_CHECKING:
    from fettle.study import Study
    from fettle.surrogates.meta import Store, Task
    from fettle.surrogates.meta.store import Entry


@click.command()
@click.argument("studies", nargs=-1)
@click.option("--rows", metavar="FILE.jsonl", help="What `fettle meta collect` wrote: one task for each model.")
@together(storage_option, store_option, json_option)
def add(studies: tuple[str, ...], rows: str | None, storage: str, store: str | None, as_json: bool) -> None:
    """Adds finished STUDIES to your own store, which stays on this machine. Adding one again, after more trials,
    replaces its earlier copy."""
    if bool(studies) == (rows is not None):
        raise InvalidInput("expected names of studies, or --rows FILE.jsonl", "`fettle list` shows the studies")
    given = _collected(Path(rows)) if rows is not None else [_finished(name, storage) for name in studies]
    where = opened(store)
    added = [(where.entry(where.add(task)), note) for task, note in given]  # all were read before the first is stored
    found = {
        "schema": 1,
        "store": str(where.folder),
        "tasks": [{**record(entry), "note": note} for entry, note in added],
    }
    _print(found, as_json, f"{len(added)} added to {where.folder}")


@click.command(name="list")
@together(store_option, json_option)
def list_(store: str | None, as_json: bool) -> None:
    """Lists the tasks of your store, the latest last."""
    where = opened(store)
    entries = sorted(where.entries(), key=lambda entry: (entry.added_s, entry.task.name))
    tasks = [record(entry) for entry in entries]
    total = {"tasks": len(tasks), **{key: sum(task[key] for task in tasks) for key in ("rows", "failed")}}
    found = {"schema": 1, "store": str(where.folder), "tasks": tasks, "total": total}
    said = f"{total['tasks']} tasks, {total['rows']} rows, {total['failed']} of them failures, in {where.folder}"
    _print(found, as_json, said if tasks else f"no tasks yet in {where.folder}: add studies with `fettle meta add`")


@click.command()
@click.argument("name")
@together(store_option, json_option)
def remove(name: str, store: str | None, as_json: bool) -> None:
    """Deletes the task of that NAME from your store; its study stays where it is."""
    path = opened(store).remove(name)
    _print({"schema": 1, "name": name, "removed": str(path)}, as_json, f"{name} removed")


def opened(folder: str | None) -> "Store":
    from fettle.surrogates.meta import Store

    return Store.default() if folder is None else Store(Path(folder).expanduser())


def record(entry: "Entry") -> dict[str, Any]:
    """A stored task as the commands print it."""
    task, context = entry.task, entry.task.context or {}
    parts = [context.get("fingerprint"), context.get("machine")]
    facts = {key: value for part in parts if isinstance(part, Mapping) for key, value in part.items()}
    return {
        "name": task.name,
        "path": str(entry.path),
        "rows": len(task.rows),
        "failed": sum(bool(row.failure) for row in task.rows),
        "metrics": task.metrics,
        "knobs": sorted({name for row in task.rows for name in row.params}),
        "features": task.features is not None,
        "problem": context.get("problem"),
        "machine": {key: facts.get(key) for key in ("cpu_model", "cores", "memory_bytes")} if facts else None,
        "added_s": entry.added_s,
    }


def _print(found: Mapping[str, Any], as_json: bool, said: str) -> None:
    from fettle.cli.printing import print_table, stdout_console
    from fettle.report.text import plain

    if as_json:
        print_json(found)
        return
    tasks: Sequence[Mapping[str, Any]] = found.get("tasks", ())
    if tasks:
        print_table(_table(tasks), stdout_console())
    for task in tasks:
        if task.get("note"):
            click.echo(f"{plain(task['name'], limit=80)}: {plain(task['note'], limit=500)}")
    click.echo(plain(said, limit=500))


def _table(tasks: Sequence[Mapping[str, Any]]) -> Any:
    import time

    from fettle.report.figures import NONE, label
    from fettle.report.tables import Cell, Table
    from fettle.report.text import plain

    rows = []
    for task in tasks:
        machine = task["machine"] or {}
        cores = f" ({machine['cores']} cores)" if machine.get("cores") else ""
        rows.append((
            Cell(plain(task["name"], limit=80)),
            Cell(f"{task['rows']:,}"),
            Cell(f"{task['failed']:,}"),
            Cell(", ".join(label(metric) for metric in task["metrics"]) or NONE),
            Cell(", ".join(plain(knob.rpartition(".")[2], limit=40) for knob in task["knobs"]) or NONE),
            Cell("known" if task["features"] else NONE),
            Cell(f"{plain(machine.get('cpu_model') or NONE, limit=60)}{cores}"),
            Cell(time.strftime("%Y-%m-%d %H:%M", time.localtime(task["added_s"]))),
        ))  # fmt: skip
    titles = (
        ("task", False), ("rows", True), ("failed", True), ("metrics", False), ("knobs", False), ("features", False),
        ("machine", False), ("added", False),
    )  # fmt: skip
    return Table(f"{len(rows)} tasks", titles, tuple(rows))


# -- where tasks come from ----------------------------------------------------------------------------------


def _finished(name: str, storage: str) -> "tuple[Task, str]":
    """A study as a task, and a note where something is not known of it."""
    from fettle.study import Study
    from fettle.surrogates.meta import Task

    study = Study.open(name, storage)
    features, note = _features(study)
    return Task.from_study(study, features=features), note


def _collected(path: Path) -> "list[tuple[Task, str]]":
    """The models of a collection. One model of it keeps its place when the collection goes on and is added again."""
    from fettle.problems.serve.collect import rows
    from fettle.surrogates.meta import Task

    made = []
    for found in rows.measurements(path):
        probe = sorted(found.context["probe"].items())
        origin = f"collection {path.name} {found.name} {probe}"
        context = {"problem": "serve", **found.context, "origin": origin}
        task = Task(found.name, found.rows, space=found.space, features=found.features, context=context)
        made.append((task, ""))
    if not made:
        raise InvalidInput(f"{path} has no measurements yet", "let `fettle meta collect` go on")
    return made


def _features(study: "Study") -> tuple[dict[str, float] | None, str]:
    """Of the model that was served; None, and why, where it cannot be read any more."""
    from fettle.problems.runtimes.onnxgraph import model_features
    from fettle.problems.serve import onnxfile

    problem = study.log.experiment.get("problem") or {}
    if problem.get("name") != "serve":
        return None, ""
    precision, file = next(iter(problem["model"]["variants"].items()))
    shapes = {name: tuple(shape) for name, shape in (problem.get("input_shapes") or {}).items()}
    try:
        if onnxfile.read(Path(file)).sha256() != problem["model"]["hashes"][precision]:
            return None, f"features are not known: {file} has changed since"
        return model_features(Path(file), input_shapes=shapes), ""
    except (FettleError, OSError) as error:
        return None, f"features are not known: {error}"
