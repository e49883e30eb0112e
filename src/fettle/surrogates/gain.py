"""What the last trials were expected to gain when they were proposed: a stop rule for trials that have a price.

The expected improvement (Mockus 1978) of what the algorithm itself predicted of each, times the chance that it foresaw
of the constraints to hold. A search that no longer expects a trial's price back has found what it can pay for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fettle.core.trial import Constraint, Objective, State, Trial, TrialLog

Floats = np.ndarray
LOOKS = 3  # trials in a row that must have promised too little: a single one may have been an odd choice
_DRAWS = 256  # quantiles of a prediction


def price(log: TrialLog) -> float | None:
    """What a trial has to gain to pay for its seconds, by the study's record; None where that says nothing."""
    per_s = (log.experiment.get("budget") or {}).get("gain_per_s")
    seconds = [s for number in log.ended if (s := log.trials[number].timings.get("wall_s")) is not None]
    return float(per_s) * float(np.mean(seconds)) if per_s and seconds else None


def is_spent(log: TrialLog, below: float) -> bool:
    """Whether the last trials that ended were each expected to improve the first objective by less than `below` over
    the best before them. False where the algorithm has not said what it expected."""
    last = [log.trials[number] for number in log.ended[-LOOKS:]]
    if len(last) < LOOKS:
        return False
    first = min(trial.number for trial in last)
    before = [t for t in log.trials[:first] if t.state is State.COMPLETE and log.outcome(t).feasible]
    if not before:
        return False
    objective = log.objectives[0]
    best = min(log.outcome(t).losses[0] for t in before)
    gains = [expected(trial, objective, log.constraints, best) for trial in last]
    return all(gain is not None and gain < below for gain in gains)


def expected(trial: Trial, objective: Objective, constraints: Sequence[Constraint], best: float) -> float | None:
    """Expected improvement over the loss `best`, in the objective's own units; None where nothing was predicted."""
    losses = _drawn((trial.predicted or {}).get(objective.metric))
    if losses is None:
        return None
    gain = float(np.maximum(best - objective.sign * losses, 0.0).mean())
    for constraint in constraints:
        values = _drawn((trial.predicted or {}).get(constraint.metric))
        if values is not None:
            gain *= float(np.mean([constraint.violation(value) <= 0.0 for value in values.tolist()]))
    return gain


def _drawn(predicted: Any) -> Floats | None:
    """Even quantiles of [value, low, high], low and high being the ends of a 95 % interval: of a lognormal variable
    where all are positive and the value lies nearer to their geometric mean, else of a normal one."""
    from scipy.special import ndtri

    if not isinstance(predicted, Sequence) or len(predicted) != 3 or not np.isfinite(predicted).all():
        return None
    value, low, high = map(float, predicted)
    z = ndtri((np.arange(_DRAWS) + 0.5) / _DRAWS) / 3.92
    if 0.0 < low < value and abs(value - np.sqrt(low * high)) < abs(value - 0.5 * (low + high)):
        made: Floats = value * np.exp(np.log(high / low) * z)
        return made
    even: Floats = value + (high - low) * z
    return even
