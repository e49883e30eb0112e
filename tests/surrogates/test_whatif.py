"""Predictions: their intervals hold, for every metric, with bounds and failures in the log."""

import math

import numpy as np
import pytest

import fettle
from fettle.core.errors import InvalidInput, ParamsError
from fettle.core.space import Float, Space
from fettle.core.trial import Constraint, Objective
from fettle.surrogates.response import trials_in
from fettle.surrogates.whatif import FAILURE, Chances, predicted

from .logs import log_of, told

SPACE = Space(x=Float(0, 1), y=Float(0, 1))


def truth(params: dict[str, float]) -> float:
    return math.sin(5 * params["x"]) + params["y"] ** 2


def test_intervals_cover_one_more_measurement() -> None:
    """95 % intervals: of 200 measurements at least 175 lie inside (fewer: p < 1e-5)."""
    inside = 0
    for seed in range(5):
        log, rng = log_of(SPACE, truth, 30, seed=seed, noise=0.1), np.random.default_rng(100 + seed)
        for params in SPACE.sample(40, rng):
            made = predicted(log, SPACE, params)["loss"]
            inside += made.low <= truth(params) + 0.1 * rng.standard_normal() <= made.high
            assert made.n == 30
    assert inside >= 175


def test_every_metric_is_predicted_objectives_first() -> None:
    goal, bound = Objective("speed", "maximize"), Constraint("heat", upper=1.0)
    log = log_of(SPACE, truth, 0, objective=goal, constraints=(bound,))
    for params in SPACE.sample(25, np.random.default_rng(1)):
        metrics = {"other": 5.0 * params["y"], "heat": params["x"], "speed": 100.0 + truth(params)}
        told(log, params, {"metrics": metrics})
    made = predicted(log, SPACE, {"x": 0.5, "y": 0.5})
    assert list(made) == ["speed", "heat", "other"]
    assert made["speed"].value == pytest.approx(100.0 + truth({"x": 0.5, "y": 0.5}), abs=0.2)
    assert made["other"].value == pytest.approx(2.5, abs=0.2)
    assert all(e.low <= e.value <= e.high for e in made.values())


def test_bounds_are_not_taken_for_figures() -> None:
    """Where trials were stopped their loss is at least what it was then."""
    log = log_of(SPACE, truth, 20)
    for params in SPACE.sample(10, np.random.default_rng(2)):
        told(log, params, {"state": "stopped", "metrics": {"loss": truth(params) - 2.0, "other": -50.0}})
    made = predicted(log, SPACE, {"x": 0.3, "y": 0.4})
    assert made["loss"].value == pytest.approx(truth({"x": 0.3, "y": 0.4}), abs=0.3)
    assert set(made) == {"loss"}  # what else a stopped trial said is left out


def test_the_chance_of_failure_is_high_where_trials_failed() -> None:
    log = log_of(SPACE, truth, 0)
    for params in SPACE.sample(40, np.random.default_rng(3)):
        failed = {"state": "failed", "failure": "oom"}
        told(log, params, failed if params["x"] > 0.7 else {"metrics": {"loss": truth(params)}})
    there, here = (predicted(log, SPACE, {"x": x, "y": 0.5})[FAILURE] for x in (0.95, 0.2))
    assert there.value > 0.7 > 0.2 > here.value
    assert 0.0 <= here.low <= here.value <= here.high <= 1.0
    allowed = Chances.of(trials_in(log, SPACE), SPACE, ()).allowed(SPACE.encode([{"x": 0.95, "y": 0.5}]))
    assert allowed[0] == pytest.approx(1.0 - there.value)
    assert FAILURE not in predicted(log_of(SPACE, truth, 10), SPACE, {"x": 0.5, "y": 0.5})


def test_the_chance_of_holding_a_constraint() -> None:
    bound = (Constraint("loss", upper=0.5),)
    log = log_of(SPACE, lambda p: p["x"], 20, constraints=bound)
    chance = Chances.of(trials_in(log, SPACE), SPACE, bound).allowed(
        SPACE.encode([{"x": x, "y": 0.5} for x in (0.1, 0.9)])
    )
    assert chance[0] > 0.99
    assert chance[1] < 0.01


def test_what_cannot_be_predicted() -> None:
    study = fettle.Study(SPACE, objectives=["loss"], algorithm="random")
    with pytest.raises(InvalidInput, match="nothing can be predicted"):
        study.predict({"x": 0.5, "y": 0.5})
    for params in SPACE.sample(6, np.random.default_rng(0)):
        study.tell(params, {"loss": truth(params)})
    with pytest.raises(ParamsError, match="y"):
        study.predict({"x": 0.5})
    with pytest.raises(ParamsError, match=r"\[0.0, 1.0\]"):
        study.predict({"x": 0.5, "y": 2.0})
    assert study.predict({"x": 0.5, "y": 0.5})["loss"].n == 6
