"""Experiment files: the arguments of a search as YAML, checked against the published schema."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from fettle.core.errors import InvalidInput

_RENAMED = {"input_shape": "input_shapes", "param": "params"}


def schema(name: str) -> dict[str, Any]:
    """One of the JSON schemas that ship: answer, list, measure, explain, error, experiment."""
    loaded: dict[str, Any] = json.loads(files("fettle.schemas").joinpath(f"{name}.json").read_text())
    return loaded


def read(path: Path) -> tuple[str, dict[str, Any]]:
    """The problem's name and the arguments of the function of that name. Raises InvalidInput.

    Relative paths in the file are taken from the file's own folder.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(
            f"cannot read the experiment {path}: {error.strerror}", "give the path of a YAML file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not YAML: {error}", "see examples/serve-digits.yaml") from None
    _check(path, loaded)
    given = {_RENAMED.get(key, key): value for key, value in loaded.items()}
    problem = given.pop("problem")
    folder = path.absolute().parent
    for key in ("model", "inputs", "prices"):
        if key in given:
            given[key] = _located(folder, given[key], nested=key == "model")
    if isinstance(given.get("algorithm"), dict) and isinstance(given["algorithm"].get("model"), str):
        given["algorithm"] = {**given["algorithm"], "model": _located(folder, given["algorithm"]["model"])}
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
    error = jsonschema.exceptions.best_match(validator.iter_errors(loaded))
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "the file"
        known = ", ".join(schema("experiment")["properties"])
        raise InvalidInput(f"{path}: {where}: {error.message[:300]}", f"known keys: {known}")
    if "command" in loaded and loaded.get("target") != "command":
        raise InvalidInput(f"{path}: command belongs to target: command", "add target: command")


def _located(folder: Path, value: Any, *, nested: bool = False) -> Any:
    if isinstance(value, str):
        return str(folder / Path(value).expanduser())
    return {key: _located(folder, path) for key, path in value.items()} if nested else value


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
