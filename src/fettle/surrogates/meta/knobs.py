"""Knobs of several spaces on one scale: aligned by name and unit, in physical units and not by places in a box."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fettle.core.domains import Column
from fettle.core.space import Params, Space

Floats = np.ndarray
_WIDE = 8.0  # a list of numbers that spans this factor is taken for geometric
_UNITS: Mapping[str, tuple[str, float]] = {
    **{unit: ("time", factor) for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))},
    **{unit: ("size", 1000.0**i) for i, unit in enumerate(("B", "KB", "MB", "GB", "TB"))},
    **{unit: ("size", 1024.0**i) for i, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))},
}


def factor(unit: str | None, wanted: str | None) -> float | None:
    """What figures in `unit` are multiplied by to be in `wanted`; None where the two do not measure the same."""
    if unit == wanted or unit is None or wanted is None:
        return 1.0
    (kind, scale), (other, target) = _UNITS.get(unit, (unit, 1.0)), _UNITS.get(wanted, (wanted, 1.0))
    return scale / target if kind == other else None


@dataclass(frozen=True, slots=True)
class Knob:
    """kind: "number" in [low, high] (of the logarithm if `log`), "rank" or "word" of listed choices."""

    name: str
    kind: str
    unit: str | None = None
    log: bool = False
    low: float = 0.0
    high: float = 1.0
    choices: tuple[Any, ...] = ()

    def place(self, value: Any, scale: float = 1.0) -> float:
        """Where a value sits: about [0, 1] for numbers and ranks, an index for words; NaN where it means nothing."""
        if self.kind != "number":
            found = next((i for i, c in enumerate(self.choices) if type(c) is type(value) and c == value), None)
            if found is None:
                return math.nan
            return float(found) if self.kind == "word" else found / max(1, len(self.choices) - 1)
        number = _numeric(value)
        if number is None or (self.log and number <= 0.0):
            return math.nan
        x = math.log(number * scale) if self.log else number * scale
        return (x - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def _numeric(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class Knobs:
    """d knobs; params become X (n, d), NaN where a knob is inactive or absent."""

    knobs: tuple[Knob, ...]

    @classmethod
    def of(cls, space: Space, others: Sequence[tuple[Iterable[Params], Space | None]] = ()) -> "Knobs":
        """Those of a space, with ranges that cover the values of the others, too."""
        return cls(tuple(_knob(column, others) for column in space.columns))

    def __len__(self) -> int:
        return len(self.knobs)

    @property
    def names(self) -> list[str]:
        return [knob.name for knob in self.knobs]

    @property
    def columns(self) -> list[Column]:
        """As the processes know columns: which are words."""
        kinds = {"word": "categorical", "rank": "ordinal", "number": "float"}
        domain: Any = None  # the kernels look at kinds alone
        return [Column(knob.name, domain, kinds[knob.kind], None) for knob in self.knobs]

    @property
    def words(self) -> Floats:
        return np.array([knob.kind == "word" for knob in self.knobs], bool)

    def encode(self, rows: Sequence[Mapping[str, Any]], space: Space | None = None) -> Floats:
        """space: where the rows' units are found; without it they are taken for the same."""
        units = {c.name: getattr(c.domain, "unit", None) for c in space.columns} if space is not None else {}
        X = np.full((len(rows), len(self.knobs)), np.nan)
        for j, knob in enumerate(self.knobs):
            scale = factor(units.get(knob.name), knob.unit)
            if scale is None:
                continue
            known: dict[tuple[type, Any], float] = {}
            for i, params in enumerate(rows):
                if knob.name in params:
                    value = params[knob.name]
                    key = (type(value), value)
                    if key not in known:
                        known[key] = knob.place(value, scale)
                    X[i, j] = known[key]
        return X

    def joined(self, space: Space) -> "Knobs":
        """These, and those of a space that are not among them."""
        more = [_knob(column, ()) for column in space.columns if column.name not in self.names]
        return Knobs((*self.knobs, *more))

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {**{name: getattr(k, name) for name in ("name", "kind", "unit", "log", "low", "high")},
             "choices": list(k.choices)}
            for k in self.knobs
        ]  # fmt: skip

    @classmethod
    def from_json(cls, form: Sequence[Mapping[str, Any]]) -> "Knobs":
        return cls(tuple(Knob(**{**one, "choices": tuple(one["choices"])}) for one in form))


def _knob(column: Column, others: Sequence[tuple[Iterable[Params], Space | None]]) -> Knob:
    domain: Any = column.domain
    unit = getattr(domain, "unit", None)
    if column.kind in ("categorical", "choice"):
        seen = [params[column.name] for rows, _ in others for params in rows if column.name in params]
        return Knob(column.name, "word", unit, choices=_distinct([*domain.values(), *seen]))
    listed = [] if column.kind != "ordinal" else list(domain.values())
    if column.kind == "ordinal" and any(_numeric(value) is None for value in listed):
        return Knob(column.name, "rank", unit, choices=tuple(listed))
    ends = [float(v) for v in listed] or [float(domain.low), float(domain.high)]
    log = bool(getattr(domain, "log", False)) or bool(listed and min(ends) > 0.0 and max(ends) >= _WIDE * min(ends))
    for rows, space in others:
        own = (
            next((getattr(c.domain, "unit", None) for c in space.columns if c.name == column.name), None)
            if space
            else None
        )
        scale = factor(own, unit)
        seen = [x for params in rows if (x := _numeric(params.get(column.name))) is not None]
        if scale is not None and seen:
            ends += [scale * x for x in (min(seen), max(seen)) if not log or x > 0.0]
    low, high = (math.log(e) if log else e for e in (min(ends), max(ends)))
    return Knob(column.name, "number", unit, log, low, high)


def _distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple({(type(value), value): value for value in values}.values())
