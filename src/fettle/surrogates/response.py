"""A response: one metric of trials as a function of their params, by a Gaussian process and a transform.

What the process does not know of its own hyper-parameters counts, too: several of them are drawn about their mode
(Laplace's approximation), and predictions are averaged over these.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fettle.core.domains import Column
from fettle.core.space import Space
from fettle.core.trial import Objective, State, Trial, TrialLog, outcome
from fettle.surrogates.gp import GP, GPPosterior, imputed
from fettle.surrogates.learning import learned, telling
from fettle.surrogates.outputs import Outputs
from fettle.surrogates.paths import Paths
from fettle.surrogates.threads import on_one_thread

if TYPE_CHECKING:
    from numpy.random import Generator

Floats = np.ndarray
SURE = 1.959964  # standard deviations on either side of a 95 % interval
LEAST = 4  # measured figures, below which nothing is modelled
_LEARNED_FROM = 120  # points: of more, hyper-parameters are learned from a part
_MOST = 400  # points that a process is given
_DRAWN = 4  # hyper-parameters
_PATHS = 3  # processes that functions are drawn from
_BEYOND = 1.0  # standard deviations outside what was observed, at which drawn functions are cut off
_SEED = 0x5EED  # of what is drawn here: the same trials always give the same figures


def trials_in(log: TrialLog, space: Space) -> list[Trial]:
    """The ended trials of the space: a baseline outside it is left out."""
    return [t for t in log.trials if t.state.finished and space.contains(t.params)]


@dataclass(frozen=True, slots=True)
class Figures:
    """One metric of n trials, as losses: sign * metric. X (n, d) in the unit cube, NaN where inactive; errors (n,):
    known standard errors, 0 where unknown; bounds (n,): +1 where a loss is only a lower bound, -1 an upper one."""

    sign: float
    X: Floats
    losses: Floats
    errors: Floats
    bounds: Floats

    @classmethod
    def of(cls, trials: Iterable[Trial], space: Space, objective: Objective, *, is_goal: bool = True) -> "Figures":
        """Failed trials have no figures. A stopped one's bounds a goal, and says nothing of other metrics."""
        told = []
        for trial in trials:
            if trial.state is State.COMPLETE or (is_goal and trial.state is State.STOPPED):
                seen = outcome(trial, (objective,), ())
                if math.isfinite(seen.losses[0]):
                    told.append((trial, seen.losses[0], seen.noise[0], seen.censored[0]))
        losses, errors, bounds = (np.array([row[i] for row in told], float) for i in (1, 2, 3))
        X = space.encode([row[0].params for row in told])
        return cls(objective.sign, X, losses, np.nan_to_num(errors), bounds)

    @property
    def exact(self) -> Floats:
        """Indices of the losses that are no bounds."""
        return np.flatnonzero(self.bounds == 0)


@dataclass(frozen=True, slots=True)
class Response:
    """processes: at the mode of the hyper-parameters, then at some drawn about it; all see `values` (n,), the
    transformed losses (of many, a part), whose known variances are `variances` (n,)."""

    figures: Figures
    columns: tuple[Column, ...]
    processes: tuple[GPPosterior, ...]
    outputs: Outputs
    values: Floats
    variances: Floats

    @classmethod
    @on_one_thread
    def of(cls, figures: Figures, columns: Sequence[Column]) -> "Response | None":
        """None where fewer than LEAST losses are exact."""
        if len(figures.exact) < LEAST:
            return None
        kept = telling(figures.losses, _MOST)
        X, losses, errors, bounds = (a[kept] for a in (figures.X, figures.losses, figures.errors, figures.bounds))
        exact, gp = np.flatnonzero(bounds == 0), GP()
        few = exact[telling(losses[exact], _LEARNED_FROM)]
        _, outputs, theta = learned(gp, X[few], losses[few], columns, errors[few])
        values, variances = outputs(losses), (outputs.slope(losses) * errors) ** 2
        if len(exact) < len(losses):
            process = gp.posterior(theta, X[exact], values[exact], columns, variances[exact])
            values = imputed(process, X, values, bounds)
        covariance = gp.spread(theta, X[few], values[few], columns, variances[few])
        thetas = (theta, *_drawn(theta, covariance))
        processes = tuple(gp.posterior(each, X, values, columns, variances) for each in thetas)
        return cls(figures, tuple(columns), processes, outputs, values, variances)

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        """Z (m, d) -> mean (m,) and standard deviation (m,) of the function, in transformed units."""
        each = [process.predict(Z) for process in self.processes]
        means, stds = (np.array(part) for part in zip(*each, strict=True))
        mean: Floats = means.mean(axis=0)
        return mean, np.sqrt((stds**2).mean(axis=0) + means.var(axis=0))

    def metric(self, Z: Floats, *, once_more: bool = False) -> Floats:
        """Z (m, d) -> (3, m): median of the metric, and the ends of its 95 % interval; once_more: of the next
        measurement, not of the function."""
        mean, std = self.predict(Z)
        if once_more:
            std = np.hypot(std, math.sqrt(self.processes[0].noise + float(np.median(self.variances))))
        found = self.figures.sign * self.outputs.inverse(mean + SURE * np.array([0.0, -1.0, 1.0])[:, None] * std)
        return np.stack([found[0], found[1:].min(axis=0), found[1:].max(axis=0)])

    def functions(self, n: int, rng: "Generator") -> Callable[[Floats], Floats]:
        """U (m, d) -> metrics (m, 1 + n): by the mean, then by n functions drawn from some of the processes."""
        many = min(_PATHS, len(self.processes))
        shares = [len(range(i, n, many)) for i in range(many)]
        paths = [Paths(p, self.variances, self.columns, k, rng) for p, k in zip(self.processes, shares, strict=False)]
        low, high = self.values.min() - _BEYOND, self.values.max() + _BEYOND

        def metrics(U: Floats) -> Floats:
            each = [path(U) for path in paths]
            values = np.hstack([each[0][:, :1], *(one[:, 1:] for one in each)])
            return self.figures.sign * self.outputs.inverse(np.clip(values, low, high))

        return metrics

    @property
    def explained(self) -> float:
        """How well each trial is predicted from the others, at the same hyper-parameters: 1 - (squared error) /
        (variance), R^2, at most 1; NaN where all figures are the same."""
        mean, _ = self.processes[0].left_out()
        n = len(self.values)
        spread = ((self.values - self.values.mean()) ** 2).sum() * (n / max(n - 1, 1)) ** 2  # about the others' mean
        return 1.0 - float(((self.values - mean) ** 2).sum() / spread) if spread > 0.0 else math.nan

    @property
    def explains(self) -> bool:
        """Whether params explain the figures at all: of 250 sets of 8 to 100 figures of pure noise, in 2 and in 10
        dimensions, 98 % have less than that."""
        return self.explained > 2.0 / math.sqrt(len(self.values))


def _drawn(theta: Floats, covariance: Floats) -> list[Floats]:
    """Hyper-parameters (d + 4,) about their mode, in pairs that lie opposite to each other."""
    values, vectors = np.linalg.eigh(covariance)
    sides = np.random.default_rng(_SEED).standard_normal((_DRAWN // 2, len(theta)))
    sides = sides * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    return [theta + side * step for step in sides for side in (1.0, -1.0)]
