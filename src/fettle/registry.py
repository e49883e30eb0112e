"""Names of plug-ins: built-in ones, and those of installed packages by entry points. Resolves lazily."""

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any

from fettle.core.errors import InvalidInput

BUILTIN: Mapping[str, Mapping[str, str]] = {
    "algorithms": {
        "auto": "fettle.algorithms.auto:Auto",
        "boxed": "fettle.algorithms.boxed:Boxed",
        "cmaes": "fettle.algorithms.cmaes:CMAES",
        "evolution": "fettle.algorithms.evolution:Evolution",
        "fewshot": "fettle.algorithms.fewshot:FewShot",
        "gp_bo": "fettle.algorithms.gp_bo:GPBO",
        "grid": "fettle.algorithms.grid:Grid",
        "nsga2": "fettle.algorithms.nsga2:NSGA2",
        "qmc": "fettle.algorithms.qmc:QMC",
        "random": "fettle.algorithms.random:Random",
        "tpe": "fettle.algorithms.tpe:TPE",
        "trust_region": "fettle.algorithms.trust_region:TrustRegion",
    },
    "schedulers": {"full": "fettle.schedulers.full:Full"},
    "executors": {
        "inline": "fettle.executors.inline:InlineExecutor",
        "process": "fettle.executors.process:ProcessExecutor",
    },
    "targets": {
        "command": "fettle.problems.serve.targets.command:Command",
        "mosec": "fettle.problems.serve.targets.mosec:Mosec",
    },
    "problems": {"serve": "fettle.problems.serve.problem:ServeProblem"},
}


def names(kind: str) -> list[str]:
    return sorted({*BUILTIN[kind], *(e.name for e in entry_points(group=f"fettle.{kind}"))})


def load(kind: str, name: str) -> Any:
    """The object registered under `name`, e.g. load("algorithms", "random")."""
    if name in BUILTIN[kind]:
        module, _, attribute = BUILTIN[kind][name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    for entry in entry_points(group=f"fettle.{kind}", name=name):
        return entry.load()
    close = difflib.get_close_matches(name, names(kind), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InvalidInput(f"unknown {kind[:-1]} {name!r}", f"{hint}known: {', '.join(names(kind))}")


def settings(kind: str, spec: Any) -> Any:
    """A name, {"name": ..., setting: value} or frozen settings -> frozen settings."""
    if isinstance(spec, str):
        return settings(kind, {"name": spec})
    if not isinstance(spec, Mapping):
        return spec
    if "name" not in spec:
        raise InvalidInput(f"{kind[:-1]} settings lack a name: {dict(spec)}", "write {'name': ..., ...}")
    made = load(kind, spec["name"])
    given = {key: value for key, value in spec.items() if key != "name"}
    known = [f.name for f in fields(made)]
    if unknown := sorted(set(given) - set(known)):
        raise InvalidInput(f"unknown settings of {spec['name']!r}: {', '.join(unknown)}", f"known: {', '.join(known)}")
    return made(**given)


def describe(kind: str, made: Any) -> dict[str, Any]:
    """Frozen settings -> the JSON that `settings` takes back."""
    if not is_dataclass(made):
        raise InvalidInput(f"expected a {kind[:-1]} name or frozen settings, got {made!r}", f"known: {names(kind)}")
    path = f"{type(made).__module__}:{type(made).__qualname__}"
    known = {
        **{e.value: e.name for e in entry_points(group=f"fettle.{kind}")},
        **{v: k for k, v in BUILTIN[kind].items()},
    }
    return {"name": known.get(path, path), **{f.name: getattr(made, f.name) for f in fields(made)}}
