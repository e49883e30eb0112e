"""The search space: named domains, nested choices, known constraints, listed params.

Params are flat, by full path: {"kind": "a", "kind.a.lr": 0.1}; inactive names are absent. One form serves
JSON and YAML (`Space.from_json`): {"threads": {"int": [1, 8]}, "lr": {"float": [1e-4, 1], "log": true},
"mode": {"categorical": ["x", "y"]}, "kind": {"choice": {"a": {...}, "b": {}}}, "where": ["threads <= 4"]}.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle.core.choices import Categorical, Listed, Ordinal, index_of
from fettle.core.conditions import Condition
from fettle.core.domains import Column, Domain, Value, set_fields, slots
from fettle.core.errors import InvalidInput, ParamsError, SpaceError
from fettle.core.narrowing import difference, narrowed
from fettle.core.numeric import Float, Int
from fettle.core.points import COUNTED, drawn, mutated, validated, walk
from fettle.core.reading import Makers, check_name, conditions, flattened, is_json, mixed, raw_size, read_space

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["Categorical", "Choice", "Column", "Float", "Group", "Int", "Ordinal", "Params", "Space", "Value"]

Params = dict[str, Any]


@dataclass(frozen=True, slots=True, init=False)
class Choice(Listed):
    """One of several branches, each a Space whose parameters exist only when it is chosen."""

    items: tuple[tuple[str, "Space"], ...]
    choices: tuple[Value, ...]
    _index: dict[tuple[type, Value], int] = field(repr=False, compare=False)

    def __init__(self, branches: "Mapping[str, Space] | None" = None, /, **more: "Space") -> None:
        items = tuple({**(branches or {}), **more}.items())
        if not items:
            raise SpaceError("Choice: expected at least one branch, got none", "write fettle.Choice(a=fettle.Space())")
        for name, space in items:
            check_name("branch", name)
            if not isinstance(space, Space):
                raise SpaceError(f"Choice: branch {name!r}: expected a Space, got {space!r}")
        names = tuple(name for name, _ in items)
        set_fields(self, items=items, choices=names, _index=index_of(names))

    @property
    def branches(self) -> "dict[str, Space]":
        return dict(self.items)

    @property
    def kind(self) -> str:
        return "choice"

    def to_json(self) -> dict[str, Any]:
        return {"choice": {name: space.to_json() for name, space in self.items}}


@dataclass(frozen=True, slots=True)
class Group:
    """The parameters of another space under a common prefix; always active, and no parameter of its own."""

    space: "Space"

    @property
    def kind(self) -> str:
        return "group"

    def to_json(self) -> dict[str, Any]:
        return {"group": self.space.to_json()}


class Space:
    """Ordered name -> domain. Immutable.

    where: known constraints (see `conditions`); those of a nested space speak of its own names. only: the list of
    allowed params, e.g. of a measured table. prior: data per name, stored for algorithms that know it.
    """

    def __init__(
        self,
        mapping: "Mapping[str, Domain | Group] | None" = None,
        /,
        *,
        where: str | Iterable[str] = (),
        only: Iterable[Mapping[str, Any]] | None = None,
        prior: Mapping[str, Any] | None = None,
        **domains: "Domain | Group",
    ) -> None:
        if mapping is not None and domains:
            raise SpaceError("Space: expected keywords or one dict, got both", "put all parameters into the dict")
        self.domains: dict[str, Domain | Group] = dict(domains if mapping is None else mapping)
        self.where: tuple[str, ...] = (where,) if isinstance(where, str) else tuple(where)
        self.prior: dict[str, Any] = dict(prior or {})
        for name, domain in self.domains.items():
            check_name("parameter", name)
            if not isinstance(domain, Float | Int | Categorical | Ordinal | Choice | Group):
                raise SpaceError(f"parameter {name!r}: expected a domain, got {domain!r}", "e.g. fettle.Float(0, 1)")
        for name, data in self.prior.items():
            if name not in self.domains or isinstance(self.domains[name], Group) or not is_json(data):
                raise SpaceError(f"prior of {name!r}: expected JSON data for one of {list(self.domains)}")
        self.only: tuple[Params, ...] | None = None
        self.columns: tuple[Column, ...] = tuple(flattened(self, "", None, None, []))
        self.names: tuple[str, ...] = tuple(column.name for column in self.columns)  # full paths, active or not
        self.conditions: tuple[Condition, ...] = tuple(conditions(self, "", self.names))
        middle = {column.name: column.domain.decode(0.5) for column in self.columns}
        for condition in self.conditions:
            condition.holds(middle)  # raises where it compares text with numbers
        # (1, True and 1.0 hash alike: such columns go into keys with their types)
        self._typed = tuple(
            name
            for name, column in zip(self.names, self.columns, strict=True)
            if column.size and column.kind in ("categorical", "ordinal") and mixed(column.domain)
        )
        if only is not None:
            listed: dict[Hashable, Params] = {}
            for i, params in enumerate(only):
                try:
                    clean = validated(self, params)
                except ParamsError as error:
                    raise SpaceError(f"only[{i}]: {error}", error.hint) from error
                listed[self.key(clean)] = clean
            if not listed:
                raise SpaceError("only: expected at least one params, got none")
            self._places = {key: i for i, key in enumerate(listed)}
            self.only = tuple(listed.values())

    # -- what it is -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Space({self._text})"

    def __reduce__(self) -> tuple[Callable[..., "Space"], tuple[dict[str, Any]]]:
        return Space.from_json, (self.to_json(),)

    @cached_property
    def _text(self) -> str:
        return json.dumps(self.to_json())

    @cached_property
    def raw_size(self) -> int | None:
        """Number of params regardless of `where` and `only`; None: infinitely many."""
        return raw_size(self)

    @cached_property
    def size(self) -> int | None:
        """Number of allowed params; None: infinitely many, or constraints on too many to count (raw_size says)."""
        if self.only is not None:
            return len(self.only)
        if not self.conditions or self.raw_size is None:
            return self.raw_size
        return sum(1 for _ in self.enumerate()) if self.raw_size <= COUNTED else None

    def to_json(self) -> dict[str, Any]:
        """The documented form; `Space.from_json` reads it back, types included."""
        form = {name: dict(domain.to_json()) for name, domain in self.domains.items()}
        for name, data in self.prior.items():
            form[name]["prior"] = data
        more = {"where": list(self.where), "only": None if self.only is None else [dict(p) for p in self.only]}
        return {**form, **{key: value for key, value in more.items() if value}}

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> "Space":
        """Read the form of this module's docstring (JSON or YAML); raises SpaceError on anything else."""
        space: Space = read_space(form, "", Makers(Space, Choice, Group))
        return space

    from_dict = from_json

    def describe_difference(self, other: "Space") -> str:
        """What would have to change for this space to become the other; "" where they are equal."""
        return "" if self == other else difference(self.to_json(), other.to_json())

    # -- the unit cube --------------------------------------------------------------------------------------

    def active(self, U: np.ndarray) -> np.ndarray:
        """U (n, d) -> (n, d) bool: which entries count, by the choices in U."""
        mask = np.ones((len(U), len(self.columns)), bool)
        for j, column in enumerate(self.columns):
            if column.parent is not None:
                choice = self.columns[column.parent]
                index = slots(np.nan_to_num(U[:, column.parent]), choice.size or 1)
                mask[:, j] = mask[:, column.parent] & (index == list(choice.domain.values()).index(column.branch))
        return mask

    def encode(self, params_list: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Canonical params -> (n, d) in the unit cube, NaN where inactive."""
        U = np.full((len(params_list), len(self.columns)), np.nan)
        for j, column in enumerate(self.columns):
            rows = [i for i, params in enumerate(params_list) if column.name in params]
            if rows:
                U[rows, j] = column.domain.encode_many([params_list[i][column.name] for i in rows])
        return U

    def decode(self, U: np.ndarray) -> list[Params]:
        """U (n, d) -> params. Values outside [0, 1] are clipped, inactive ones ignored; `where` and `only` are not
        looked at."""
        U = np.asarray(U, float)
        mask = self.active(U)
        if np.isnan(U[mask]).any():
            raise InvalidInput("decode: NaN in a column that is active")
        decoded: list[Params] = [{} for _ in range(len(U))]
        for j, column in enumerate(self.columns):
            rows = np.flatnonzero(mask[:, j])
            for i, value in zip(rows.tolist(), column.domain.decode_many(U[rows, j]), strict=True):
                decoded[i][column.name] = value
        return decoded

    # -- points ---------------------------------------------------------------------------------------------

    def key(self, params: Mapping[str, Any]) -> Hashable:
        """Identity of canonical params: equal keys, equal params."""
        key = tuple(map(params.get, self.names))
        return (key, *(type(params.get(name)) for name in self._typed)) if self._typed else key

    def allows(self, params: Mapping[str, Any]) -> bool:
        """Whether canonical params satisfy `where` and `only`."""
        if self.only is not None and self.key(params) not in self._places:
            return False
        return all(condition.holds(params) for condition in self.conditions)

    def validate(self, params: Mapping[str, Any]) -> Params:
        """The params in canonical types and order; raises ParamsError that lists all that is wrong."""
        return validated(self, params)

    def contains(self, params: Mapping[str, Any]) -> bool:
        try:
            self.validate(params)
        except ParamsError:
            return False
        return True

    def place(self, params: Mapping[str, Any]) -> int | None:
        """Index in `only`; None where the params are not listed."""
        return self._places.get(self.key(params))

    @cached_property
    def listed_cube(self) -> np.ndarray:
        """`only`, encoded: (len(only), d)."""
        return self.encode(self.only or ())

    def sample(self, n: int, rng: "Generator") -> list[Params]:
        """n uniform draws (with replacement) from what is allowed; raises SpaceError where that is (almost) nothing."""
        return drawn(self, n, rng)

    def enumerate(self) -> Iterator[Params]:
        """All allowed params, lazily, the last parameter changing fastest; raises SpaceError for infinite spaces."""
        return self.grid(None)

    def grid(self, levels: int | None) -> Iterator[Params]:
        """Allowed params with `levels` evenly spaced values (ends included) for each continuous parameter."""
        if self.only is not None:
            return (dict(params) for params in self.only)
        return walk(self, levels)

    def mutate(self, params: Mapping[str, Any], rng: "Generator", *, n: int = 1) -> Params:
        """Allowed params that differ from the given in n parameters (fewer where there are fewer); see `points`."""
        return mutated(self, params, rng, n)

    # -- other spaces ---------------------------------------------------------------------------------------

    @classmethod
    def join(cls, stages: "Mapping[str, Space] | None" = None, /, **more: "Space") -> "Space":
        """One space of several stages: names become stage.name, `where` goes along."""
        return cls({name: Group(space) for name, space in {**(stages or {}), **more}.items()})

    def part(self, stage: str, params: Mapping[str, Any]) -> Params:
        """The stage's own params out of joined ones."""
        if not isinstance(self.domains.get(stage), Group):
            stages = [name for name, domain in self.domains.items() if isinstance(domain, Group)]
            raise InvalidInput(f"unknown stage {stage!r}", f"known: {', '.join(stages) or 'none'}")
        return {name[len(stage) + 1 :]: value for name, value in params.items() if name.startswith(f"{stage}.")}

    def narrow(
        self, fix: Mapping[str, Any] | None = None, params: Mapping[str, Sequence[Any]] | None = None
    ) -> "Space":
        """The space with some parameters fixed or restricted to listed values; short names where they are unique.

        Values may be spelt as strings. A fixed parameter stays as a one-value domain; fixing a nested one does not
        force its branch; a value of a Choice keeps only that branch. Raises InvalidInput.
        """
        wanted = {**{k: list(v) for k, v in (params or {}).items()}, **{k: [v] for k, v in (fix or {}).items()}}
        space = Space.from_json(narrowed(self, wanted))
        if space.size == 0:
            raise InvalidInput(f"nothing is left of the space with {wanted!r}", "relax the fixed values or `where`")
        return space
