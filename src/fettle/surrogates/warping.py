"""Warped inputs: columns along which a function varies faster at one end are stretched there (Snoek et al. 2014).

    w(x) = log(1 + (e^s - 1) x) / s

s > 0 stretches the low end of a column, s < 0 the high one, 0 nothing; the steepest slope is e^|s| times the flattest.
So a parameter whose logarithm matters can do without its declaration. Snoek et al. (arXiv:1402.0929) use the Beta CDF,
whose slope is infinite at the ends, and sample its exponents; here s is the mode, with a normal prior about 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.core.domains import Column

Floats = np.ndarray
MOST = 8.0  # strengths stay between -MOST and MOST
_SMALL = 1e-3  # strengths below which the limit is taken


@dataclass(frozen=True, slots=True)
class Warp:
    """strengths (d,): s of each column; 0 where values have no order."""

    strengths: Floats

    def __call__(self, X: Floats) -> Floats:
        """X (..., d) in the unit cube -> warped; NaN stays."""
        s, small = self._safe()
        result: Floats = np.where(small, X + 0.5 * self.strengths * X * (1.0 - X), np.log1p(np.expm1(s) * X) / s)
        return result

    def slope(self, X: Floats) -> Floats:
        """Derivative by X (..., d)."""
        s, small = self._safe()
        steep = np.expm1(s) / (s * (1.0 + np.expm1(s) * X))
        result: Floats = np.where(small, 1.0 + self.strengths * (0.5 - X), steep)
        return result

    def by_strength(self, X: Floats) -> Floats:
        """Derivative of what X (..., d) becomes, by s."""
        s, small = self._safe()
        ratio = np.exp(s) * X / (1.0 + np.expm1(s) * X)
        result: Floats = np.where(small, 0.5 * X * (1.0 - X), (ratio - np.log1p(np.expm1(s) * X) / s) / s)
        return result

    def _safe(self) -> tuple[Floats, Floats]:
        small = np.abs(self.strengths) < _SMALL
        return np.where(small, 1.0, self.strengths), small


def warpable(columns: Sequence[Column]) -> Floats:
    """(d,) bool: numbers with more than two values."""
    return np.array([c.kind in ("float", "int") and (c.size is None or c.size > 2) for c in columns], bool)
