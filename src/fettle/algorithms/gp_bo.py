"""Bayesian optimisation with Gaussian processes (Jones et al. 1998, doi:10.1023/A:1008306431147).

Every objective and every constraint has a process of its own, and so has every way to fail; a proposal maximises an
acquisition function times the chance that all goes well. Choices and categories are searched as `branches` says.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fettle.algorithms.batches import one_by_one
from fettle.algorithms.belief import Belief, Fits, Part, believe, log_cost
from fettle.algorithms.branches import Scout
from fettle.algorithms.climb import candidates, climbed
from fettle.algorithms.cube import Cube, Held
from fettle.algorithms.history import Arrays, History
from fettle.algorithms.qmc import QuasiRandom
from fettle.algorithms.used import Used
from fettle.algorithms.user_prior import UserPrior
from fettle.algorithms.worth import VolumeWorth, Worth, combined
from fettle.core.errors import Exhausted, InvalidInput
from fettle.core.protocols import Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial, TrialLog
from fettle.surrogates.acquisition import NAMES, by_name
from fettle.surrogates.gp import GP, GPPosterior
from fettle.surrogates.threads import on_one_thread

if TYPE_CHECKING:
    from numpy.random import Generator

Floats = np.ndarray
_GOOD = 4  # trials that candidates are drawn around
_SAME = 1e-7  # off in every column: the same point
_LIKELY = math.log(0.5)  # chance from which on a pending trial is expected to succeed
_SOME = 12  # trials before one is measured again: noise cannot be told from ups and downs earlier
_COPIES = 4  # measurements of one point
_DRAWN = 400  # candidates of Thompson sampling


@dataclass(frozen=True, slots=True)
class GPBO:
    """acquisition: one of `fettle.surrogates.acquisition.NAMES`; weight: of the standard deviation in "ucb" and "lcb".
    initial: trials before the first model, those that were stopped included. cost: a metric, or "wall_s": improvement
    per cost is sought. again: under noise, every how many trials the answer so far is measured once more (0: never; nor
    in finite spaces). warp: numbers are stretched at one end where the evidence says so (`fettle.surrogates.warping`):
    for scales that may be wrong, such as a learning rate that is not declared log. hot: parameters that change without
    a restart; of costs in "wall_s", the `start_s` of a trial's timings is expected again only where others differ from
    the last trial. "thompson" knows nothing of cost and of the user's prior."""

    acquisition: str = "log_ei"
    weight: float = 2.0
    initial: int = 5
    cost: str = ""
    again: int = 8
    warp: bool = False
    hot: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "hot", tuple(self.hot))
        if self.acquisition not in NAMES or not self.weight >= 0.0 or self.initial < 2 or self.again < 0:
            raise InvalidInput(
                f"gp_bo: expected an acquisition out of {', '.join(NAMES)}, weight >= 0, initial >= 2, again >= 0, "
                f"got {self!r}",
                'e.g. GPBO(acquisition="log_ei")',
            )

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "GaussianProcessSearch":
        apart = bool(self.hot) and self.cost == "wall_s"
        history = History(space, tuple(objectives), tuple(constraints), self.cost, apart)
        return GaussianProcessSearch(history, seed, budget, self)


@dataclass(frozen=True, slots=True)
class Goal:
    """Where the next trial is looked for: a belief, the columns that are held, the loss to improve on, and why."""

    belief: Belief
    held: Held
    best: float
    why: str


@dataclass(frozen=True, slots=True)
class Trust:
    """noisy: the losses are. explained: share of their variance that the others foretell of each (1: all of it)."""

    noisy: bool = False
    explained: float = 1.0


class GaussianProcessSearch:
    def __init__(self, history: History, seed: int, budget: int | None, settings: GPBO) -> None:
        self.space, self.history, self.settings = history.space, history, settings
        self.cube = Cube(self.space)
        self._used = Used(self.space)
        self._first = QuasiRandom(self.space, seed)
        self._fits = Fits(GP(), self.space.columns, settings.warp)
        self._prior = UserPrior(self.space)
        self._belief: tuple[Arrays, Belief] | None = None  # cache
        self._scout = Scout(self.cube, seed, budget, several=len(history.objectives) > 1)

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._first.tell(trial, outcome)
        self._used.add(trial.params)
        self.history.put(trial, outcome)

    @on_one_thread
    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        return one_by_one(n, number, pending, lambda at, waiting: self._one(at, waiting, rng))

    @on_one_thread
    def recommend(self, log: TrialLog) -> int | None:
        """Under noise the trial of the lowest posterior mean, and not the luckiest one."""
        arrays = self.history.arrays
        feasible = arrays.feasible
        if len(self.history.objectives) > 1 or feasible.sum() < self.settings.initial:
            return None
        belief = self._believed()
        if not belief.losses or not belief.losses[0].noisy:
            return None
        return self.history.numbers()[self._lowest(belief)]

    def _lowest(self, belief: Belief) -> int:
        """The row of the feasible trial with the lowest mean."""
        arrays = self.history.arrays
        rows = np.flatnonzero(arrays.feasible)
        return int(rows[int(np.argmin(belief.losses[0].process.predict(arrays.U[rows])[0]))])

    @on_one_thread
    def trust(self) -> Trust:
        """How the processes fare; nothing is said of a space that is searched by branches."""
        if self._scout.leaves or not (losses := self._believed().losses):
            return Trust()
        return Trust(any(loss.noisy for loss in losses), max(_explained(loss.process) for loss in losses))

    def log_cost(self, part: Part | None = None) -> Callable[[Floats], Floats] | None:
        """U (m, d), of a part of the space -> (m,): logarithm of what the next trial is expected to cost there. None
        where none or nothing is known."""
        arrays = self.history.arrays
        self._fits.at(self.history.version)
        part = part or Part.whole(arrays)
        if not self.settings.cost or (process := log_cost(self._fits, part, arrays)) is None:
            return None
        starts = arrays.start_s[arrays.start_s > 0.0]
        log_start = math.log(starts.mean()) if len(starts) else -math.inf

        def expected(U: Floats) -> Floats:
            mean = process.predict(U[:, part.columns])[0]
            return np.logaddexp(mean, np.where(self._warm(U), -math.inf, log_start))

        return expected

    def _warm(self, U: Floats) -> Floats:
        """(m,): what differs from the last trial in hot parameters alone; nothing, if that one failed."""
        arrays = self.history.arrays
        cold = [j for j, column in enumerate(self.space.columns) if column.name not in self.settings.hot]
        if arrays.failure[-1]:
            return np.zeros(len(U), bool)
        same: Floats = np.isclose(U[:, cold], arrays.U[-1, cold], rtol=0.0, atol=_SAME, equal_nan=True).all(axis=1)
        return same

    def _believed(self) -> Belief:
        """Of the whole space; kept until the next tell."""
        arrays = self.history.arrays
        if self._belief is None or self._belief[0] is not arrays:
            self._fits.at(self.history.version)
            self._belief = (arrays, believe(self._fits, Part.whole(arrays), arrays))
        return self._belief[1]

    # -- one proposal -------------------------------------------------------------------------------------------

    def _one(self, number: int, pending: Sequence[Params], rng: "Generator") -> Proposal:
        self._fits.at(self.history.version)
        arrays = self.history.arrays
        waiting = self.space.encode([p for p in pending if self.space.contains(p)])
        free = self._free(pending)
        exact = int((arrays.known & ~(arrays.censored > 0).any(axis=1)).sum())
        tried = np.concatenate([arrays.U, waiting])
        if arrays.known.sum() + len(waiting) < self.settings.initial or exact < 2 or self._scout.untried(tried):
            return self._initial(number, tried, pending, rng)
        if (again := self._again(number)) is not None:
            return again
        goal = self._goal(tried, free, rng)
        if len(waiting):
            goal = _believing(goal, self.cube, waiting)
        U = self._ranked(goal, free, rng)
        u = next((u for u in U if self._is_new(u, pending, tried)), None)
        if u is None:
            params = self._used.fresh(1, pending, rng, lambda attempt: self.space.sample(1, rng)[0])[0]
            return Proposal(params, "uniform draw: the model has nothing new")
        return Proposal(self.cube.params(u), goal.why, self._predicted(goal, u))

    def _again(self, number: int) -> Proposal | None:
        """Under noise the trial that would be the answer, from time to time: is it good, and how noisy is it?"""
        every, several = self.settings.again, len(self.history.objectives) > 1
        if self.space.size is not None or several or not every or number % every != every - 1:
            return None
        if len(self.history.rows) < _SOME:
            return None
        belief = self._believed()
        if not belief.losses or not belief.losses[0].noisy or not math.isfinite(belief.losses[0].best):
            return None
        arrays, row = self.history.arrays, self._lowest(belief)
        same = np.nan_to_num(np.abs(arrays.U - arrays.U[row]), nan=0.0).max(axis=1, initial=0.0) < _SAME
        if same.sum() >= _COPIES:
            return None
        return Proposal(self.history.rows[row].params, "measured again: the lowest mean so far", repeat=True)

    def _goal(self, tried: Floats, free: Floats | None, rng: "Generator") -> Goal:
        """The whole space or one branch of it, then that or one word in it."""
        arrays = self.history.arrays
        scout = self._scout
        branch = scout.branch(self._fits, arrays, tried, rng) if scout.leaves else None
        if branch is None:
            branch = self._believed(), {}, ""
        belief, held, why = branch
        word = scout.word(belief, held, arrays, tried, free, rng)
        if word is not None:
            held, best, reason = word
            return Goal(belief, held, best, f"{why}{reason}")
        best = belief.losses[0].best if belief.losses else math.inf
        return Goal(belief, held, best, f"{why}{self.settings.acquisition}")

    def _ranked(self, goal: Goal, free: Floats | None, rng: "Generator") -> Floats:
        """Points by falling worth: (m, d)."""
        worth = self._worth(goal)
        if free is not None:
            U = free[self.cube.within(free, goal.held)]
            U = U if len(U) else free
        else:
            U = candidates(self.cube, self._good(goal), rng, goal.held)
        if not len(U):
            return U
        if self.settings.acquisition == "thompson" and goal.belief.losses:
            U = U[rng.permutation(len(U))[:_DRAWN]]
            drawn = goal.belief.losses[0].process.sample(goal.belief.view(U), 1, rng)[0]
            return U[np.argsort(drawn - np.maximum(goal.belief.log_chance(U), -20.0), kind="stable")]
        if free is not None:
            return U[np.argsort(-worth(U), kind="stable")[:100]]
        return climbed(worth, self.cube, U, rng, goal.held)

    def _worth(self, goal: Goal) -> Worth | VolumeWorth:
        arrays = self.history.arrays
        extras: list[Callable[[Floats], Floats]] = []
        if self._prior:
            extras.append(self._prior.worth(len(arrays.U)))
        if (dear := self.log_cost(goal.belief.part)) is not None:
            extras.append(lambda U: -dear(U))
        extra = combined(extras)
        if len(self.history.objectives) > 1 and goal.belief.losses:
            return VolumeWorth.of(goal.belief, extra)
        if not math.isfinite(goal.best) or not goal.belief.losses:
            return Worth(goal.belief, None, extra)  # nothing feasible yet: that comes first
        name = "log_ei" if self.settings.acquisition == "thompson" else self.settings.acquisition
        value = by_name(name, self.settings.weight)
        return Worth(goal.belief, lambda mean, std: value(mean, std, goal.best), extra)

    def _good(self, goal: Goal) -> Floats:
        """The best trials of the part: (k, d)."""
        arrays = self.history.arrays
        rows = goal.belief.part.rows
        rows = rows[arrays.known[rows] & self.cube.within(arrays.U[rows], goal.held)]
        order = np.lexsort((arrays.losses[rows, 0], ~arrays.feasible[rows]))
        return arrays.U[rows[order[:_GOOD]]]

    # -- what is left ---------------------------------------------------------------------------------------------

    def _free(self, pending: Sequence[Params]) -> Floats | None:
        """Of an enumerated space, the points that are not used up; raises Exhausted where there are none."""
        if self.cube.grid is None:
            return None
        taken = self._used.keys | self._used.pending(pending)
        left = np.ones(len(self.cube.grid), bool)
        left[[self.cube.places[key] for key in taken if key in self.cube.places]] = False
        if not left.any():
            raise Exhausted(f"all {self.space.size} params of the space have been proposed")
        return self.cube.grid[left]

    def _is_new(self, u: Floats, pending: Sequence[Params], tried: Floats) -> bool:
        key = self.space.key(self.cube.params(u))
        if key in self._used.keys or key in self._used.pending(pending):
            return False
        gap = np.nan_to_num(np.abs(tried - u), nan=0.0) + (np.isnan(tried) != np.isnan(u))
        return bool((gap.max(axis=1, initial=0.0) > _SAME).all())

    def _initial(self, number: int, tried: Floats, pending: Sequence[Params], rng: "Generator") -> Proposal:
        """Before there is anything to model: the middle first, then an even spread; away from what failed."""
        arrays = self.history.arrays
        if (made := self._scout.first(tried, rng)) is not None:
            params, why = self.cube.params(made[0]), made[1]
            if self.space.allows(params) and self._is_new(made[0], pending, tried):
                return Proposal(params, why)
        if not arrays.ok.all() and self.cube.grid is None:
            U = candidates(self.cube, arrays.U[:0], rng, {})
            chance = self._believed().log_chance(U)
            U = U[chance >= np.median(chance)] if len(U) else U
            gaps = [float(np.nan_to_num(np.abs(tried - u), nan=0.5).max(axis=1).min()) for u in U]
            if gaps:
                return Proposal(self.cube.params(U[int(np.argmax(gaps))]), "far from all trials and from failures")
        (proposal,) = self._first.ask(1, number, pending, rng)
        return Proposal(proposal.params, f"quasi-random: {self.settings.initial} measured points come first")

    def _predicted(self, goal: Goal, u: Floats) -> dict[str, list[float]] | None:
        """Metric -> value, and the ends of its 95 % interval, of each objective."""
        found = {}
        if not goal.belief.losses:
            return None
        for objective, loss in zip(self.history.objectives, goal.belief.losses, strict=True):
            mean, std = loss.process.predict(goal.belief.view(u[None]))
            ends = loss.outputs.inverse(mean + std * np.array([0.0, -1.96, 1.96]))
            value, *interval = (objective.sign * ends).tolist()
            found[objective.metric] = [value, *sorted(interval)]
        return found


def _explained(process: GPPosterior) -> float:
    variance = float(process.y.var())
    return 1.0 - float(np.mean((process.y - process.left_out()[0]) ** 2)) / variance if variance > 0.0 else 1.0


def _believing(goal: Goal, cube: Cube, waiting: Floats) -> Goal:
    """As if pending trials U (m, d) had come out as expected (Kriging believer; Ginsbourger et al. 2010): next to one
    that is to become the best there is no more to gain."""
    choices = {j: v for j, v in goal.held.items() if cube.space.columns[j].kind == "choice"}
    if len(goal.belief.part.columns) < cube.d:  # the belief is of one branch
        waiting = waiting[cube.within(waiting, choices)]
    if not len(waiting) or not goal.belief.losses:
        return goal
    Z, likely = goal.belief.view(waiting), goal.belief.log_chance(waiting) > _LIKELY
    losses = []
    for loss in goal.belief.losses:
        mean, _ = loss.process.predict(Z)
        values, feasible = np.concatenate([loss.values, mean]), np.concatenate([loss.feasible, likely])
        losses.append(replace(loss, process=loss.process.condition(Z, mean), values=values, feasible=feasible))
    best = goal.best
    if math.isfinite(best):  # else something feasible is sought first
        best = min([best, *losses[0].values[-len(waiting) :][likely & cube.within(waiting, goal.held)].tolist()])
    return replace(goal, belief=replace(goal.belief, losses=tuple(losses)), best=best)
