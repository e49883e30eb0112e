"""Float and Int: numbers in an interval, on a linear or log scale, continuous or in steps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fettle.core.domains import check_unit, options, plain, set_fields
from fettle.core.errors import ParamsError, SpaceError

MAX_GRID = 2**40  # beyond it, neighbouring integers can no longer be told apart in a log-scaled unit interval


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
        _interval("Float", low, high, self.log, step, self.unit)
        if step is None:
            size = 1 if low == high else None
            left = math.log(low) if self.log else low
            width = (math.log(high) if self.log else high) - left
            if not math.isfinite(width):
                raise SpaceError(f"Float({low}, {high}): the range is too wide for a float", "use log=True")
        else:
            size, left, width = _bins("Float", low, high, step, self.log)
        set_fields(self, low=low, high=high, step=step, size=size, _left=left, _width=width)

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
        return iter((self.low,)) if self.step is None else map(self._at, range(self.size))

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
        u = 0.0 if u < 0.0 else 1.0 if u > 1.0 else float(u)
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
        return {"float": [self.low, self.high], **options(log=self.log, step=self.step, unit=self.unit)}


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
        _interval("Int", low, high, self.log, step, self.unit)
        size, left, width = _bins("Int", low, high, step, self.log)
        set_fields(self, low=low, high=high, step=step, size=size, _left=left, _width=width)

    @property
    def kind(self) -> str:
        return "int"

    def check(self, value: Any) -> int:
        number = _number(value, "an integer")
        if number.is_integer():
            whole = int(plain(value))
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
        return {"int": [self.low, self.high], **options(log=self.log, step=step, unit=self.unit)}


def _number(value: Any, wanted: str) -> float:
    value = plain(value)
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
    if _bound(kind, name, value) != (whole := int(plain(value))):
        raise SpaceError(f"{kind}: expected a whole number as {name}, got {value!r}", "use fettle.Float for fractions")
    return whole


def _interval(kind: str, low: float, high: float, log: bool, step: float | None, unit: Any) -> None:
    check_unit(kind, unit)
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
