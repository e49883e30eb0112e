"""Tree-structured Parzen estimator (Bergstra et al. 2011, NeurIPS 24; Watanabe 2023, arXiv:2304.11127).

Told trials are split into the good ones, density l, and all others, density g; of some draws from l the one with the
largest l / g is proposed: expected improvement on the good quantile gamma is proportional to
1 / (gamma + (1 - gamma) g / l) (Bergstra et al., section 4). `parzen` has the densities; they follow the tree of
choices, so a branch is scored by its own l / g times that of the parameters in it.

What is good: feasible trials before infeasible ones, these by their violation; of several objectives the first
fronts, and of the last one that counts the least crowded trials (after Ozaki et al. 2020, doi:10.1145/3377930.3389817,
with crowding in place of hypervolume: no reference point, and cheap). Failed trials belong to g, so that l / g falls
where they gather, and so do trials whose losses are missing. A stopped trial's loss is a lower bound that was already
too high when it was stopped: g, too. Pending points are kernels of g (constant liar), which spreads a batch.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fettle.algorithms.parzen import Axes, Kernels, bandwidths, log_density, sample
from fettle.algorithms.qmc import QuasiRandom
from fettle.algorithms.ranking import Ranking
from fettle.algorithms.used import Used
from fettle.core.errors import Exhausted, InvalidInput
from fettle.core.points import decoded
from fettle.core.protocols import Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial

if TYPE_CHECKING:
    from numpy.random import Generator

GAMMAS: Mapping[str, Callable[[int], int]] = {  # law -> number of good trials among n
    "constant": lambda n: min(math.ceil(0.15 * n), 25),
    "sqrt": lambda n: min(math.ceil(0.25 * math.sqrt(n)), 25),  # Bergstra et al. 2013, ICML
    "decreasing": lambda n: math.ceil(0.3 * n**0.8),  # a share of 19 % at 10 trials, 12 % at 100, 8 % at 1000
}
_KERNELS = 1000  # of g at most: beyond, an even sample of the other trials in the order of their tells
_ENUMERATED = 1000  # finite spaces up to this size are scored point by point
_LISTED = 20_000  # listed params scored at a time; of longer lists a random part
_ROUNDS = 8  # of draws, where known constraints refuse most of them


@dataclass(frozen=True, slots=True)
class TPE:
    """gamma: how many trials are good: "constant" (15 %, at most 25), "sqrt" (0.25 sqrt n, at most 25: greedy) or
    "decreasing" (0.3 n^0.8, no cap). n_candidates: draws from l per proposal. initial: quasi-random points first."""

    gamma: str = "constant"
    n_candidates: int = 24
    initial: int = 10

    def __post_init__(self) -> None:
        if self.gamma not in GAMMAS or self.n_candidates < 1 or self.initial < 1:
            raise InvalidInput(
                f"tpe: expected gamma out of {', '.join(GAMMAS)}, n_candidates and initial of at least 1, got {self!r}",
                'e.g. TPE(gamma="constant", n_candidates=24, initial=10)',
            )

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "TreeParzen":
        return TreeParzen(space, len(objectives), seed, self)


@dataclass(frozen=True, slots=True)
class Split:
    """The two mixtures of one state. Weights are relative to 1, the prior component's."""

    axes: Axes
    good: np.ndarray  # encoded points (k, d)
    weights: np.ndarray  # (k,)
    h_good: np.ndarray  # bandwidths (d,)
    C_good: np.ndarray  # coefficients (k, width) at h_good
    h_bad: np.ndarray
    C_bad: np.ndarray  # (n, width) at h_bad
    bad: np.ndarray  # weights (n,): 0 for good ones

    def log_good(self, Z: np.ndarray) -> np.ndarray:
        """log l (c,)."""
        return log_density(self.axes, Z, self.h_good, [(self.C_good, self.weights)])


class TreeParzen:
    def __init__(self, space: Space, objectives: int, seed: int, settings: TPE) -> None:
        self.space = space
        self.settings = settings
        self._first = QuasiRandom(space, seed)
        self._used = Used(space)
        self._ranking = Ranking(objectives)
        self._axes = Axes(space)
        self._kernels = Kernels(self._axes)
        self._rows: dict[int, int] = {}  # trial number -> row of its kernel
        self._listed = Listed.of(space)
        self._split: Split | None = None  # cache: valid until the next tell

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        known, points = len(self._rows), self.settings.initial
        first = min(n, max(0, points - known - len(pending))) if known else n
        made: list[Proposal] = []
        if first:
            why = f"quasi-random: {points} told trials come first"
            made = [replace(p, note=why) for p in self._first.ask(first, number, pending, rng)]
        while first <= len(made) < n:
            try:
                made.append(self._best([*pending, *(p.params for p in made)], rng))
            except Exhausted:
                if not made:
                    raise
                break
        return made

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._first.tell(trial, outcome)
        self._used.add(trial.params)
        if self._listed is not None:
            self._listed.take(self.space.key(trial.params))
        if trial.number not in self._rows:
            if not self.space.contains(trial.params):
                return
            self._rows[trial.number] = self._kernels.put(self._encoded(trial.params))
        self._ranking.put(trial.number, outcome)
        self._split = None

    def _encoded(self, params: Params) -> np.ndarray:
        """(d,), NaN where inactive; for one point cheaper than `Space.encode`."""
        columns = self.space.columns
        return np.array([c.domain.encode(params[c.name]) if c.name in params else np.nan for c in columns], float)

    def _best(self, busy: Sequence[Params], rng: "Generator") -> Proposal:
        """The best candidate by l / g that is allowed and unused."""
        split = self._split = self._split or self._halves()
        Z, point = self._candidates(split, busy, rng)
        scores = self._scores(split, Z, busy)
        order = np.argsort(-scores, kind="stable").tolist()
        picked: list[tuple[int, Params]] = []

        def draw(attempt: int) -> Params:
            if attempt >= len(order):
                return self.space.sample(1, rng)[0]
            picked[:] = [(order[attempt], point(order[attempt]))]
            return picked[0][1]

        (params,) = self._used.fresh(1, busy, rng, draw)
        if not picked or params is not picked[0][1]:
            return Proposal(params, "uniform draw: the candidates are used up")
        if not len(split.good):
            return Proposal(params, f"no good trial yet: of {len(order)} draws the one farthest from all others")
        ratio, counts = math.exp(min(99.0, scores[picked[0][0]])), f"{len(split.good)} good of {len(self._rows)} trials"
        return Proposal(params, f"best of {len(order)} candidates, l/g = {ratio:.3g}; {counts}")

    def _halves(self) -> Split:
        axes, kernels = self._axes, self._kernels
        numbers = self._ranking.best(GAMMAS[self.settings.gamma](len(self._rows)))
        rows = np.array([self._rows[number] for number in numbers], dtype=int)
        bad = np.ones(kernels.n)
        bad[rows] = 0.0
        C = kernels.coefficients[rows]
        h_good = bandwidths(axes, C.sum(axis=0))
        axes.normalise(C, h_good[axes.numbers], np.arange(axes.m))
        # better trials weigh more, as in the recombination of CMA-ES (Hansen 2016, arXiv:1604.00772, eq. 49): like
        # Watanabe's weights by improvement, but independent of the losses' scale
        weights = np.log(len(rows) + 1) - np.log(np.arange(1, len(rows) + 1))
        weights /= weights.mean() if len(rows) else 1.0
        if kernels.n - len(rows) > _KERNELS:
            others = np.flatnonzero(bad)
            bad[:] = 0.0
            bad[others[np.arange(_KERNELS) * len(others) // _KERNELS]] = 1.0
        h_bad = bandwidths(axes, bad @ kernels.coefficients)
        C_bad = kernels.at(h_bad)
        if kernels.n > 2 * _KERNELS:
            C_bad, bad = C_bad[bad > 0.0], bad[bad > 0.0]
        return Split(axes, kernels.points[rows], weights, h_good, C, h_bad, C_bad, bad)

    def _candidates(
        self, split: Split, busy: Sequence[Params], rng: "Generator"
    ) -> tuple[np.ndarray, Callable[[int], Params]]:
        """Draws (c, d) from l that may be proposed, and the params of each; c = 0 where hardly anything may."""
        space, n = self.space, self.settings.n_candidates
        taken = self._used.pending(busy)
        if self._listed is not None:
            return self._listed.draw(n, taken, split.log_good, rng)
        Z = sample(self._axes, n, split.good, split.h_good, split.weights, rng)
        if not space.conditions and space.size is None:
            return Z, lambda i: decoded(space.columns, Z[i].tolist())
        rows: list[np.ndarray] = []
        points: list[Params] = []
        taken |= self._used.keys
        for _ in range(_ROUNDS):
            for z in Z:
                params = decoded(space.columns, z.tolist())
                if space.key(params) not in taken and space.allows(params):
                    rows.append(z)
                    points.append(params)
            if len(points) >= n // 2:
                break
            Z = sample(self._axes, n, split.good, split.h_good, split.weights, rng)
        return np.array(rows).reshape(-1, len(space)), points.__getitem__

    def _scores(self, split: Split, Z: np.ndarray, busy: Sequence[Params]) -> np.ndarray:
        """log l / g (c,) of candidates (c, d), with the busy points as kernels of g."""
        axes = self._axes
        blocks = [(split.C_bad, split.bad)]
        if lies := [self._encoded(params) for params in busy if self.space.contains(params)]:
            C = axes.coefficients(np.array(lies))
            axes.normalise(C, split.h_bad[axes.numbers], np.arange(axes.m))
            blocks.append((C, np.ones(len(C))))
        scores: np.ndarray = split.log_good(Z) - log_density(axes, Z, split.h_bad, blocks)
        return scores


class Listed:
    """The points of a space that can be listed: `only`, or a small finite space."""

    def __init__(self, space: Space, points: Sequence[Params]) -> None:
        self.points = points
        self.cube = space.encode(points)
        self.keys = [space.key(params) for params in points]
        self.places = {key: i for i, key in enumerate(self.keys)}
        self.free = np.ones(len(points), dtype=bool)

    @classmethod
    def of(cls, space: Space) -> "Listed | None":
        if space.only is None and not (space.size is not None and space.size <= _ENUMERATED):
            return None
        return cls(space, list(space.enumerate()))

    def take(self, key: Hashable) -> None:
        if (place := self.places.get(key)) is not None:
            self.free[place] = False

    def draw(
        self, n: int, busy: Iterable[Hashable], log_l: Callable[[np.ndarray], np.ndarray], rng: "Generator"
    ) -> tuple[np.ndarray, Callable[[int], Params]]:
        """Up to n different free points with probabilities by l, encoded (c, d), and the params of each."""
        free = self.free.copy()
        free[[self.places[key] for key in busy if key in self.places]] = False
        rows = np.flatnonzero(free)
        if len(rows) > _LISTED:
            rows = np.sort(rng.choice(rows, _LISTED, replace=False))
        if len(rows) > n:
            p = np.exp((logs := log_l(self.cube[rows])) - logs.max()) + 1e-12
            rows = rng.choice(rows, n, replace=False, p=p / p.sum())
        return self.cube[rows], lambda i: dict(self.points[rows[i]])
