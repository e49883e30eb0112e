"""Search boxes that earlier studies have drawn, and that widen where they prove wrong (Perrone et al. 2019,
arXiv:1909.12552): another algorithm searches the smallest box that holds the best params of each earlier study.

A share of the trials are probes: every other one lies outside of the box, the rest come from the same algorithm on
the whole space. The box widens to hold the best trial where that lies outside, and where the best few trials all sit at
one of its faces, there by half of its width. A best trial far outside says that the earlier studies mislead: the box is
given up. It never shrinks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle import registry
from fettle.algorithms.batches import one_by_one
from fettle.algorithms.qmc import QuasiRandom
from fettle.algorithms.ranking import Ranking
from fettle.core.errors import Exhausted, InvalidInput, ParamsError, SpaceError
from fettle.core.protocols import Algorithm, AlgorithmSettings, Proposal, Recommender
from fettle.core.space import Categorical, Choice, Column, Float, Group, Int, Ordinal, Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial, TrialLog

if TYPE_CHECKING:
    from numpy.random import Generator

Floats = np.ndarray
_TRIES = 8  # quasi-random points among which a probe looks for one outside of the box
_FACE = 0.1  # of the box's width: so near is at the face
_BEST = 3  # trials that have to be there
_FAR = 0.5  # of the box's width
_GROWTH = 0.5  # of the box's width
_WORDS = ("categorical", "choice")


@dataclass(frozen=True, slots=True)
class Boxed:
    """algorithm: a name or settings. earlier: one entry per earlier study, its good params, or its trials as
    [{"params": {...}, "loss": 0.3}, ...], of which the best is kept; names and values that the space does not have
    are left out. margin: added to the box on all sides, in shares of a parameter's range. probes: a share of trials.
    """

    algorithm: Any = "auto"
    earlier: Sequence[Any] = ()
    margin: float = 0.1
    probes: float = 0.15

    def __post_init__(self) -> None:
        if not 0.0 <= self.margin <= 1.0 or not 0.0 < self.probes < 1.0:
            raise InvalidInput(f"boxed: expected margin in [0, 1] and probes in (0, 1), got {self!r:.200}")
        inner = registry.describe("algorithms", registry.settings("algorithms", self.algorithm))
        if isinstance(self.earlier, str | Mapping):
            raise InvalidInput(f"boxed: expected a list with one entry per study, got {self.earlier!r:.200}", _HINT)
        best = [params for entry in self.earlier if (params := _best_of(entry)) is not None]
        object.__setattr__(self, "algorithm", inner)  # JSON, as all of it: settings go into the study's record
        object.__setattr__(self, "earlier", best)

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "BoxedSearch":
        settings: AlgorithmSettings = registry.settings("algorithms", self.algorithm)

        def make(part: Space) -> Algorithm:
            return settings.build(part, objectives, constraints, seed, budget)

        return BoxedSearch(Box.of(space, self.earlier, self.margin), make, seed, len(objectives), self.probes)


_HINT = 'write earlier=[{"lr": 0.1}, [{"params": {"lr": 0.2}, "loss": 1.5}, ...]]'


def _best_of(entry: Any) -> Params | None:
    """The good params of one study; None where none of its trials has a loss."""
    if isinstance(entry, Mapping):
        return dict(entry)
    if not isinstance(entry, Sequence) or isinstance(entry, str):
        raise InvalidInput(f"boxed: expected good params or a list of trials, got {entry!r:.200}", _HINT)
    found: list[tuple[float, Params]] = []
    for trial in entry:
        if not isinstance(trial, Mapping) or set(trial) != {"params", "loss"}:
            raise InvalidInput(f'boxed: expected {{"params": ..., "loss": ...}}, got {trial!r:.200}', _HINT)
        if trial["loss"] is not None and math.isfinite(trial["loss"]):
            found.append((trial["loss"], dict(trial["params"])))
    return min(found, key=lambda pair: pair[0])[1] if found else None


class Box:
    """A part of a space, at first the whole. low, high (d,) in the unit cube, for numbers; words: by column, the
    indices of the values that are in it. margin: how far the box goes beyond what it has to hold."""

    def __init__(self, space: Space, margin: float) -> None:
        self.space, self.margin = space, margin
        self._numbers = np.array([c.kind not in _WORDS for c in space.columns], bool)
        self.open()

    def open(self) -> None:
        self.low, self.high = np.zeros(len(self.space)), np.ones(len(self.space))
        self.words = [set(range(c.size or 0)) if c.kind in _WORDS else set[int]() for c in self.space.columns]

    @classmethod
    def of(cls, space: Space, good: Sequence[Params], margin: float) -> "Box":
        """The smallest that holds these params, and the margin."""
        box = cls(space, margin)
        for j, column in enumerate(space.columns):
            places = [u for params in good if (u := _place(column, params)) is not None]
            if places and column.kind in _WORDS:
                box.words[j] = {_index(column, u) for u in places}
            elif places:
                box.low[j], box.high[j] = max(0.0, min(places) - margin), min(1.0, max(places) + margin)
        return box

    @property
    def whole(self) -> bool:
        words = all(len(w) == c.size for w, c in zip(self.words, self.space.columns, strict=True) if c.kind in _WORDS)
        return words and bool((self.low <= 0.0).all() and (self.high >= 1.0).all())

    def holds(self, u: Floats) -> bool:
        """u (d,), NaN where inactive."""
        inside = bool((np.isnan(u) | ((u >= self.low) & (u <= self.high))).all())
        return inside and all(
            _index(c, u[j]) in self.words[j] for j, c in enumerate(self.space.columns) if self._word(j, u)
        )

    def _word(self, j: int, u: Floats) -> bool:
        return self.space.columns[j].kind in _WORDS and not np.isnan(u[j])

    def widened(self, best: Floats) -> bool:
        """Grows as the best trials (k, d), the best first, demand it; returns whether it did."""
        before = (self.low.tolist(), self.high.tolist(), [len(words) for words in self.words])
        u, width = best[0], self.high - self.low
        off = np.where(self._numbers, np.nan_to_num(np.maximum(self.low - u, u - self.high)), 0.0)
        if (off > _FAR * width).any():
            self.open()
        else:
            for j, column in enumerate(self.space.columns):
                if self._word(j, u):
                    self.words[j].add(_index(column, u[j]))
            faces = self._numbers & (len(best) >= _BEST)
            at_low = faces & (best <= self.low + _FACE * width).all(axis=0)
            at_high = faces & (best >= self.high - _FACE * width).all(axis=0)
            low = np.where((off > 0.0) & (u < self.low), u - self.margin, self.low - _GROWTH * width * at_low)
            high = np.where((off > 0.0) & (u > self.high), u + self.margin, self.high + _GROWTH * width * at_high)
            self.low, self.high = np.maximum(low, 0.0), np.minimum(high, 1.0)
        return before != (self.low.tolist(), self.high.tolist(), [len(words) for words in self.words])

    def part(self) -> Space | None:
        """The box as a space; None where the known constraints leave (almost) nothing of it."""
        columns = self.space.columns
        values = {
            c.name: [list(c.domain.values())[i] for i in sorted(self.words[j])]
            for j, c in enumerate(columns)
            if c.kind in _WORDS and len(self.words[j]) < (c.size or 0)
        }
        ends = {c.name: (self.low[j], self.high[j]) for j, c in enumerate(columns) if c.kind not in _WORDS}
        try:
            part = _cut(self.space.narrow(params=values), ends, "")
            part.sample(1, np.random.default_rng(0))
        except (InvalidInput, SpaceError):
            return None
        return part


def _place(column: Column, params: Params) -> float | None:
    try:
        return float(column.domain.encode(column.domain.check(params[column.name])))
    except (KeyError, ParamsError):
        return None


def _index(column: Column, u: float) -> int:
    return min(int(u * (column.size or 1)), (column.size or 1) - 1)


def _cut(space: Space, ends: Mapping[str, tuple[float, float]], prefix: str) -> Space:
    """The space with its numbers between these ends, places in the unit interval."""
    domains: dict[str, Any] = {}
    for name, domain in space.domains.items():
        full = prefix + name
        if isinstance(domain, Choice):
            domains[name] = Choice({b: _cut(inner, ends, f"{full}.{b}.") for b, inner in domain.items})
        elif isinstance(domain, Group):
            domains[name] = Group(_cut(domain.space, ends, f"{full}."))
        elif isinstance(domain, Categorical):
            domains[name] = domain
        else:
            low, high = (domain.decode(u) for u in ends[full])
            if isinstance(domain, Ordinal):
                first, last = (domain.choices.index(value) for value in (low, high))
                domains[name] = Ordinal(domain.choices[first : last + 1], domain.unit)
            elif isinstance(domain, Float | Int):
                domains[name] = replace(domain, low=low, high=high)
    prior = {name: kept for name, data in space.prior.items() if (kept := _belief(domains[name], data))}
    part = Space(domains, where=space.where, prior=prior)
    if space.only is None:
        return part
    return Space(domains, where=space.where, prior=prior, only=[p for p in space.only if part.contains(p)])


def _belief(domain: Any, data: Any) -> Any:
    """What is left in the box of what users believe of a parameter (see `user_prior`)."""
    if "at" in data:
        try:
            domain.check(data["at"])
        except ParamsError:
            return None
        return data
    known = {str(value) for value in domain.values()}
    return {value: weight for value, weight in data.items() if value in known}


class BoxedSearch:
    """Three algorithms that know the same trials: `inner` in the box, `whole` everywhere, and quasi-random points."""

    def __init__(self, box: Box, make: Any, seed: int, objectives: int, probes: float) -> None:
        self.space, self.box = box.space, box
        self._make, self._probes, self._objectives = make, probes, objectives
        self._whole: Algorithm = make(box.space)
        self._even = QuasiRandom(box.space, seed)
        self._ranking = Ranking(objectives)
        self._told: dict[int, list[tuple[Trial, Outcome]]] = {}  # of params in the space, by number
        self._cube: dict[int, Floats] = {}
        self._enter()

    def _enter(self) -> None:
        """Builds the inner algorithm for the box as it is now, and tells it what it holds."""
        self._part = None if self.box.whole else self.box.part()
        self._inner: Algorithm | None = None if self._part is None else self._make(self._part)
        for tells in self._told.values():
            for trial, outcome in tells:
                self._tell_inner(trial, outcome)

    def _tell_inner(self, trial: Trial, outcome: Outcome) -> None:
        if self._inner is not None and self._part is not None and self._part.contains(trial.params):
            self._inner.tell(trial, outcome)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._whole.tell(trial, outcome)
        self._even.tell(trial, outcome)
        if self._inner is None or not self.space.contains(trial.params):
            return
        self._told.setdefault(trial.number, []).append((trial, outcome))
        self._cube[trial.number] = self.space.encode([trial.params])[0]
        self._ranking.put(trial.number, outcome)
        self._tell_inner(trial, outcome)
        best = self._ranking.best(max(_BEST, self._objectives))
        if best and self.box.widened(np.array([self._cube[number] for number in best])):
            self._enter()

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        if self._inner is None:
            return self._whole.ask(n, number, pending, rng)
        return one_by_one(n, number, pending, lambda at, waiting: self._one(at, waiting, rng))

    def _one(self, number: int, pending: Sequence[Params], rng: "Generator") -> Proposal:
        probe = int((number + 1) * self._probes + 0.5)
        if probe == int(number * self._probes + 0.5):
            assert self._inner is not None and self._part is not None
            try:
                held = [params for params in pending if self._part.contains(params)]
                (made,) = self._inner.ask(1, number, held, rng)
            except Exhausted:  # the box is used up, the space need not be
                return self._whole.ask(1, number, pending, rng)[0]
            return replace(made, params=self.space.validate(made.params), note=f"in the box: {made.note}")
        if probe % 2:
            some = self._even.ask(_TRIES, number, pending, rng)
            outside = (p for p in some if not self.box.holds(self.space.encode([p.params])[0]))
            if (found := next(outside, None)) is not None:
                return replace(found, note="a probe outside of the box")
        (made,) = self._whole.ask(1, number, pending, rng)
        return replace(made, note=f"a probe of the whole space: {made.note}")

    def recommend(self, log: TrialLog) -> int | None:
        return self._whole.recommend(log) if isinstance(self._whole, Recommender) else None
