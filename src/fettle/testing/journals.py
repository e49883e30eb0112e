"""Conformance suite for journals and the storages that hold them.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_storage(check, tmp_path):
        check(lambda: MyStorage(tmp_path / "x"))

Each check takes a function that opens the storage: called again, it opens the same one anew where that can be
shared by processes. Checks raise AssertionError. SHARED_CHECKS are for storages that processes share.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fettle.core.errors import InvalidInput, StudyNotFound, TurnExpired
from fettle.core.protocols import Journal, Storage
from fettle.core.trial import Event

Open = Callable[[], Storage]
Check = Callable[[Open], None]

HOSTILE = [
    "../../etc/passwd",
    "a'; DROP TABLE events; --",
    "größe 量 🦀",
    "%00",
    "-rf",
    ".",
    "x" * 200,
    "<b>",
    "C:\\nul",
]
REFUSED = ["", " ", "a\nb", "a\0b", " a", "a\x1b[31m", "\ud800", "x" * 201, "\u202eabc"]


def event(number: int, kind: str = "told", **payload: Any) -> Event:
    return Event(kind, number, payload, time.time())


def started(number: int, lease_s: float | None) -> Event:
    return event(number, "started", params={}, lease_s=lease_s)


@contextmanager
def opened(open_storage: Open) -> Iterator[Storage]:
    storage = open_storage()
    try:
        yield storage
    finally:
        storage.close()


@contextmanager
def journal(open_storage: Open, name: str = "s") -> Iterator[Journal]:
    with opened(open_storage) as storage:
        yield storage.open(name, create=True)


def check_order(open_storage: Open) -> None:
    """What was appended is read in that order, unchanged, with seq from 1 on; `since` skips."""
    with journal(open_storage) as j:
        assert list(j.read()) == []
        written = [event(i, text=f"{i} ü \x00 \ud800 '", value=[1, 1.5, None, True, {"a": []}]) for i in range(5)]
        assert j.append(written[:2]) == 2
        assert j.append([]) == 2
        assert j.append(written[2:]) == 5
        read = list(j.read())
        assert [e.seq for e in read] == [1, 2, 3, 4, 5]
        for wrote, got in zip(written, read, strict=True):
            assert (got.kind, got.number, got.time_s, got.schema) == (
                wrote.kind,
                wrote.number,
                wrote.time_s,
                wrote.schema,
            )
            assert dict(got.payload) == dict(wrote.payload)
        assert [e.seq for e in j.read(3)] == [4, 5]
        assert list(j.read(5)) == []
        assert list(j.read(99)) == []


def check_types(open_storage: Open) -> None:
    """Values keep their types: a string of digits stays one, and an int is no float."""
    values: dict[str, Any] = {"s": "128", "i": 1, "f": 1.0, "b": True, "n": None, "big": 2**53 + 1, "x": 0.1 + 0.2}
    with journal(open_storage) as j:
        j.append([event(0, **values)])
        (read,) = j.read()
        assert {k: (type(v), v) for k, v in read.payload.items()} == {k: (type(v), v) for k, v in values.items()}


def check_all_or_none(open_storage: Open) -> None:
    """An append that fails in the middle, or without its turn, leaves nothing behind."""
    with journal(open_storage) as j:
        j.append([event(0)])
        with j.turn(30.0) as turn:
            assert j.append([event(1)], turn) == 2
        for stale in (turn,):
            try:
                j.append([event(2), event(3)], stale)
            except TurnExpired:
                pass
            else:
                raise AssertionError("a turn that has ended was accepted")
        assert [e.number for e in j.read()] == [0, 1]
        assert j.append([event(4)]) == 3, "a refused append used up a number"


def check_turns_exclude(open_storage: Open) -> None:
    """Threads that count under a turn lose no increment."""
    with journal(open_storage) as j:

        def count() -> None:
            for _ in range(10):
                with j.turn(30.0) as turn:
                    number = len(list(j.read()))
                    time.sleep(0.0005)
                    j.append([event(number)], turn)

        _threads(count, 4)
        assert [e.number for e in j.read()] == list(range(40))


def check_turn_ends_with_an_error(open_storage: Open) -> None:
    """What is raised inside a turn comes out, and the turn is free at once."""
    with journal(open_storage) as j:
        try:
            with j.turn(30.0):
                raise KeyError("from inside")
        except KeyError:
            pass
        begun = time.monotonic()
        with j.turn(30.0) as turn:
            j.append([event(0)], turn)
        assert time.monotonic() - begun < 10.0, "the turn was not given back"


def check_appends_need_no_turn(open_storage: Open) -> None:
    """Tells and beats of others pass while someone holds the turn."""
    with journal(open_storage) as j, j.turn(30.0) as turn:

        def tell() -> None:
            j.append([event(0)])
            j.beat(0, 1.0)

        _threads(tell, 2)
        assert j.append([event(1)], turn) == 3


def check_threads(open_storage: Open) -> None:
    """Appends of many threads are all there, each batch in one piece."""
    with journal(open_storage) as j:
        numbers = iter(range(1000))

        def write() -> None:
            for _ in range(10):
                n = next(numbers)
                j.append([event(n, part=0), event(n, part=1), event(n, part=2)])

        _threads(write, 4)
        read = list(j.read())
        assert [e.seq for e in read] == list(range(1, 121))
        assert [e.payload["part"] for e in read] == [0, 1, 2] * 40
        assert all(len({e.number for e in read[i : i + 3]}) == 1 for i in range(0, 120, 3)), "a batch was torn"


def check_leases(open_storage: Open) -> None:
    """Only running trials with a lease can be overdue; a beat puts it off, a tell ends it."""
    with journal(open_storage) as j:
        j.append([started(0, 0.05), started(1, None), started(2, 60.0), started(3, 0.05), started(4, 0.05)])
        j.append([event(3), event(4, "lost")])
        time.sleep(0.1)
        assert list(j.overdue()) == [0]
        j.beat(0, 60.0)
        j.beat(1, 0.0)
        j.beat(3, 0.0)
        j.beat(99, 0.0)
        assert list(j.overdue()) == []
        j.beat(0, 0.0)
        j.beat(2, 0.0)
        time.sleep(0.02)
        assert list(j.overdue()) == [0, 2]
        j.append([event(0)])
        assert list(j.overdue()) == [2]


def check_studies_are_apart(open_storage: Open) -> None:
    """Several studies in one storage know nothing of each other."""
    with opened(open_storage) as storage:
        a, b = storage.open("a", create=True), storage.open("b", create=True)
        with a.turn(30.0) as turn_a, b.turn(30.0) as turn_b:
            a.append([started(0, 0.01)], turn_a)
            b.append([event(0), event(1)], turn_b)
        time.sleep(0.03)
        assert (len(list(a.read())), len(list(b.read()))) == (1, 2)
        assert (list(a.overdue()), list(b.overdue())) == ([0], [])
        assert storage.studies() == ["a", "b"]
        assert storage.folder("a") != storage.folder("b")
        assert list(storage.open("a").read()) == list(a.read())


def check_names(open_storage: Open) -> None:
    """Any printable name works and stays inside the storage's own folder; unknown and invisible ones are refused."""
    with opened(open_storage) as storage:
        for name in HOSTILE:
            storage.open(name, create=True).append([event(0, name=name)])
        assert storage.studies() == HOSTILE
        folders = [storage.folder(name).resolve() for name in HOSTILE]
        assert len({f.parent for f in folders}) == 1
        assert len(set(folders)) == len(HOSTILE)
        assert all(f.is_dir() for f in folders)
        for name in HOSTILE:
            (read,) = storage.open(name).read()
            assert read.payload["name"] == name
        for name in REFUSED:
            try:
                storage.open(name, create=True)
            except InvalidInput:
                continue
            raise AssertionError(f"{name!r} was accepted")
        try:
            storage.open("unknown")
        except StudyNotFound:
            pass
        else:
            raise AssertionError("an unknown study was made up")
        assert storage.studies() == HOSTILE


def check_big_payload(open_storage: Open) -> None:
    """A payload of several megabytes comes back whole."""
    text = "0123456789abcdef" * (1 << 18)
    with journal(open_storage) as j:
        j.append([event(0, text=text, many=list(range(50_000)))])
        (read,) = j.read()
        assert read.payload["text"] == text
        assert read.payload["many"][-1] == 49_999


def check_close(open_storage: Open) -> None:
    """`close` may be called twice."""
    storage = open_storage()
    storage.open("s", create=True).append([event(0)])
    storage.close()
    storage.close()


def check_stays(open_storage: Open) -> None:
    """What was appended is there for whoever opens the storage next."""
    with journal(open_storage) as j:
        j.append([event(0), started(1, 0.0)])
    time.sleep(0.01)
    with journal(open_storage) as j:
        assert [e.number for e in j.read()] == [0, 1]
        assert list(j.overdue()) == [1]


def check_turns_exclude_processes(open_storage: Open) -> None:
    """Processes that count under a turn lose no increment."""
    with journal(open_storage) as j:
        pids = [_fork(lambda: _count(open_storage, 15)) for _ in range(3)]
        assert [_exit_status(pid) for pid in pids] == [0, 0, 0]
        assert [e.number for e in j.read()] == list(range(45))


def check_turn_runs_out(open_storage: Open) -> None:
    """The turn of a holder that was killed, or that is stopped, runs out; what it appends later is refused."""
    with journal(open_storage) as j:
        for how in (signal.SIGKILL, signal.SIGSTOP):
            read_fd, write_fd = os.pipe()
            pid = _fork(lambda fd=write_fd: _hold_and_append(open_storage, fd))  # type: ignore[misc]
            os.read(read_fd, 1)  # it holds the turn
            os.kill(pid, how)
            begun = time.monotonic()
            with j.turn(30.0) as turn:
                assert time.monotonic() - begun < 10.0
                j.append([event(7)], turn)
                if how == signal.SIGSTOP:
                    os.kill(pid, signal.SIGCONT)
                    assert _exit_status(pid) == 3, "an append under a turn that had run out was accepted"
                else:
                    assert _exit_status(pid) == -signal.SIGKILL
            os.close(read_fd)
            os.close(write_fd)
        assert [e.number for e in j.read()] == [7, 7]


def check_renewal(open_storage: Open) -> None:
    """A turn lasts longer than its lease while its holder lives, whatever was held before."""
    with journal(open_storage) as j, journal(open_storage) as other:
        with j.turn(60.0):
            pass
        taken: list[float] = []

        def take() -> None:
            with other.turn(30.0):
                taken.append(time.monotonic())

        with j.turn(0.6) as turn:
            thread = threading.Thread(target=take)
            thread.start()
            time.sleep(1.5)
            assert not taken, "another took the turn of a holder that lives"
            j.append([event(0)], turn)
            left = time.monotonic()
        thread.join(20.0)
        assert taken, "the turn was not given back"
        assert taken[0] >= left


def check_fork(open_storage: Open) -> None:
    """A storage that was open before a fork works in both processes, and a fork inside a turn does not end it."""
    with journal(open_storage) as j:
        j.append([event(0)])
        with j.turn(30.0) as turn:
            pid = _fork(lambda: _appended(j))
            assert _exit_status(pid) == 0
            j.append([event(2)], turn)
        assert [e.number for e in j.read()] == [0, 1, 2]
        with j.turn(30.0) as turn:
            j.append([event(3)], turn)


CHECKS: tuple[Check, ...] = (
    check_order,
    check_types,
    check_all_or_none,
    check_turns_exclude,
    check_turn_ends_with_an_error,
    check_appends_need_no_turn,
    check_threads,
    check_leases,
    check_studies_are_apart,
    check_names,
    check_big_payload,
    check_close,
)
SHARED_CHECKS: tuple[Check, ...] = (
    check_stays,
    check_turns_exclude_processes,
    check_turn_runs_out,
    check_renewal,
    check_fork,
)


def _threads(work: Callable[[], object], n: int) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (raised again below, in the caller's thread)
            errors.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def _fork(work: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    return pid


def _exit_status(pid: int) -> int:
    give_up = time.monotonic() + 60.0
    while time.monotonic() < give_up:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("a child process hangs")


def _count(open_storage: Open, n: int) -> int:
    with journal(open_storage) as j:
        for _ in range(n):
            with j.turn(30.0) as turn:
                j.append([event(len(list(j.read())))], turn)
    return 0


def _hold_and_append(open_storage: Open, fd: int) -> int:
    """3: refused."""
    with journal(open_storage) as j:
        try:
            with j.turn(0.5) as turn:
                os.write(fd, b"x")
                time.sleep(1.5)
                j.append([event(6)], turn)
        except TurnExpired:
            return 3
    return 0


def _appended(j: Journal) -> int:
    j.append([event(1)])
    return 0 if [e.number for e in j.read()] == [0, 1] else 1
