"""What is SQLite's own in storage/sql.py: files, locks, names, addresses, errors."""

import ast
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fettle.storage
from fettle.core.errors import FettleError, InvalidInput, StorageError, StudyNotFound
from fettle.core.trial import Event
from fettle.storage import open_storage, sql
from fettle.storage.memory import MemoryStorage
from fettle.storage.sql import SqlStorage


def event(number: int, **payload: object) -> Event:
    return Event("told", number, payload, time.time())


def pragma(storage: SqlStorage, name: str) -> object:
    return storage.run(lambda db: db.execute(f"PRAGMA {name}").fetchone()[0])


def test_write_ahead_log_and_how_the_disk_is_waited_for(tmp_path: Path) -> None:
    storage = SqlStorage(tmp_path / "a.db")
    assert (pragma(storage, "journal_mode"), pragma(storage, "synchronous")) == ("wal", 1)
    assert pragma(SqlStorage(f"sqlite:///{tmp_path}/b.db?synchronous=full"), "synchronous") == 2


_WRITER = """
import sys, time
from fettle.core.trial import Event
from fettle.storage.sql import SqlStorage
storage = SqlStorage(sys.argv[1])
journal = storage.open("s", create=True)
for i in range(25):
    journal.append([Event("told", 0, {"writer": sys.argv[2], "i": i, "text": "x" * 500}, time.time())])
    with journal.turn(30.0) as turn:
        number = sum(e.kind == "started" for e in journal.read())
        journal.append([Event("started", number, {"params": {}, "lease_s": 30.0}, time.time())], turn)
    journal.beat(number, 30.0)
    journal.overdue()
    storage.studies()
"""


def test_eight_writers_never_see_a_lock(tmp_path: Path) -> None:
    """They start on a file that does not exist yet, and so also make the tables together."""
    argv = [sys.executable, "-c", _WRITER, str(tmp_path / "a.db")]
    writers = [subprocess.Popen([*argv, str(w)], stderr=subprocess.PIPE, text=True) for w in range(8)]
    said = [w.communicate(timeout=100)[1] for w in writers]
    assert said == [""] * 8
    events = SqlStorage(tmp_path / "a.db").open("s").read()
    assert [e.seq for e in events] == list(range(1, 401))
    assert [e.number for e in events if e.kind == "started"] == list(range(200))
    for writer in range(8):
        own = [e.payload["i"] for e in events if e.payload.get("writer") == str(writer)]
        assert own == list(range(25)), "a writer's own events are in its own order"


def test_a_lock_that_lasts_is_waited_for(tmp_path: Path) -> None:
    journal = SqlStorage(tmp_path / "a.db").open("s", create=True)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.5, lambda: other.execute("COMMIT"))
    release.start()
    assert journal.append([event(0)]) == 1
    release.join()
    other.close()


def test_a_lock_without_end_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_BUSY_S", 0.2)
    storage = SqlStorage(tmp_path / "a.db")
    journal = storage.open("s", create=True)
    storage.run(lambda db: db.execute("PRAGMA busy_timeout = 50"))
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match=r"a\.db"):
        journal.append([event(0)])
    other.execute("ROLLBACK")
    other.close()
    assert journal.append([event(0)]) == 1


def test_a_turn_that_is_never_given_back_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_TURN_S", 0.2)
    journal = SqlStorage(tmp_path / "a.db").open("s", create=True)
    with journal.turn(30.0), pytest.raises(StorageError, match="right to propose"), journal.turn(30.0):
        pass


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be looked at" * 40, b"SQLite format 3\0" * 99]
)
def test_not_a_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="not a Fettle storage") as caught:
        SqlStorage(path)
    assert caught.value.hint
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "a.db")
    db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.commit()
    db.close()
    with pytest.raises(StorageError, match="bookmarks"):
        SqlStorage(tmp_path / "a.db")
    db = sqlite3.connect(tmp_path / "a.db")
    assert [row[0] for row in db.execute("SELECT name FROM sqlite_master")] == ["bookmarks"]
    db.close()


@pytest.mark.parametrize("path", ["no/such/folder/a.db", "."])
def test_a_place_that_cannot_be_opened(path: str) -> None:
    with pytest.raises(StorageError, match="cannot open") as caught:
        SqlStorage(path)
    assert "writable" in caught.value.hint


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="fettle-test-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def as_nobody(work: Callable[[], object]) -> str:
    """What `work` raises in a fork that has no rights: class and message."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "nothing"
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            work()
        except FettleError as error:
            text = f"{type(error).__name__}: {error}; {error.hint}"
        except BaseException as error:
            text = f"unexpected {error!r}"
        finally:
            os.write(write_fd, text.encode())
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def test_read_only_folder(public: Path) -> None:
    public.chmod(0o555)
    text = as_nobody(lambda: SqlStorage(public / "a.db"))
    assert text.startswith("StorageError"), text
    assert "writable" in text
    SqlStorage(public / "b.db").close() if os.getuid() == 0 else None
    public.chmod(0o777)


def test_read_only_file(public: Path) -> None:
    storage = SqlStorage(public / "a.db")
    storage.open("s", create=True).append([event(0)])
    storage.close()
    (public / "a.db").chmod(0o444)
    public.chmod(0o555)
    text = as_nobody(lambda: SqlStorage(public / "a.db").open("s").append([event(1)]))
    public.chmod(0o777)
    assert text.startswith("StorageError"), text
    assert "writable" in text
    assert [e.number for e in SqlStorage(public / "a.db").open("s").read()] == [0]


def test_a_folder_of_files_that_cannot_be_made(tmp_path: Path) -> None:
    storage = SqlStorage(tmp_path / "a.db")
    (tmp_path / "a.files").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write") as caught:
        storage.folder("s")
    assert caught.value.hint


def test_a_full_disk_loses_nothing_that_was_told(tmp_path: Path) -> None:
    storage = SqlStorage(tmp_path / "a.db")
    journal = storage.open("s", create=True)
    storage.run(lambda db: db.execute("PRAGMA max_page_count = 30"))
    told = 0
    with pytest.raises(StorageError, match="no room") as caught:
        while told < 1000:
            journal.append([event(told, text="x" * 2000), event(told, text="second half")])
            told += 1
    assert "free disk space" in caught.value.hint
    assert 0 < told < 1000
    assert len(journal.read()) == 2 * told, "the refused append left a half"
    storage.run(lambda db: db.execute("PRAGMA max_page_count = 100000"))
    assert journal.append([event(told)]) == 2 * told + 1


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("a.db", "a.db"),
        ("sqlite:///a.db", "a.db"),
        ("sqlite:///sub%20dir/ü.db", "sub dir/ü.db"),
        ("sqlite:////tmp/x/a.db", "/tmp/x/a.db"),
        ("C:/odd", "C:/odd"),
    ],
)
def test_addresses(url: str, path: str) -> None:
    assert sql._parse(url) == (Path(path), "NORMAL")


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "postgres://u:secret@h/d", "sqlite:///a.db?x=1", "sqlite:///a.db?synchronous=off", ""],
)
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SqlStorage(url)
    assert caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = SqlStorage("a.db")
    storage.open("s", create=True)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    storage.close()
    assert storage.studies() == ["s"]
    assert storage.folder("s") == tmp_path / "a.files" / "s"
    assert list((tmp_path / "other").iterdir()) == []


def test_a_storage_that_must_exist(tmp_path: Path) -> None:
    with pytest.raises(StudyNotFound, match="no storage"):
        open_storage(tmp_path / "a.db", must_exist=True)
    assert list(tmp_path.iterdir()) == []


def test_what_opens_what(tmp_path: Path) -> None:
    assert isinstance(open_storage(None), MemoryStorage)
    assert isinstance(open_storage("memory"), MemoryStorage)
    opened = open_storage(tmp_path / "a.db")
    assert isinstance(opened, SqlStorage)
    assert open_storage(opened) is opened


def test_threads_that_end_leave_no_connections(tmp_path: Path) -> None:
    storage = SqlStorage(tmp_path / "a.db")
    for _ in range(5):
        thread = threading.Thread(target=storage.studies)
        thread.start()
        thread.join()
    give_up = time.monotonic() + 5.0
    while len(storage._owners) > 1 and time.monotonic() < give_up:
        time.sleep(0.01)  # a thread's own things end a moment after it
    assert len(storage._owners) == 1


def test_close_ends_the_thread_that_renews_turns(tmp_path: Path) -> None:
    storage = SqlStorage(tmp_path / "a.db")
    with storage.open("s", create=True).turn(30.0):
        pass
    renewer = storage._renewer
    assert renewer is not None
    assert renewer.is_alive()
    storage.close()
    renewer.join(5.0)
    assert not renewer.is_alive()
    with storage.open("s").turn(30.0):
        pass


def test_a_damaged_event_is_no_traceback_of_json(tmp_path: Path) -> None:
    storage = SqlStorage(tmp_path / "a.db")
    journal = storage.open("s", create=True)
    journal.append([event(0)])
    storage.write(lambda db: db.execute("UPDATE events SET payload = '{'"))
    with pytest.raises(StorageError, match="event 1"):
        journal.read()


def test_nothing_is_unpickled_or_run_from_the_store() -> None:
    forbidden = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib", "importlib", "runpy", "yaml"}
    files = list(Path(fettle.storage.__file__).parent.glob("*.py"))
    assert len(files) >= 3
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [node.func.id] if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else []
            assert not {n.partition(".")[0] for n in names} & (forbidden | {"eval", "exec", "__import__"}), file
