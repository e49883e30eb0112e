"""What users believe of good params before the first trial, and how that wears off (Hvarfner et al. 2022, piBO,
arXiv:2204.11051, eq. 6): a proposal's worth is multiplied by prior(params) ** (strength / trials so far).

`Space(..., prior={"lr": {"at": 1e-3, "spread": 0.1}, "optimizer": {"adam": 3, "sgd": 1}})`: a number lies about `at`,
with a standard deviation of `spread`, a share of the parameter's range on its own scale; of a category's values, and
of a choice's branches, some are likelier than others (1 where a value is not named).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fettle.core.domains import Column
from fettle.core.errors import InvalidInput, ParamsError
from fettle.core.space import Space

Floats = np.ndarray
_STRENGTH = 10.0  # of the prior, in trials
_FLOOR = 1e-4  # density that nothing falls below, relative to the most likely: users err
_HINT = 'write {"at": value, "spread": 0.1} for numbers, {"value": weight, ...} for categories'


class UserPrior:
    """log_density(U): the sum of the parameters' log densities, each 0 where it is highest."""

    def __init__(self, space: Space) -> None:
        self._terms: list[tuple[int, Callable[[Floats], Floats]]] = []
        for j, column in enumerate(space.columns):
            if column.name in space.prior:
                self._terms.append((j, _density(column, space.prior[column.name])))

    def __bool__(self) -> bool:
        return bool(self._terms)

    def log_density(self, U: Floats) -> Floats:
        """U (m, d) -> (m,)."""
        total = np.zeros(len(U))
        for j, density in self._terms:
            active = ~np.isnan(U[:, j])
            total[active] += np.log(np.maximum(density(U[active, j]), _FLOOR))
        return total

    def worth(self, n: int) -> Callable[[Floats], Floats]:
        """What it adds to the logarithm of a worth after n trials."""
        return lambda U: self.log_density(U) * (_STRENGTH / max(1, n))


def _density(column: Column, data: Any) -> Callable[[Floats], Floats]:
    if not isinstance(data, Mapping):
        raise InvalidInput(f"prior of {column.name!r}: expected a mapping, got {data!r}", _HINT)
    if set(data) <= {"at", "spread"} and "at" in data:
        try:
            centre = column.domain.encode(column.domain.check(data["at"]))
        except ParamsError as error:
            raise InvalidInput(f"prior of {column.name!r}: at: {error}", _HINT) from error
        spread = data.get("spread", 0.1)
        if isinstance(spread, bool) or not isinstance(spread, int | float) or not 0 < spread < math.inf:
            raise InvalidInput(f"prior of {column.name!r}: expected spread > 0, got {spread!r}", _HINT)
        return lambda u: np.exp(-0.5 * ((u - centre) / spread) ** 2)
    spelt = {str(value): i for i, value in enumerate(column.domain.values())} if column.size is not None else {}
    wrong = [name for name, w in data.items() if name not in spelt or not isinstance(w, int | float) or not w >= 0]
    if wrong or not any(data.values()):
        raise InvalidInput(f"prior of {column.name!r}: cannot use {dict(data)!r}", _HINT)
    weights = np.ones(len(spelt))
    for name, weight in data.items():
        weights[spelt[name]] = weight
    places = column.domain.encode_many(list(column.domain.values()))
    return lambda u: (weights / weights.max())[np.abs(u[:, None] - places).argmin(axis=1)]
