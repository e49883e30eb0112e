"""Experiment files: the arguments of a search as YAML, checked against the published schema."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from fettle.core.errors import InvalidInput

_RENAMED = {"input_shape": "input_shapes", "param": "params"}


def schema(name: str) -> dict[str, Any]:
    """One of the JSON schemas that ship: answer, list, error, experiment."""
    loaded: dict[str, Any] = json.loads(files("fettle.schemas").joinpath(f"{name}.json").read_text())
    return loaded


def read(path: Path) -> tuple[str, dict[str, Any]]:
    """The problem's name and the arguments of the function of that name. Raises InvalidInput.

    Relative paths in the file are taken from the file's own folder.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"cannot read the experiment {path}: {error.strerror}", "give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not YAML: {error}", "see examples/serve-digits.yaml") from None
    _check(path, loaded)
    given = {_RENAMED.get(key, key): value for key, value in loaded.items()}
    problem = given.pop("problem")
    folder = path.absolute().parent
    for key in ("model", "inputs", "prices"):
        given[key] = _located(folder, given[key]) if key in given else None
    given = {key: value for key, value in given.items() if value is not None}
    if "memory_limit" in given:
        given["memory_bytes"] = _bytes(given.pop("memory_limit"))
    if "command" in given:
        command = dict(given.pop("command"))
        for key in ("space", "body"):
            if isinstance(command.get(key), str):
                command[key] = _located(folder, command[key])
        given["target"] = {"name": "command", **command}
    if "storage" in given and "://" not in given["storage"]:
        given["storage"] = str(folder / given["storage"])
    return problem, given


def _check(path: Path, loaded: Any) -> None:
    import jsonschema

    if not isinstance(loaded, dict):
        raise InvalidInput(f"{path}: expected a mapping of names to values", "see examples/serve-digits.yaml")
    validator = jsonschema.Draft202012Validator(schema("experiment"))
    errors = sorted(validator.iter_errors(loaded), key=lambda e: (len(e.absolute_path), e.message))
    if errors:
        where = ".".join(str(part) for part in errors[0].absolute_path) or "the file"
        known = ", ".join(schema("experiment")["properties"])
        raise InvalidInput(f"{path}: {where}: {errors[0].message[:300]}", f"known keys: {known}")


def _located(folder: Path, value: Any) -> Any:
    if isinstance(value, str):
        return str(folder / Path(value).expanduser())
    if isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values()):
        return {key: _located(folder, v) for key, v in value.items()}
    return value


def _bytes(value: Any) -> int:
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    for unit, size in units.items():
        if isinstance(value, str) and value.strip().endswith(unit):
            try:
                return int(float(value.strip().removesuffix(unit)) * size)
            except ValueError:
                break
    raise InvalidInput(f"memory_limit: expected bytes or a size such as 512MiB, got {value!r}", "units: KiB MiB GiB")
