"""The stop rule by what trials were expected to gain."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

import fettle
from fettle.core.trial import Constraint, Event, Objective, State, Trial, TrialLog
from fettle.surrogates.gain import LOOKS, expected, is_spent, price

COST = Objective("cost", "minimize")


def trial(value: Sequence[float] | None, **more: Sequence[float]) -> Trial:
    predicted = {} if value is None else {"cost": list(value)}
    return Trial(0, {}, State.COMPLETE, predicted={**predicted, **more})


def test_the_closed_form_of_a_normal_prediction() -> None:
    """EI = s (z Phi(z) + phi(z)) with z = (best - mean) / s."""
    mean, std, best = 2.0, 0.5, 1.8
    z = (best - mean) / std
    phi, cdf = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(z / math.sqrt(2)))
    found = expected(trial([mean, mean - 1.96 * std, mean + 1.96 * std]), COST, (), best)
    assert found == pytest.approx(std * (z * cdf + phi), rel=0.02)


def test_a_prediction_on_the_scale_of_logarithms() -> None:
    draws = 2.0 * np.exp(0.4 * np.random.default_rng(0).standard_normal(400_000))
    ends = [2.0, 2.0 * math.exp(-1.96 * 0.4), 2.0 * math.exp(1.96 * 0.4)]
    for goal, best in (("minimize", 1.5), ("maximize", 2.5)):
        wanted = np.maximum(best - draws, 0).mean() if goal == "minimize" else np.maximum(draws - best, 0).mean()
        objective = Objective("cost", goal)
        assert expected(trial(ends), objective, (), objective.sign * best) == pytest.approx(wanted, rel=0.03)


def test_what_is_not_likely_to_be_allowed_gains_less() -> None:
    bound = Constraint("p99", upper=1.0)
    alone = expected(trial([1.0, 0.5, 1.5]), COST, (bound,), 1.2)
    half = expected(trial([1.0, 0.5, 1.5], p99=[1.0, 0.5, 1.5]), COST, (bound,), 1.2)
    assert alone is not None and half == pytest.approx(0.5 * alone, rel=0.02)
    assert expected(trial(None), COST, (), 1.0) is None


def log_of(costs: Sequence[float], foreseen: Sequence[Sequence[float] | None]) -> TrialLog:
    log = TrialLog([COST])
    for n, (cost, value) in enumerate(zip(costs, foreseen, strict=True)):
        predicted = None if value is None else {"cost": list(value)}
        log.append(Event("started", n, {"params": {"x": n}, "predicted": predicted}, float(n)))
        log.append(Event("told", n, {"state": "complete", "metrics": {"cost": cost}}, n + 0.5))
    return log


def test_it_ends_where_three_in_a_row_have_promised_too_little() -> None:
    sure, hopeful = [1.0, 0.99, 1.01], [0.9, 0.5, 1.3]
    start = [1.0, 1.1], [None, None]
    assert not is_spent(log_of(*start), 0.01)
    assert is_spent(log_of([*start[0], 1.0, 1.0, 1.0], [*start[1], *[sure] * LOOKS]), 0.01)
    assert not is_spent(log_of([*start[0], 1.0, 1.0, 1.0], [*start[1], sure, hopeful, sure]), 0.01)
    assert not is_spent(log_of([*start[0], 1.0, 1.0, 1.0], [*start[1], sure, None, sure]), 0.01)
    assert not is_spent(log_of([*start[0], 1.0, 1.0, 1.0], [*start[1], *[sure] * LOOKS]), 0.001)


def test_the_price_of_a_trial_is_its_mean_time() -> None:
    log = TrialLog([COST])
    log.append(Event("created", -1, {"budget": {"gain_per_s": 0.01}}, 0.0))
    assert price(log) is None
    for n, seconds in enumerate((2.0, 4.0)):
        log.append(Event("started", n, {"params": {}}, 0.0))
        log.append(Event("told", n, {"state": "complete", "metrics": {}, "timings": {"wall_s": seconds}}, 0.0))
    assert price(log) == pytest.approx(0.03)
    assert price(log_of([1.0], [None])) is None


def test_a_run_ends_by_it() -> None:
    space = fettle.Space(x=fettle.Float(0, 1))
    study = fettle.Study(space, objectives=["loss"], algorithm="gp_bo", seed=0)
    study.run(lambda params, ctx: {"loss": (params["x"] - 0.3) ** 2}, trials=60, stop_gain=1e-3)
    assert LOOKS < len(study.trials) < 40
    assert study.best is not None and study.best.metrics["loss"] < 1e-2
    with pytest.raises(fettle.InvalidInput, match="stop_gain above 0"):
        study.run(lambda params, ctx: {"loss": 0.0}, stop_gain=0.0)
