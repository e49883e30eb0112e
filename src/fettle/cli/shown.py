"""What `fettle list`, `show`, `best` and the searches print."""

from typing import Any

from fettle.api import Result
from fettle.cli.printing import print_answer, print_studies, print_study, stdout_console
from fettle.core.trial import State
from fettle.storage import open_storage
from fettle.study import Study


def show_answer(result: Result) -> None:
    """The answer, and how to start it."""
    console = stdout_console()
    print_answer(result.summary, console)


def show_study(result: Result) -> None:
    print_study(result.summary, stdout_console())


def study_document(result: Result) -> dict[str, Any]:
    """The answer, and every trial in the same form."""
    from fettle.report.document import record

    return {**result.document, "trials": [record(trial) for trial in result.study.trials]}


def listing(storage: str) -> dict[str, Any]:
    """What `fettle list --json` prints."""
    opened = open_storage(storage, must_exist=True)
    return {"schema": 1, "studies": [_listed(Study.open(name, opened)) for name in opened.studies()]}


def show_listing(found: dict[str, Any]) -> None:
    print_studies(found["studies"], stdout_console())


def _listed(study: Study) -> dict[str, Any]:
    from fettle.report.document import record

    log, best = study.sync(), study.best
    return {
        "name": study.name,
        "state": "running" if log.running else "finished" if any(t.confirmed for t in log.trials) else "open",
        "problem": (log.experiment.get("problem") or {}).get("name", "function"),
        "trials": {str(state): log.counts[state] for state in State if log.counts[state]},
        "best": None if best is None else record(best),
    }
