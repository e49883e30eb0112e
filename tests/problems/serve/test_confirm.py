import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from fettle.core.trial import Objective, State, Trial
from fettle.problems.serve.confirm import MAX_ROUNDS, confirm

THROUGHPUT = (Objective("throughput_rps", "maximize"),)
COST = (Objective("cost_per_million", "minimize"),)


@dataclass
class Machine:
    """A measure that knows the truth. rates: trial -> the highest rate that holds; spread: of its logarithm
    between fresh servers. holds(trial, rate) overrides which rates pass when they are tested."""

    rates: Mapping[int, float]
    spread: float = 0.0
    seconds: float = 1.0
    seed: int = 0
    holds: Any = None
    broken: frozenset[int] = frozenset()
    calls: list[tuple[int, str, float]] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def __call__(self, params: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
        number = params["n"]
        self.calls.append((number, settings["mode"], settings["rate"]))
        self.now += self.seconds
        if number in self.broken:
            return {"state": "failed", "metrics": {}, "error": "it burst", "failure": "crash"}
        if settings["mode"] == "rate":
            rate = settings["rate"]
            feasible = rate <= self.rates[number] if self.holds is None else self.holds(number, rate)
        else:
            rate, feasible = self.rates[number] * math.exp(self.spread * self.rng.standard_normal()), True
        metrics = {"throughput_rps": rate, "cost_per_million": 1000.0 / rate}
        return {"state": "complete", "metrics": metrics, "artifacts": {"feasible": feasible}}

    def confirm(
        self, *numbers: int, reported: tuple[int, ...] = (), budget_s: float = 1e9, **more: Any
    ) -> dict[int, Any]:
        outside = more.pop("outside", ())
        trials = [trial(n, self.rates[n], "outside" if n in outside else "algorithm") for n in numbers]
        objectives = more.pop("objectives", THROUGHPUT)
        found = confirm(trials, self, objectives, budget_s=budget_s, reported=reported, clock=lambda: self.now)
        return {c.number: c.payload for c in found}


def trial(number: int, rate: float, source: str = "algorithm") -> Trial:
    return Trial(number, {"n": number}, State.COMPLETE, metrics={"throughput_rps": rate}, source=source)


def test_candidates_take_turns_in_an_order_that_rotates() -> None:
    machine = Machine({5: 100.0, 6: 90.0, 0: 50.0})
    machine.confirm(5, 6, 0, reported=(0,))
    searches = [number for number, mode, _ in machine.calls if mode == "search"]
    rounds = [searches[i : i + 3] for i in range(0, len(searches), 3)]
    assert len(rounds) == MAX_ROUNDS
    assert all(sorted(r) == [0, 5, 6] for r in rounds)
    assert rounds[0][0] == 5, "the best comes first"
    assert len({r[0] for r in rounds[:3]}) == 3, "each one begins a round"


def test_searches_begin_at_what_was_found_before() -> None:
    machine = Machine({1: 100.0, 0: 50.0}, spread=0.1)
    machine.confirm(1, 0, reported=(0,))
    starts = [rate for number, mode, rate in machine.calls if (number, mode) == (1, "search")]
    assert starts[0] == 100.0
    assert len(set(starts)) > 2


def test_the_answer_is_a_rate_that_held_again() -> None:
    found = Machine({1: 100.0, 2: 90.0, 0: 50.0}).confirm(1, 2, 0, reported=(0,))
    assert found[1]["passed"] is True
    assert found[0]["passed"] is True, "the defaults' figures stand beside the winner's"
    assert found[2]["passed"] is None, "nobody asked whether its rate holds"
    assert found[2]["metrics"] == {}
    assert 90.0 < found[1]["metrics"]["throughput_rps"] < 100.0
    assert len(found[2]["rounds"]) == MAX_ROUNDS
    assert {p["source"] for p in found.values()} == {"confirm"}


def test_a_rate_that_does_not_hold_again_is_stepped_down() -> None:
    machine = Machine({1: 100.0, 0: 50.0}, holds=lambda number, rate: rate < (93.0 if number else 50.0))
    found = machine.confirm(1, 0, reported=(0,))
    tested = [rate for number, mode, rate in machine.calls if (number, mode) == (1, "rate")]
    assert len(tested) == 2
    assert tested[1] < tested[0]
    assert found[1]["passed"] is True
    assert found[1]["metrics"]["throughput_rps"] == tested[1]
    assert "did not hold" in found[1]["failures"][0]


def test_the_next_candidate_is_tested_where_the_best_fails() -> None:
    found = Machine({1: 100.0, 2: 90.0, 3: 80.0, 0: 50.0}, holds=lambda n, rate: n != 1).confirm(
        1, 2, 3, 0, reported=(0,)
    )
    assert [found[n]["passed"] for n in (1, 2, 3, 0)] == [False, True, None, True]


def test_nothing_passes() -> None:
    found = Machine({1: 100.0, 2: 90.0, 0: 50.0}, holds=lambda n, rate: False).confirm(1, 2, 0, reported=(0,))
    assert not any(p["passed"] for p in found.values())
    assert all(p["metrics"] == {} for p in found.values())


def test_candidates_that_break_lose() -> None:
    found = Machine({1: 100.0, 0: 50.0}, broken=frozenset({1})).confirm(1, 0, reported=(0,))
    assert found[1]["passed"] is None
    assert found[1]["rounds"] == []
    assert found[1]["failures"] == ["it burst"] * MAX_ROUNDS
    assert found[0]["passed"] is True


def test_defaults_outside_the_space_cannot_keep_the_winner_from_its_test() -> None:
    found = Machine({0: 200.0, 1: 100.0, 2: 90.0}).confirm(1, 2, 0, reported=(0,), outside=(0,))
    assert found[0]["passed"] is True
    assert found[1]["passed"] is True


def test_the_equal_precision_candidate_is_tested_too() -> None:
    found = Machine({1: 100.0, 2: 90.0, 0: 50.0}).confirm(1, 0, 2, reported=(0, 2))
    assert all(found[n]["passed"] is True for n in (0, 1, 2))


@pytest.mark.parametrize("budget_s", [0.5, 3.0, 6.0, 9.0, 15.0, 30.0])
def test_the_budget_holds(budget_s: float) -> None:
    machine = Machine({1: 100.0, 2: 90.0, 3: 80.0, 0: 50.0})
    found = machine.confirm(1, 2, 3, 0, reported=(0,), budget_s=budget_s)
    necessary = 3  # a search of the best and of the defaults, and a test of the best
    assert machine.now <= max(budget_s, necessary)
    assert found[1]["passed"] is True
    assert (found[0]["passed"] is True) == (budget_s >= 6.0)
    assert found[0]["rounds"], "without the defaults there is no gain to be told"
    if budget_s >= 6.0:
        assert len(found[0]["rounds"]) >= 2, "two rounds of fewer candidates rather than one of all"
        assert found[1]["ratio"]["n"] >= 2


def test_failing_tests_of_rates_are_bounded_in_time() -> None:
    machine = Machine({n: 100.0 - n for n in range(4)}, holds=lambda n, rate: False)
    machine.confirm(0, 1, 2, 3, reported=(0,), budget_s=6.0)
    assert machine.now <= 6.0 + 2 * 4  # two rates of each, though time is up


def test_costs_rank_downwards() -> None:
    found = Machine({1: 100.0, 2: 120.0, 0: 50.0}).confirm(1, 2, 0, reported=(0,), objectives=COST)
    assert found[2]["passed"] is True, "by the rounds it is the best"
    assert found[1]["passed"] is None
    assert found[2]["ratio"]["metric"] == "cost_per_million"
    assert found[2]["ratio"]["value"] == pytest.approx(50.0 / 120.0)


def test_spread_is_pooled_over_the_candidates() -> None:
    """One candidate that has repeated itself by chance is not certain because of that."""
    rates = {1: 100.0, 2: 90.0, 3: 80.0, 0: 50.0}
    found = Machine(rates, spread=0.05, seed=3).confirm(1, 2, 3, 0, reported=(0,))
    halves = {
        n: math.log(p["prediction"]["throughput_rps"][1] / p["prediction"]["throughput_rps"][0])
        for n, p in found.items()
        if p["passed"]
    }
    assert len(halves) >= 2
    widths = list(halves.values())
    assert max(widths) == pytest.approx(min(widths), rel=0.2)
    assert 0.15 < widths[0] < 0.4  # 2 * 2.1 * 0.05 * sqrt(1 + 1/5)


def test_intervals_hold_the_truth() -> None:
    """95 % of the ratio's intervals hold the true ratio, and of the predictions a further fresh measurement."""
    truth, spread, n = {1: 100.0, 2: 90.0, 3: 80.0, 0: 50.0}, 0.04, 400
    winners = [1, 2, 3]
    ratio = predicted = 0
    for seed in range(n):
        machine = Machine(truth, spread, seed=seed, holds=lambda number, rate: True)
        found = machine.confirm(1, 2, 3, 0, reported=(0,))
        best = next(w for w in winners if found[w]["passed"])
        low, high = found[best]["ratio"]["low"], found[best]["ratio"]["high"]
        ratio += low <= truth[best] / truth[0] <= high
        again = truth[best] * math.exp(spread * machine.rng.standard_normal())
        low, high = found[best]["prediction"]["throughput_rps"]
        predicted += low <= again <= high
    assert 0.92 <= ratio / n <= 0.985
    assert 0.92 <= predicted / n <= 0.99


def test_slow_changes_of_the_machine_cancel_in_the_ratio() -> None:
    """Every round is slower than the one before it; pairs within a round still tell the ratio."""

    class Drifting(Machine):
        def __call__(self, params: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
            fall = 0.97 ** (sum(mode == "search" for _, mode, _ in self.calls) // 2)
            payload = super().__call__(params, settings)
            if settings["mode"] == "search":
                payload["metrics"]["throughput_rps"] *= fall
            return payload

    found = Drifting({1: 100.0, 0: 50.0}, holds=lambda n, rate: True).confirm(1, 0, reported=(0,))
    assert found[1]["ratio"]["value"] == pytest.approx(2.0)
    assert found[1]["ratio"]["n"] == MAX_ROUNDS
