"""Points of a space: validating, drawing, walking and mutating params."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fettle.core.conditions import Condition
from fettle.core.domains import Column
from fettle.core.errors import ParamsError, SpaceError

if TYPE_CHECKING:
    from numpy.random import Generator

Params = dict[str, Any]
COUNTED = 10**6  # spaces with constraints are counted by enumeration up to this raw size
_DRAWS = 2_000  # rejection sampling gives up after so many
_MUTATIONS = 50
_SMALL_STEP = 0.1  # standard deviation of a Gaussian step, in the unit interval
_SMALL_SHARE = 0.8  # of numeric mutations; the others are drawn anew


class Points(Protocol):
    """What these functions need of a Space."""

    columns: tuple[Column, ...]
    conditions: tuple[Condition, ...]
    only: tuple[Params, ...] | None

    @property
    def raw_size(self) -> int | None: ...
    def key(self, params: Mapping[str, Any]) -> Hashable: ...
    def allows(self, params: Mapping[str, Any]) -> bool: ...
    def encode(self, params_list: Sequence[Mapping[str, Any]]) -> np.ndarray: ...
    def place(self, params: Mapping[str, Any]) -> int | None: ...
    @property
    def listed_cube(self) -> np.ndarray: ...


def is_active(columns: Sequence[Column], column: Column, params: Mapping[str, Any]) -> bool:
    """Whether params have the column, given that its parents are settled."""
    return column.parent is None or params.get(columns[column.parent].name, params) == column.branch


def validated(space: Points, params: Mapping[str, Any]) -> Params:
    """Canonical types and order; raises ParamsError that lists all that is wrong."""
    if not isinstance(params, Mapping):
        raise ParamsError(f"expected params as a dict of name -> value, got {params!r}")
    columns = space.columns
    clean: Params = {}
    missing, wrong, inactive = [], [], []
    for column in columns:
        name = column.name
        if not is_active(columns, column, clean):
            if name in params and (choice := columns[column.parent or 0].name) in clean:
                inactive.append(f"{name} (needs {choice}={column.branch!r})")
        elif name not in params:
            missing.append(name)
        else:
            try:
                clean[name] = column.domain.check(params[name])
            except ParamsError as error:
                wrong.append(f"{name}: {error}")
    known = {column.name for column in columns}
    unknown = [str(name) for name in params if name not in known]
    lists = {"unknown": unknown, "missing": missing, "inactive": inactive}
    problems = [f"{what}: {', '.join(names)}" for what, names in lists.items() if names] + wrong
    if not problems:
        problems = [f"violates where {c.text!r}" for c in space.conditions if not c.holds(clean)]
        if not problems and not space.allows(clean):
            problems = ["not among the params listed in `only`"]
    if problems:
        hint = f"known: {', '.join(column.name for column in columns)}" if unknown else ""
        raise ParamsError(f"params do not fit the space: {'; '.join(problems)}", hint)
    return clean


def decoded(columns: Sequence[Column], u: Sequence[float]) -> Params:
    """One point of the unit cube -> params; for a single point far cheaper than by arrays."""
    params: Params = {}
    for x, column in zip(u, columns, strict=True):
        if column.parent is None or params.get(columns[column.parent].name, params) == column.branch:
            params[column.name] = column.domain.decode(x)
    return params


def drawn(space: Points, n: int, rng: "Generator") -> list[Params]:
    """n uniform draws: by rejection, then (finite spaces) by enumeration."""
    if space.only is not None:
        return [dict(space.only[i]) for i in rng.integers(len(space.only), size=n).tolist()]
    columns = space.columns
    if not space.conditions:
        return [decoded(columns, u) for u in rng.random((n, len(columns))).tolist()]
    found: list[Params] = []
    for _ in range(n):
        for _ in range(_DRAWS):
            params = decoded(columns, rng.random(len(columns)).tolist())
            if space.allows(params):
                found.append(params)
                break
        else:
            if space.raw_size is None or space.raw_size > COUNTED:
                raise SpaceError(
                    f"the constraints leave (almost) nothing: none of {_DRAWS} random params satisfies them",
                    "relax `where`, or narrow the domains to where it holds",
                )
            found.append(_pick(list(walk(space, None)), rng))
    return found


def _pick(allowed: list[Params], rng: "Generator") -> Params:
    if not allowed:
        raise SpaceError("the constraints leave nothing: no params satisfy them", "relax `where`")
    return allowed[int(rng.integers(len(allowed)))]


def walk(space: Points, levels: int | None) -> Iterator[Params]:
    """All params that satisfy the conditions, the last column fastest; `levels` values per continuous column."""
    columns = space.columns
    if levels is None and (endless := [c.name for c in columns if c.size is None]):
        raise SpaceError(
            f"cannot enumerate: {', '.join(endless)} have infinitely many values",
            "give them a step, or the grid levels",
        )
    if levels is not None and levels < 1:
        raise SpaceError(f"grid: expected at least 1 level, got {levels}")
    return _walk(space, levels)


def _walk(space: Points, levels: int | None) -> Iterator[Params]:
    columns = space.columns
    places = {column.name: j for j, column in enumerate(columns)}
    ready: list[list[Condition]] = [[] for _ in columns]  # conditions by the last column that they mention
    for condition in space.conditions:
        ready[max(places[name] for name in condition.names)].append(condition)

    def values(column: Column) -> Iterator[Any]:
        if column.size is not None:
            return column.domain.values()
        ends = [0.5] if levels == 1 else np.linspace(0.0, 1.0, levels or 0).tolist()
        return (column.domain.decode(u) for u in ends)

    def following(j: int, params: Params) -> int:
        while j < len(columns) and not is_active(columns, columns[j], params):
            j += 1
        return j

    params: Params = {}
    stack = [(0, values(columns[0]))] if columns else []
    if not columns:
        yield {}
    while stack:  # no recursion: spaces of architectures have hundreds of columns
        j, left = stack[-1]
        try:
            params[columns[j].name] = next(left)
        except StopIteration:
            stack.pop()
            params.pop(columns[j].name, None)
            continue
        if all(condition.holds(params) for condition in ready[j]):
            deeper = following(j + 1, params)
            if deeper == len(columns):
                yield dict(params)
            else:
                stack.append((deeper, values(columns[deeper])))


def mutated(space: Points, params: Mapping[str, Any], rng: "Generator", n: int = 1) -> Params:
    """Other allowed params near by: n active parameters change.

    Numbers take a small Gaussian step in the unit interval or, one time in five, a new draw; other values, and
    branches, change to any other one; a new branch's parameters are drawn. With `only`: a near listed neighbour.
    """
    if space.only is not None:
        return dict(_neighbour(space, params, rng))
    columns = space.columns
    before = space.key(params)
    movable = [c for c in columns if c.size != 1 and c.name in params]
    for _ in range(_MUTATIONS if movable else 0):
        chosen = rng.permutation(len(movable))[:n].tolist()
        moved = {movable[i].name: _moved(movable[i], params[movable[i].name], rng) for i in chosen}
        child = rebuilt(columns, {**params, **moved}, rng)
        if space.key(child) != before and space.allows(child):
            return child
    for _ in range(_MUTATIONS):  # constraints that tie parameters together: no single change is allowed
        child = drawn(space, 1, rng)[0]
        if space.key(child) != before:
            return child
    raise SpaceError("cannot mutate: no other params were found that the space allows", "is there only one point?")


def rebuilt(columns: Sequence[Column], wanted: Mapping[str, Any], rng: "Generator") -> Params:
    """Params with the wanted values where active; active parameters without one are drawn."""
    params: Params = {}
    for column in columns:
        if is_active(columns, column, params):
            has = column.name in wanted
            params[column.name] = wanted[column.name] if has else column.domain.decode(rng.random())
    return params


def _moved(column: Column, value: Any, rng: "Generator") -> Any:
    """Another value of the same column."""
    domain, size = column.domain, column.size
    if column.kind in ("categorical", "choice"):
        others = [other for other in domain.values() if (type(other), other) != (type(value), value)]
        return others[int(rng.integers(len(others)))]
    u = domain.encode(value)
    if rng.random() >= _SMALL_SHARE:
        return domain.decode(rng.random())
    step = _SMALL_STEP * rng.standard_normal()
    x = u + step
    x = -x if x < 0.0 else 2.0 - x if x > 1.0 else x  # reflected, so that the ends do not gather points
    other = domain.decode(x)
    if size is not None and other == value:
        return _next(domain, u, math.copysign(1.0, step))
    return other


def _next(domain: Any, u: float, side: float) -> Any:
    """The next grid value on one side (on the other at an end), found by growing steps of the unit interval."""
    value = domain.decode(u)
    for direction in (side, -side):
        reach = 1e-12
        while reach < 2.0:
            if (other := domain.decode(u + direction * reach)) != value:
                return other
            reach *= 2.0
    return value


def _neighbour(space: Points, params: Mapping[str, Any], rng: "Generator") -> Params:
    """One of the listed params; its rank by encoded distance is geometric (p = 1/3)."""
    listed = space.only or ()
    if len(listed) < 2:
        raise SpaceError("cannot mutate: `only` lists a single point")
    distance = distances(space.columns, space.encode([params])[0], space.listed_cube)
    if (here := space.place(params)) is not None:
        distance[here] = np.inf
    others = len(listed) - (here is not None)
    rank = (int(rng.geometric(1 / 3)) - 1) % others
    return listed[int(np.argsort(distance, kind="stable")[rank])]


def distances(columns: Sequence[Column], u: np.ndarray, U: np.ndarray) -> np.ndarray:
    """Distance (n,) of u (d,) to U (n, d) in the unit cube; unordered values, and inactive to active, count 1."""
    gap = np.abs(U - u)
    unordered = [j for j, c in enumerate(columns) if c.kind in ("categorical", "choice")]
    gap[:, unordered] = np.where(gap[:, unordered] > 0, 1.0, gap[:, unordered])
    gap = np.where(np.isnan(U) & np.isnan(u), 0.0, np.where(np.isnan(gap), 1.0, gap))
    total: np.ndarray = np.sqrt((gap**2).sum(axis=1))
    return total
