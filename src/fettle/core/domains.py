"""Domains: what one parameter may be, and how its values sit in the unit interval.

Discrete values sit at the centres of bins that fill [0, 1], so that a uniform draw decodes to uniform values
(for `log`, uniform in the logarithm). `encode` and `decode` work on one value; `encode_many` and `decode_many`
on a column (n,). Values keep their types: 1, 1.0, True and "1" are different choices.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fettle.core.errors import SpaceError

Value = str | int | float | bool | None


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


def slots(u: np.ndarray, k: int) -> np.ndarray:
    """u (n,) in the unit interval -> index (n,) of one of k equal bins; outside values are clipped."""
    index: np.ndarray = np.clip((np.asarray(u, float) * k).astype(np.int64), 0, k - 1)
    return index


def slot(u: float, k: int) -> int:
    """The same for one value."""
    return 0 if u <= 0.0 else k - 1 if u >= 1.0 else int(u * k)


def set_fields(domain: Any, **values: Any) -> None:
    """Sets fields of a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(domain, name, value)


def options(**given: Any) -> dict[str, Any]:
    """The options of a domain's JSON form that differ from their defaults."""
    return {name: value for name, value in given.items() if value not in (None, False)}


def plain(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def check_unit(kind: str, unit: Any) -> None:
    if unit is not None and not isinstance(unit, str):
        raise SpaceError(f"{kind}: expected unit to be text, got {unit!r}", 'e.g. unit="ms"')
