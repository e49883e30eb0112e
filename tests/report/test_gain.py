"""The gain claims no more than was measured."""

from typing import Any

import pytest

from fettle.core.trial import Objective, State, Trial
from fettle.report.gain import gain

RPS = Objective("throughput_rps", "maximize")
COST = Objective("cost_per_million", "minimize")


def trial(number: int, metric: str, value: float, ends: tuple[float, float, int] | None = None, **more: Any) -> Trial:
    intervals = {metric: ends} if ends else {}
    return Trial(number, {}, State.COMPLETE, metrics={metric: value}, intervals=intervals, **more)


def confirmed(metric: str, value: float, low: float, high: float) -> Trial:
    again = {"ratio": {"metric": metric, "value": value, "low": low, "high": high}}
    return trial(3, metric, value, confirmed=again)


def test_paired_ratio_of_the_confirmation() -> None:
    found = gain(confirmed("throughput_rps", 2.1, 1.9, 2.3), trial(0, "throughput_rps", 1.0), RPS)
    assert found is not None
    assert (found["value"], found["low"], found["high"], found["shown"]) == (2.1, 1.9, 2.3, True)
    assert found["text"] == "2.10x the throughput of the defaults (95 % interval 1.90 to 2.30)"


def test_less_is_better_for_a_cost() -> None:
    found = gain(confirmed("cost_per_million", 0.4, 0.35, 0.46), trial(0, "cost_per_million", 1.0), COST)
    assert found is not None
    assert found["shown"]
    assert found["text"].startswith("60 % lower cost per million requests than the defaults")


@pytest.mark.parametrize(
    ("objective", "low", "high", "word"),
    [(RPS, 0.97, 1.07, "contains 1"), (COST, 0.97, 1.07, "contains 1"), (COST, 1.02, 1.3, "worse than the defaults")],
)
def test_no_gain_shown(objective: Objective, low: float, high: float, word: str) -> None:
    winner = confirmed(objective.metric, (low + high) / 2, low, high)
    found = gain(winner, trial(0, objective.metric, 1.0), objective)
    assert found is not None
    assert not found["shown"]
    assert found["text"].startswith("no gain shown")
    assert word in found["text"]


def test_the_defaults_themselves_are_no_gain() -> None:
    base = trial(0, "throughput_rps", 5.0)
    found = gain(base, base, RPS)
    assert found is not None
    assert found["text"].startswith("no gain shown: the defaults are the best")


def test_unconfirmed_uses_the_trials_own_intervals() -> None:
    found = gain(trial(1, "throughput_rps", 200.0, (190, 210, 5)), trial(0, "throughput_rps", 100.0, (95, 105, 5)), RPS)
    assert found is not None
    assert found["low"] == pytest.approx(190 / 105)
    assert found["high"] == pytest.approx(210 / 95)


def test_without_intervals_no_gain_is_shown() -> None:
    found = gain(trial(1, "throughput_rps", 200.0), trial(0, "throughput_rps", 100.0), RPS)
    assert found is not None
    assert found["shown"] is False
    assert (found["low"], found["high"]) == (None, None)


def test_nothing_to_compare() -> None:
    assert gain(None, trial(0, "x", 1.0), RPS) is None
    assert gain(trial(1, "throughput_rps", 1.0), None, RPS) is None
    assert gain(trial(1, "throughput_rps", -1.0), trial(0, "throughput_rps", 1.0), RPS) is None
