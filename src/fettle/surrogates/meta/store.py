"""The user's own store of tasks: one compressed JSON file for each, in one folder; nothing is ever sent anywhere.

A task of the same origin (the same study, or the same model of one collection) takes the place of its earlier copy, so
that a study can be added again after more trials. Another one of the same name gets a suffix: digits, digits-2.
"""

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import re
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fettle.core.errors import FettleError, InvalidInput
from fettle.surrogates.meta.task import Task

FORMAT = 1
_ENDING = ".json.gz"


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored task. added_s: when it was added last, as Unix time."""

    path: Path
    added_s: float
    task: Task


@dataclass(frozen=True, slots=True)
class Store:
    """Tasks in a folder, which need not be there yet. Any number of processes may share it."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @classmethod
    def default(cls) -> "Store":
        """FETTLE_META, else fettle/meta in XDG_DATA_HOME, else in ~/.local/share."""
        if own := os.environ.get("FETTLE_META"):
            return cls(Path(own).expanduser())
        data = os.environ.get("XDG_DATA_HOME", "")
        home = Path(data) if Path(data).is_absolute() else Path("~/.local/share").expanduser()
        return cls(home / "fettle" / "meta")

    def entries(self) -> Iterator[Entry]:
        """One file read at a time, in the order of file names. Raises InvalidInput, which names a damaged file."""
        return map(_read, self._files())

    def tasks(self) -> list[Task]:
        """The latest last. Raises InvalidInput, which names a damaged file."""
        return [entry.task for entry in sorted(self.entries(), key=lambda e: (e.added_s, e.task.name))]

    def entry(self, path: Path) -> Entry:
        """What a file of the store holds. Raises InvalidInput."""
        return _read(path)

    def find(self, name: str) -> Entry:
        """The entry of that name. Raises InvalidInput."""
        names = []
        for entry in self.entries():
            if entry.task.name == name:
                return entry
            names.append(entry.task.name)
        known = ", ".join(sorted(names)) or "none yet"
        raise InvalidInput(f"no task {name!r} in {self.folder}", f"its tasks: {known}")

    def add(self, task: Task) -> Path:
        """Stores a task, and returns its file. The stored task's name is new in the store, or that of the earlier copy
        of the same origin, whose place it takes. Raises InvalidInput where the folder cannot be written."""
        try:
            text = json.dumps(task.to_json(), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"task {task.name!r} cannot be stored: {error}", "give params and context as JSON"
            ) from error
        origin = hashlib.sha256(str((task.context or {}).get("origin") or text).encode()).hexdigest()[:12]
        with _writing(self.folder):
            same = [path for path in self._files() if path.name.endswith(f"-{origin}{_ENDING}")]
            path = same[0] if same else self.folder / f"{_safe(task.name)}-{origin}{_ENDING}"
            name = _read(path).task.name if same else self._free(task.name)
            form = {"format": FORMAT, "added_s": time.time(), "task": {**task.to_json(), "name": name}}
            _write(path, gzip.compress(json.dumps(form).encode(), 6, mtime=0))
        return path

    def remove(self, name: str) -> Path:
        """Deletes the task of that name, and returns what was its file. Raises InvalidInput."""
        path = self.find(name).path
        with _writing(self.folder):
            path.unlink(missing_ok=True)
        return path

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if path.name.endswith(_ENDING))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InvalidInput(f"cannot read the store {self.folder}: {error.strerror}", "give a folder") from error

    def _free(self, name: str) -> str:
        """The name, or the name with the first number that is free. Only files that may have it are read."""
        alike = [path for path in self._files() if path.name.startswith(_safe(name))]
        taken = {_read(path).task.name for path in alike}
        return next(n for i in range(1, len(taken) + 2) if (n := name if i == 1 else f"{name}-{i}") not in taken)


def _safe(name: str) -> str:
    """The beginning of a file's name; alike for names that differ in a suffix only."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60].lstrip(".") or "_"


def _read(path: Path) -> Entry:
    try:
        form = json.loads(gzip.decompress(path.read_bytes()), parse_constant=_refuse)
        if form["format"] != FORMAT:
            raise InvalidInput(f"it has format {form['format']!r}, this version reads {FORMAT}")
        task = Task.from_json(form["task"])
        if any(isinstance(value, list | dict) for row in task.rows for value in row.params.values()):
            raise InvalidInput("its params are not flat")
        return Entry(path, float(form["added_s"]), task)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, FettleError) as error:
        raise InvalidInput(
            f"{path} is no stored task: {error}", "delete that file, and add its study or its rows again"
        ) from error


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """The folder, made where it lacks, for one writer at a time; the lock ends with its holder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InvalidInput(
            f"cannot write to the store {folder}: {error.strerror}", "give another folder, or set FETTLE_META"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise InvalidInput(f"cannot write to the store {folder}: {error.strerror}", "free some space") from error
    finally:
        os.close(fd)


def _write(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one, whenever this process dies."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink()
            raise
