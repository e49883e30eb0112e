"""Narrowing a space, and telling two spaces apart; both work on the JSON form."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from fettle.core.conditions import names_in
from fettle.core.domains import Column
from fettle.core.errors import InvalidInput, ParamsError


class Narrowable(Protocol):
    """What `narrowed` needs of a Space."""

    columns: tuple[Column, ...]

    def to_json(self) -> dict[str, Any]: ...


def narrowed(space: Narrowable, wanted: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The JSON form of the space with some parameters restricted to listed values. Raises InvalidInput."""
    form = space.to_json()
    full: dict[str, list[Any]] = {}
    for short, values in wanted.items():
        column = find(space.columns, short)
        if column.name in full:
            raise InvalidInput(f"{column.name!r} is given twice")
        full[column.name] = _values(column, values)
    gone: list[str] = []
    for column in space.columns:
        if column.name in full and not any(column.name.startswith(f"{name}.") for name in gone):
            gone += _restrict(form, column, full[column.name])
    _drop_conditions(form, "", gone)
    if "only" in form:
        form["only"] = [p for p in form["only"] if all(_listed(p[k], v) for k, v in full.items() if k in p)]
        if not form["only"]:
            raise InvalidInput(f"none of the listed params has {full!r}")
    return form


def find(columns: Sequence[Column], short: str) -> Column:
    """The column of a full path, or of its tail where that is unique."""
    exact = [c for c in columns if c.name == short]
    found = exact or [c for c in columns if c.name.endswith(f".{short}")]
    if not found:
        raise InvalidInput(f"unknown parameter {short!r}", f"known: {', '.join(c.name for c in columns)}")
    if len(found) > 1:
        raise InvalidInput(f"{short!r} is ambiguous", f"write one of {', '.join(c.name for c in found)}")
    return found[0]


def _values(column: Column, given: Sequence[Any]) -> list[Any]:
    if not given:
        raise InvalidInput(f"{column.name}: expected at least one value, got none")
    values: list[Any] = []
    for one in given:
        try:
            value = column.domain.parse(one) if isinstance(one, str) else column.domain.check(one)
        except ParamsError as error:
            raise InvalidInput(f"{column.name}: {error}", error.hint) from error
        if not _listed(value, values):
            values.append(value)
    return values


def _listed(value: Any, values: Sequence[Any]) -> bool:
    return any(type(value) is type(other) and value == other for other in values)


def _restrict(form: dict[str, Any], column: Column, values: list[Any]) -> list[str]:
    """Replace one domain in the form; returns the prefixes of branches that went."""
    item = _item(form, column.name)
    if column.kind == "choice":
        gone = [name for name in item["choice"] if name not in values]
        item["choice"] = {name: sub for name, sub in item["choice"].items() if name in values}
        return [f"{column.name}.{name}" for name in gone]
    kept: dict[str, Any] = {key: item[key] for key in ("unit", "prior") if key in item}
    order = (
        sorted(values) if column.kind in ("float", "int") else [v for v in column.domain.values() if _listed(v, values)]
    )
    kind = "categorical" if column.kind == "categorical" else "ordinal"
    item.clear()
    item.update({kind: order, **kept})
    return []


def _item(form: dict[str, Any], path: str) -> dict[str, Any]:
    head, *rest = path.split(".")
    item: dict[str, Any] = form[head]
    while rest:
        if "group" in item:
            item = item["group"][rest.pop(0)]
        else:
            branch, name, *rest = rest
            item = item["choice"][branch][name]
    return item


def _drop_conditions(form: dict[str, Any], prefix: str, gone: Sequence[str]) -> None:
    """A condition on a parameter that went can never apply again."""

    def applies(text: str) -> bool:
        return not any(f"{prefix}{name}".startswith(f"{branch}.") for name in names_in(text) for branch in gone)

    if isinstance(form.get("where"), list):
        form["where"] = [text for text in form["where"] if applies(text)]
    for path, sub in _subspaces(form):
        _drop_conditions(sub, f"{prefix}{path}.", gone)


def _subspaces(form: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, item in form.items():
        if isinstance(item, Mapping) and "group" in item:
            yield name, item["group"]
        elif isinstance(item, Mapping) and "choice" in item:
            yield from ((f"{name}.{branch}", sub) for branch, sub in item["choice"].items())


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Readable lines of what differs between two spaces' JSON forms."""
    a, b = dict(_lines(old, "")), dict(_lines(new, ""))
    lines = [f"{name}: {a[name]} -> {b[name]}" for name in a if name in b and repr(a[name]) != repr(b[name])]
    lines += [f"{name}: {a[name]} is gone" for name in a if name not in b]
    lines += [f"{name}: {b[name]} is new" for name in b if name not in a]
    return "\n".join(lines) or "the parameters stand in another order"


def _lines(form: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    subspaces = dict(_subspaces(form))
    for name, item in form.items():
        if isinstance(item, Mapping) and "choice" in item:
            yield prefix + name, {**item, "choice": list(item["choice"])}
        elif not (isinstance(item, Mapping) and "group" in item):
            yield prefix + name, f"{len(item)} listed params" if name == "only" and isinstance(item, list) else item
    for path, sub in subspaces.items():
        yield from _lines(sub, f"{prefix}{path}.")
