"""The space that all models are measured over, and the order in which its points are worth most."""

from typing import Any

import numpy as np

from fettle.core.space import Categorical, Ordinal, Params, Space

BATCHES = (1, 2, 4, 8, 16)
LEVELS = ("basic", "extended", "all")
PRECISIONS = ("fp32", "int8")


def shared_space(cores: int) -> Space:
    """Named as the knobs of `fettle serve` are. Workers: powers of two up to the cores, and half as many again, which
    crowds them; threads: powers of two up to the cores. 270 points on two cores."""
    powers = [2**i for i in range(cores.bit_length())]
    domains: dict[str, Any] = {
        "workers": Ordinal([*powers, powers[-1] + max(1, powers[-1] // 2)]),
        "max_batch": Ordinal(BATCHES),
        "precision": Categorical(PRECISIONS),
        "graph_optimization": Categorical(LEVELS),
    }
    where: list[str] = []
    if cores > 1:
        domains |= {"threads": Ordinal(powers), "spinning": Categorical([False, True])}
        where = ["spinning == False or threads > 1"]  # a lone thread has nobody to spin for
    return Space(domains, where=where)


def ordered(space: Space, *, seed: int) -> list[Params]:
    """All points of a finite space: first its corners that differ in numbers alone, then whatever lies furthest from
    all before it (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5). Any beginning of it is a good design."""
    points = list(space.enumerate())
    U = space.encode(points)
    first = _corners(space, points)
    chosen = _furthest(U, first, np.random.default_rng(seed))
    return [points[i] for i in chosen]


def spread(X: np.ndarray, n: int) -> list[int]:
    """Indices of n rows of X (m, d) that differ as much as possible, each column scaled to variance 1; begins at the
    row nearest to the mean."""
    Z = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)
    first = int(np.argmin((Z**2).sum(axis=1)))
    return _furthest(Z, [first], None)[:n]


def _corners(space: Space, points: list[Params]) -> list[int]:
    """Points with every number at its least or greatest, and all words but the precision at their best."""
    ends = {
        name: {domain.choices[0], domain.choices[-1]}
        for name, domain in space.domains.items()
        if isinstance(domain, Ordinal)
    }
    return [
        i
        for i, params in enumerate(points)
        if params["graph_optimization"] == "all"
        and not params.get("spinning", False)
        and all(params[name] in values for name, values in ends.items())
    ]


def _furthest(U: np.ndarray, first: list[int], rng: np.random.Generator | None) -> list[int]:
    """All rows: those of `first`, then each time the one furthest from those before; ties by the rng, or in order."""
    jitter = np.zeros(len(U)) if rng is None else rng.random(len(U)) * 1e-6
    order = list(first)
    left = np.full(len(U), np.inf)
    for i in order:
        left = np.minimum(left, ((U - U[i]) ** 2).sum(axis=1))
    left[order] = -1.0
    while len(order) < len(U):
        i = int(np.argmax(left + jitter))
        order.append(i)
        left = np.minimum(left, ((U - U[i]) ** 2).sum(axis=1))
        left[order] = -1.0
    return order
