"""Logs of trials of known functions."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Event, Objective, TrialLog
from fettle.surrogates.response import Figures, Response, trials_in

LOSS = Objective("loss")
Function = Callable[[Params], float]


def told(log: TrialLog, params: Params, payload: Mapping[str, Any]) -> None:
    """One more trial; payload of its `told` event, complete unless it says otherwise."""
    number = len(log.trials)
    log.append(Event("started", number, {"params": params}, float(number)))
    log.append(Event("told", number, {"state": "complete", "metrics": {}, **payload}, number + 0.5))


def log_of(
    space: Space,
    function: Function,
    n: int,
    *,
    seed: int = 0,
    noise: float = 0.0,
    objective: Objective = LOSS,
    constraints: tuple[Constraint, ...] = (),
) -> TrialLog:
    """n random trials."""
    log, rng = TrialLog((objective,), constraints), np.random.default_rng(seed)
    log.append(Event("created", -1, {"name": "s", "space": space.to_json()}, 0.0))
    for params in space.sample(n, rng):
        value = function(params) + noise * float(rng.standard_normal())
        told(log, params, {"metrics": {objective.metric: value}})
    return log


def response_of(log: TrialLog, space: Space) -> Response:
    made = Response.of(Figures.of(trials_in(log, space), space, log.objectives[0]), space.columns)
    assert made is not None
    return made
