"""Kind failing: trials that fail in places, with the optimum close by."""

from collections.abc import Callable

import numpy as np

from fettle.core.domains import Domain
from fettle.core.errors import TrialFailure
from fettle.core.space import Categorical, Float, Int, Params
from fettle.problems.synthetic.landscape import Form, Part, landscape, levelled
from fettle.problems.synthetic.record import Maker, Synthetic, stream

Rng = np.random.Generator
Fails = Callable[[Params], bool]


def _failing(name: str, seed: int, part: Part, failure: str, fails: Fails) -> Synthetic:
    part = levelled(part, name, seed)

    def law(params: Params) -> dict[str, float]:
        if fails(params):
            if failure == "nan":
                return {"loss": float("nan")}
            raise TrialFailure(f"the trial failed: {failure}", failure=failure)
        return {"loss": part.loss(params)}

    return Synthetic(name, "failing", seed, part.space, law, part.best, part.low)


def _beyond(part: Part, weights: dict[str, float], margin: float) -> Fails:
    """Fails above a plane, in the unit cube, that lies `margin` above the optimum: monotone in each parameter."""
    domains = part.domains
    limit = sum(w * domains[n].encode(part.best[n]) for n, w in weights.items()) + margin * sum(weights.values())
    return lambda params: sum(w * domains[n].encode(params[n]) for n, w in weights.items()) > limit


def memory(name: str, seed: int) -> Synthetic:
    """Out of memory above a product of powers of batch and width; the best trial nearly fills the memory."""
    domains: dict[str, Domain] = {
        "batch": Int(1, 4096, log=True), "width": Int(16, 8192, log=True), "lr": Float(1e-5, 1, log=True),
        "decay": Float(0, 1),
    }  # fmt: skip
    part = landscape(stream(name, seed), domains, Form("bowl", mix=0.5))
    return _failing(name, seed, part, "oom", _beyond(part, {"batch": 1.0, "width": 1.0}, 0.04))


def crashing_level(name: str, seed: int) -> Synthetic:
    """One level of a category always crashes, and another one in half of the space."""
    rng = stream(name, seed)
    kernels = ["auto", "fast", "safe", "fused", "tiled"]
    domains: dict[str, Domain] = {
        "kernel": Categorical(kernels), "tile": Int(1, 64, log=True), "alpha": Float(0, 1),
        "beta": Float(1e-3, 1e3, log=True),
    }  # fmt: skip
    part = landscape(rng, domains, Form("bowl", levels=0.4, shift=0.15))
    dead, ill = (k for k in rng.permutation([k for k in kernels if k != part.best["kernel"]])[:2].tolist())
    edge = float(rng.uniform(0.3, 0.7))
    return _failing(
        name, seed, part, "crash", lambda p: p["kernel"] == dead or (p["kernel"] == ill and p["alpha"] > edge)
    )


def nan_disc(name: str, seed: int) -> Synthetic:
    """NaN in a ball that nearly touches the optimum."""
    rng = stream(name, seed)
    domains: dict[str, Domain] = {"x": Float(-3, 7), "y": Float(0, 1), "z": Float(1e-4, 1e2, log=True)}
    part = landscape(rng, domains, Form("ripples"))
    at = np.array([d.encode(part.best[n]) for n, d in domains.items()])
    centre = at + 0.28 * _towards_middle(at, rng)

    def fails(p: Params) -> bool:
        u = np.array([d.encode(p[n]) for n, d in domains.items()])
        return float(np.linalg.norm(u - centre)) < 0.25

    return _failing(name, seed, part, "nan", fails)


def _towards_middle(at: np.ndarray, rng: Rng) -> np.ndarray:
    v = 0.5 - at + 0.2 * rng.standard_normal(len(at))
    return np.asarray(v / np.linalg.norm(v))


def slow(name: str, seed: int) -> Synthetic:
    """Trees times depth takes too long; more of both is better up to there."""
    domains: dict[str, Domain] = {
        "trees": Int(10, 5000, log=True), "depth": Int(1, 24), "rate": Float(1e-3, 1, log=True), "rows": Float(0.1, 1),
        "kind": Categorical(["exact", "hist", "approx"]),
    }  # fmt: skip
    part = landscape(stream(name, seed), domains, Form("valley", levels=0.4, shift=0.1))
    return _failing(name, seed, part, "timeout", _beyond(part, {"trees": 1.0, "depth": 0.7, "rows": 0.5}, 0.05))


def deep_memory(name: str, seed: int) -> Synthetic:
    """Six parameters, three of which count for the memory; the boundary is close."""
    domains: dict[str, Domain] = {
        "batch": Int(1, 1024, log=True), "layers": Int(1, 48), "context": Int(128, 16384, log=True),
        "lr": Float(1e-5, 1e-1, log=True), "warm": Float(0, 0.5), "heads": Int(1, 32),
    }  # fmt: skip
    part = landscape(stream(name, seed), domains, Form("bowl", mix=0.8))
    return _failing(name, seed, part, "oom", _beyond(part, {"batch": 1.0, "layers": 0.8, "context": 1.2}, 0.03))


def nan_corner(name: str, seed: int) -> Synthetic:
    """Diverges above a rate that falls with momentum; the best rate is just below."""
    domains: dict[str, Domain] = {
        "rate": Float(1e-5, 10, log=True), "momentum": Float(0, 0.99), "decay": Float(1e-8, 1e-1, log=True),
        "clip": Float(0.1, 10, log=True),
    }  # fmt: skip
    part = landscape(stream(name, seed), domains, Form("steep", mix=0.3))
    return _failing(name, seed, part, "nan", _beyond(part, {"rate": 1.0, "momentum": 0.4}, 0.03))


def crashing_pair(name: str, seed: int) -> Synthetic:
    """A third of the pairs of two categories crash."""
    rng = stream(name, seed)
    left, right = ["a", "b", "c", "d"], ["p", "q", "r", "s"]
    domains: dict[str, Domain] = {
        "left": Categorical(left), "right": Categorical(right), "n": Int(1, 100, log=True), "x": Float(-1, 1),
        "y": Float(1e-2, 1e2, log=True),
    }  # fmt: skip
    part = landscape(rng, domains, Form("bowl", levels=0.3, shift=0.15, pairs=0.4))
    pairs = [(a, b) for a in left for b in right if (a, b) != (part.best["left"], part.best["right"])]
    dead = {pairs[i] for i in rng.choice(len(pairs), 5, replace=False)}
    return _failing(name, seed, part, "crash", lambda p: (p["left"], p["right"]) in dead)


def _named(**made: Maker) -> dict[str, Maker]:
    return made


TUNED = {"failing": _named(memory=memory, crashing_level=crashing_level, nan_disc=nan_disc, slow=slow)}
HOLDOUT = {"failing": _named(deep_memory=deep_memory, nan_corner=nan_corner, crashing_pair=crashing_pair)}
