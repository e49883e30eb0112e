"""From the words of a command line to the arguments of `fettle.serve`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fettle.core.errors import InvalidInput

MIB = 1 << 20


def serve_arguments(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `fettle.serve`. Raises InvalidInput."""
    return {
        "model": models(model, options["variants"]),
        "slo": options["slo"],
        "objective": options["objective"],
        "budget": options["budget"],
        "trials": trials(options["trials"]),
        "stop_regret": options["stop_regret"],
        "target": target(options),
        "storage": options["storage"],
        "name": options["name"],
        "seed": options["seed"],
        "algorithm": options["algorithm"],
        "rate": options["rate"],
        "requests": options["requests"],
        "fix": dict(pairs(options["fix"], "--fix", "workers=2")),
        "params": {k: listed(v) for k, v in pairs(options["param"], "--param", "max_batch=1,2,4")},
        "inputs": options["inputs"],
        "input_shapes": {k: shape(k, v) for k, v in pairs(options["shapes"], "--input-shape", "image=1,3,64,64")},
        "prices": options["prices"],
        "cores": options["cores"],
        "memory_bytes": memory(options["memory"]),
        "arrivals": options["arrivals"],
    }


def models(model: str, variants: Sequence[str]) -> "str | dict[str, str]":
    """The model alone, or precision -> file with the first one under the precision that its weights tell."""
    if not variants:
        return model
    more = dict(pairs(variants, "--model-variant", "int8=model-int8.onnx"))
    from fettle.problems.serve.onnxfile import read

    first = read(Path(model)).precision
    if first in more:
        first = f"{first}-first"
    return {first: model, **more}


def trials(given: int | None) -> int | None:
    if given is not None and given < 1:
        raise InvalidInput(f"expected --trials of at least 1, got {given}", "leave it out for no limit")
    return given


def memory(mib: int | None) -> int | None:
    if mib is not None and mib < 16:
        raise InvalidInput(f"expected --memory of at least 16 MiB, got {mib}", "leave it out for what the server needs")
    return None if mib is None else mib * MIB


def target(options: Mapping[str, Any]) -> "str | dict[str, Any]":
    name: str = options["target"]
    keys = {"command": "template", "space": "space", "ready": "ready", "path": "path", "body": "body"}
    given: dict[str, Any] = {key: options[word] for key, word in keys.items() if options[word] is not None}
    if name != "command":
        if given:
            raise InvalidInput(f"--{next(iter(given))} belongs to --target command", "add --target command")
        return name
    if not options["template"] or not options["space"]:
        raise InvalidInput(
            "--target command needs --command and --space",
            "e.g. --command 'myserver --port {port} --threads {threads}' --space space.yaml",
        )
    for key in ("space", "body"):
        if key in given:
            given[key] = str(Path(given[key]).absolute())  # the study may be resumed elsewhere
    return {"name": name, **given}


def pairs(given: Sequence[str], option: str, example: str) -> list[tuple[str, str]]:
    split = [word.partition("=") for word in given]
    for word, (name, equals, value) in zip(given, split, strict=True):
        if not name or not equals or not value:
            raise InvalidInput(f"{option}: expected NAME=VALUE, got {word!r}", f"e.g. {option} {example}")
    if len({name for name, _, _ in split}) < len(split):
        raise InvalidInput(f"{option}: a name is given twice", f"e.g. {option} {example}")
    return [(name.strip(), value.strip()) for name, _, value in split]


def listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def shape(name: str, text: str) -> list[int]:
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise InvalidInput(f"--input-shape {name}: expected sizes such as 1,3,64,64, got {text!r}", "all at least 1")
    return sizes
