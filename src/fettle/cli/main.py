"""The command line. Exit codes: 0 an answer; 1 no feasible answer, or a promise that does not hold; 2 bad
input; 130 interrupted. With --json, stdout holds one JSON document and nothing else."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from fettle import __version__
from fettle.cli.as_json import print_json
from fettle.cli.flags import STORAGE, json_option, serve_options, storage_option, stored, together
from fettle.cli.meta import meta
from fettle.core.errors import FettleError, InvalidInput

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Group(click.Group):
    """Turns every foreseeable error into one message with the mend, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        as_json = "--json" in sys.argv
        try:
            return super().invoke(ctx)
        except FettleError as error:
            _complain(str(error), error.hint or f"see `fettle {ctx.invoked_subcommand} --help`", as_json)
            ctx.exit(2)
        except KeyboardInterrupt:
            _complain("interrupted", "`fettle resume STUDY` goes on from here", as_json)
            ctx.exit(130)
        except BrokenPipeError:
            ctx.exit(0)


def _complain(message: str, hint: str, as_json: bool) -> None:
    from fettle.report.text import plain

    message, hint = plain(message, lines=True), plain(hint, lines=True)
    if as_json:
        click.echo(json.dumps({"schema": 1, "error": message, "hint": hint}))
    else:
        click.echo(f"fettle: {message}" + (f"\n  {hint}" if hint else ""), err=True)


@click.group(cls=_Group, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="fettle")
def cli() -> None:
    """Finds, by measuring, how to serve a model on this machine: the configuration that holds the SLO at the
    lowest cost, confirmed on fresh servers."""


@cli.command()
@click.argument("model")
@serve_options
@together(storage_option, json_option)
def serve(model: str, as_json: bool, **options: Any) -> None:
    """Finds how to serve MODEL (an ONNX file) on this machine."""
    from fettle import api
    from fettle.cli.options import serve_arguments

    arguments = serve_arguments(model, options)
    with _view(as_json) as view:
        result = api.serve(watch=view, **arguments)
    _answer(result, as_json)


@cli.command()
@click.argument("experiment", type=click.Path())
@click.option("--name", help="Instead of the file's name.")
@click.option("--budget", metavar="TIME", help="Instead of the file's budget.")
@click.option("--trials", metavar="N", type=int, help="Instead of the file's trials.")
@click.option("--seed", metavar="N", type=click.IntRange(min=0), help="Instead of the file's seed.")
@click.option("--storage", metavar="PATH", help=f"Instead of the file's storage; default: {STORAGE}.")
@json_option
def run(experiment: str, as_json: bool, **instead: Any) -> None:
    """Runs the EXPERIMENT that a YAML file describes."""
    from fettle import api
    from fettle.cli.experiment import read
    from fettle.cli.options import trials

    problem, arguments = read(Path(experiment))
    instead["trials"] = trials(instead["trials"])
    arguments = {"storage": STORAGE, **arguments, **{key: value for key, value in instead.items() if value is not None}}
    with _view(as_json) as view:
        result = getattr(api, problem)(watch=view, **arguments)
    _answer(result, as_json)


@cli.command()
@stored
def resume(study: str, storage: str, as_json: bool) -> None:
    """Goes on with an interrupted STUDY, on what is left of its budget."""
    from fettle import api

    result = api.open_study(study, storage)
    _warn_of_another_machine(result)
    with _view(as_json) as view:
        result = api.carry_out(result.study, api.needed(result), watch=view)
    _answer(result, as_json)


@cli.command()
@stored
@click.option("--trial", metavar="N", type=int, help="The trial whose configuration is measured.")
@click.option("--params", metavar="JSON", help="Or a configuration.")
@click.option(
    "--repeat", metavar="N", type=click.IntRange(min=1), default=1, show_default=True, help="How many fresh servers."
)
def measure(study: str, storage: str, as_json: bool, trial: int | None, params: str | None, repeat: int) -> None:
    """Measures a configuration again, each time on a fresh server. Never changes the STUDY's answer."""
    from fettle import api
    from fettle.cli.measured import document, show

    result = api.open_study(study, storage)
    with _view(as_json) as view:
        payloads = api.measure(result, _params(params), trial=trial, repeat=repeat, watch=view)
    found = document(result, trial, payloads)
    print_json(found) if as_json else show(found)
    broken = any(held["holds"] is False for held in found["prediction"].values())
    if broken or not any(p["state"] == "complete" for p in payloads):
        raise click.exceptions.Exit(1)


@cli.command(name="list")
@together(storage_option, json_option)
def list_(storage: str, as_json: bool) -> None:
    """Lists the studies of a storage."""
    from fettle.cli.shown import listing, show_listing

    found = listing(storage)
    print_json(found) if as_json else show_listing(found)


@cli.command()
@stored
def show(study: str, storage: str, as_json: bool) -> None:
    """Shows a STUDY: its answer and its trials."""
    from fettle.cli.shown import show_study, study_document

    result = _stored(study, storage)
    print_json(study_document(result)) if as_json else show_study(result)


@cli.command()
@stored
def best(study: str, storage: str, as_json: bool) -> None:
    """Prints the answer of a STUDY."""
    _answer(_stored(study, storage), as_json)


@cli.command()
@stored
@click.option("--params", metavar="JSON", help="Predicts what these would give, too.")
def explain(study: str, storage: str, as_json: bool, params: str | None) -> None:
    """Says which parameters of a STUDY matter, what could still be gained, and what any configuration would give."""
    from fettle.cli.explained import document, show

    found = document(study, storage, _params(params))
    print_json(found) if as_json else show(found)


@cli.command()
@stored
@click.option("-o", "--output", metavar="FILE.html", help="Where to write it; default: the study's folder.")
def report(study: str, storage: str, as_json: bool, output: str | None) -> None:
    """Writes the HTML report of a STUDY."""
    path = _stored(study, storage).report(output)
    print_json({"schema": 1, "study": study, "report": str(path)}) if as_json else click.echo(str(path))


@cli.command()
@click.argument("study")
@click.argument("folder", type=click.Path())
@together(storage_option, json_option)
def export(study: str, folder: str, storage: str, as_json: bool) -> None:
    """Writes a FOLDER that starts the winner of a STUDY without Fettle."""
    from fettle import api

    written = api.open_study(study, storage).export(folder)
    if as_json:
        print_json({"schema": 1, "study": study, "artifacts": written})
    else:
        click.echo("\n".join(f"{what}: {path}" for what, path in written.items()))


@cli.command()
@json_option
@click.option("--probe", is_flag=True, help="Measures its speed for 2 seconds, and keeps that for later explanations.")
def doctor(as_json: bool, probe: bool) -> None:
    """Says what this machine allows, and what is missing."""
    from fettle.cli.doctor import findings, show_findings

    found = findings(probe=probe)
    print_json(found) if as_json else show_findings(found)
    if not found["ok"]:
        raise click.exceptions.Exit(1)


cli.add_command(meta)


def _stored(study: str, storage: str) -> Any:
    """The stored study; a model that has gone or changed since does not keep its answer from being read."""
    from fettle.api import Result, stored_artifacts
    from fettle.study import Study

    opened = Study.open(study, storage)
    return Result(opened, None, stored_artifacts(opened))


def _params(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        params = json.loads(text)
    except ValueError as error:
        raise InvalidInput(
            f"--params: expected JSON, got {text!r:.200} ({error})", "--params '{\"workers\": 2}'"
        ) from None
    if not isinstance(params, dict):
        raise InvalidInput(f"--params: expected a JSON object, got {text!r:.200}", "--params '{\"workers\": 2}'")
    return params


@contextmanager
def _view(as_json: bool) -> Iterator[Any]:
    from fettle.cli.view import open_view

    view = open_view()
    try:
        yield view
    finally:
        view.close()


def _answer(result: Any, as_json: bool) -> None:
    from fettle.cli.shown import show_answer

    document = result.document
    print_json(document) if as_json else show_answer(result)
    if not document["feasible"]:
        raise click.exceptions.Exit(1)


def _warn_of_another_machine(result: Any) -> None:
    from fettle.cli.doctor import differences
    from fettle.report.text import plain

    for line in differences(result.study.log.experiment.get("fingerprint") or {}):
        click.echo(f"fettle: warning: {plain(line)}", err=True)


def main() -> None:
    """The `fettle` command."""
    try:
        code = cli.main(prog_name="fettle", standalone_mode=False)
    except click.exceptions.Abort:
        _complain("interrupted", "`fettle resume STUDY` goes on from here", "--json" in sys.argv)
        code = 130
    except click.ClickException as error:
        asked = getattr(error, "ctx", None)  # usage errors know their command
        command = asked.command_path if isinstance(asked, click.Context) else "fettle"
        _complain(error.format_message(), f"see `{command} --help`", "--json" in sys.argv)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
