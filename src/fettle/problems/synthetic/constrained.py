"""Kind constrained: outcome constraints that cut off the unconstrained optimum, or run close to it.

The answers of the numeric ones come from SLSQP with 300 to 2,000 random starts over a region that holds every
box that can be drawn; the bound of the first constraint is what it is at that answer, so that it is feasible to the
last digit. The 2-D ones are in the manner of Gardner et al. 2014 (ICML) and Gramacy et al. 2016
(doi:10.1080/00401706.2015.1014065), the 6-D one of Letham et al. 2019 (arXiv:1706.07094).
"""

import math
from dataclasses import dataclass

import numpy as np

from fettle.core.domains import Domain
from fettle.core.space import Categorical, Float, Int, Ordinal, Params
from fettle.core.trial import Constraint
from fettle.problems.synthetic import functions as f
from fettle.problems.synthetic.landscape import Form, landscape, levelled
from fettle.problems.synthetic.numeric import Classic, box, named, vector
from fettle.problems.synthetic.record import Maker, Synthetic, stream


def waves(x: np.ndarray) -> float:
    """Periodic in both."""
    return float(np.cos(2 * x[0]) * np.cos(x[1]) + np.sin(x[0]))


def slope(x: np.ndarray) -> float:
    return float(x[0] + x[1] + 0.3 * (x[0] - x[1]) ** 2)


@dataclass(frozen=True, slots=True)
class Bounded:
    """A function, its answer, the sides of its box, and metrics that are bounded from above: the first by its own
    value at the answer, the others by what stands beside them."""

    function: f.Function
    answer: tuple[float, ...]
    sides: float
    metric: f.Function
    others: tuple[tuple[f.Function, float], ...] = ()

    def make(self, name: str, seed: int) -> Synthetic:
        d = len(self.answer)
        classic = Classic(self.function, np.full(d, self.sides), np.array([self.answer]))
        space, minimum, offset = box(classic, stream(name, seed))
        metrics = {"cost": self.metric, **{f"cost{i + 2}": g for i, (g, _) in enumerate(self.others)}}

        def law(params: Params) -> dict[str, float]:
            x = vector(params) - offset
            return {"loss": self.function(x), **{metric: g(x) for metric, g in metrics.items()}}

        best = named(minimum)
        bounds = [Constraint("cost", upper=law(best)["cost"])]
        bounds += [Constraint(f"cost{i + 2}", upper=bound) for i, (_, bound) in enumerate(self.others)]
        return Synthetic(name, "constrained", seed, space, law, best, law(best)["loss"], constraints=tuple(bounds))


_NUMERIC = {
    "waves2": Bounded(waves, (4.622640938696744, 5.849334573269258), 6, lambda x: float(np.cos(x[0] + x[1]))),
    "slope2": Bounded(
        slope, (0.19821330186922861, 0.4019446181015868), 2.5,
        lambda x: float(0.5 - x[0] - 2 * x[1] - 0.5 * np.sin(2 * np.pi * (x[0] ** 2 - 2 * x[1]))),
    ),
    "hartmann6_ball": Bounded(
        f.hartmann6,
        (0.18246346539733102, 0.12882810357876245, 0.39639691292011653, 0.2640853692750099, 0.30038155836757724,
         0.6188777974358538), 1, lambda x: float(x @ x),
    ),
    "branin_disc": Bounded(
        f.branin, (2.928691957059131, 3.5230384454000534), 15, lambda x: float((x[0] - 2.5) ** 2 + (x[1] - 7.5) ** 2)
    ),
    "rosenbrock4_two": Bounded(
        f.rosenbrock, (0.7973084479564138, 0.6364198937405183, 0.40523218307901704, 0.16103947522615686), 4,
        lambda x: float(x.sum()), ((lambda x: float(-(x @ x)), -1.2),),
    ),
    "ackley3_outside": Bounded(
        f.ackley, (-0.1547005359, -0.1547005359, -0.1547005359), 10, lambda x: float(-((x - 1) ** 2).sum())
    ),
}  # fmt: skip


def _numeric(name: str, seed: int) -> Synthetic:
    return _NUMERIC[name].make(name, seed)


def _sized(
    name: str, seed: int, domains: dict[str, Domain], form: Form, weights: dict[str, float], metric: str
) -> Synthetic:
    """A landscape under a bound on a metric that grows with some parameters; its optimum keeps it by 4 %."""
    part = levelled(landscape(stream(name, seed), domains, form), name, seed)

    def amount(params: Params) -> float:
        return 0.01 * math.exp(sum(w * domains[n].encode(params[n]) for n, w in weights.items()))

    bound = Constraint(metric, upper=1.04 * amount(part.best))

    def law(params: Params) -> dict[str, float]:
        return {"loss": part.loss(params), metric: amount(params)}

    return Synthetic(name, "constrained", seed, part.space, law, part.best, part.low, constraints=(bound,))


def latency(name: str, seed: int) -> Synthetic:
    """A network that has to answer in time."""
    domains: dict[str, Domain] = {
        "width": Int(16, 1024, log=True), "depth": Int(1, 24), "lr": Float(1e-5, 1, log=True),
        "activation": Categorical(["relu", "gelu", "swish"]), "dropout": Float(0, 0.7),
    }  # fmt: skip
    return _sized(name, seed, domains, Form("bowl", levels=0.3), {"width": 2.5, "depth": 2.0}, "latency_s")


def memory_bound(name: str, seed: int) -> Synthetic:
    domains: dict[str, Domain] = {
        "batch": Ordinal([1, 2, 4, 8, 16, 32, 64, 128]), "rank": Int(1, 256, log=True),
        "lr": Float(1e-6, 1e-2, log=True), "layers": Int(1, 32), "alpha": Float(1, 64), "decay": Float(0, 0.2),
    }  # fmt: skip
    return _sized(
        name, seed, domains, Form("valley", levels=0.3), {"batch": 2.0, "rank": 1.0, "layers": 1.5}, "peak_gib"
    )


TUNED: dict[str, dict[str, Maker]] = {
    "constrained": {"waves2": _numeric, "slope2": _numeric, "hartmann6_ball": _numeric, "latency_bound": latency}
}
HOLDOUT: dict[str, dict[str, Maker]] = {
    "constrained": {
        "branin_disc": _numeric, "rosenbrock4_two": _numeric, "ackley3_outside": _numeric, "memory_bound": memory_bound,
    }
}  # fmt: skip
