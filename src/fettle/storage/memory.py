"""Journals that live as long as their process. Safe for threads; for several processes use storage/sql.py."""

import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fettle.core.errors import StudyNotFound, TurnExpired
from fettle.core.protocols import Turn
from fettle.core.trial import Event
from fettle.storage.names import check_name


@dataclass(frozen=True, slots=True)
class MemoryTurn:
    token: str


class MemoryJournal:
    """See `fettle.core.protocols.Journal`."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._leases: dict[int, float] = {}
        self._turns = threading.Lock()
        self._lock = threading.Lock()
        self._token = ""

    @contextmanager
    def turn(self, lease_s: float) -> Iterator[MemoryTurn]:
        with self._turns:  # a holder in this process cannot die without the journal
            turn = MemoryTurn(secrets.token_hex(8))
            self._token = turn.token
            try:
                yield turn
            finally:
                self._token = ""

    def append(self, events: Sequence[Event], turn: Turn | None = None) -> int:
        with self._lock:
            if turn is not None and turn.token != self._token:
                raise TurnExpired("the turn has ended", "take a new turn")
            seq = len(self._events)
            for offset, event in enumerate(events, 1):
                self._events.append(replace(event, seq=seq + offset))
                if event.kind == "started" and event.payload.get("lease_s") is not None:
                    self._leases[event.number] = time.monotonic() + event.payload["lease_s"]
                elif event.kind in ("told", "lost"):
                    self._leases.pop(event.number, None)
            return len(self._events)

    def read(self, since: int = 0) -> list[Event]:
        with self._lock:
            return self._events[since:]

    def beat(self, number: int, lease_s: float) -> None:
        with self._lock:
            if number in self._leases:
                self._leases[number] = time.monotonic() + lease_s

    def overdue(self) -> list[int]:
        with self._lock:
            now = time.monotonic()
            return sorted(number for number, expires in self._leases.items() if expires < now)


class MemoryStorage:
    """See `fettle.core.protocols.Storage`."""

    def __init__(self) -> None:
        self._journals: dict[str, MemoryJournal] = {}
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._remove: weakref.finalize[..., MemoryStorage] | None = None

    def studies(self) -> list[str]:
        return list(self._journals)

    def open(self, name: str, *, create: bool = False) -> MemoryJournal:
        if create:
            check_name(name)
        with self._lock:
            if name not in self._journals:
                if not create:
                    raise StudyNotFound(f"no study named {name!r} in memory", f"there are: {list(self._journals)}")
                self._journals[name] = MemoryJournal()
            return self._journals[name]

    def folder(self, name: str) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="fettle-"))
                self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            path = self._folder / f"study-{list(self._journals).index(name)}"
        path.mkdir(exist_ok=True)
        return path

    def close(self) -> None:
        """Removes the folder, as does the storage's own end."""
        if self._remove is not None:
            self._remove()
            self._folder = self._remove = None
