"""`fettle meta train` and `evaluate`: what the tasks of the store teach, and whether that helps on them."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fettle.cli.as_json import print_json
from fettle.cli.flags import json_option, storage_option, store_option, together
from fettle.cli.lines import Lines
from fettle.cli.stored import opened
from fettle.core.errors import InvalidInput

if TYPE_CHECKING:
    from fettle.core.space import Space
    from fettle.core.trial import Objective
    from fettle.replay import Evaluation
    from fettle.surrogates.meta import MetaModel, Store, Task


@click.command()
@click.option("-o", "--output", required=True, metavar="FILE.npz", help="Where the model goes.")
@click.option("--method", default="auto", show_default=True, help="auto, or a learner such as prior_gp, rgpe, nearest.")
@click.option("--like", metavar="STUDY", help="Over the knobs of this study's space.")
@click.option("--task", metavar="NAME", help="Over the knobs of this task; default: the latest one's.")
@click.option(
    "--seed", metavar="N", type=click.IntRange(min=0), default=0, show_default=True, help="Of random choices."
)
@together(storage_option, store_option, json_option)
def train(
    output: str,
    method: str,
    like: str | None,
    task: str | None,
    seed: int,
    storage: str,
    store: str | None,
    as_json: bool,
) -> None:
    """Trains a model on the tasks of your store, for `fettle.FewShot("FILE.npz")`. Tasks that share no knob with the
    space are left out."""
    from fettle.surrogates import meta

    if like is not None and task is not None:
        raise InvalidInput("expected --like or --task, got both", "give one of them")
    begun, where = time.monotonic(), opened(store)
    tasks = where.tasks()
    if not tasks:
        raise InvalidInput(f"no tasks yet in {where.folder}", "add studies with `fettle meta add STUDY`")
    space = _space(where, tasks, task) if like is None else _space_of_study(like, storage)
    names = set(space.names)
    used = [one for one in tasks if any(names & row.params.keys() for row in one.rows)]
    if not used:
        raise InvalidInput("no task shares a knob with the space", f"the space has {', '.join(space.names)}")
    model = meta.train(used, space, method=method, seed=seed)
    path = _saved(model, Path(output))
    left_out = [one.name for one in tasks if one not in used]
    _show_model(model, path, left_out, time.monotonic() - begun, as_json)


@click.command()
@click.option(
    "--objective", metavar="METRIC:GOAL", help="throughput_rps:maximize, say; default: that of the latest study."
)
@click.option("--methods", metavar="A,B,...", help="Learners and algorithms; default: prior_gp,gp_bo,random.")
@click.option(
    "--seeds", metavar="N", type=click.IntRange(min=1), default=3, show_default=True, help="Replays of each task."
)
@click.option(
    "--minutes",
    metavar="N",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="No further task is begun after them.",
)
@together(store_option, json_option)
def evaluate(
    objective: str | None, methods: str | None, seeds: int, minutes: float, store: str | None, as_json: bool
) -> None:
    """Says whether your earlier tasks help a search: leaves out each task in turn, and replays searches on what was
    measured of it."""
    from fettle import replay
    from fettle.replay.evaluation import DEFAULT_METHODS

    tasks = opened(store).tasks()
    chosen = DEFAULT_METHODS if methods is None else [m.strip() for m in methods.split(",") if m.strip()]
    goal, lines, total = _objective(objective, tasks), Lines(), len(tasks) * seeds

    def watch(what: str) -> None:
        lines.step(lambda done: _line(done, total, what))

    try:
        found = replay.evaluate(tasks, goal, methods=chosen, seeds=seeds, seconds=60.0 * minutes, watch=watch)
    except KeyboardInterrupt:
        click.echo("fettle: interrupted\n  with fewer --minutes there is an answer earlier", err=True)
        raise click.exceptions.Exit(130) from None
    _show_evaluation(found, as_json)


# -- train --------------------------------------------------------------------------------------------------


def _space(store: "Store", tasks: "Sequence[Task]", name: str | None) -> "Space":
    """Of the named task; else of the latest task that has one."""
    if name is not None:
        tasks = [store.find(name).task]
    space = next((task.space for task in reversed(tasks) if task.space is not None), None)
    if space is None:
        raise InvalidInput(f"{'no task' if name is None else f'task {name!r}'} has a space", "use --like STUDY")
    return space


def _space_of_study(name: str, storage: str) -> "Space":
    from fettle.study import Study

    return Study.open(name, storage).space


def _saved(model: "MetaModel", path: Path) -> Path:
    try:
        return model.save(path)
    except OSError as error:
        raise InvalidInput(f"cannot write the model to {path}: {error.strerror}", "choose another -o") from error


def _show_model(model: "MetaModel", path: Path, left_out: Sequence[str], seconds: float, as_json: bool) -> None:
    from fettle.cli.printing import print_table, stdout_console
    from fettle.report.figures import NONE, number
    from fettle.report.tables import Cell, Table
    from fettle.report.text import plain

    found: dict[str, Any] = {
        "schema": 1,
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": model.sha256,
        "method": model.method,
        "tasks": model.tasks,
        "left_out": list(left_out),
        "knobs": model.knobs.names,
        "metrics": [{"name": m, "scale": model.scale(m), "fit": model.fit(m)} for m in model.metrics],
        "seconds": round(seconds, 3),
    }
    if as_json:
        print_json(found)
        return
    click.echo(
        f"{plain(path)}: {found['bytes'] / 1024:.0f} KiB, {model.method} of {len(model.tasks)} tasks in {seconds:.1f} s"
    )
    click.echo(f"tasks     {plain(', '.join(model.tasks))}")
    if left_out:
        click.echo(f"left out  {plain(', '.join(left_out))}: no knob in common")
    click.echo(f"knobs     {plain(', '.join(model.knobs.names))}\n")
    fits = [(m, model.scale(m), model.fit(m)) for m in model.metrics]
    rows = [(Cell(plain(m)), Cell(scale), Cell(NONE if fit is None else number(fit, 2))) for m, scale, fit in fits]
    titles = (("metric", False), ("scale", False), ("fit of left-out tasks (nats a figure)", True))
    print_table(Table("Metrics", titles, tuple(rows)), stdout_console())
    click.echo(f"Python: fettle.FewShot({str(path)!r})")
    click.echo(f"experiment file: algorithm: {{name: fewshot, model: {plain(path)}}}")


# -- evaluate -----------------------------------------------------------------------------------------------


def _objective(given: str | None, tasks: "Sequence[Task]") -> "Objective":
    from fettle.core.trial import Objective

    if given is not None:
        metric, colon, goal = given.rpartition(":")
        if not colon or not metric:
            raise InvalidInput(f"--objective: expected METRIC:GOAL, got {given!r}", "e.g. throughput_rps:maximize")
        return Objective(metric, goal)
    for task in reversed(tasks):
        stored = (task.context or {}).get("objectives")
        if isinstance(stored, list | tuple) and stored and isinstance(stored[0], Mapping):
            return Objective(str(stored[0].get("metric")), stored[0].get("goal", "minimize"))
    known = ", ".join(sorted({metric for task in tasks for metric in task.metrics})) or "none yet"
    raise InvalidInput("no study of the store says what is sought", f"give --objective METRIC:GOAL; metrics: {known}")


def _show_evaluation(found: "Evaluation", as_json: bool) -> None:
    from fettle.cli.printing import print_table, stdout_console
    from fettle.report.text import plain

    if as_json:
        print_json(_document(found))
        return
    console, goal = stdout_console(), found.objective
    click.echo(f"{goal.goal} {plain(goal.metric)}, {len(found.tasks)} tasks, {found.seconds:.0f} s\n")
    print_table(_table(found.by_task(), by_task=True), console)
    print_table(_table(found.means(), by_task=False), console)
    for name, why in found.left_out.items():
        click.echo(f"left out  {plain(name, limit=80)}: {plain(why, limit=300)}")
    if not found.complete:
        click.echo("time ran out before all replays: more --minutes make it surer")
    for line in found.verdict():
        click.echo(plain(line))


def _document(found: "Evaluation") -> Mapping[str, Any]:
    return {
        "schema": 1,
        "objective": dataclasses.asdict(found.objective),
        "by_task": [dataclasses.asdict(mean) for mean in found.by_task()],
        "means": [{k: v for k, v in dataclasses.asdict(mean).items() if k != "task"} for mean in found.means()],
        "ratios": [
            {**dataclasses.asdict(ratio), "high": ratio.high if math.isfinite(ratio.high) else None}
            for ratio in found.ratios()
        ],
        "hardly_pays": found.hardly_pays,
        "verdict": found.verdict(),
        "left_out": found.left_out,
        "complete": found.complete,
        "seconds": round(found.seconds, 3),
    }


def _table(means: Sequence[Any], *, by_task: bool) -> Any:
    from fettle.report.tables import Cell, Table
    from fettle.report.text import plain

    rows = []
    for mean in means:
        cells = [Cell(mean.method), *(Cell(f"{value:.1f}") for value in (mean.to90, mean.to95))]
        cells.append(Cell(f"{100 * mean.regret:.1f} %"))
        rows.append((*([Cell(plain(mean.task, limit=80))] if by_task else []), *cells))
    titles = [("method", False), ("samples to 90 %", True), ("to 95 %", True), ("mean regret of the first 20", True)]
    head = [("task", False)] if by_task else []
    return Table("Samples until a share of the best measured", (*head, *titles), tuple(rows))


def _line(done: int, total: int, what: str) -> str:
    from fettle.report.text import plain

    return f"{done} of at most {total} replays; last: {plain(what, limit=120)}"
