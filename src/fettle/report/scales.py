"""Axes: from figures to pixels, and ticks at round numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fettle.report.figures import label, unit


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] to [start, stop] pixels."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        a, b, v = (math.log(max(x, 1e-300)) if self.log else x for x in (self.low, self.high, value))
        return self.start + (self.stop - self.start) * (v - a) / ((b - a) or 1.0)

    def ticks(self, n: int = 5) -> list[float]:
        """About n round numbers inside the range."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high, n)


def fitted(values: Iterable[float], start: float, stop: float, *, log: bool = False, zero: bool = False) -> Scale:
    """A scale with a little room around the values; zero: begins at 0. Logarithmic only if all are positive."""
    known = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if log and low > 0:
        room = (high / low) ** 0.06 if high > low else 2.0
        return Scale(low / room, high * room, start, stop, log=True)
    if zero and low >= 0:
        return Scale(0.0, (high or 1.0) * 1.06, start, stop)
    room = 0.07 * (high - low) or abs(high) * 0.5 or 1.0
    return Scale(low - room, high + room, start, stop)


def linear_ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, n)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 12) + 0.0 for i in range(count)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 in every decade, decades only where there are many; linear ones inside a narrow range."""
    decades = math.log10(high / low)
    if decades < 0.6:
        return linear_ticks(low, high, 4)
    steps = (1.0, 2.0, 5.0) if decades <= 3 else (1.0,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [m * 10.0**k for k in range(first, last + 1) for m in steps]
    return [t for t in found if low <= t <= high]


def axis(metric: str, scale: Scale, currency: str = "", n: int = 5) -> tuple[str, list[tuple[float, str]]]:
    """The axis' title with its unit, and (tick, text) in that one unit."""
    ticks = scale.ticks(n)
    factor, name = unit(metric, max(map(abs, ticks), default=0.0) / (10 if scale.log else 1), currency)
    shown = [t * factor for t in ticks]
    texts = [f"{v:.6g}" if 1e-4 <= abs(v) < 1e7 or v == 0 else f"{v:.0e}" for v in shown]
    if not scale.log and not any("e" in text for text in texts):
        decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
        texts = [f"{v:,.{decimals}f}" for v in shown]
    return label(metric) + (f" ({name})" if name else ""), list(zip(ticks, texts, strict=True))


def spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near to `wanted` as can be, at least `gap` apart and inside [low, high], in the same order."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed: list[float] = []
    for i in order:
        placed.append(max(wanted[i], placed[-1] + gap if placed else low))
    limit = high
    for k in range(len(placed) - 1, -1, -1):
        placed[k] = min(placed[k], limit)
        limit = placed[k] - gap
    result = [0.0] * len(wanted)
    for i, y in zip(order, placed, strict=True):
        result[i] = y
    return result
