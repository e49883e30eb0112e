"""Kinds smooth, many_dimensional and noisy: known functions in boxes of their own.

Per seed, the box lies so that the optimum is at a uniformly random relative position in [0.1, 0.9] of each side
(of several minima, one is drawn); its sides keep their standard lengths.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from fettle.core.space import Float, Params, Space
from fettle.problems.synthetic import functions as f
from fettle.problems.synthetic.record import Maker, Synthetic, stream

_NEAR, _FAR = 0.1, 0.9


@dataclass(frozen=True, slots=True)
class Classic:
    """A function on R^d with several (k, d) or one (d,) global minima, and the sides (d,) of its standard box."""

    function: f.Function
    sides: np.ndarray
    minima: np.ndarray


def _classic(function: f.Function, d: int, side: float, minimum: float | list[float] | list[list[float]]) -> Classic:
    minima = np.atleast_2d(np.asarray(minimum, float))
    return Classic(function, np.full(d, side), np.broadcast_to(minima, (len(minima), d)))


@cache
def michalewicz_minimum(d: int) -> tuple[float, ...]:
    """The function is a sum over dimensions: each is searched on a grid of [0, pi], then refined."""
    found = []
    for i in range(1, d + 1):
        grid, step = np.linspace(0, np.pi, 20_001), np.pi / 20_000
        for _ in range(6):
            best = float(grid[np.argmax(np.sin(grid) * np.sin(i * grid**2 / np.pi) ** 20)])
            grid, step = np.linspace(best - step, best + step, 201), step / 100
        found.append(best)
    return tuple(found)


_H3 = [0.11458887667419036, 0.555648894613063, 0.8525469846329053]
_H4 = [0.18739527243664728, 0.1941515306066993, 0.5579177784375697, 0.2647796246871337]
_H6 = [0.2016895110123708, 0.15001069182251708, 0.4768739741955571, 0.2753324304928234, 0.3116516166035804,
       0.657300534066221]  # fmt: skip
_SHEKEL = [4.00057291618651, 4.000689366186133, 3.9994897088585475, 3.999606158858151]
_CAMEL = [0.08984201310040059, -0.7126564030207433]
_TANG = -2.903534019679525


def _valley(d: int) -> list[float]:
    """Dixon & Price's minimum."""
    return [2.0 ** -((2**i - 2) / 2**i) for i in range(1, d + 1)]


def _trid(d: int) -> Classic:
    return _classic(f.trid, d, 2.0 * d * d, [float(i * (d + 1 - i)) for i in range(1, d + 1)])


_CLASSICS: dict[str, Callable[[int], Classic]] = {
    "hartmann3": lambda d: _classic(f.hartmann3, 3, 1, _H3),
    "hartmann4": lambda d: _classic(f.hartmann4, 4, 1, _H4),
    "hartmann6": lambda d: _classic(f.hartmann6, 6, 1, _H6),
    "branin": lambda d: _classic(f.branin, 2, 15, [[-math.pi, 12.275], [math.pi, 2.275], [3 * math.pi, 2.475]]),
    "goldstein_price": lambda d: _classic(f.goldstein_price, 2, 4, [0.0, -1.0]),
    "six_hump_camel": lambda d: Classic(f.six_hump_camel, np.array([6.0, 4.0]), np.outer([1, -1], _CAMEL)),
    "beale": lambda d: _classic(f.beale, 2, 9, [3, 0.5]),
    "shekel": lambda d: _classic(f.shekel7, 4, 10, _SHEKEL),
    "trid": _trid,
    "dixon_price": lambda d: _classic(f.dixon_price, d, 20, _valley(d)),
    "michalewicz": lambda d: _classic(f.michalewicz, d, math.pi, list(michalewicz_minimum(d))),
    "levy": lambda d: _classic(f.levy, d, 20, 1),
    "rosenbrock": lambda d: _classic(f.rosenbrock, d, 15, 1),
    "powell": lambda d: _classic(f.powell, d, 9, 0),
    "zakharov": lambda d: _classic(f.zakharov, d, 15, 0),
    "styblinski_tang": lambda d: _classic(f.styblinski_tang, d, 10, _TANG),
    "ackley": lambda d: _classic(f.ackley, d, 65.536, 0),
    "rastrigin": lambda d: _classic(f.rastrigin, d, 10.24, 0),
    "griewank": lambda d: _classic(f.griewank, d, 40, 0),
    "ellipsoid": lambda d: _classic(f.ellipsoid(d, 1e4, seed=d), d, 10, 0),
    "cigar": lambda d: _classic(f.ellipsoid(d, 1e6, seed=100 + d), d, 10, 0),
    "rotated_rastrigin": lambda d: _classic(f.rotated(f.rastrigin, d, seed=200 + d), d, 10.24, 0),
}


def box(classic: Classic, rng: np.random.Generator) -> tuple[Space, np.ndarray, np.ndarray]:
    """The space of x0, x1, ... around one of the minima, that minimum (d,) in it, and the offset (d,) to subtract
    before the formula: neither the box nor the optimum has round coordinates."""
    minimum = classic.minima[int(rng.integers(len(classic.minima)))]
    offset = rng.uniform(-1, 1, len(minimum)) * classic.sides
    minimum = minimum + offset
    low = minimum - rng.uniform(_NEAR, _FAR, len(minimum)) * classic.sides
    ends = zip(low.tolist(), classic.sides.tolist(), strict=True)
    return Space({f"x{i}": Float(a, a + side) for i, (a, side) in enumerate(ends)}), minimum, offset


def named(x: np.ndarray) -> Params:
    return {f"x{i}": float(value) for i, value in enumerate(x)}


def vector(params: Params) -> np.ndarray:
    return np.array(list(params.values()), float)


@dataclass(frozen=True, slots=True)
class Numeric:
    """How one problem is made. share, floor: the noise's sd is floor + share * (loss - least)."""

    classic: str
    d: int = 0
    change: Callable[[float], float] | None = None  # strictly increasing: the problem *is* change(f)
    shown: Callable[[float], float] | None = None  # strictly increasing: f is shown on another scale
    floor: float = 0.0
    share: float = 0.0

    def make(self, kind: str, name: str, seed: int) -> Synthetic:
        classic = _CLASSICS[self.classic](self.d)
        change = self.change or float
        space, minimum, offset = box(classic, stream(name, seed))

        def loss(params: Params) -> float:
            return change(classic.function(vector(params) - offset))

        def sd(params: Params) -> float:
            return self.floor + self.share * max(0.0, loss(params) - optimum)

        optimum = loss(named(minimum))

        return Synthetic(
            name, kind, seed, space, lambda params: {"loss": loss(params)}, named(minimum), optimum,
            noise=sd if self.floor or self.share else None, scale=self.shown or float,
        )  # fmt: skip


# "shown": regrets are counted on a logarithmic scale, of functions whose values range over many decades
SMOOTH = {
    "hartmann3": Numeric("hartmann3"),
    "hartmann6": Numeric("hartmann6"),
    "levy8": Numeric("levy", 8),
    "rosenbrock5": Numeric("rosenbrock", 5),
    "branin": Numeric("branin"),
    "styblinski_tang5": Numeric("styblinski_tang", 5),
    "powell4": Numeric("powell", 4),
    "zakharov3_millions": Numeric("zakharov", 3, change=math.log1p, shown=lambda y: 1e6 * math.expm1(y) + 3e7),
    "levy3_exp": Numeric("levy", 3, shown=lambda y: math.exp(y / 8)),
    "beale": Numeric("beale", change=math.log1p, shown=math.expm1),
}
SMOOTH_HOLDOUT = {
    "hartmann4": Numeric("hartmann4"),
    "levy5": Numeric("levy", 5),
    "rosenbrock8": Numeric("rosenbrock", 8),
    "goldstein_price": Numeric("goldstein_price", change=lambda y: math.log(y - 2), shown=lambda y: math.exp(y) + 2),
    "six_hump_camel": Numeric("six_hump_camel"),
    "shekel4": Numeric("shekel"),
    "trid6_micro": Numeric("trid", 6, shown=lambda y: 1e-7 * y),
    "dixon_price5": Numeric("dixon_price", 5),
    "rastrigin3_exp": Numeric("rastrigin", 3, shown=lambda y: math.exp(y / 20)),
}
MANY = {
    "ackley10": Numeric("ackley", 10),
    "levy20": Numeric("levy", 20),
    "rosenbrock15": Numeric("rosenbrock", 15),
    "rastrigin10": Numeric("rastrigin", 10),
    "ellipsoid20": Numeric("ellipsoid", 20),
    "michalewicz10": Numeric("michalewicz", 10),
}
MANY_HOLDOUT = {
    "ackley15": Numeric("ackley", 15),
    "levy12": Numeric("levy", 12),
    "styblinski_tang12": Numeric("styblinski_tang", 12),
    "rotated_rastrigin10": Numeric("rotated_rastrigin", 10),
    "cigar12": Numeric("cigar", 12),
    "griewank16": Numeric("griewank", 16),
}
NOISY = {  # sds of about 5 to 10 % of (typical - optimum), hartmann6 as in the literature
    "noisy_hartmann6": Numeric("hartmann6", floor=0.2),
    "noisy_levy8": Numeric("levy", 8, floor=6.0),
    "noisy_rosenbrock5_log": Numeric("rosenbrock", 5, change=math.log1p, floor=0.8),
    "noisy_branin": Numeric("branin", floor=4.0),
    "noisy_ackley5": Numeric("ackley", 5, floor=1.5),
    "noisy_styblinski_tang3_rising": Numeric("styblinski_tang", 3, floor=0.5, share=0.2),
}
NOISY_HOLDOUT = {
    "noisy_hartmann4": Numeric("hartmann4", floor=0.2),
    "noisy_powell4_log": Numeric("powell", 4, change=math.log1p, floor=0.5),
    "noisy_griewank3": Numeric("griewank", 3, floor=0.07),
    "noisy_six_hump_camel_log": Numeric("six_hump_camel", change=lambda y: math.log(y + 1.2), floor=0.3),
    "noisy_rastrigin4_rising": Numeric("rastrigin", 4, floor=1.0, share=0.08),
}


def _makers(**tables: dict[str, Numeric]) -> dict[str, dict[str, Maker]]:
    def maker(kind: str, numeric: Numeric) -> Maker:
        return lambda name, seed: numeric.make(kind, name, seed)

    return {kind: {name: maker(kind, numeric) for name, numeric in table.items()} for kind, table in tables.items()}


TUNED = _makers(smooth=SMOOTH, many_dimensional=MANY, noisy=NOISY)
HOLDOUT = _makers(smooth=SMOOTH_HOLDOUT, many_dimensional=MANY_HOLDOUT, noisy=NOISY_HOLDOUT)
