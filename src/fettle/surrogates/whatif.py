"""What would come out at some params: every metric with its interval, and the chances of failing and being allowed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fettle.core.errors import InvalidInput
from fettle.core.space import Space
from fettle.core.trial import Constraint, Estimate, Objective, State, Trial, TrialLog
from fettle.surrogates.feasibility import SOFT, classes, labels, log_spared
from fettle.surrogates.gp import GP, GPPosterior
from fettle.surrogates.response import LEAST, SURE, Figures, Response, trials_in

Floats = np.ndarray
FAILURE = "failure_ratio"
_MOST = 400  # trials that a failure's process is given: the latest


@dataclass(frozen=True, slots=True)
class Chances:
    """failures: one latent process for each failure class. bounds: of each constraint the metric, as a loss, and the
    highest value that is allowed (transformed)."""

    failures: tuple[GPPosterior, ...]
    bounds: tuple[tuple[Response, float], ...]

    @classmethod
    def of(cls, trials: Sequence[Trial], space: Space, constraints: Sequence[Constraint]) -> "Chances":
        latest = trials[-_MOST:]
        failure = [t.failure or "other" if t.state is State.FAILED else "" for t in latest]
        X, gp = space.encode([t.params for t in latest]), GP()
        kinds = classes(failure)
        failures = [gp.fit(X, labels(failure, kind), columns=space.columns) for kind in kinds]
        bounds = []
        for constraint in constraints:
            goal = _goal(constraint)
            response = Response.of(Figures.of(trials, space, goal, is_goal=False), space.columns)
            limit = constraint.upper if constraint.upper is not None else constraint.lower
            if response is not None and limit is not None:
                bounds.append((response, float(response.outputs(np.array([goal.sign * limit]))[0])))
        return cls(tuple(failures), tuple(bounds))

    def failure(self, Z: Floats) -> Floats:
        """Z (m, d) -> (3, m): the chance that a trial fails, and its 95 % interval."""
        from scipy.special import ndtr

        spared = np.ones((3, len(Z)))
        for process in self.failures:
            mean, std = process.predict(Z)
            ends = ndtr(-(mean + SURE * np.array([-1.0, 1.0])[:, None] * std) / SOFT)
            spared *= np.vstack([np.exp(log_spared(mean, std)[0]), ends])
        return 1.0 - spared

    def allowed(self, Z: Floats) -> Floats:
        """Z (m, d) -> (m,): the chance that nothing fails and all constraints hold."""
        from scipy.special import ndtr

        chance: Floats = 1.0 - self.failure(Z)[0]
        for response, limit in self.bounds:
            mean, std = response.predict(Z)
            chance = chance * ndtr((limit - mean) / std)
        return chance


def _goal(constraint: Constraint) -> Objective:
    return Objective(constraint.metric, "maximize" if constraint.upper is None else "minimize")


def predicted(log: TrialLog, space: Space, params: Mapping[str, Any]) -> dict[str, Estimate]:
    """Metric -> median and 95 % interval of one more measurement at params, from n trials: all that were told of four
    trials or more, objectives first. `failure_ratio`: the chance that the trial fails, where any has failed.

    Raises ParamsError where params do not fit the space, InvalidInput where too little was measured.
    """
    Z = space.encode([space.validate(params)])
    trials = trials_in(log, space)
    objectives = {o.metric: o for o in log.objectives}
    goals = {c.metric: _goal(c) for c in log.constraints}
    found = {}
    for metric in dict.fromkeys([*objectives, *goals, *(m for t in trials for m in t.metrics)]):
        goal = objectives.get(metric) or goals.get(metric) or Objective(metric)
        figures = Figures.of(trials, space, goal, is_goal=metric in objectives)
        if (response := Response.of(figures, space.columns)) is not None:
            value, low, high = response.metric(Z, once_more=True)[:, 0].tolist()
            found[metric] = Estimate(value, low, high, len(figures.losses))
    if not found:
        raise InvalidInput(
            f"nothing can be predicted: no metric was measured in {LEAST} of {len(trials)} ended trials",
            "run more trials first",
        )
    chances = Chances.of(trials, space, ())
    if chances.failures:
        value, low, high = chances.failure(Z)[:, 0].tolist()
        found[FAILURE] = Estimate(value, low, high, len(trials))
    return found
