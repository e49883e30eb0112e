"""Summaries of the synthetic studies."""

from collections.abc import Callable
from typing import Any

import pytest

from fettle.report.document import summarise
from fettle.report.explanation import explanation
from fettle.report.summary import Summary

from . import studies


@pytest.fixture
def summary_of() -> Callable[[str], Summary]:
    """Name of a study in `studies.ALL` -> its summary."""

    def make(name: str) -> Summary:
        journal, found = studies.ALL[name]()
        return summarise(journal.log, found.best, found.front, found.reason, {"report": "report.html"})

    return make


@pytest.fixture
def explained_of() -> Callable[[str], dict[str, Any] | None]:
    """The same -> its explanation; None where the study records no space."""

    def make(name: str) -> dict[str, Any] | None:
        log = studies.ALL[name]()[0].log
        return explanation(log) if log.experiment.get("space") else None

    return make
