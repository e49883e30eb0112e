"""Warped inputs: columns along which a function varies faster at one end are stretched there (Snoek et al. 2014).

    w(x) = log(1 + (e^s - 1) x) / s

s > 0 stretches the low end of a column, s < 0 the high one, 0 nothing; the steepest slope is e^|s| times the flattest.
So a parameter whose logarithm matters can do without its declaration. Snoek et al. (arXiv:1402.0929) use the Beta CDF,
whose slope is infinite at the ends, and sample its exponents; here s is the mode, with a normal prior about 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fettle.core.domains import Column, set_fields

Floats = np.ndarray
MOST = 8.0  # strengths stay between -MOST and MOST
_NOTHING = 1e-12  # a strength that moves points by less than their rounding
_SMALL = 1e-3  # strengths below which a difference would lose its digits


@dataclass(frozen=True, slots=True)
class Warp:
    """strengths (d,): s of each column; 0 where values have no order."""

    strengths: Floats
    _s: Floats = field(init=False, repr=False)
    _rise: Floats = field(init=False, repr=False)  # e^s - 1

    def __post_init__(self) -> None:
        s = np.where(np.abs(self.strengths) < _NOTHING, _NOTHING, self.strengths)
        set_fields(self, _s=s, _rise=np.expm1(s))

    def __call__(self, X: Floats) -> Floats:
        """X (..., d) in the unit cube -> warped; NaN stays."""
        result: Floats = np.log1p(self._rise * X) / self._s
        return result

    def slope(self, X: Floats) -> Floats:
        """Derivative by X (..., d)."""
        result: Floats = self._rise / self._s / (1.0 + self._rise * X)
        return result

    def by_strength(self, X: Floats) -> Floats:
        """Derivative of what X (..., d) becomes, by s."""
        steep = ((self._rise + 1.0) * X / (1.0 + self._rise * X) - self(X)) / self._s
        result: Floats = np.where(np.abs(self.strengths) < _SMALL, 0.5 * X * (1.0 - X), steep)
        return result


def warpable(columns: Sequence[Column]) -> Floats:
    """(d,) bool: numbers with more than two values."""
    return np.array([c.kind in ("float", "int") and (c.size is None or c.size > 2) for c in columns], bool)
