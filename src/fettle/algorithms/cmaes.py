"""CMA-ES (Hansen 2016, arXiv:1604.00772) by the package `cmaes` (Nomura & Shibata 2024, arXiv:2402.01373).

The numbers that are active in all params are coordinates of a normal distribution on the unit cube; grids of equal
steps keep a margin around their value, lest they freeze (Hamano et al. 2022, arXiv:2205.13482). The package is
given ranks, never losses: feasible before infeasible, fronts by crowding for several objectives, then stopped trials,
then failures, which so push away without a number of their own.

CMA-ES knows nothing of categories, choices and their branches. A point takes these from one of the best trials, and
each changes with probability 1 / their number, as in evolution: honest, not clever. A space without a number that is
always active is left to evolution.

A fold: the points of a generation (its slate, four times the population) are drawn when it begins, from the seed and
its index; `ask` gives out those that are neither told nor pending, and the population's first tells end the
generation. Later ones, and params from elsewhere, count for the parents of the other columns only; the best of them
before the first point of its own is told (the defaults, say) is where the search begins.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle.algorithms.evolution import AgingEvolution, Evolution
from fettle.algorithms.ranking import Ranking, measured, ordered
from fettle.algorithms.used import Used
from fettle.core.domains import Column
from fettle.core.errors import InvalidInput
from fettle.core.numeric import Float, Int
from fettle.core.points import distances, rebuilt
from fettle.core.protocols import Algorithm, Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial

if TYPE_CHECKING:
    from numpy.random import Generator

_ORDERED = ("float", "int", "ordinal")
_AHEAD = 4  # points of a slate per member of the population: more workers than that fall back to mutants
_TRIES = 20  # draws for one point of the slate, then as many mutants of the last
_MARGIN = 1000  # grids beyond this size count as real numbers
_CONVERGED = 1e-6  # share of the range: a population within it ends the search, which begins anew elsewhere
_STEP = 0.1  # of a number inside a branch, in the unit interval


@dataclass(frozen=True, slots=True)
class CMAES:
    """population: per generation (default: 4 + 3 log d), doubled by every restart (Auger & Hansen 2005). sigma: first
    standard deviation, as a share of each range."""

    population: int | None = None
    sigma: float = 0.25

    def __post_init__(self) -> None:
        if (self.population is not None and self.population < 4) or not 0 < self.sigma <= 1:
            raise InvalidInput(
                f"cmaes: expected a population of at least 4 and sigma in (0, 1], got {self!r}",
                "e.g. CMAES(sigma=0.25)",
            )

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> Algorithm:
        try:
            import cmaes  # noqa: F401
        except ImportError as error:
            raise InvalidInput(
                "algorithm 'cmaes' needs the package cmaes, which is not installed", "pip install 'fettle[cmaes]'"
            ) from error
        if not _coordinates(space):
            return WithoutNumbers(space)
        return CovarianceAdaptation(space, len(objectives), seed, self)


def _coordinates(space: Space) -> list[Column]:
    """The numbers that are active in all params."""
    return [c for c in space.columns if c.parent is None and c.size != 1 and c.kind in _ORDERED]


class WithoutNumbers:
    """Evolution, which says why it is there."""

    def __init__(self, space: Space) -> None:
        self._evolution = AgingEvolution(space, Evolution())

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        made = self._evolution.ask(n, number, pending, rng)
        return [replace(p, note=f"evolution, as no number is always active: {p.note}") for p in made]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._evolution.tell(trial, outcome)


@dataclass(frozen=True, slots=True)
class Point:
    """One draw of a generation: what is evaluated, and the coordinates (d,) that the distribution is told."""

    params: Params
    x: np.ndarray


class CovarianceAdaptation:
    def __init__(self, space: Space, objectives: int, seed: int, settings: CMAES) -> None:
        self.space = space
        self.settings = settings
        self.generation = 0
        self.restarts = 0
        self._objectives, self._seed = objectives, seed
        self._numbers = _coordinates(space)
        names = {column.name for column in self._numbers}
        self._rest = [c for c in space.columns if c.name not in names and c.size != 1]
        self._real = [i for i, column in enumerate(self._numbers) if column.size is None]
        self._used = Used(space)
        self._ranking = Ranking(objectives)
        self._params: dict[int, Params] = {}  # all told, by trial number
        self._members: dict[int, tuple[Hashable, Outcome]] = {}  # told of this generation, by trial number
        self._cma: Any = self._distribution(np.full(len(self._numbers), 0.5))
        self._slate: dict[Hashable, Point] | None = None  # cache: a function of what was told before the generation

    @property
    def population(self) -> int:
        d = max(2, len(self._numbers))
        size: int = (self.settings.population or 4 + math.floor(3 * math.log(d))) * 2**self.restarts
        return size

    # -- the fold -------------------------------------------------------------------------------------------

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        key, slate = self.space.key(trial.params), self._points()
        self._used.add(trial.params)
        if trial.number not in self._params and not self.space.contains(trial.params):
            return
        self._params[trial.number] = trial.params
        leader = self._ranking.best(1)
        self._ranking.put(trial.number, outcome)
        twice = any(number != trial.number and k == key for number, (k, _) in self._members.items())
        if key in slate and not twice and outcome.failure != "lost":  # the worker died, not for its params' sake
            self._members[trial.number] = key, outcome
            if len(self._members) == self.population:
                self._adapt(slate)
        elif not self.generation and not self._members and self._ranking.best(1) != leader:
            best = self._params[self._ranking.best(1)[0]]
            self._cma = self._distribution(np.array([c.domain.encode(best[c.name]) for c in self._numbers]))
            self._slate = None

    def _adapt(self, slate: dict[Hashable, Point]) -> None:
        """One generation is whole: the distribution moves, or begins anew where it has converged."""
        members = list(self._members.values())
        if any(measured(outcome) for _, outcome in members):  # else there is no direction to learn
            order = ordered([outcome for _, outcome in members], self._objectives)
            ranked = [(slate[members[place][0]].x, float(rank)) for rank, place in enumerate(order)]
            spread = np.ptp([x for x, _ in ranked], axis=0)[self._real].max(initial=0.0) if self._real else np.inf
            with np.errstate(all="ignore"):
                self._cma.tell(ranked)
                broken = not np.isfinite(self._cma.mean).all()
                done = broken or spread < _CONVERGED or self._cma.should_stop()
            if done:
                self.restarts += 1
                rng = np.random.default_rng([self._seed, self.generation, 1])
                self._cma = self._distribution(rng.random(len(self._numbers)))
        self.generation += 1
        self._members = {}
        self._slate = None

    def _distribution(self, mean: np.ndarray) -> Any:
        """A new normal distribution at the mean (d,), in the unit cube. One dimension gets an idle companion, as the
        package wants two."""
        from cmaes import CMAwM

        d = max(2, len(self._numbers))
        steps, bounds = np.zeros(d), np.tile([0.0, 1.0], (d, 1))
        for i, column in enumerate(self._numbers):
            even = not (isinstance(column.domain, Float | Int) and column.domain.log)
            if column.size is not None and column.size <= _MARGIN and even:
                steps[i] = 1 / column.size
                bounds[i] = 0.5 / column.size, 1 - 0.5 / column.size
        centre = np.full(d, 0.5)
        centre[: len(mean)] = mean
        centre = np.clip(centre, bounds[:, 0], bounds[:, 1])
        return CMAwM(centre, self.settings.sigma, bounds, steps, population_size=self.population)

    # -- points ---------------------------------------------------------------------------------------------

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        busy = self._used.pending(pending)
        free = [(key, p) for key, p in self._points().items() if key not in self._used.keys and key not in busy]
        ahead = iter(free)

        def draw(attempt: int) -> Params:
            if (point := next(ahead, None)) is not None:
                return dict(point[1].params)
            best = self._ranking.best(1)
            if not best:
                return self.space.sample(1, rng)[0]
            return self.space.mutate(self._params[best[0]], rng, n=1 + attempt // 4)

        found = self._used.fresh(n, pending, rng, draw)
        own = {key for key, _ in free}
        why = f"generation {self.generation} of {self.population} points"
        spare = f"{why} is given out: a mutant of the best trial, or a uniform draw"
        return [Proposal(params, why if self.space.key(params) in own else spare) for params in found]

    def _points(self) -> dict[Hashable, Point]:
        """The generation's slate by key: allowed, distinct and unused when it began."""
        if self._slate is None:
            rng = np.random.default_rng([self._seed, self.generation, 0])
            self._cma.reseed_rng(int(rng.integers(2**32)))
            parents = [self._params[number] for number in self._ranking.best(max(1, self.population // 2))]
            self._slate = {}
            for _ in range(_AHEAD * self.population):
                if (point := self._point(self._slate, parents, rng)) is None:
                    break
                self._slate[self.space.key(point.params)] = point
        return self._slate

    def _point(self, slate: dict[Hashable, Point], parents: Sequence[Params], rng: "Generator") -> Point | None:
        """The next draw of the generation; None where the space has nothing new."""
        space = self.space
        if space.size is not None and len(slate) + len(self._used.keys) >= space.size:
            return None
        for _ in range(_TRIES):
            evaluated, x = self._cma.ask()
            u = evaluated.tolist()
            values = {c.name: c.domain.decode(u[i]) for i, c in enumerate(self._numbers)}
            params = rebuilt(space.columns, {**self._inherited(parents, rng), **values}, rng)
            if space.only is not None:
                return self._nearest(params, slate)
            if self._is_new(params, slate) and space.allows(params):
                return Point(params, x)
        for attempt in range(_TRIES):  # nearly all around is used up, or refused by `where`
            params = space.mutate(params, rng, n=1 + attempt // 4)
            if self._is_new(params, slate):
                return self._moved(params)
        return None

    def _is_new(self, params: Params, slate: dict[Hashable, Point]) -> bool:
        return (key := self.space.key(params)) not in slate and key not in self._used.keys

    def _nearest(self, params: Params, slate: dict[Hashable, Point]) -> Point | None:
        """Of a space that lists its params: the nearest new ones."""
        space = self.space
        gap = distances(space.columns, space.encode([params])[0], space.listed_cube)
        order = np.argsort(gap, kind="stable").tolist()
        listed = ((space.only or ())[i] for i in order)
        found = next((params for params in listed if self._is_new(params, slate)), None)
        return None if found is None else self._moved(dict(found))

    def _moved(self, params: Params) -> Point:
        """Params that are not the distribution's own draw: it is told where they are."""
        x = np.full(max(2, len(self._numbers)), 0.5)
        x[: len(self._numbers)] = [c.domain.encode(params[c.name]) for c in self._numbers]
        return Point(params, x)

    def _inherited(self, parents: Sequence[Params], rng: "Generator") -> Params:
        """Values of the other columns from one of the parents; those that change are left out, to be drawn anew, but
        for numbers, which take a small step four times out of five."""
        if not parents or not self._rest:
            return {}
        parent = parents[int(rng.integers(len(parents)))]
        mine = [column for column in self._rest if column.name in parent]
        kept: Params = {}
        for column in mine:
            value = parent[column.name]
            if rng.random() >= 1 / len(mine):
                kept[column.name] = value
            elif column.kind in _ORDERED and rng.random() < 0.8:
                kept[column.name] = column.domain.decode(column.domain.encode(value) + _STEP * rng.standard_normal())
        return kept
