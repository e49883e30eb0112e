"""Journals in SQLite, shared by any number of processes of one machine.

Promises. A tell that has returned is in the database's write-ahead log: no process's death, SIGKILL
included, loses it. When the machine itself loses power, the last moments before the cut may be missing
(`synchronous=NORMAL` does not wait for the disk on every commit), but the database is never damaged and
what is missing is missing from the end. `sqlite:///my.db?synchronous=full` waits for the disk each time.

Nothing is unpickled: events are rows of JSON text.
"""

import hashlib
import json
import os
import re
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, unquote

from fettle.core.errors import InvalidInput, StorageError, StudyNotFound, TurnExpired
from fettle.core.protocols import Turn
from fettle.core.trial import Event
from fettle.storage.names import check_name

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    turn TEXT NOT NULL DEFAULT '', turn_until REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS events (
    study INTEGER NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL,
    payload TEXT NOT NULL, time_s REAL NOT NULL, schema INTEGER NOT NULL, PRIMARY KEY (study, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    study INTEGER NOT NULL, number INTEGER NOT NULL, until REAL NOT NULL, PRIMARY KEY (study, number)) WITHOUT ROWID;
"""
_BUSY_S = 120.0  # how long a locked database is waited for
_TURN_S = 600.0  # how long other proposers are waited for
_IDLE_S = 10.0  # between two looks of the thread that renews turns
_inherited: list[object] = []  # a fork's copies of its parent's connections: closing them would be the parent's harm
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class _Owner:
    """Closes a thread's connection when the thread, which alone holds this, has ended."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __del__(self) -> None:
        self.db.close()


@dataclass(frozen=True, slots=True)
class SqlTurn:
    token: str
    pid: int


class SqlStorage:
    """See `fettle.core.protocols.Storage`. `url`: a path, or sqlite:///relative.db, sqlite:////absolute.db."""

    def __init__(self, url: str | Path, *, must_exist: bool = False) -> None:
        path, self._synchronous = _parse(str(url))
        self.path = path.absolute()  # the process may change its folder later
        if must_exist and not self.path.exists():
            raise StudyNotFound(f"there is no storage at {self.path}", "check --storage, or start a study first")
        self._begin()
        self.run(self._create)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._local = threading.local()
        self._owners: weakref.WeakSet[_Owner] = weakref.WeakSet()
        self._guard = threading.Lock()
        self._held: dict[str, tuple[int, float]] = {}  # token -> (study id, lease): turns to renew
        self._renewer: threading.Thread | None = None
        self._wake = threading.Event()
        self._pause_s = _IDLE_S

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            _inherited.append((self._local, list(self._owners)))
            self._begin()

    def _create(self, db: sqlite3.Connection) -> None:
        ours = {"studies", "events", "leases"}
        there = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if there and not there & ours:
            raise StorageError(
                f"{self.path} is a database of something else: it holds {', '.join(sorted(there)[:5])}",
                "choose another --storage",
            )
        if not ours <= there:
            db.executescript(_SCHEMA)

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` on this thread's connection, waiting out other processes' locks."""
        give_up = time.monotonic() + _BUSY_S
        while True:
            try:
                return work(self._connection())
            except sqlite3.Error as error:
                self._rollback()
                busy = "locked" in str(error) or "busy" in str(error)
                if not busy or time.monotonic() > give_up:
                    raise _explain(error, self.path) from error
                time.sleep(0.005)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `work` in one write transaction: all of it or nothing."""

        def transaction(db: sqlite3.Connection) -> T:
            db.execute("BEGIN IMMEDIATE")
            try:
                result = work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return result

        return self.run(transaction)

    def studies(self) -> list[str]:
        return [row[0] for row in self.run(lambda db: db.execute("SELECT name FROM studies ORDER BY id").fetchall())]

    def open(self, name: str, *, create: bool = False) -> "SqlJournal":
        if create:
            check_name(name)
            self.write(lambda db: db.execute("INSERT OR IGNORE INTO studies (name) VALUES (?)", (name,)))
        row = self.run(lambda db: db.execute("SELECT id FROM studies WHERE name = ?", (name,)).fetchone())
        if row is None:
            known = ", ".join(self.studies()) or "none"
            raise StudyNotFound(f"no study named {name!r} in {self.path}", f"studies there: {known}")
        return SqlJournal(self, row[0])

    def folder(self, name: str) -> Path:
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60]
        if slug != name:
            slug = f"{slug or 'study'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        path = self.path.with_suffix(".files") / slug
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write to {path}: {error.strerror}", "choose a writable --storage") from error
        return path

    def close(self) -> None:
        """Closes all connections; may be called again, and a later use opens new ones."""
        self._after_fork()
        with self._guard:
            owners, wake = list(self._owners), self._wake
        for owner in owners:
            owner.db.close()
        self._begin()
        wake.set()  # the renewer ends

    def hold(self, token: str, study: int, lease_s: float) -> None:
        """Has the turn renewed until `release`."""
        with self._guard:
            self._held[token] = (study, lease_s)
            if self._renewer is None or not self._renewer.is_alive():
                self._pause_s = min(_IDLE_S, lease_s / 3)
                self._renewer = threading.Thread(target=self._renew, args=(self._wake,), daemon=True)
                self._renewer.start()
            elif lease_s / 3 < self._pause_s:
                self._wake.set()

    def release(self, token: str) -> None:
        self._after_fork()
        with self._guard:
            self._held.pop(token, None)

    def _renew(self, wake: threading.Event) -> None:
        while True:
            wake.wait(self._pause_s)
            with self._guard:
                if wake is not self._wake:
                    return  # closed
                wake.clear()
                held = dict(self._held)
                self._pause_s = min((lease / 3 for _, lease in held.values()), default=_IDLE_S)
                self._pause_s = min(self._pause_s, _IDLE_S)
            for token, (study, lease_s) in held.items():
                sql = "UPDATE studies SET turn_until = ? WHERE id = ? AND turn = ?"
                arguments = (time.time() + lease_s, study, token)
                try:
                    self.write(lambda db, a=arguments, s=sql: db.execute(s, a))  # type: ignore[misc]
                except StorageError:
                    return  # the holder's next append finds the turn expired and says so

    def _connection(self) -> sqlite3.Connection:
        self._after_fork()
        owner: _Owner | None = getattr(self._local, "owner", None)
        if owner is None:
            db = sqlite3.connect(self.path, timeout=20.0, isolation_level=None, check_same_thread=False)
            owner = _Owner(db)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            self._local.owner = owner
            with self._guard:
                self._owners.add(owner)
        return owner.db

    def _rollback(self) -> None:
        owner: _Owner | None = getattr(self._local, "owner", None)
        if owner is not None and owner.db.in_transaction:
            owner.db.execute("ROLLBACK")


class SqlJournal:
    """See `fettle.core.protocols.Journal`."""

    def __init__(self, storage: SqlStorage, study: int) -> None:
        self._storage = storage
        self._study = study

    @contextmanager
    def turn(self, lease_s: float) -> Iterator[SqlTurn]:
        token = secrets.token_hex(8)
        turn = SqlTurn(token, os.getpid())
        self._take(token, lease_s)
        self._storage.hold(token, self._study, lease_s)
        try:
            yield turn
        finally:
            if turn.pid == os.getpid():  # not in a fork of the holder
                self._storage.release(token)
                sql = "UPDATE studies SET turn = '', turn_until = 0 WHERE id = ? AND turn = ?"
                self._storage.write(lambda db: db.execute(sql, (self._study, token)))

    def _take(self, token: str, lease_s: float) -> None:
        give_up = time.monotonic() + _TURN_S
        look = "SELECT turn_until FROM studies WHERE id = ?"
        take = "UPDATE studies SET turn = ?, turn_until = ? WHERE id = ? AND turn_until < ?"
        pause_s = 0.0002
        while True:
            now = time.time()
            until = self._storage.run(lambda db: db.execute(look, (self._study,)).fetchone())[0]
            if until < now:
                arguments = (token, now + lease_s, self._study, now)
                if self._storage.write(lambda db, a=arguments: db.execute(take, a).rowcount):  # type: ignore[misc]
                    return
            if time.monotonic() > give_up:
                raise StorageError(
                    f"another process has held the right to propose for {_TURN_S:.0f} s",
                    "end the process that is stuck, then `fettle resume` the study",
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 0.02)

    def append(self, events: Sequence[Event], turn: Turn | None = None) -> int:
        rows = [(e.kind, e.number, _encode(dict(e.payload)), e.time_s, e.schema) for e in events]
        study = self._study

        def work(db: sqlite3.Connection) -> int:
            now = time.time()
            if turn is not None:
                row = db.execute("SELECT turn, turn_until FROM studies WHERE id = ?", (study,)).fetchone()
                if row is None or row[0] != turn.token or row[1] < now:
                    raise TurnExpired("the turn ran out before its events were written", "take a new turn")
            seq = int(db.execute("SELECT COALESCE(MAX(seq), 0) FROM events WHERE study = ?", (study,)).fetchone()[0])
            for event, row in zip(events, rows, strict=True):
                seq += 1
                db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", (study, seq, *row))
                if event.kind == "started" and event.payload.get("lease_s") is not None:
                    until = now + event.payload["lease_s"]
                    db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (study, event.number, until))
                elif event.kind in ("told", "lost"):
                    db.execute("DELETE FROM leases WHERE study = ? AND number = ?", (study, event.number))
            return seq

        return self._storage.write(work)

    def read(self, since: int = 0) -> list[Event]:
        sql = "SELECT kind, number, payload, time_s, schema, seq FROM events WHERE study = ? AND seq > ? ORDER BY seq"
        rows = self._storage.run(lambda db: db.execute(sql, (self._study, since)).fetchall())
        try:
            return [Event(k, n, json.loads(p), t, schema, seq) for k, n, p, t, schema, seq in rows]
        except ValueError as error:
            broken = next(row[5] for row in rows if not _is_json(row[2]))
            raise StorageError(
                f"event {broken} of a study in {self._storage.path} is damaged: {error}", "restore the file from a copy"
            ) from error

    def beat(self, number: int, lease_s: float) -> None:
        sql = "UPDATE leases SET until = ? WHERE study = ? AND number = ?"
        arguments = (time.time() + lease_s, self._study, number)
        self._storage.write(lambda db: db.execute(sql, arguments))

    def overdue(self) -> list[int]:
        sql = "SELECT number FROM leases WHERE study = ? AND until < ? ORDER BY number"
        rows = self._storage.run(lambda db: db.execute(sql, (self._study, time.time())).fetchall())
        return [row[0] for row in rows]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _parse(url: str) -> tuple[Path, str]:
    scheme, separator, rest = url.partition("://")
    if not separator and url:
        return Path(url), "NORMAL"
    if scheme != "sqlite":
        raise InvalidInput(f"unknown storage {scheme}://…", "give a path, or sqlite:///my.db")
    rest, _, query = rest.partition("?")
    path = Path(unquote(rest.removeprefix("/")))
    wanted = parse_qs(query)
    synchronous = wanted.pop("synchronous", ["normal"])[0].upper()
    if wanted or synchronous not in ("NORMAL", "FULL") or not path.name:
        raise InvalidInput(f"cannot use storage {url!r}", "write sqlite:///my.db or sqlite:///my.db?synchronous=full")
    return path, synchronous


def _explain(error: sqlite3.Error, path: Path) -> StorageError:
    text = str(error)
    if "unable to open" in text:
        return StorageError(f"cannot open the storage {path}", "check that its folder exists and is writable")
    if "readonly" in text or "read-only" in text:
        return StorageError(f"the storage {path} is read-only", "choose a writable --storage")
    if "not a database" in text or "malformed" in text:
        return StorageError(f"{path} is not a Fettle storage: {text}", "choose another --storage")
    if "full" in text:
        return StorageError(f"no room left for the storage {path}: {text}", "free disk space, then resume")
    return StorageError(f"the storage {path} failed: {text}", "check the disk and the permissions")
