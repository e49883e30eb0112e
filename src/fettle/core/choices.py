"""Categorical and Ordinal: one of several listed values."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fettle.core.domains import Value, check_unit, options, plain, set_fields, slot, slots
from fettle.core.errors import ParamsError, SpaceError

_NUMBER = re.compile(r"([^\d.+-]*)([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(\D*)")


class Listed(ABC):
    """What Categorical, Ordinal and Choice share: values by index."""

    __slots__ = ()
    choices: tuple[Value, ...]
    _index: dict[tuple[type, Value], int]

    @property
    @abstractmethod
    def kind(self) -> str: ...

    @property
    def size(self) -> int:
        return len(self.choices)

    def check(self, value: Any) -> Value:
        found: Value = plain(value)
        try:
            return self.choices[self._index[type(found), found]]
        except (KeyError, TypeError) as error:
            raise ParamsError(f"expected one of {list(self.choices)!r}, got {found!r}") from error

    def parse(self, text: str) -> Value:
        return _parse_choice(self.choices, text)

    def values(self) -> Iterator[Value]:
        return iter(self.choices)

    def encode(self, value: Value) -> float:
        return (self._index[type(value), value] + 0.5) / len(self.choices)

    def decode(self, u: float) -> Value:
        return self.choices[slot(u, len(self.choices))]

    def encode_many(self, values: Sequence[Value]) -> np.ndarray:
        return np.array([self.encode(value) for value in values], float)

    def decode_many(self, u: np.ndarray) -> list[Value]:
        return [self.choices[i] for i in slots(u, len(self.choices)).tolist()]

    @abstractmethod
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, init=False)
class Categorical(Listed):
    """One of several unordered values."""

    choices: tuple[Value, ...]
    unit: str | None
    _index: dict[tuple[type, Value], int] = field(repr=False, compare=False)
    _types: tuple[type, ...] = field(repr=False)  # so that (1,) differs from (True,)

    def __init__(self, choices: Iterable[Value], unit: str | None = None) -> None:
        _fill(self, _choices("Categorical", choices), unit)

    @property
    def kind(self) -> str:
        return "categorical"

    def to_json(self) -> dict[str, Any]:
        return {"categorical": list(self.choices), **options(unit=self.unit)}


@dataclass(frozen=True, slots=True, init=False)
class Ordinal(Listed):
    """One of several ordered values: by their numbers, also when these are spelt ("16" before "128", "8ms"
    before "16ms"); values without numbers keep the given order."""

    choices: tuple[Value, ...]
    unit: str | None
    _index: dict[tuple[type, Value], int] = field(repr=False, compare=False)
    _types: tuple[type, ...] = field(repr=False)

    def __init__(self, choices: Iterable[Value], unit: str | None = None) -> None:
        _fill(self, _by_number(_choices("Ordinal", choices)), unit)

    @property
    def kind(self) -> str:
        return "ordinal"

    def to_json(self) -> dict[str, Any]:
        return {"ordinal": list(self.choices), **options(unit=self.unit)}


def _fill(domain: Categorical | Ordinal, choices: tuple[Value, ...], unit: str | None) -> None:
    check_unit(type(domain).__name__, unit)
    set_fields(domain, choices=choices, unit=unit, _index=index_of(choices), _types=tuple(map(type, choices)))


def index_of(choices: Iterable[Value]) -> dict[tuple[type, Value], int]:
    """Places by type and value: 1, 1.0 and True are equal in Python, and different here."""
    return {(type(value), value): i for i, value in enumerate(choices)}


def _choices(kind: str, given: Any) -> tuple[Value, ...]:
    if isinstance(given, str | bytes | dict | set | frozenset) or not isinstance(given, Iterable):
        raise SpaceError(f"{kind}: expected a list of choices, got {given!r}", f'write fettle.{kind}(["a", "b"])')
    choices = tuple(plain(value) for value in given)
    if not choices:
        raise SpaceError(f"{kind}: expected at least one choice, got none")
    for value in choices:
        if (
            not (value is None or isinstance(value, str | int | float))
            or value != value
            or value in (math.inf, -math.inf)
        ):
            raise SpaceError(f"{kind}: choices are str, int, finite float, bool or None, got {value!r}")
    if len({(type(value), value) for value in choices}) < len(choices):
        raise SpaceError(f"{kind}: choices must differ, got {list(choices)!r}")
    return choices


def _by_number(choices: tuple[Value, ...]) -> tuple[Value, ...]:
    numbers: list[float] = []
    affixes = set()
    for value in choices:
        if isinstance(value, bool) or value is None:
            return choices
        found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
        if isinstance(value, str) and found is None:
            return choices
        numbers.append(float(found[2] if found else value))
        affixes.add((found[1], found[3]) if found else ("", ""))
    if len(affixes) > 1:  # "512KB", "1MB": the numbers alone do not order them
        return choices
    return tuple(choices[i] for i in sorted(range(len(choices)), key=numbers.__getitem__))


_SPELT = ((True, ("true",)), (False, ("false",)), (None, ("none", "null")))


def _parse_choice(choices: Sequence[Value], text: str) -> Value:
    """The choice spelt `text`: a string before anything else, then a value of that spelling, then of that number."""
    for value in choices:
        if isinstance(value, str) and value == text:
            return value
    for value in choices:
        if str(value) == text or any(value is word and text.lower() in spelt for word, spelt in _SPELT):
            return value
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    for value in choices:
        if isinstance(value, int | float) and not isinstance(value, bool) and value == number:
            return value
    raise ParamsError(f"expected one of {list(choices)!r}, got {text!r}")
