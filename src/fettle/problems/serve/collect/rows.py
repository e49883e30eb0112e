"""The file of measurements: JSON lines, each a fact of its own, so that a kill costs at most the line being written.

The first line is the header: space, machine and settings. Then one line per model, and one per measurement:
{"model", "params", "repeat", "metrics", "intervals": {metric: [low, high or null, n]}, "failure", "error", "foreign",
"tries", "runs", "seconds", "at"}. A file whose name ends in .gz is read alike.
"""

import gzip
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fettle.core.errors import InvalidInput
from fettle.core.space import Params, Space

SCHEMA = 1
Row = tuple[Params, dict[str, float]] | tuple[Params, dict[str, float], str]


@dataclass(frozen=True, slots=True)
class Measurements:
    """All measurements of one model: what a task of the meta-learner is made of. rows: (params, metrics), or
    (params, metrics, failure class); equal params are repeats. context: fingerprint and probe of the machine."""

    name: str
    rows: tuple[Row, ...]
    space: Space
    features: Mapping[str, float]
    context: Mapping[str, Any]


@dataclass(slots=True)
class RowFile:
    """What a file holds. lines: the measurements, in order."""

    header: dict[str, Any] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)


def read(path: Path) -> RowFile:
    """A last line that was cut off is left out. Raises InvalidInput."""
    found = RowFile()
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise InvalidInput(
            f"{path}: cannot be read: {error}", "give a file that `fettle meta collect` wrote"
        ) from error
    lines = data.split(b"\n")[:-1]  # what follows the last line break was cut off
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            kind = entry.pop("kind")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InvalidInput(f"{path}:{number}: not a line of measurements: {error}", "restore the file") from error
        if kind == "header":
            found.header = entry
        elif kind == "model":
            found.models[entry.pop("name")] = entry
        else:
            found.lines.append(entry)
    if not lines or found.header.get("schema") != SCHEMA:
        raise InvalidInput(f"{path}: expected measurements of schema {SCHEMA}", "another version of Fettle wrote it")
    return found


def measurements(path: Path) -> list[Measurements]:
    """Per model, in the file's order; models without a measurement are left out."""
    found = read(path)
    space = Space.from_json(found.header["space"])
    context = {"fingerprint": found.header["fingerprint"], "probe": found.header["probe"]}
    rows: dict[str, list[Row]] = {name: [] for name in found.models}
    for line in found.lines:
        params, metrics = line["params"], line["metrics"]
        rows[line["model"]].append((params, metrics, line["failure"]) if line.get("failure") else (params, metrics))
    return [
        Measurements(name, tuple(rows[name]), space, model["features"], context)
        for name, model in found.models.items()
        if rows[name]
    ]


def key(model: str, params: Params, repeat: int) -> str:
    """What one measurement is known by."""
    return json.dumps([model, dict(sorted(params.items())), repeat])


class Writer:
    """Appends lines. A line that was cut off by a kill is removed when the file is opened again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, end - (1 << 20)))
        tail = self._file.read()
        self._file.truncate(end - len(tail) + tail.rfind(b"\n") + 1)

    def append(self, kind: str, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"kind": kind, **entry}, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def pack(source: Path, target: Path) -> int:
    """Writes the measurements compressed, byte by byte the same for the same rows; -> bytes written."""
    read(source)
    data = gzip.compress(source.read_bytes(), 9, mtime=0)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return len(data)


def done(lines: Iterable[Mapping[str, Any]]) -> set[str]:
    return {key(line["model"], line["params"], line["repeat"]) for line in lines}
