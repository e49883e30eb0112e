"""Told trials as arrays: what replaces, what is left out, signs and kinds."""

import math

import numpy as np

from fettle.algorithms.history import History
from fettle.core.space import Float, Space
from fettle.core.trial import Constraint, Objective, State, Trial, outcome

SPACE = Space(x=Float(0, 1))
GOALS = (Objective("loss"), Objective("rate", "maximize"))
BOUNDS = (Constraint("latency_s", upper=0.5), Constraint("accuracy", lower=0.8), Constraint("drift", upper=0.0))


def put(history: History, number: int, x: float = 0.5, state: State = State.COMPLETE, **more) -> None:
    failure = more.pop("failure", "oom") if state is State.FAILED else ""
    intervals, timings = more.pop("intervals", {}), more.pop("timings", {})
    trial = Trial(number, {"x": x}, state, metrics=more, failure=failure, intervals=intervals, timings=timings)
    history.put(trial, outcome(trial, history.objectives, history.constraints))


def test_a_later_tell_replaces_the_earlier_in_place() -> None:
    history = History(SPACE, GOALS[:1], ())
    put(history, 3, loss=1.0)
    put(history, 1, loss=2.0)
    before = history.arrays
    assert history.numbers() == [3, 1] and history.version == 0
    put(history, 3, loss=5.0)
    assert history.arrays.losses[:, 0].tolist() == [5.0, 2.0] and history.version == 1
    assert before.losses[:, 0].tolist() == [1.0, 2.0] and history.numbers() == [3, 1]


def test_params_outside_the_space_are_left_out() -> None:
    history = History(SPACE, GOALS[:1], ())
    put(history, 0, x=7.0, loss=-1.0)
    trial = Trial(1, {"y": 1}, State.COMPLETE, metrics={"loss": 1.0})
    history.put(trial, outcome(trial, GOALS[:1], ()))
    assert history.numbers() == [] and history.arrays.U.shape == (0, 1) and history.arrays.losses.shape == (0, 1)


def test_everything_is_minimised_and_bounds_count_in_their_own_unit() -> None:
    history = History(SPACE, GOALS, BOUNDS)
    put(history, 0, loss=1.0, rate=30.0, latency_s=0.4, accuracy=0.9, drift=-2.0)
    put(history, 1, loss=1.0, rate=30.0, latency_s=1.0, accuracy=0.4, drift=3.0)
    put(history, 2, loss=1.0, rate=30.0)
    arrays = history.arrays
    assert arrays.losses[0].tolist() == [1.0, -30.0]
    assert np.allclose(arrays.excess[:2], [[-0.2, -0.125, -2.0], [1.0, 0.5, 3.0]]) and np.isnan(arrays.excess[2]).all()
    assert arrays.feasible.tolist() == [True, False, False] and arrays.known.tolist() == [True] * 3


def test_failures_missing_figures_and_bounds() -> None:
    history = History(SPACE, GOALS[:1], (), "cost")
    put(history, 0, loss=1.0, cost=4.0)
    put(history, 1, state=State.FAILED)
    put(history, 2, state=State.FAILED, failure="")
    put(history, 3, loss=math.nan)
    put(history, 4, loss=math.inf)
    put(history, 5)
    put(history, 6, state=State.STOPPED, loss=2.0)
    put(history, 7, loss=2.0, intervals={"loss": (-math.inf, 2.0, 3)})
    put(history, 8, loss=2.0, intervals={"loss": (1.804, 2.196, 9)})
    arrays = history.arrays
    assert list(arrays.failure) == ["", "oom", "other", "nan", "nan", "nan", "", "", ""]
    assert arrays.known.tolist() == [True, *[False] * 5, True, True, True]
    assert arrays.censored[:, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, -1, 0]
    assert arrays.feasible.tolist() == [True, *[False] * 6, True, True]
    assert math.isclose(arrays.noise[8, 0], 0.1) and np.isnan(arrays.noise[:7]).all()
    assert arrays.cost[0] == 4.0 and np.isnan(arrays.cost[1:]).all()


def test_a_broken_bound_excuses_missing_losses() -> None:
    history = History(SPACE, GOALS[:1], BOUNDS[:1])
    put(history, 0, latency_s=9.0)
    put(history, 1, latency_s=0.1)
    assert list(history.arrays.failure) == ["", "nan"] and history.arrays.known.tolist() == [False, False]


def test_seconds_can_be_the_cost() -> None:
    history = History(SPACE, GOALS[:1], (), "wall_s")
    put(history, 0, loss=1.0, timings={"wall_s": 2.5})
    assert history.arrays.cost.tolist() == [2.5]
