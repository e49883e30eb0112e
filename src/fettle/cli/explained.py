"""What `fettle explain` prints: findings in sentences, then the tables behind them."""

from collections.abc import Mapping
from typing import Any

from fettle.cli.printing import print_table, stdout_console
from fettle.core.trial import Params
from fettle.report.explanation import explanation
from fettle.report.influence import interactions, parameters, prediction
from fettle.report.text import plain
from fettle.study import Study


def document(study: str, storage: str, params: Params | None) -> dict[str, Any]:
    """What --json prints. Raises StudyNotFound, and what `explanation` raises."""
    return explanation(Study.open(study, storage).sync(), params)


def show(found: Mapping[str, Any]) -> None:
    console = stdout_console()
    for line in found["findings"]:
        console.print(plain(line), soft_wrap=True)
    console.print()
    for goal in found["objectives"]:
        if goal["parameters"]:
            print_table(parameters(goal), console)
        if goal["interactions"]:
            print_table(interactions(goal), console)
    if found["prediction"] is not None:
        print_table(prediction(found["prediction"]), console)
