"""The remaining regret: it is seldom below the truth, shrinks as a search goes on, and ends runs, replayed ones too."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fettle
from fettle.core.errors import InvalidInput
from fettle.core.space import Categorical, Float, Space
from fettle.core.trial import Constraint, Objective
from fettle.surrogates.regret import checked, is_enough, remaining

from .logs import log_of, told

SPACE = Space(x=Float(0, 1), y=Float(0, 1))
GRID = [{"x": x, "y": y} for x in np.linspace(0, 1, 41) for y in np.linspace(0, 1, 41)]


def wave(seed: int) -> Any:
    """A smooth function of two to four bumps."""
    rng = np.random.default_rng([seed, 77])
    at, size, width = rng.random((4, 2)), rng.normal(size=4), 0.15 + 0.25 * rng.random(4)
    return lambda p: float((size * np.exp(-((at - [p["x"], p["y"]]) ** 2).sum(axis=1) / (2 * width**2))).sum())


@pytest.mark.medium
def test_the_truth_is_seldom_above() -> None:
    """In 90 of 100 cases or more: with fewer than 48 of 60, p < 0.01."""
    covered = said = 0
    ratios: dict[int, list[float]] = {12: [], 40: []}
    for seed in range(30):
        function = wave(seed)
        lowest = min(map(function, GRID))
        scale = float(np.std([function(p) for p in GRID]))
        for n, found in ratios.items():
            log = log_of(SPACE, function, n, seed=seed)
            left = remaining(log, SPACE)
            if left is None:
                continue
            assert log.incumbent is not None
            truth = log.incumbent.metrics["loss"] - min(lowest, log.incumbent.metrics["loss"])
            said, covered = said + 1, covered + (truth <= left.value)
            found.append(left.value / scale)
    assert said >= 40
    assert covered >= 0.8 * said
    assert np.median(ratios[40]) < 0.5 * np.median(ratios[12])


def test_units_and_signs() -> None:
    space = Space(x=Float(0, 1), c=Categorical(["p", "q"]))
    fast = log_of(space, lambda p: 1000.0 + 50.0 * math.sin(3 * p["x"]), 30, objective=Objective("rps", "maximize"))
    left = remaining(fast, space)
    assert left is not None
    assert (left.metric, left.trials) == ("rps", 30)
    assert 0.0 <= left.value < 25.0


def test_a_space_that_was_measured_as_a_whole_leaves_nothing() -> None:
    space = Space(c=Categorical(["p", "q", "r", "s"]), d=Categorical([1, 2, 3, 4, 5]))
    log = log_of(space, lambda p: 0.0, 0)
    for i, params in enumerate(space.enumerate()):
        told(log, params, {"metrics": {"loss": float("pqrs".index(params["c"])) + 0.1 * params["d"]}})
        assert i < 20
    left = remaining(log, space)
    assert left is not None
    assert left.value < 0.1


def test_only_what_is_allowed_counts() -> None:
    """The loss falls with x; x above 0.5 breaks the constraint."""
    bound = (Constraint("heat", upper=0.5),)
    free, bounded = (log_of(SPACE, lambda p: 0.0, 0, constraints=c) for c in ((), bound))
    for params in SPACE.sample(40, np.random.default_rng(0)):
        if params["x"] < 0.9:
            for log in (free, bounded):
                told(log, params, {"metrics": {"loss": -params["x"], "heat": params["x"]}})
    left = remaining(bounded, SPACE), remaining(free, SPACE)
    assert left[0] is not None and left[1] is not None
    assert left[0].value < 0.1
    assert left[1].value > 0.1


def test_nothing_is_said_without_grounds() -> None:
    assert remaining(log_of(SPACE, wave(0), 3), SPACE) is None  # too few
    assert remaining(log_of(SPACE, lambda p: 1.0, 20), SPACE) is None  # all the same
    assert remaining(log_of(SPACE, lambda p: 0.0, 20, noise=1.0), SPACE) is None  # noise alone
    infeasible = log_of(SPACE, wave(0), 20, constraints=(Constraint("loss", upper=-99.0),))
    assert remaining(infeasible, SPACE) is None


def test_the_rule_is_checked_at_fixed_counts_and_by_the_log_alone() -> None:
    assert [checked(n) for n in (0, 9, 10, 14, 15, 99, 119, 120)] == [0, 0, 10, 10, 15, 95, 100, 120]
    log = log_of(SPACE, lambda p: (p["x"] - 0.3) ** 2 + (p["y"] - 0.6) ** 2, 30)
    at = remaining(log, SPACE, ended=20)
    assert at is not None
    shorter = log_of(SPACE, lambda p: (p["x"] - 0.3) ** 2 + (p["y"] - 0.6) ** 2, 30)
    assert remaining(shorter, SPACE, ended=20) == at
    last = remaining(log, SPACE, ended=30)
    assert last is not None
    assert is_enough(log, SPACE, last.value * 1.01)
    assert not is_enough(log, SPACE, last.value * 0.99)
    assert not is_enough(log_of(SPACE, wave(0), 9), SPACE, 1e9)


def evaluate(params: dict[str, float], ctx: Any) -> dict[str, float]:
    return {"loss": (params["x"] - 0.3) ** 2 + (params["y"] - 0.6) ** 2}


@pytest.mark.medium
def test_a_run_ends_by_the_rule_and_does_not_begin_again(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"objectives": ["loss"], "storage": tmp_path / "a.db", "name": "s"}
    study = fettle.Study(SPACE, algorithm="gp_bo", **arguments)
    study.run(evaluate, trials=60, stop_regret=0.05)
    count = len(study.trials)
    assert 10 <= count < 60
    assert count == checked(count)
    assert study.regret is not None and study.regret.value < 0.05
    assert study.best is not None and study.best.metrics["loss"] < 0.05
    study.close()
    again = fettle.Study.open("s", tmp_path / "a.db")
    again.run(evaluate, trials=60, stop_regret=0.05)
    assert len(again.trials) == count
    again.ask()  # a user's own loop is not stopped
    again.run(evaluate, trials=count + 3)  # nor a run without the rule
    assert len(again.trials) == count + 3


def test_a_rule_that_cannot_be() -> None:
    study = fettle.Study(SPACE, objectives=["loss"], algorithm="random")
    with pytest.raises(InvalidInput, match="stop_regret above 0"):
        study.run(evaluate, stop_regret=-1.0)
