"""Reading a space's JSON form, and laying nested spaces out flat."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fettle.core.choices import Categorical, Ordinal
from fettle.core.conditions import Condition, compile_condition
from fettle.core.domains import Column, Value
from fettle.core.errors import SpaceError
from fettle.core.numeric import Float, Int

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class Nested(Protocol):
    """What is needed of a Space."""

    domains: dict[str, Any]
    where: tuple[str, ...]
    only: tuple[dict[str, Any], ...] | None


@dataclass(frozen=True, slots=True)
class Makers:
    """Constructors of Space, Choice and Group."""

    space: Callable[..., Any]
    choice: Callable[..., Any]
    group: Callable[..., Any]


def check_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not name or "." in name:
        hint = "quote it: YAML reads on, off, yes and no as booleans" if isinstance(name, bool) else ""
        raise SpaceError(f"expected a {what} name that is a non-empty string without a dot, got {name!r}", hint)


def flattened(space: Nested, prefix: str, parent: int | None, branch: Value, out: list[Column]) -> list[Column]:
    """Appends the columns of a space, a Choice before its branches' parameters."""
    if prefix and space.only is not None:
        raise SpaceError(f"{prefix[:-1]!r}: a nested space cannot have `only`", "list full params at the top")
    for name, domain in space.domains.items():
        full = prefix + name
        if domain.kind == "group":
            flattened(domain.space, f"{full}.", parent, branch, out)
            continue
        out.append(Column(full, domain, domain.kind, domain.size, parent, branch))
        if domain.kind == "choice":
            here = len(out) - 1
            for inner, sub in domain.items:
                flattened(sub, f"{full}.{inner}.", here, inner, out)
    return out


def conditions(space: Nested, prefix: str, known: Sequence[str]) -> Iterator[Condition]:
    """The compiled conditions of a space and of those nested in it."""
    yield from (compile_condition(text, known, prefix) for text in space.where)
    for name, domain in space.domains.items():
        if domain.kind == "group":
            yield from conditions(domain.space, f"{prefix}{name}.", known)
        elif domain.kind == "choice":
            for branch, sub in domain.items:
                yield from conditions(sub, f"{prefix}{name}.{branch}.", known)


def is_json(data: Any) -> bool:
    """Whether data come back from JSON unchanged."""
    try:
        return bool(json.loads(json.dumps(data, allow_nan=False)) == data)
    except (TypeError, ValueError):
        return False


def mixed(domain: Any) -> bool:
    """Whether some choices are equal to Python and differ in type only, like 1 and True."""
    return len(set(domain.choices)) < len(domain.choices)


def raw_size(space: Nested) -> int | None:
    """Number of params regardless of `where` and `only`; None: infinitely many."""
    size = 1
    for domain in space.domains.values():
        if domain.kind == "choice":
            parts = [sub.raw_size for _, sub in domain.items]
            number = None if None in parts else sum(parts)
        else:
            number = domain.space.raw_size if domain.kind == "group" else domain.size
        if number is None:
            return None
        size *= number
    return size


_OPTIONS = {
    "float": {"log", "step", "unit"},
    "int": {"log", "step", "unit"},
    "categorical": {"unit"},
    "ordinal": {"unit"},
}


def read_space(form: Any, path: str, make: Makers) -> Any:
    """The JSON form -> a Space; raises SpaceError that names the path."""
    if form is None:  # YAML's empty branch
        form = {}
    if not isinstance(form, Mapping):
        raise SpaceError(f"{path or 'space'}: expected a mapping of names to domains, got {form!r}")
    form = dict(form)
    lists = {key: form.pop(key) for key in ("where", "only") if isinstance(form.get(key), list | tuple | str)}
    prior = {}
    domains = {}
    for name, item in form.items():
        check_name("parameter", name)
        if not isinstance(item, Mapping):
            raise SpaceError(f"{path}{name}: expected a domain like {{int: [1, 8]}}, got {item!r}")
        item = dict(item)
        if "prior" in item:
            prior[name] = item.pop("prior")
        domains[name] = _read_domain(item, f"{path}{name}", make)
    return make.space(domains, prior=prior, **lists)


def _read_domain(item: dict[str, Any], path: str, make: Makers) -> Any:
    kinds = [kind for kind in (*_OPTIONS, "choice", "group") if kind in item]
    if len(kinds) != 1:
        raise SpaceError(f"{path}: expected one of {[*_OPTIONS, 'choice', 'group']}, got the keys {list(item)}")
    kind = kinds[0]
    value = item.pop(kind)
    if unknown := set(item) - _OPTIONS.get(kind, set()):
        raise SpaceError(
            f"{path}: unknown {sorted(map(str, unknown))}", f"{kind} knows {sorted(_OPTIONS.get(kind, ()))}"
        )
    if kind == "group":
        return make.group(read_space(value, f"{path}.", make))
    if kind == "choice":
        if not isinstance(value, Mapping):
            raise SpaceError(f"{path}: choice: expected a mapping of branches to spaces, got {value!r}")
        for name in value:
            check_name("branch", name)
        return make.choice({name: read_space(sub, f"{path}.{name}.", make) for name, sub in value.items()})
    if not isinstance(value, list | tuple) or (kind in ("float", "int") and len(value) != 2):
        wanted = "[low, high]" if kind in ("float", "int") else "a list of choices"
        raise SpaceError(f"{path}: {kind}: expected {wanted}, got {value!r}")
    try:
        if kind == "float":  # YAML reads 1e-4 (without a dot) as text
            value = [float(end) if isinstance(end, str) and _NUMBER.fullmatch(end) else end for end in value]
        if kind in ("float", "int"):
            return (Float if kind == "float" else Int)(*value, **item)
        return (Categorical if kind == "categorical" else Ordinal)(value, **item)
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}", error.hint) from error
