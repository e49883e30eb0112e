"""What `fettle explain` prints: findings in sentences, then the tables behind them."""

from collections.abc import Mapping
from typing import Any

from fettle.cli.printing import print_table, stdout_console
from fettle.core.trial import Params
from fettle.report.explanation import explanation
from fettle.report.foretold import table
from fettle.report.influence import interactions, parameters, prediction
from fettle.report.text import plain
from fettle.report.why import reasons
from fettle.study import Study


def document(study: str, storage: str, params: Params | None) -> dict[str, Any]:
    """What --json prints. Raises StudyNotFound, and what `explanation` raises."""
    found = Study.open(study, storage)
    return explanation(found.sync(), params, best=found.answer.best)


def show(found: Mapping[str, Any]) -> None:
    console = stdout_console()
    for line in (*reasons(found), *found["findings"]):
        console.print(plain(line), soft_wrap=True)
    console.print()
    for goal in found["objectives"]:
        if goal["parameters"]:
            print_table(parameters(goal), console)
        if goal["interactions"]:
            print_table(interactions(goal), console)
    for expected in found["foretold"]:
        print_table(table(expected), console)
    if found["prediction"] is not None:
        print_table(prediction(found["prediction"]), console)
