"""Kind multi_objective: ZDT1-3 (Zitzler et al. 2000, doi:10.1162/106365600568202), DTLZ2 (Deb et al. 2002), and
mixed and conditional spaces. Distance parameters have their optimum at a random place instead of on the border.

`ideal` is the hypervolume of the true front, of 1,001 points on it, or exact where it is a sphere. `best` and
`optimum` are the point of the front with the lowest first objective."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from fettle.core.domains import Domain
from fettle.core.pareto import hypervolume
from fettle.core.space import Categorical, Float, Int, Params, Space
from fettle.core.trial import Objective
from fettle.problems.synthetic.landscape import Form, Part, chosen, landscape
from fettle.problems.synthetic.numeric import named, vector
from fettle.problems.synthetic.record import Maker, Synthetic, stream

Front = Callable[[float], float]
_POINTS = 1001


def _ideal(front: Front, reference: tuple[float, float]) -> float:
    """Hypervolume of f2 = front(f1) for f1 in [0, 1]."""
    losses = [(x, front(x)) for x in np.linspace(0, 1, _POINTS).tolist()]
    return hypervolume(np.array(losses), reference)


def _objectives(n: int) -> tuple[Objective, ...]:
    return tuple(Objective(f"f{i + 1}") for i in range(n))


def _zdt1(x: float, g: float) -> float:
    return g * (1 - math.sqrt(x / g))


def _zdt2(x: float, g: float) -> float:
    return g * (1 - (x / g) ** 2)


def _zdt3(x: float, g: float) -> float:
    return g * (1 - math.sqrt(x / g) - x / g * math.sin(10 * math.pi * x))


@cache
def _zdt_ideal(second: Callable[[float, float], float], reference: tuple[float, float]) -> float:
    return _ideal(lambda x: second(x, 1.0), reference)


@cache
def _size_ideal(power: float, reference: tuple[float, float]) -> float:
    return _ideal(lambda e: (1 - e ** (1 / power)) ** 2, reference)


def zdt(name: str, seed: int, second: Callable[[float, float], float], d: int) -> Synthetic:
    """g = 1 + 9 * mean distance of x1.. from their places, as a share of the longer side."""
    rng = stream(name, seed)
    at, centre = rng.uniform(0.1, 0.9, d - 1), rng.uniform(-1, 1, d - 1)
    low = np.append(0.0, centre - at)
    domains: dict[str, Domain] = {f"x{i}": Float(a, a + 1) for i, a in enumerate(low.tolist())}
    reach = np.maximum(at, 1 - at)

    def law(params: Params) -> dict[str, float]:
        x = vector(params)
        g = 1 + 9 * float((np.abs(x[1:] - centre) / reach).mean())
        return {"f1": x[0], "f2": second(x[0], g)}

    best = named(np.append(0.0, centre))
    reference = (1.1, 6.0)
    return Synthetic(
        name, "multi_objective", seed, Space(domains), law, best, 0.0, objectives=_objectives(2),
        reference=reference, ideal=_zdt_ideal(second, reference),
    )  # fmt: skip


def dtlz2(name: str, seed: int, objectives: int, distance: int) -> Synthetic:
    """The front is the part of the unit sphere in the positive orthant."""
    rng = stream(name, seed)
    centre = rng.uniform(-1, 1, distance)
    low = np.append(np.zeros(objectives - 1), centre - rng.uniform(0.1, 0.9, distance))
    domains: dict[str, Domain] = {f"x{i}": Float(a, a + 1) for i, a in enumerate(low.tolist())}

    def law(params: Params) -> dict[str, float]:
        x = vector(params)
        angles, radius = x[: objectives - 1] * np.pi / 2, 1 + float(((x[objectives - 1 :] - centre) ** 2).sum())
        losses = []
        for i in range(objectives):
            value = radius * float(np.prod(np.cos(angles[: objectives - 1 - i])))
            losses.append(value * (math.sin(angles[objectives - 1 - i]) if i else 1.0))
        return {f"f{i + 1}": value for i, value in enumerate(losses)}

    best = named(np.concatenate([[1.0], np.zeros(objectives - 2), centre]))
    side = 2.0
    outside = math.pi / 4 if objectives == 2 else math.pi / 6
    return Synthetic(
        name, "multi_objective", seed, Space(domains), law, best, law(best)["f1"],
        objectives=_objectives(objectives), reference=(side,) * objectives, ideal=side**objectives - outside,
    )  # fmt: skip


def size_against_error(name: str, seed: int, *, conditional: bool, power: float) -> Synthetic:
    """A model's size trades accuracy for latency, everything else costs either; the accuracy is to be maximised.

    error = (1 - size)^power + tuning, latency = size^2 + 0.3 tuning, where tuning is a mixed or conditional part.
    """
    rng = stream(name, seed)
    size: dict[str, Domain] = {"size": Float(0, 1)}
    tuning = _branches(rng) if conditional else landscape(rng, _mixed(), Form("bowl", levels=0.4, shift=0.15))

    def law(params: Params) -> dict[str, float]:
        lost = tuning.loss(params)
        error = (1 - params["size"]) ** power + lost
        return {"accuracy": 1 - error, "latency_s": params["size"] ** 2 + 0.3 * lost}

    reference = (2.0, 1.5)
    return Synthetic(
        name, "multi_objective", seed, Space({**size, **tuning.domains}), law, {"size": 1.0, **tuning.best}, -1.0,
        objectives=(Objective("accuracy", "maximize"), Objective("latency_s")),
        reference=(reference[0] - 1, reference[1]),
        ideal=_size_ideal(power, reference),
    )  # fmt: skip


def _mixed() -> dict[str, Domain]:
    return {"lr": Float(1e-4, 1, log=True), "op": Categorical(["a", "b", "c"]), "depth": Int(1, 12)}


def _branches(rng: np.random.Generator) -> Part:
    numbers: dict[str, Domain] = {"rate": Float(1e-3, 1, log=True), "mix": Float(0, 1)}
    parts = {"late": landscape(rng, numbers).lifted(0.0, 1.0), "flat": landscape(rng, numbers).lifted(0.25, 0.1)}
    return chosen("method", {**parts, "poor": landscape(rng, {"n": Int(1, 30)}).lifted(0.6, 0.5)}, rng)


def _maker(make: Callable[..., Synthetic], *arguments: object, **settings: object) -> Maker:
    return lambda name, seed: make(name, seed, *arguments, **settings)


TUNED: dict[str, dict[str, Maker]] = {
    "multi_objective": {
        "zdt1": _maker(zdt, _zdt1, 8),
        "zdt2": _maker(zdt, _zdt2, 8),
        "zdt3": _maker(zdt, _zdt3, 8),
        "dtlz2_2": _maker(dtlz2, 2, 5),
        "dtlz2_3": _maker(dtlz2, 3, 5),
        "size_mixed": _maker(size_against_error, conditional=False, power=2.0),
        "size_conditional": _maker(size_against_error, conditional=True, power=2.0),
    }
}
HOLDOUT: dict[str, dict[str, Maker]] = {
    "multi_objective": {
        "zdt1_12": _maker(zdt, _zdt1, 12),
        "zdt2_5": _maker(zdt, _zdt2, 5),
        "dtlz2_3_8": _maker(dtlz2, 3, 8),
        "size_mixed_3": _maker(size_against_error, conditional=False, power=3.0),
        "size_conditional_3": _maker(size_against_error, conditional=True, power=3.0),
    }
}
