"""The conformance suite on every storage, and on ones that break its rules."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fettle.core.protocols import Turn
from fettle.core.trial import Event
from fettle.storage.memory import MemoryJournal, MemoryStorage, MemoryTurn
from fettle.storage.sql import SqlStorage
from fettle.testing import journals as suite


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_memory(check: suite.Check) -> None:
    check(MemoryStorage)


@pytest.mark.parametrize("check", suite.CHECKS + suite.SHARED_CHECKS, ids=lambda check: check.__name__)
def test_sql(check: suite.Check, tmp_path: Path) -> None:
    check(lambda: SqlStorage(tmp_path / "x.db"))


@pytest.mark.parametrize("check", [suite.check_order, suite.check_stays], ids=lambda check: check.__name__)
def test_sql_that_waits_for_the_disk(check: suite.Check, tmp_path: Path) -> None:
    check(lambda: SqlStorage(f"sqlite:///{tmp_path}/x.db?synchronous=full"))


class Broken(MemoryJournal):
    fault = ""

    @contextmanager
    def turn(self, lease_s: float) -> Iterator[MemoryTurn]:
        if self.fault == "everybody's turn":
            self._token = "same"
            yield MemoryTurn("same")
            return
        with super().turn(lease_s) as turn:
            yield turn

    def append(self, events: Sequence[Event], turn: Turn | None = None) -> int:
        if self.fault == "deaf to turns":
            turn = None
        if self.fault == "strings":
            events = [replace(e, payload={k: str(v) for k, v in e.payload.items()}) for e in events]
        return super().append(events, turn)

    def read(self, since: int = 0) -> list[Event]:
        read = super().read(since)
        return read[::-1] if self.fault == "order" else read

    def beat(self, number: int, lease_s: float) -> None:
        if self.fault == "beats for the dead":
            self._leases.setdefault(number, 0.0)
        super().beat(number, lease_s)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("everybody's turn", suite.check_turns_exclude),
        ("deaf to turns", suite.check_all_or_none),
        ("strings", suite.check_types),
        ("order", suite.check_order),
        ("beats for the dead", suite.check_leases),
    ],
)
def test_the_suite_finds_faults(fault: str, check: suite.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fettle.storage.memory.MemoryJournal", type("B", (Broken,), {"fault": fault}))
    with pytest.raises(AssertionError):
        check(MemoryStorage)
