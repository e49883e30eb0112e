"""Export: a folder that starts the chosen server without Fettle."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fettle.core.errors import InvalidInput
from fettle.core.protocols import Target
from fettle.core.serving import Launch, Machine, Model, Request, Tensors
from fettle.core.space import Params
from fettle.problems.serve import onnxfile

MARK = "fettle-export.json"  # says that the folder is an export, and may be written again
WRITTEN = (MARK, "run.sh", "requirements.txt", "README.txt", "sample/request.bin", "sample/request.json")
DEFAULT_PORT = 8000
_PORTS = (10_007, 20_011)  # two launches are compared; where they differ stands the port


def export_server(
    folder: Path,
    model: Model,
    target: Target,
    params: Params,
    *,
    machine: Machine,
    operating_point: Mapping[str, Any],
    sample_items: Sequence[Tensors],
) -> dict[str, str]:
    """Write the folder; returns what -> path. operating_point: measured figures for the record.

    Raises InvalidInput if the folder holds anything but an earlier export, or cannot be written.
    """
    if not sample_items:
        raise InvalidInput("export: expected at least one sample item, got none")
    launch, other = (target.launch(model, params, port) for port in _PORTS)
    request = launch.encode(sample_items[0])
    _claim(folder)
    try:
        for name, content in launch.files.items():
            _lay_out(folder, name, content, taken={*launch.files, *WRITTEN})
        sample = {"method": request.method, "path": request.path, "headers": dict(request.headers)}
        _write(folder, "sample/request.bin", request.body)
        _write_json(folder, "sample/request.json", sample)
        _write(folder, "requirements.txt", "".join(f"{line}\n" for line in launch.requirements).encode())
        cores = launch.cores or len(machine.cores)
        _write(folder, "run.sh", _script(launch, other, cores).encode())
        (folder / "run.sh").chmod(0o755)
        _write(folder, "README.txt", _readme(model, params, launch, request, cores).encode())
        record = {"schema": 1, "target": target.name, "params": params, "cores": cores, "model": model.name}
        _write_json(folder, MARK, {**record, "operating_point": dict(operating_point), "limits": dict(launch.record)})
    except OSError as error:
        reason = error.strerror or error
        raise InvalidInput(f"{folder}: cannot be written: {reason}", "choose another folder") from error
    names = {"folder": "", "run": "run.sh", "config": "config.json", "sample": "sample/request.bin"}
    return {what: str(folder / name) for what, name in names.items() if (folder / name).exists()}


def _claim(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = {entry.name for entry in folder.iterdir()}
    except FileExistsError:
        raise InvalidInput(f"{folder}: expected a folder, got a file", "choose another folder") from None
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be used: {error.strerror or error}", "choose another folder") from error
    if present and MARK not in present:
        raise InvalidInput(f"{folder}: is not empty and no earlier export", "choose an empty or a new folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InvalidInput(f"{folder}: cannot be written", "choose another folder")


def _lay_out(folder: Path, name: str, content: bytes | Path, *, taken: Collection[str]) -> None:
    """A model takes its external data along, under the names by which it knows them, but never a server file's."""
    if isinstance(content, bytes):
        _write(folder, name, content)
        return
    place = _place(folder, name)
    shutil.copyfile(content, place)
    if place.suffix == ".onnx":
        source = onnxfile.read(content)
        for data in source.external:
            relative = data.relative_to(source.path.parent).as_posix()
            if (PurePosixPath(name).parent / relative).as_posix() in taken:
                raise InvalidInput(
                    f"export: the model's data file {relative!r} has the name of another file of the export",
                    "save the model with another name for its external data",
                )
            shutil.copyfile(data, _place(place.parent, relative))


def _place(folder: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise InvalidInput(f"export: file {name!r} would leave the folder")
    path = folder / pure
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()  # never write through a link
    return path


def _write(folder: Path, name: str, content: bytes) -> None:
    _place(folder, name).write_bytes(content)


def _write_json(folder: Path, name: str, value: Any) -> None:
    _write(folder, name, (json.dumps(value, indent=2, default=str) + "\n").encode())


def _with_port(word: str, other: str) -> str:
    """Shell text for a word of the first launch; where the second launch's differs, `$PORT` takes the port's place."""
    if word == other:
        return shlex.quote(word)
    return '"$PORT"'.join(shlex.quote(part) if part else "" for part in word.split(str(_PORTS[0])))


def _script(launch: Launch, other: Launch, cores: int) -> str:
    words = [_with_port(word, twin) for word, twin in zip(launch.argv, other.argv, strict=True)]
    if launch.argv[0] == sys.executable:
        words[0] = "python"
    settings = [f"export {name}={_with_port(text, other.env[name])}" for name, text in launch.env.items()]
    return "\n".join(
        [
            "#!/bin/sh",
            "# Starts the server as it was measured. PORT chooses the port; `python` must have requirements.txt.",
            "set -eu",
            'cd "$(dirname "$0")"',
            f'PORT="${{PORT:-{DEFAULT_PORT}}}"',
            *settings,
            f"CORES=0-{cores - 1}" if cores > 1 else "CORES=0",
            'if command -v taskset >/dev/null 2>&1 && taskset -c "$CORES" true 2>/dev/null; then',
            f'    exec taskset -c "$CORES" {" ".join(words)}',
            "fi",
            f"exec {' '.join(words)}",
            "",
        ]
    )


def _readme(model: Model, params: Params, launch: Launch, request: Request, cores: int) -> str:
    headers = " ".join(f"-H {shlex.quote(f'{name}: {text}')}" for name, text in request.headers.items())
    post = f"-X {request.method} --data-binary @sample/request.bin"
    url = f"http://127.0.0.1:{DEFAULT_PORT}{request.path}"
    knobs = "\n".join(f"    {name} = {value}" for name, value in params.items())
    install = "    pip install -r requirements.txt\n" if launch.requirements else ""
    return (
        f"{model.name}: the server as it was measured, on {cores} core(s)\n\n{install}"
        f"    ./run.sh                 # PORT=9000 ./run.sh for another port than {DEFAULT_PORT}\n\n"
        f"One request, from sample/:\n\n"
        f"    curl -s {post} {headers} {shlex.quote(url)} -o answer.bin\n\n"
        f"Parameters:\n\n{knobs}\n\nWhat was measured with them is in {MARK}.\n"
    )
