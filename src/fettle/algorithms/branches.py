"""Which part of a space is looked into next: branches and words as arms of a rising bandit (Li et al. 2020, AAAI 34).

A branch whose parameters have not been tuned yet looks worse than it is, and so does a word (a categorical value)
whose numbers have not been. So an arm is not judged by its mean: it is *live* while the most optimistic bound of its
own process is below the best loss of all, and the live arm that was tried least goes on, by improvement on its own
best. An arm that has nothing more to give is *spent*: then trials go to arms that were given up, those nearest to
being live first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fettle.algorithms.belief import Belief, Fits, Loss, Part, believe
from fettle.algorithms.climb import candidates
from fettle.algorithms.cube import Cube, Held
from fettle.algorithms.history import Arrays
from fettle.surrogates.acquisition import log_ei

if TYPE_CHECKING:
    from numpy.random import Generator

Floats = np.ndarray
MOST_LEAVES = 9  # of a tree of choices: more are searched by their words, with one process for all
MOST_WORDS = 12  # levels of a column that are arms
EVERY = 4  # one of so many trials goes to another word than that of the best trial
_OPTIMISM = 3.0  # standard deviations
_SPENT = 1e-3  # expected improvement, as a share of the distance from the median to the best loss
_LIKELY = math.log(0.25)  # candidates below this chance to succeed are not counted on
_HANDICAP = 2.0  # standard deviations of losses: the goal of a word that has no trial yet
_POOL = 2000  # points of an enumerated space that words are judged by
_LOOKS = 20  # draws of candidates, after which a leaf counts as refused
_BUDGET = 60  # trials, where nobody has said how many there will be
_BACK = 3  # where all live arms are spent, one of so many trials still goes to the best one


@dataclass(frozen=True, slots=True)
class Arm:
    """need: standard deviations by which its bound misses the best loss; tries: trials that it has had."""

    place: int
    tries: int
    need: float
    spent: bool
    best: bool = False


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a belief foretells of m candidates: mean and std (m,) of the loss as its process sees it, and which of them
    are likely to succeed."""

    loss: Loss
    mean: Floats
    std: Floats
    hopeful: Floats

    @classmethod
    def of(cls, belief: Belief, U: Floats) -> "Outlook":
        loss = belief.losses[0]
        return cls(loss, *loss.process.predict(belief.view(U)), belief.log_chance(U) > _LIKELY)

    def need(self, goal: float, among: Floats | None = None) -> float:
        """By how many standard deviations the most hopeful candidate, of those `among` (m,) bool, misses `goal`."""
        counted = self.hopeful if among is None else self.hopeful & among
        target = float(self.loss.outputs(np.array([goal]))[0])
        return float(((self.mean - target) / self.std)[counted].min(initial=math.inf))

    def spent(self, best: float, scale: float) -> bool:
        """Whether no candidate promises a worthwhile improvement on `best`, a loss."""
        if not len(self.mean) or not math.isfinite(best) or scale <= 0.0:
            return False
        here, slope = (float(f(np.array([best]))[0]) for f in (self.loss.outputs, self.loss.outputs.slope))
        gain = float(log_ei(self.mean, self.std, here)[0].max()) - math.log(slope)
        return gain < math.log(_SPENT * scale)


def chosen(arms: Sequence[Arm], turn: int) -> Arm:
    """The arm that goes on. turn: a count that rises by one from trial to trial."""
    live = [arm for arm in arms if not arm.spent and arm.need < _OPTIMISM]
    if live:
        return min(live, key=lambda arm: (arm.tries, arm.place))
    others = [arm for arm in arms if not arm.best and arm.need < math.inf]
    if not others or turn % _BACK == 0:
        return next((arm for arm in arms if arm.best), arms[0])
    return min(others, key=lambda arm: (max(arm.need, 0.1) * math.sqrt(arm.tries + 0.5), arm.place))


def _varied(U: Floats) -> bool:
    return bool((np.isfinite(U) & (np.abs(U - U[0]) > 0.0)).any())


class Scout:
    """Chooses branches and words for one space. leaves: the branches of a small tree, as the choices they hold."""

    def __init__(self, cube: Cube, seed: int, budget: int | None, *, several: bool) -> None:
        self.cube, self.several = cube, several
        self.budget = budget or _BUDGET
        rng = np.random.default_rng(seed)
        leaves = [] if several or cube.grid is not None else cube.leaves(MOST_LEAVES)
        self.leaves = [leaf for leaf in leaves if self._allowed(leaf, rng)]
        self._order = np.random.default_rng([seed, len(self.leaves)]).permutation(len(self.leaves)).tolist()
        self._free = [self._columns(leaf) for leaf in self.leaves]
        # columns whose values are arms
        self._words = [j for j in np.flatnonzero(cube.words).tolist() if 2 <= len(cube.values(j)) <= MOST_WORDS]

    def _allowed(self, held: Held, rng: "Generator") -> bool:
        """Whether known constraints leave anything of a leaf: one that they refuse would for ever be untried."""
        none = np.empty((0, self.cube.d))
        return any(len(candidates(self.cube, none, rng, held)) for _ in range(_LOOKS))

    def _columns(self, held: Held) -> Floats:
        """The columns that vary in a leaf."""
        active = ~np.isnan(self.cube.held(np.full((1, self.cube.d), 0.5), held)[0])
        choices = [c.kind == "choice" for c in self.cube.space.columns]
        result: Floats = np.flatnonzero(active & ~np.array(choices, bool))
        return result

    # -- the first trials -----------------------------------------------------------------------------------------

    def untried(self, U: Floats) -> list[int]:
        """Leaves without a trial among U, in the order in which they are to have their first."""
        return [i for i in self._order if not self.cube.within(U, self.leaves[i]).any()]

    def first(self, tried: Floats, rng: "Generator") -> tuple[Floats, str] | None:
        """The middle of the space, or of each leaf in turn: good values lie rather there than near the ends."""
        if not self.leaves:
            return (self._middle({}, rng), "the middle of the space") if not len(tried) else None
        left = self.untried(tried)
        return (self._middle(self.leaves[left[0]], rng), f"the middle of {self._name(left[0])}") if left else None

    def _middle(self, held: Held, rng: "Generator") -> Floats:
        u = np.where(self.cube.words, rng.random(self.cube.d), 0.5)
        middle: Floats = self.cube.held(u[None], held)[0]
        if self.cube.allowed(middle[None])[0]:
            return middle
        U = candidates(self.cube, middle[None], rng, held)
        gaps = np.nan_to_num(np.abs(U - middle)).sum(axis=1)
        return U[int(np.argmin(gaps))] if len(U) else middle

    def _name(self, leaf: int) -> str:
        params = self.cube.space.decode(self.cube.held(np.full((1, self.cube.d), 0.5), self.leaves[leaf]))[0]
        columns = self.cube.space.columns
        return ", ".join(f"{columns[j].name}={params[columns[j].name]}" for j in self.leaves[leaf])

    # -- branches -------------------------------------------------------------------------------------------------

    def branch(self, fits: Fits, arrays: Arrays, tried: Floats, rng: "Generator") -> tuple[Belief, Held, str]:
        """The leaf that goes on, and what is believed of it."""
        beliefs: list[Belief] = []
        arms = []
        feasible = arrays.feasible
        losses = arrays.losses[:, 0]
        best = float(losses[feasible].min()) if feasible.any() else math.inf
        typical = float(np.median(losses[arrays.known])) if arrays.known.any() else math.inf
        for i, leaf in enumerate(self.leaves):
            rows = np.flatnonzero(self.cube.within(arrays.U, leaf))
            part = Part(("leaf", i), rows, self._free[i])
            beliefs.append(believe(fits, part, arrays))
            own = losses[rows][feasible[rows]]
            mine = float(own.min()) if len(own) else math.inf
            tries = int(self.cube.within(tried, leaf).sum())
            arms.append(self._arm(i, beliefs[i], tries, mine, best, typical - best, arrays, rng))
        arm = chosen(arms, len(tried))
        return beliefs[arm.place], self.leaves[arm.place], f"{self._name(arm.place)}: "

    def _arm(
        self,
        i: int,
        belief: Belief,
        tries: int,
        mine: float,
        best: float,
        scale: float,
        arrays: Arrays,
        rng: "Generator",
    ) -> Arm:
        leaf, columns = self.leaves[i], self._free[i]
        holds_best = mine <= best < math.inf
        if not len(columns):
            return Arm(i, tries, math.inf, True, holds_best)
        early = tries < min(len(columns) + 2, self.budget / (2 * len(self.leaves)))
        if not belief.losses or not math.isfinite(best):
            return Arm(i, tries, float(tries) if tries > 1 else 0.0, False, holds_best)
        rows = belief.part.rows[arrays.known[belief.part.rows]]
        good = arrays.U[rows[np.argsort(arrays.losses[rows, 0], kind="stable")[:3]]]
        U = candidates(self.cube, good, rng, leaf)
        outlook = Outlook.of(belief, U)
        missing = outlook.need(best)
        gone = not early and outlook.spent(mine, scale)
        return Arm(i, tries, min(missing, 0.0) if early else missing, gone, holds_best)

    # -- words ----------------------------------------------------------------------------------------------------

    def word(
        self, belief: Belief, held: Held, arrays: Arrays, tried: Floats, free: Floats | None, rng: "Generator"
    ) -> tuple[Held, float, str] | None:
        """Another word than the best trial's, its goal and the reason, where it is time for one."""
        columns = [j for j in self._words if j in belief.part.columns and j not in held]
        if not columns or not belief.losses:
            return None
        tried = tried[self.cube.within(tried, held)]
        loss, rows = belief.losses[0], belief.part.rows
        counted = rows[arrays.feasible[rows]]
        due = len(tried) % EVERY == 0
        if not len(counted) or (self.several and not due):
            return None
        losses = arrays.losses[counted, 0]
        best = float(losses.min())
        U = self._pool(arrays.U[counted[np.argsort(losses, kind="stable")[:4]]], held, free, rng)
        outlook = Outlook.of(belief, U)
        if not due and not outlook.spent(best, float(np.median(losses)) - best):
            return None
        here = arrays.U[counted[int(np.argmin(losses))]]
        options = [(j, float(v)) for j in columns for v in self.cube.values(j) if not abs(here[j] - v) < 1e-9]
        arms = []
        for place, (j, v) in enumerate(options):
            inside = self.cube.within(U, {j: v})
            tries = int(self.cube.within(tried, {j: v}).sum())
            if tries and inside.any() and not _varied(U[inside]):
                continue  # a branch without parameters: its one point has been tried
            missing = 0.0 if self.several and inside.any() else outlook.need(best, inside)
            arms.append(Arm(place, tries, missing, False))
        arms = [arm for arm in arms if arm.need < math.inf]
        if not arms:
            return None
        live = [arm for arm in arms if arm.need < _OPTIMISM]
        if not live and not due:
            return None
        arm = (
            min(live, key=lambda a: (a.tries, a.need, a.place))
            if live
            else min(arms, key=lambda a: (max(a.need, 0.1) * math.sqrt(a.tries + 0.5), a.place))
        )
        j, v = options[arm.place]
        mine = self.cube.within(arrays.U[counted], {j: v})
        values = loss.outputs(losses[mine]) if mine.any() else loss.outputs(losses).min() + _HANDICAP
        column = self.cube.space.columns[j]
        return (
            {**held, **self.cube.ancestors(j), j: v},
            float(np.min(values)),
            f"{column.name}={column.domain.decode(v)}: its own best is to be beaten",
        )

    def _pool(self, good: Floats, held: Held, free: Floats | None, rng: "Generator") -> Floats:
        if free is None:
            return candidates(self.cube, good, rng, held)
        U: Floats = free[self.cube.within(free, held)]
        return U[rng.permutation(len(U))[:_POOL]]
