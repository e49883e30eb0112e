"""`fettle meta`: what is measured of many models, so that a search on a further one starts from it."""

from pathlib import Path
from typing import Any

import click

from fettle.cli.as_json import print_json
from fettle.cli.flags import json_option
from fettle.cli.learned import evaluate, train
from fettle.cli.lines import Lines
from fettle.cli.stored import add, list_, remove


@click.group()
def meta() -> None:
    """Measurements of many models, your own store of finished studies, and what is learnt from them. Nothing leaves
    this machine."""


for command in (add, list_, remove, train, evaluate):
    meta.add_command(command)


@meta.command()
@click.argument("folder", type=click.Path())
@click.option("--out", required=True, metavar="FILE.jsonl", help="Where rows go; a file that is there is gone on with.")
@click.option(
    "--minutes", metavar="N", type=click.FloatRange(min=0), help="At most so long; default: until all is done."
)
@click.option(
    "--points", metavar="N", type=click.IntRange(min=1), default=60, show_default=True, help="Configurations per model."
)
@click.option(
    "--full", metavar="N", type=click.IntRange(min=0), default=12, show_default=True, help="Models with a full grid."
)
@click.option(
    "--repeats",
    metavar="N",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="Further measurements of the 20 best configurations of these.",
)
@click.option(
    "--tries",
    metavar="N",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Of a measurement that strangers on the machine disturb.",
)
@click.option("--seed", metavar="N", type=click.IntRange(min=0), default=0, show_default=True, help="Of the design.")
@json_option
def collect(folder: str, out: str, minutes: float | None, as_json: bool, **options: Any) -> None:
    """Measures the ONNX models of a FOLDER over one space of configurations. Points of every model come first, so
    that a part is useful; start it again to go on."""
    from fettle.executors.process import ProcessExecutor
    from fettle.host.machine import machine
    from fettle.problems.serve.collect import campaign
    from fettle.problems.serve.collect.plan import Settings

    tries, lines = options.pop("tries"), Lines()
    executor = ProcessExecutor(workers=1, threads=1)
    try:
        found = campaign.collect(
            Path(folder),
            Path(out),
            executor=executor,
            machine=machine(("onnxruntime",)),
            settings=Settings(**options),
            calm=campaign.Calm(tries=tries),
            seconds=None if minutes is None else 60.0 * minutes,
            watch=lambda progress: lines.step(lambda rows: _line(progress, rows)),
        )
    except KeyboardInterrupt:
        click.echo("fettle: interrupted\n  the same command goes on from here", err=True)
        raise click.exceptions.Exit(130) from None
    finally:
        executor.close()
    if as_json:
        document = {
            "schema": 1,
            "path": str(found.path),
            "measured": found.measured,
            "failed": found.failed,
            "disturbed": found.disturbed,
            "total": found.total,
            "complete": found.complete,
            "seconds": round(found.seconds, 3),
            "full": found.full,
        }
        print_json(document)
    else:
        rest = "all is measured" if found.complete else "the same command goes on"
        said = f"{found.measured} rows in {found.seconds:.0f} s, {found.failed} failed, {found.disturbed} disturbed"
        click.echo(f"{found.path}: {said}; {rest}")


def _line(progress: Any, rows: int) -> str:
    left = (progress.total - progress.done) * progress.seconds / rows / 60
    return f"{progress.done}/{progress.total} rows, about {left:.0f} min left; last: {progress.line['model']}"
