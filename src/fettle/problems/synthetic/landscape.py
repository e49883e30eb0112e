"""Parts to build structured problems of: a few parameters with a loss that is 0 at a known point, 1 in the median.

A `Part` is drawn by `landscape`: numbers get a smooth shape about an optimum at a random place, whose directions
interact; categorical levels cost something and move that optimum. Parts are then lifted, added and put into the
branches of a `Choice`. So every structured problem knows its optimum exactly, however deep it is.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fettle.core.domains import Domain
from fettle.core.space import Categorical, Choice, Params, Space
from fettle.problems.synthetic.record import stream

Shape = Callable[[np.ndarray], float]
_NEAR, _FAR = 0.1, 0.9
_CALIBRATION = 400  # random points for the median that becomes 1


@dataclass(frozen=True, slots=True)
class Part:
    """Domains, and a loss on their params whose minimum is `low`, at `best`."""

    domains: Mapping[str, Domain]
    best: Params
    loss: Callable[[Params], float]
    low: float = 0.0

    @property
    def space(self) -> Space:
        return Space(dict(self.domains))

    def lifted(self, floor: float, height: float = 1.0) -> "Part":
        """floor + height * loss."""
        loss = self.loss
        return replace(self, loss=lambda params: floor + height * loss(params), low=floor + height * self.low)


def bowl(u: np.ndarray) -> float:
    return float(u @ u)


def cone(u: np.ndarray) -> float:
    """A kink at the optimum."""
    return float(np.sqrt(u @ u))


def deep(u: np.ndarray) -> float:
    """Narrow and deep: the last tenth of the way is a third of the loss."""
    return math.log1p(400.0 * float(u @ u))


def hole(u: np.ndarray) -> float:
    """A narrow basin in a nearly flat plain."""
    r = float(u @ u)
    return 1.0 - math.exp(-14.0 * r) + 0.1 * r


def steep(u: np.ndarray) -> float:
    """Four times as steep above the optimum as below: what a learning rate does."""
    return float(np.where(u > 0, 4.0 * u * u, u * u).sum())


def ripples(u: np.ndarray) -> float:
    """A bowl with local minima."""
    return float(u @ u + 0.03 * (1 - np.cos(6 * np.pi * u)).sum())


def valley(u: np.ndarray) -> float:
    """A bent valley, as Rosenbrock's, through the optimum."""
    bend = u[1:] - 1.5 * u[:-1] - 1.5 * u[:-1] ** 2
    return float(10 * (bend @ bend) + u @ u)


SHAPES: dict[str, Shape] = {s.__name__: s for s in (bowl, cone, deep, hole, steep, ripples, valley)}


@dataclass(frozen=True, slots=True)
class Form:
    """What a landscape is like. mix: how far directions interact (0: separable). spread: ratio of the strongest
    direction's weight to the weakest's. levels: loss of the worst categorical level. shift: how far levels move
    the optimum of the numbers (sides of the unit cube). pairs: loss of unlucky pairs of levels. idle: parameters
    without effect. flat: half-width of a plateau about the optimum, by parameter."""

    shape: str = "bowl"
    mix: float = 0.5
    spread: float = 3.0
    levels: float = 0.5
    shift: float = 0.15
    pairs: float = 0.0
    idle: tuple[str, ...] = ()
    flat: Mapping[str, float] | None = None


def landscape(rng: np.random.Generator, domains: Mapping[str, Domain], form: Form = Form()) -> Part:
    """One part. The optimum of the numbers is uniform in [0.1, 0.9] of each side (on their grid)."""
    flat = form.flat or {}
    words = {n: d for n, d in domains.items() if isinstance(d, Categorical)}
    numbers = {n: d for n, d in domains.items() if n not in words and n not in form.idle}
    best: Params = {}
    for name, domain in domains.items():
        best[name] = domain.decode(float(rng.uniform(_NEAR, _FAR)))
    centre = np.array([d.encode(best[n]) for n, d in numbers.items()])
    turn = _interaction(rng, len(numbers), form)
    width = np.array([flat.get(n, 0.0) for n in numbers])
    costs = _Levels(rng, {n: d for n, d in words.items() if n not in form.idle}, best, len(numbers), form)
    shape = SHAPES[form.shape]

    def raw(params: Params) -> float:
        moved, cost = costs(params)
        if not numbers:
            return cost
        u = np.array([d.encode(params[n]) for n, d in numbers.items()]) - np.clip(centre + moved, 0.05, 0.95)
        u = np.sign(u) * np.maximum(0.0, np.abs(u) - width)
        return shape(turn @ u) / unit + cost

    unit = 1.0
    if numbers:
        draws = [{n: d.decode(float(rng.random())) for n, d in numbers.items()} for _ in range(_CALIBRATION)]
        unit = float(np.median([raw({**best, **draw}) for draw in draws])) or 1.0
    return Part(dict(domains), best, raw)


def _interaction(rng: np.random.Generator, d: int, form: Form) -> np.ndarray:
    """(d, d): weights on axes that are turned by `mix`, of 0 (none) to 1 (at random)."""
    if d == 0:
        return np.empty((0, 0))
    weights = np.sqrt(form.spread ** -rng.permutation(np.linspace(0, 1, d)))
    Q, R = np.linalg.qr(np.eye(d) + form.mix * rng.standard_normal((d, d)))
    return np.asarray(weights[:, None] * (Q * np.sign(np.diag(R))))


class _Levels:
    """What categorical levels cost, and how far they move the numbers' optimum; nothing at the best levels."""

    def __init__(self, rng: np.random.Generator, words: Mapping[str, Domain], best: Params, d: int, form: Form) -> None:
        self.names = list(words)
        self.costs: list[dict[object, float]] = []
        self.moves: list[dict[object, np.ndarray]] = []
        for name, domain in words.items():
            others = [v for v in domain.values() if v != best[name]]
            ranked = [others[i] for i in rng.permutation(len(others))]
            costs = np.linspace(0.25, 1.0, len(ranked)) * form.levels if len(ranked) > 1 else [0.5 * form.levels]
            self.costs.append({best[name]: 0.0, **dict(zip(ranked, costs, strict=True))})
            shifts = {v: form.shift * _direction(rng, d) for v in ranked}
            self.moves.append({best[name]: np.zeros(d), **shifts})
        self.pairs: dict[tuple[int, int], dict[tuple[object, object], float]] = {}
        for i in range(len(self.names) if form.pairs else 0):
            for j in range(i):
                table = {(a, b): form.pairs * float(rng.random()) ** 2 for a in self.costs[i] for b in self.costs[j]}
                table[best[self.names[i]], best[self.names[j]]] = 0.0
                self.pairs[i, j] = table
        self.nothing = np.zeros(d)

    def __call__(self, params: Params) -> tuple[np.ndarray, float]:
        levels = [params[name] for name in self.names]
        cost = sum(costs[level] for costs, level in zip(self.costs, levels, strict=True))
        cost += sum(table[levels[i], levels[j]] for (i, j), table in self.pairs.items())
        moved = sum((moves[level] for moves, level in zip(self.moves, levels, strict=True)), start=self.nothing)
        return moved, cost


def _direction(rng: np.random.Generator, d: int) -> np.ndarray:
    v = rng.standard_normal(d)
    return np.asarray(v / (np.linalg.norm(v) or 1.0)) * math.sqrt(d)


def added(*parts: Part) -> Part:
    """Parts of different names side by side; their losses are summed."""

    def loss(params: Params) -> float:
        return sum(part.loss(params) for part in parts)

    domains = {n: d for part in parts for n, d in part.domains.items()}
    best = {n: v for part in parts for n, v in part.best.items()}
    return Part(domains, best, loss, sum(part.low for part in parts))


def chosen(name: str, branches: Mapping[str, Part], rng: np.random.Generator) -> Part:
    """A Choice of parts, in random order; the best branch is that of the lowest minimum."""
    order = [list(branches)[i] for i in rng.permutation(len(branches))]
    domain = Choice({branch: branches[branch].space for branch in order})
    winner = min(branches, key=lambda branch: branches[branch].low)
    best = {name: winner, **{f"{name}.{winner}.{n}": v for n, v in branches[winner].best.items()}}

    def loss(params: Params) -> float:
        branch = params[name]
        return branches[branch].loss(inside(params, f"{name}.{branch}."))

    return Part({name: domain}, best, loss, branches[winner].low)


def inside(params: Params, prefix: str) -> Params:
    """The params of a branch by their own names."""
    return {n[len(prefix) :]: v for n, v in params.items() if n.startswith(prefix)}


def levelled(part: Part, name: str, seed: int) -> Part:
    """The part in a problem: its least value is no round number, and its losses may be negative."""
    return part.lifted(float(stream(name, seed, 2).uniform(-1, 1)))
