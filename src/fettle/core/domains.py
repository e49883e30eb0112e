"""Domains: what one parameter may be, and how its values sit in the unit interval.

Discrete values sit at the centres of bins that fill [0, 1], so that a uniform draw decodes to uniform values
(for `log`, uniform in the logarithm). `encode` and `decode` work on one value; `encode_many` and `decode_many`
on a column (n,). Values keep their types: 1, 1.0, True and "1" are different choices.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fettle.core.errors import ParamsError, SpaceError

Value = str | int | float | bool | None
MAX_GRID = 2**40  # beyond it, neighbouring integers can no longer be told apart in a log-scaled unit interval
_NUMBER = re.compile(r"([^\d.+-]*)([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(\D*)")


class Domain(Protocol):
    """One parameter's values. `size` is None where there are infinitely many."""

    @property
    def kind(self) -> str: ...
    @property
    def size(self) -> int | None: ...
    def check(self, value: Any) -> Any:
        """The value in its canonical type; raises ParamsError, without the parameter's name."""
        ...

    def parse(self, text: str) -> Any:
        """A value written on the command line; raises ParamsError."""
        ...

    def values(self) -> Iterator[Any]: ...
    def encode(self, value: Any) -> float: ...
    def decode(self, u: float) -> Any: ...
    def encode_many(self, values: Sequence[Any]) -> np.ndarray: ...
    def decode_many(self, u: np.ndarray) -> list[Any]: ...
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Column:
    """One flat dimension. parent: index of the Choice on whose `branch` it depends; None at the top."""

    name: str
    domain: Domain
    kind: str  # float, int, categorical, ordinal, choice
    size: int | None
    parent: int | None = None
    branch: Value = None


@dataclass(frozen=True, slots=True)
class Float:
    """A real number in [low, high]; with `step`, one of low, low + step, ...; with `log`, on a log scale."""

    low: float
    high: float
    log: bool = field(default=False, kw_only=True)
    step: float | None = field(default=None, kw_only=True)
    unit: str | None = field(default=None, kw_only=True)
    size: int | None = field(init=False, repr=False, compare=False)
    _left: float = field(init=False, repr=False, compare=False)
    _width: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        low, high = _bound("Float", "low", self.low), _bound("Float", "high", self.high)
        step = None if self.step is None else _bound("Float", "step", self.step)
        _interval("Float", low, high, self.log, step)
        if step is None:
            size = 1 if low == high else None
            left = math.log(low) if self.log else low
            width = (math.log(high) if self.log else high) - left
            if not math.isfinite(width):
                raise SpaceError(f"Float({low}, {high}): the range is too wide for a float", "use log=True")
        else:
            size, left, width = _bins("Float", low, high, step, self.log)
        _set(self, low=low, high=high, step=step, size=size, _left=left, _width=width)

    @property
    def kind(self) -> str:
        return "float"

    def check(self, value: Any) -> float:
        number = _number(value, "a number")
        if self.step is not None:
            index = round((number - self.low) / self.step) if math.isfinite(number) else -1
            near = self._at(index)
            if 0 <= index < (self.size or 0) and abs(near - number) <= 1e-9 * max(abs(number), self.step):
                return near
        elif self.low <= number <= self.high:
            return number
        raise ParamsError(f"expected {_range(self)}, got {value!r}")

    def parse(self, text: str) -> float:
        try:
            return self.check(float(text))
        except ValueError as error:
            raise ParamsError(f"expected {_range(self)}, got {text!r}") from error

    def values(self) -> Iterator[float]:
        if self.size is None:
            raise SpaceError(f"{self!r} has infinitely many values", "give it a step, or ask for a grid with levels")
        return (self.low,).__iter__() if self.step is None else map(self._at, range(self.size))

    def _at(self, index: int) -> float:
        assert self.step is not None
        return float(f"{self.low + index * self.step:.12g}")  # 0.3, not 0.30000000000000004

    def encode(self, value: float) -> float:
        if self.step is not None:
            return _bin_centre(self, value)
        if self._width == 0:
            return 0.5
        return ((math.log(value) if self.log else value) - self._left) / self._width

    def decode(self, u: float) -> float:
        u = 0.0 if u < 0.0 else 1.0 if u > 1.0 else u
        if self.step is not None:
            return self._at(_bin_index(self, u))
        value = self._left + u * self._width
        if self.log:
            value = math.exp(value)
        return self.low if value < self.low else self.high if value > self.high else value

    def encode_many(self, values: Sequence[float]) -> np.ndarray:
        if self.step is not None or self._width == 0:
            return np.array([self.encode(value) for value in values], float)
        x = np.asarray(values, float)
        u: np.ndarray = ((np.log(x) if self.log else x) - self._left) / self._width
        return u

    def decode_many(self, u: np.ndarray) -> list[float]:
        if self.step is not None:
            return [self.decode(one) for one in u.tolist()]
        x = self._left + np.clip(u, 0.0, 1.0) * self._width
        values: list[float] = np.clip(np.exp(x) if self.log else x, self.low, self.high).tolist()
        return values

    def to_json(self) -> dict[str, Any]:
        return {"float": [self.low, self.high], **_options(log=self.log, step=self.step, unit=self.unit)}


@dataclass(frozen=True, slots=True)
class Int:
    """An integer low, low + step, ..., at most high; with `log`, on a log scale."""

    low: int
    high: int
    log: bool = field(default=False, kw_only=True)
    step: int = field(default=1, kw_only=True)
    unit: str | None = field(default=None, kw_only=True)
    size: int = field(init=False, repr=False, compare=False)
    _left: float = field(init=False, repr=False, compare=False)
    _width: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        low, high, step = (_whole("Int", name, getattr(self, name)) for name in ("low", "high", "step"))
        _interval("Int", low, high, self.log, step)
        size, left, width = _bins("Int", low, high, step, self.log)
        _set(self, low=low, high=high, step=step, size=size, _left=left, _width=width)

    @property
    def kind(self) -> str:
        return "int"

    def check(self, value: Any) -> int:
        number = _number(value, "an integer")
        if number == math.floor(number) if math.isfinite(number) else False:
            whole = int(_plain(value))
            if self.low <= whole <= self.high and (whole - self.low) % self.step == 0:
                return whole
        raise ParamsError(f"expected {_range(self)}, got {value!r}")

    def parse(self, text: str) -> int:
        try:
            return self.check(int(text))
        except ValueError as error:
            raise ParamsError(f"expected {_range(self)}, got {text!r}") from error

    def values(self) -> Iterator[int]:
        return iter(range(self.low, self.high + 1, self.step))

    def encode(self, value: int) -> float:
        return _bin_centre(self, value)

    def decode(self, u: float) -> int:
        return self.low + self.step * _bin_index(self, 0.0 if u < 0.0 else 1.0 if u > 1.0 else u)

    def encode_many(self, values: Sequence[int]) -> np.ndarray:
        return np.array([_bin_centre(self, value) for value in values], float)

    def decode_many(self, u: np.ndarray) -> list[int]:
        return [self.decode(one) for one in u.tolist()]

    def to_json(self) -> dict[str, Any]:
        step = None if self.step == 1 else self.step
        return {"int": [self.low, self.high], **_options(log=self.log, step=step, unit=self.unit)}


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of several unordered values."""

    choices: tuple[Value, ...]
    unit: str | None = field(default=None, kw_only=True)
    _index: dict[tuple[type, Value], int] = field(init=False, repr=False, compare=False)
    _types: tuple[type, ...] = field(init=False, repr=False)  # so that (1,) differs from (True,)

    def __init__(self, choices: Iterable[Value], unit: str | None = None) -> None:
        _set(self, choices=_choices("Categorical", choices), unit=unit)
        _set(self, **_typed_index(self.choices))

    @property
    def kind(self) -> str:
        return "categorical"

    @property
    def size(self) -> int:
        return len(self.choices)

    def check(self, value: Any) -> Value:
        return _one_of(self, value)

    def parse(self, text: str) -> Value:
        return _parse_choice(self.choices, text)

    def values(self) -> Iterator[Value]:
        return iter(self.choices)

    def encode(self, value: Value) -> float:
        return (self._index[type(value), value] + 0.5) / len(self.choices)

    def decode(self, u: float) -> Value:
        return self.choices[_slot(u, len(self.choices))]

    def encode_many(self, values: Sequence[Value]) -> np.ndarray:
        return np.array([self.encode(value) for value in values], float)

    def decode_many(self, u: np.ndarray) -> list[Value]:
        return [self.choices[i] for i in slots(u, len(self.choices)).tolist()]

    def to_json(self) -> dict[str, Any]:
        return {"categorical": list(self.choices), **_options(unit=self.unit)}


@dataclass(frozen=True, slots=True)
class Ordinal:
    """One of several ordered values: by their numbers, also when these are spelt ("16" before "128", "8ms"
    before "16ms"); values without numbers keep the given order."""

    choices: tuple[Value, ...]
    unit: str | None = field(default=None, kw_only=True)
    _index: dict[tuple[type, Value], int] = field(init=False, repr=False, compare=False)
    _types: tuple[type, ...] = field(init=False, repr=False)

    def __init__(self, choices: Iterable[Value], unit: str | None = None) -> None:
        _set(self, choices=_by_number(_choices("Ordinal", choices)), unit=unit)
        _set(self, **_typed_index(self.choices))

    @property
    def kind(self) -> str:
        return "ordinal"

    @property
    def size(self) -> int:
        return len(self.choices)

    def check(self, value: Any) -> Value:
        return _one_of(self, value)

    def parse(self, text: str) -> Value:
        return _parse_choice(self.choices, text)

    def values(self) -> Iterator[Value]:
        return iter(self.choices)

    def encode(self, value: Value) -> float:
        return (self._index[type(value), value] + 0.5) / len(self.choices)

    def decode(self, u: float) -> Value:
        return self.choices[_slot(u, len(self.choices))]

    def encode_many(self, values: Sequence[Value]) -> np.ndarray:
        return np.array([self.encode(value) for value in values], float)

    def decode_many(self, u: np.ndarray) -> list[Value]:
        return [self.choices[i] for i in slots(u, len(self.choices)).tolist()]

    def to_json(self) -> dict[str, Any]:
        return {"ordinal": list(self.choices), **_options(unit=self.unit)}


def slots(u: np.ndarray, k: int) -> np.ndarray:
    """u (n,) in the unit interval -> index (n,) of one of k equal bins; outside values are clipped."""
    index: np.ndarray = np.clip((np.asarray(u, float) * k).astype(np.int64), 0, k - 1)
    return index


def _slot(u: float, k: int) -> int:
    return 0 if u <= 0.0 else k - 1 if u >= 1.0 else int(u * k)


def _set(domain: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(domain, name, value)


def _options(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, False)}


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _number(value: Any, wanted: str) -> float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ParamsError(f"expected {wanted}, got {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise ParamsError(f"expected {wanted} that fits a float, got {value!r}") from error


def _bound(kind: str, name: str, value: Any) -> float:
    try:
        number = _number(value, "a number")
    except ParamsError as error:
        raise SpaceError(f"{kind}: {name}: {error}", f"write fettle.{kind}(low, high)") from error
    if not math.isfinite(number):
        raise SpaceError(f"{kind}: expected a finite {name}, got {value!r}")
    return number


def _whole(kind: str, name: str, value: Any) -> int:
    if _bound(kind, name, value) != (whole := int(_plain(value))):
        raise SpaceError(f"{kind}: expected a whole number as {name}, got {value!r}", "use fettle.Float for fractions")
    return whole


def _interval(kind: str, low: float, high: float, log: bool, step: float | None) -> None:
    if not isinstance(log, bool):
        raise SpaceError(f"{kind}: expected log=True or log=False, got {log!r}")
    if low > high:
        raise SpaceError(f"{kind}: expected low <= high, got low={low}, high={high}")
    if log and low <= 0:
        raise SpaceError(f"{kind}: log=True needs low > 0, got low={low}")
    if step is not None and step <= 0:
        raise SpaceError(f"{kind}: expected step > 0, got {step}")


def _bins(kind: str, low: float, high: float, step: float, log: bool) -> tuple[int, float, float]:
    """Number of grid values; left end and width of the interval that their bins fill (logarithms with `log`)."""
    size = int((high - low) // step if isinstance(low, int) else (high - low) / step + 1e-9) + 1
    if size > MAX_GRID:
        raise SpaceError(f"{kind}({low}, {high}) has {size} values, more than 2**40", "take a larger step")
    if not log:
        return size, 0.0, float(size)
    left = math.log(max(low - step / 2, low / 2))
    return size, left, math.log(low + (size - 1) * step + step / 2) - left


def _bin_centre(domain: Float | Int, value: float) -> float:
    low, step = domain.low, domain.step
    assert step is not None
    if not domain.log:
        return (round((value - low) / step) + 0.5) / domain._width
    middle = (math.log(max(value - step / 2, low / 2)) + math.log(value + step / 2)) / 2
    return (middle - domain._left) / domain._width


def _bin_index(domain: Float | Int, u: float) -> int:
    size, step = domain.size, domain.step
    assert size is not None and step is not None
    x = domain._left + u * domain._width
    index = int(x) if not domain.log else math.floor((math.exp(x) - domain.low) / step + 0.5)
    return 0 if index < 0 else size - 1 if index >= size else index


def _range(domain: Float | Int) -> str:
    step = "" if domain.step in (None, 1) else f" in steps of {domain.step}"
    unit = f" {domain.unit}" if domain.unit else ""
    return f"{'an integer' if isinstance(domain, Int) else 'a number'} in [{domain.low}, {domain.high}]{step}{unit}"


def _choices(kind: str, given: Any) -> tuple[Value, ...]:
    if isinstance(given, str | bytes | dict | set | frozenset) or not isinstance(given, Iterable):
        raise SpaceError(f"{kind}: expected a list of choices, got {given!r}", f'write fettle.{kind}(["a", "b"])')
    choices = tuple(_plain(value) for value in given)
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


def _typed_index(choices: tuple[Value, ...]) -> dict[str, Any]:
    return {"_index": {(type(v), v): i for i, v in enumerate(choices)}, "_types": tuple(type(v) for v in choices)}


def _by_number(choices: tuple[Value, ...]) -> tuple[Value, ...]:
    numbers: list[float] = []
    affixes = set()
    for value in choices:
        if isinstance(value, bool) or value is None:
            return choices
        found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
        if isinstance(value, str) and found is None:
            return choices
        numbers.append(float(found[2] if found else value))  # type: ignore[arg-type]
        affixes.add((found[1], found[3]) if found else ("", ""))
    if len(affixes) > 1:  # "512KB", "1MB": the numbers alone do not order them
        return choices
    return tuple(choices[i] for i in sorted(range(len(choices)), key=numbers.__getitem__))


def _one_of(domain: Categorical | Ordinal, value: Any) -> Value:
    plain: Value = _plain(value)
    try:
        return domain.choices[domain._index[type(plain), plain]]
    except (KeyError, TypeError) as error:
        raise ParamsError(f"expected one of {list(domain.choices)!r}, got {plain!r}") from error


def _parse_choice(choices: Sequence[Value], text: str) -> Value:
    """The choice spelt `text`: a string before anything else, then a value of that spelling."""
    if text in (strings := [value for value in choices if isinstance(value, str)]):
        return strings[strings.index(text)]
    for value in choices:
        spelt = (
            {True: ("true",), False: ("false",), None: ("none", "null")}
            if not isinstance(value, int | float | str) or isinstance(value, bool)
            else {}
        )
        if text == str(value) or text.lower() in spelt.get(value, ()):  # type: ignore[call-overload]
            return value
    for value in choices:
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                if float(text) == value:
                    return value
            except ValueError:
                break
    raise ParamsError(f"expected one of {list(choices)!r}, got {text!r}")
