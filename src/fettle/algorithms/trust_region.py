"""A trust region with a quadratic model, without derivatives, for smooth numeric problems with little noise.

In the manner of Powell's COBYLA and BOBYQA (2009, DAMTP NA2009/06), but as a fold: about the best trial, within a cube
that grows with success and shrinks without, the next point is where a Bayesian quadratic model expects the largest
improvement. Words and inactive parameters stay as they are in the best trial, and only trials that share them count.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fettle.algorithms.belief import Fits, Part, believe
from fettle.algorithms.cube import Cube
from fettle.algorithms.evolution import AgingEvolution, Evolution
from fettle.algorithms.history import Arrays, History
from fettle.algorithms.used import Used
from fettle.core.errors import InvalidInput
from fettle.core.protocols import Algorithm, Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial
from fettle.surrogates.acquisition import log_ei
from fettle.surrogates.gp import GP
from fettle.surrogates.outputs import Outputs
from fettle.surrogates.quadratic import Quadratic
from fettle.surrogates.threads import on_one_thread

if TYPE_CHECKING:
    from numpy.random import Generator

Floats = np.ndarray
NOTE = "trust region"
_WIDEST, _NARROWEST = 0.6, 1e-4
_GROWN, _SHRUNK = 1.6, 0.5
_REACH = 2.5  # radii: trials within count for the model, and at least d + 2 of them
_DRAWN, _CLIMBED, _STEPS = 200, 2, 20
_PRESSURE = 1.0  # of the outputs: bad losses are no quadratic function
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class TrustRegion:
    """radius: of the first region, as a share of each range."""

    radius: float = 0.25

    def __post_init__(self) -> None:
        if not _NARROWEST < self.radius <= _WIDEST:
            raise InvalidInput(f"trust_region: expected a radius in (0.0001, 0.6], got {self.radius!r}", "e.g. 0.25")

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> Algorithm:
        history = History(space, tuple(objectives), tuple(constraints))
        return TrustRegionSearch(history, self)


class TrustRegionSearch:
    """Spaces without a continuous number, and several objectives, are left to evolution."""

    def __init__(self, history: History, settings: TrustRegion) -> None:
        self.space, self.history, self.settings = history.space, history, settings
        self.cube = Cube(self.space)
        self._used = Used(self.space)
        self._fits = Fits(GP(), self.space.columns)
        self._otherwise = AgingEvolution(self.space, Evolution(initial=1))
        self._own: set[int] = set()

    @property
    def fits(self) -> bool:
        """Whether the space and the objectives are such that the region is used at all."""
        return bool(self.cube.smooth.any()) and self.cube.grid is None and len(self.history.objectives) == 1

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._otherwise.tell(trial, outcome)
        self._used.add(trial.params)
        self.history.put(trial, outcome)
        if trial.note.startswith(NOTE):
            self._own.add(trial.number)

    @on_one_thread
    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        made: list[Proposal] = []
        while self.fits and len(made) < n:
            proposal = self._one([*pending, *(p.params for p in made)], rng)
            if proposal is None:
                break
            made.append(proposal)
        if len(made) < n:
            made += self._otherwise.ask(n - len(made), number + len(made), [*pending, *(p.params for p in made)], rng)
        return made

    def radius(self, d: int) -> float:
        """After all trials so far; d: how many numbers the region has."""
        arrays, patience = self.history.arrays, max(2, math.ceil(d / 3))
        size, best, failed = self.settings.radius, math.inf, 0
        values = np.where(arrays.feasible, arrays.losses[:, 0], np.inf).tolist()
        for number, value in zip(self.history.numbers(), values, strict=True):
            if number in self._own and value < best:
                size, failed = min(size * _GROWN, _WIDEST), 0
            elif number in self._own:
                failed += 1
                if failed >= patience:
                    size, failed = size * _SHRUNK, 0
                if size < _NARROWEST:
                    size = self.settings.radius
            best = min(best, value)
        return size

    def _one(self, pending: Sequence[Params], rng: "Generator") -> Proposal | None:
        arrays = self.history.arrays
        middle = self.cube.held(np.full((1, self.cube.d), 0.5), {})[0]
        if not len(arrays.U) and not pending and self.cube.allowed(middle[None])[0]:
            return Proposal(self.cube.params(middle), f"{NOTE}: its first centre is the middle")
        if arrays.feasible.sum() < 1:
            return None
        centre = arrays.U[int(np.argmin(np.where(arrays.feasible, arrays.losses[:, 0], np.inf)))]
        columns = np.flatnonzero(self.cube.smooth & ~np.isnan(centre))
        if not len(columns):
            return None
        region = Region(self.cube, centre, columns, self.radius(len(columns)))
        waiting = self.space.encode([p for p in pending if self.space.contains(p)])
        tried, taken = np.concatenate([arrays.U, waiting]), self._used.keys | self._used.pending(pending)
        for u in region.ranked(self._fits, self.history, rng, waiting):
            gap = np.nan_to_num(np.abs(tried - u), nan=0.0).max(axis=1, initial=0.0)
            params = self.cube.params(u)
            if (gap > _SAME).all() and self.space.key(params) not in taken:
                return Proposal(params, f"{NOTE}: quadratic model within {region.radius:.2g} of the best")
        return None


@dataclass(frozen=True, slots=True)
class Region:
    """A cube about `centre` (d,) in some of its columns."""

    cube: Cube
    centre: Floats
    columns: Floats
    radius: float

    def ranked(self, fits: Fits, history: History, rng: "Generator", waiting: Floats) -> Floats:
        """Points of the region by falling worth: (m, d)."""
        arrays, d = history.arrays, len(self.columns)
        at = self.centre[self.columns]
        low, high = np.maximum((0.0 - at) / self.radius, -1.0), np.minimum((1.0 - at) / self.radius, 1.0)
        Z = low + (high - low) * rng.random((_DRAWN, d))
        rows = self._near(arrays)
        if len(rows) < 2:
            U = self._placed(Z)
            return U[self.cube.allowed(U)]
        S = (arrays.U[np.ix_(rows, self.columns)] - at) / self.radius
        losses = arrays.losses[rows, 0]
        y = Outputs.of(losses, _PRESSURE)(losses)
        best = float(y.min())
        model = Quadratic.fit(S, y)
        if len(waiting):  # as if they had come out as expected
            more = (waiting[:, self.columns] - at) / self.radius
            more = more[np.isfinite(more).all(axis=1)]
            model = Quadratic.fit(np.concatenate([S, more]), np.concatenate([y, model.predict(more)[0]]))
        values = log_ei(*model.predict(Z), best)[0]
        tops = [_climbed(model, Z[i], low, high, best) for i in np.argsort(-values)[:_CLIMBED]]
        Z = np.concatenate([np.array(tops), Z])
        U = self._placed(Z)
        worth = log_ei(*model.predict(Z), best)[0]
        if not arrays.ok.all() or arrays.excess.shape[1]:
            fits.at(history.version)
            worth = worth + believe(fits, Part.whole(arrays), arrays).log_chance(U)
        U = U[np.argsort(-worth, kind="stable")]
        return U[self.cube.allowed(U)]

    def _placed(self, Z: Floats) -> Floats:
        U = np.tile(self.centre, (len(Z), 1))
        U[:, self.columns] = np.clip(self.centre[self.columns] + self.radius * Z, 0.0, 1.0)
        return U

    def _near(self, arrays: Arrays) -> Floats:
        """Rows of measured trials that share the words of the centre, the nearest first."""
        rest = np.setdiff1d(np.arange(self.cube.d), self.columns)
        off = np.nan_to_num(np.abs(arrays.U[:, rest] - self.centre[rest]), nan=0.0)
        off += np.isnan(arrays.U[:, rest]) != np.isnan(self.centre[rest])
        known = arrays.known & (arrays.censored == 0).all(axis=1) & (off.max(axis=1, initial=0.0) < _SAME)
        rows, d = np.flatnonzero(known), len(self.columns)
        gap = np.sqrt(((arrays.U[np.ix_(rows, self.columns)] - self.centre[self.columns]) ** 2).mean(axis=1))
        order = np.argsort(gap, kind="stable")
        n_within = int((gap <= _REACH / 1.5 * self.radius).sum())
        return rows[order[: min(max(n_within, d + 2), 4 * d + 10)]]


def _climbed(model: Quadratic, z: Floats, low: Floats, high: Floats, best: float) -> Floats:
    from scipy.optimize import minimize

    def down(z: Floats) -> tuple[float, Floats]:
        mean, std, by_mean, by_std = model.slopes(z)
        worth, d_mean, d_std = log_ei(np.array(mean), np.array(std), best)
        return -float(worth), -(d_mean * by_mean + d_std * by_std)

    bounds = list(zip(low.tolist(), high.tolist(), strict=True))
    found = minimize(down, z, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
    result: Floats = np.clip(found.x, low, high)
    return result
