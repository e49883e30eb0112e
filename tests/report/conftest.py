"""Summaries of the synthetic studies."""

from collections.abc import Callable

import pytest

from fettle.report.document import summarise
from fettle.report.summary import Summary

from . import studies


@pytest.fixture
def summary_of() -> Callable[[str], Summary]:
    """Name of a study in `studies.ALL` -> its summary."""

    def make(name: str) -> Summary:
        journal, found = studies.ALL[name]()
        return summarise(journal.log, found.best, found.front, found.reason, {"report": "report.html"})

    return make
