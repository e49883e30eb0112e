"""How losses are shown to a Gaussian process: with mean 0 and variance 1, and bad ones pressed together if that fits.

    z = (y - median) / (median - min);  t = z below the median, log(1 + c z) / c above it

What lies above the median matters little, but can be larger by orders of magnitude. Whether c is 0 (the losses as
they are) or 1 is decided by the evidence: the density of the losses themselves under the fitted process.
"""

from dataclasses import dataclass

import numpy as np

Floats = np.ndarray
PRESSURES = (0.0, 1.0)
_MOST = 1e100  # units: where users return the largest float for what failed, its square has to be finite


@dataclass(frozen=True, slots=True)
class Outputs:
    """One transform; its figures come from the losses that it was made for."""

    pressure: float
    middle: float
    unit: float
    mean: float
    std: float

    @classmethod
    def of(cls, losses: Floats, pressure: float) -> "Outputs":
        middle = float(np.median(losses))
        unit = middle - float(losses.min())
        if unit <= 0.0:
            unit = float(losses.max()) - middle or 1.0
        pressed = _pressed(_scaled(losses, middle, unit), pressure)
        return cls(pressure, middle, unit, float(pressed.mean()), float(pressed.std()) or 1.0)

    def __call__(self, losses: Floats) -> Floats:
        """losses (n,) -> (n,)."""
        result: Floats = (_pressed(_scaled(losses, self.middle, self.unit), self.pressure) - self.mean) / self.std
        return result

    def inverse(self, values: Floats) -> Floats:
        z = values * self.std + self.mean
        if self.pressure:
            z = np.where(z > 0.0, np.expm1(np.minimum(self.pressure * z, 500.0)) / self.pressure, z)
        result: Floats = z * self.unit + self.middle
        return result

    def slope(self, losses: Floats) -> Floats:
        """Derivative at losses (n,): how errors shrink or grow."""
        z = _scaled(losses, self.middle, self.unit)
        result: Floats = 1.0 / ((1.0 + self.pressure * np.maximum(z, 0.0)) * self.unit * self.std)
        return result

    def log_jacobian(self, losses: Floats) -> float:
        """log |d values / d losses|, summed: what densities of different transforms are compared by."""
        return float(np.log(self.slope(losses)).sum())


def _scaled(losses: Floats, middle: float, unit: float) -> Floats:
    with np.errstate(over="ignore"):
        result: Floats = np.clip((losses - middle) / unit, -_MOST, _MOST)
    return result


def _pressed(z: Floats, pressure: float) -> Floats:
    if not pressure:
        return z
    result: Floats = np.where(z > 0.0, np.log1p(pressure * np.maximum(z, 0.0)) / pressure, z)
    return result
