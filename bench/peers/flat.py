"""Spaces for optimisers without conditions: every parameter of every branch is always there; inactive ones are
ignored. Names lose their dots; ordinals become integer indices, steps of integers whole numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fettle.core.domains import Column, Domain
from fettle.core.space import Choice, Float, Int, Ordinal, Params, Space


@dataclass(frozen=True, slots=True)
class Flat:
    space: Space

    def short(self, column: Column) -> str:
        return column.name.replace(".", "__")

    def params(self, given: Mapping[str, Any]) -> Params:
        """Flat values -> params of the space."""
        columns, params = self.space.columns, Params()
        for column in columns:
            if column.parent is None or params.get(columns[column.parent].name, params) == column.branch:
                params[column.name] = value_of(column.domain, given[self.short(column)])
        return params


def bounds(domain: Domain) -> tuple[float, float] | tuple[int, int]:
    """Of numbers and ordinals, in the optimiser's terms; an Int on a log scale keeps its values."""
    if isinstance(domain, Float):
        return domain.low, domain.high
    if isinstance(domain, Int) and domain.step == 1:
        return domain.low, domain.high
    assert isinstance(domain, Int | Ordinal)
    return 0, domain.size - 1


def is_number(domain: Domain) -> bool:
    return isinstance(domain, Float | Int | Ordinal)


def is_log(domain: Domain) -> bool:
    return isinstance(domain, Float | Int) and domain.log


def labels(domain: Domain) -> list[str]:
    """Of categories and branches, as text: optimisers differ in what they take."""
    assert isinstance(domain, Choice) or not is_number(domain)
    return [f"v{i}" for i in range(domain.size or 0)]


def value_of(domain: Domain, given: Any) -> Any:
    if isinstance(domain, Float):
        return min(domain.high, max(domain.low, float(given)))
    if isinstance(domain, Int):
        step = round(float(given)) - (domain.low if domain.step == 1 else 0)
        return domain.low + domain.step * min(domain.size - 1, max(0, step))
    values = list(domain.values())
    if isinstance(domain, Ordinal):
        return values[min(len(values) - 1, max(0, round(float(given))))]
    return values[int(str(given)[1:])]
