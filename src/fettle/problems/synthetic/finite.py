"""Kind finite: grids and lists of a few hundred to 20,000 points, whose optimum is found by measuring all of them."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fettle.core.domains import Domain
from fettle.core.space import Categorical, Int, Ordinal, Params, Space
from fettle.core.trial import Objective
from fettle.problems.synthetic.landscape import Form, landscape, levelled
from fettle.problems.synthetic.record import Maker, Synthetic, stream

Rng = np.random.Generator
Score = Callable[[Params], float]


def _exhausted(name: str, seed: int, space: Space, metric: str, goal: str, score: Score) -> Synthetic:
    """Scores every point once and keeps the table."""
    objective = Objective(metric, goal)
    table = {space.key(params): score(params) for params in space.enumerate()}
    best = min(space.enumerate(), key=lambda params: objective.sign * table[space.key(params)])
    return Synthetic(
        name, "finite", seed, space, lambda params: {metric: table[space.key(params)]}, best,
        objective.sign * table[space.key(best)], objectives=(objective,),
    )  # fmt: skip


def serving(name: str, seed: int, *, cores: int, batches: int, devices: tuple[str, ...]) -> Synthetic:
    """Requests per second of a server: batching pays until it waits for nothing, threads until the cores are used
    up; beyond that there are cliffs. The work per item, the fixed cost and the memory differ per seed."""
    rng = stream(name, seed)
    fixed, item, serial = rng.uniform(0.5, 8), rng.uniform(0.3, 3), rng.uniform(0.1, 0.5)
    memory, clients = rng.uniform(8, 40), rng.uniform(20, 200)
    speed = {d: float(s) for d, s in zip(devices, rng.permutation(np.linspace(1, 2.2, len(devices))), strict=True)}
    stall = rng.uniform(0.3, 0.7)
    space = Space(
        batch=Ordinal([2**i for i in range(batches)]),
        instances=Int(1, cores),
        threads=Int(1, cores),
        wait_ms=Ordinal([0, 1, 2, 5, 10, 20, 50]),
        precision=Categorical(list(devices)),
    )

    def rate(p: Params) -> float:
        used = p["instances"] * p["threads"]
        parallel = 1 / (serial + (1 - serial) / p["threads"])
        filled = min(p["batch"], 1 + clients / p["instances"] * (0.2 + p["wait_ms"]) / (fixed + 10))
        seconds = (fixed + item * filled ** (0.9 if filled < 16 else 1.0)) / (parallel * speed[p["precision"]])
        seconds += 0.3 * p["wait_ms"] * (filled < p["batch"])
        if used > cores:  # threads wait for each other
            seconds *= 1 + 0.8 * (used / cores - 1) ** 1.2
        if p["instances"] * p["batch"] * item > memory * 10:  # caches, then paging
            seconds *= 1 + 3 * stall
        return float(1000 * p["instances"] * filled / seconds)

    return _exhausted(name, seed, space, "throughput_rps", "maximize", rate)


def options(name: str, seed: int, *, flags: int, levels: int, listed: int | None) -> Synthetic:
    """Run time of a configurable program: factors of options and of pairs and triples of them (Siegmund et al. 2015,
    doi:10.1145/2786805.2786845). listed: only so many configurations, drawn at random, were measured."""
    rng = stream(name, seed)
    domains: dict[str, Domain] = {f"opt{i}": Categorical([False, True]) for i in range(flags)}
    domains |= {f"level{i}": Int(0, levels - 1) for i in range(2)} | {"mode": Categorical(["a", "b", "c"])}
    names = list(domains)
    values = {n: list(d.values()) for n, d in domains.items()}
    single = {(n, v): 0.15 * rng.standard_normal() for n in names for v in values[n]}
    curve = {n: rng.uniform(0.1, 0.9) for n in names if n.startswith("level")}
    chosen = [tuple(names[i] for i in rng.choice(len(names), k, replace=False)) for k in (2, 2, 2, 2, 3, 3)]
    terms = [
        ({n: values[n][int(rng.integers(len(values[n])))] for n in group}, 0.5 * rng.standard_normal())
        for group in chosen
    ]

    def seconds(p: Params) -> float:
        total = sum(single[n, p[n]] for n in names)
        total += sum(2 * (p[n] / (levels - 1) - at) ** 2 for n, at in curve.items())
        total += sum(weight for wanted, weight in terms if all(p[n] == value for n, value in wanted.items()))
        return 10 * math.exp(total)

    space = Space(domains)
    if listed is not None:
        every = list(space.enumerate())
        space = Space(domains, only=[every[i] for i in np.sort(rng.choice(len(every), listed, replace=False))])
    return _exhausted(name, seed, space, "runtime_s", "minimize", seconds)


_OPS = ("none", "skip", "conv1", "conv3", "pool")


def cell(name: str, seed: int, *, nodes: int, operations: int) -> Synthetic:
    """Accuracy of a cell whose edges carry operations, in the manner of NAS-Bench-201 (Dong & Yang 2020,
    arXiv:2001.00326): what counts is what the paths from input to output do."""
    rng = stream(name, seed)
    names = list(_OPS[:operations])
    edges = [(i, j) for j in range(1, nodes) for i in range(j)]
    gain = {"none": 0.0, "skip": 0.3, "conv1": rng.uniform(0.5, 0.9), "conv3": rng.uniform(0.6, 1.0), "pool": 0.35}
    taste = {(e, op): 0.12 * rng.standard_normal() for e in edges for op in names}
    depth = rng.uniform(1.2, 2.6)
    space = Space({f"edge{i}{j}": Categorical([names[k] for k in rng.permutation(len(names))]) for i, j in edges})

    def accuracy(p: Params) -> float:
        strength = {0: 1.0}
        length = {0: 0.0}
        for j in range(1, nodes):
            strength[j], length[j] = 0.0, 0.0
            for i in range(j):
                op = p[f"edge{i}{j}"]
                if op != "none" and strength[i] > 0:
                    strength[j] += max(0.02, gain[op] + taste[(i, j), op]) * strength[i] / math.sqrt(j)
                    length[j] = max(length[j], length[i] + op.startswith("conv"))
        if strength[nodes - 1] == 0:
            return 10.0
        quality = strength[nodes - 1] - 0.12 * (length[nodes - 1] - depth) ** 2
        return 10 + 85 / (1 + math.exp(-2.2 * quality - 0.6))

    return _exhausted(name, seed, space, "accuracy", "maximize", accuracy)


def table(name: str, seed: int, *, points: int, shape: str) -> Synthetic:
    """A short list of measured configurations, scattered in a mixed space."""
    rng = stream(name, seed)
    domains: dict[str, Domain] = {
        "rate": Int(1, 1000, log=True), "depth": Int(1, 12), "width": Ordinal([8, 16, 32, 64, 128]),
        "kind": Categorical(["p", "q", "r"]),
    }  # fmt: skip
    part = levelled(landscape(rng, domains, Form(shape, levels=0.5, shift=0.1)), name, seed)
    space = Space(domains)
    listed = {space.key(p): p for p in space.sample(4 * points, rng)}
    return _exhausted(name, seed, Space(domains, only=list(listed.values())[:points]), "loss", "minimize", part.loss)


def _maker(make: Callable[..., Synthetic], **settings: object) -> Maker:
    return lru_cache(maxsize=24)(lambda name, seed: make(name, seed, **settings))


TUNED: dict[str, dict[str, Maker]] = {
    "finite": {
        "serving8": _maker(serving, cores=8, batches=7, devices=("fp32", "int8")),
        "options11": _maker(options, flags=7, levels=6, listed=1500),
        "cell4": _maker(cell, nodes=4, operations=5),
        "table300": _maker(table, points=300, shape="bowl"),
    }
}
HOLDOUT: dict[str, dict[str, Maker]] = {
    "finite": {
        "serving6": _maker(serving, cores=6, batches=9, devices=("fp32", "fp16", "int8")),
        "options14": _maker(options, flags=9, levels=3, listed=None),
        "cell4_small": _maker(cell, nodes=4, operations=4),
        "table800": _maker(table, points=800, shape="ripples"),
    }
}
