"""The conformance suite on every executor."""

from pathlib import Path

import pytest

from fettle.executors import process
from fettle.executors.inline import InlineExecutor
from fettle.executors.process import ProcessExecutor
from fettle.testing import executors as suite
from fettle.testing import isolation


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_inline(check: suite.Check, tmp_path: Path) -> None:
    check(InlineExecutor, tmp_path)


@pytest.mark.parametrize("check", suite.CHECKS + isolation.CHECKS, ids=lambda check: check.__name__)
def test_process(check: suite.Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE_S", 0.5)
    check(ProcessExecutor, tmp_path)
