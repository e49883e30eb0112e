"""CMA-ES: its fold, what it makes of failures and foreign tells, its strength as statistics over seeds."""

import math
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fettle.algorithms.cmaes import CMAES, CovarianceAdaptation
from fettle.algorithms.random import Random
from fettle.core.errors import InvalidInput
from fettle.core.protocols import Proposal
from fettle.core.space import Categorical, Choice, Float, Int, Params, Space
from fettle.core.trial import Objective, State, Trial, outcome

LOSS = (Objective("loss"),)
BOX = Space({f"x{i}": Float(0, 1) for i in range(6)})
MIXED = Space(
    x=Float(0, 1),
    n=Int(0, 20),
    y=Float(0, 1),
    op=Choice(a=Space(w=Float(0, 1)), b=Space()),
    c=Categorical(["u", "v", "w"]),
)


def tell(
    algorithm, number: int, params: Params, loss: float, state: State = State.COMPLETE, failure: str = "oom"
) -> None:
    trial = Trial(number, params, state, metrics={"loss": loss}, failure=failure if state is State.FAILED else "")
    algorithm.tell(trial, outcome(trial, LOSS, ()))


def ask(algorithm, number: int, n: int = 1, pending: Sequence[Params] = ()) -> list[Proposal]:
    return algorithm.ask(n, number, list(pending), np.random.default_rng([0, number]))


def build(space: Space = BOX, **settings) -> CovarianceAdaptation:
    return CMAES(**settings).build(space, LOSS, (), 0, None)


def run(algorithm, f: Callable[[Params], float], n: int, start: int = 0) -> list[Params]:
    made = []
    for i in range(start, start + n):
        made.append(ask(algorithm, i)[0].params)
        loss = f(made[-1])
        tell(algorithm, i, made[-1], loss, State.FAILED if loss != loss else State.COMPLETE)
    return made


def ellipsoid(params: Params) -> float:
    return sum(100 ** (i / 5) * (x - 0.37) ** 2 for i, x in enumerate(params.values()))


def mixed(params: Params) -> float:
    """Best at x = y = 0.3, n = 14, op a with w = 0.8, c = v."""
    branch = (params["op.a.w"] - 0.8) ** 2 if params["op"] == "a" else 0.5
    return (
        (params["x"] - 0.3) ** 2
        + (params["y"] - 0.3) ** 2
        + abs(params["n"] - 14) / 20
        + branch
        + (params["c"] != "v") / 2
    )


@pytest.mark.parametrize(("space", "f", "n"), [(BOX, ellipsoid, 150), (MIXED, mixed, 100)])
def test_it_beats_random_search(space: Space, f: Callable[[Params], float], n: int) -> None:
    def best(settings, seed: int) -> float:
        algorithm = settings.build(space, LOSS, (), seed, n)
        return min(map(f, run(algorithm, f, n)))

    ours, theirs = ([best(settings, seed) for seed in range(12)] for settings in (CMAES(), Random()))
    assert mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.01


def test_a_replay_in_the_middle_of_a_generation_proposes_the_same() -> None:
    """Whatever was asked in between, and whatever was pending."""
    live, told = build(MIXED), []
    waiting: list[Params] = []
    for i in range(60):
        waiting += [p.params for p in ask(live, len(told), 2, waiting)]
        ask(live, 1000 + i, 5)
        while len(waiting) > i % 5:
            params = waiting.pop(i % len(waiting))  # out of order
            loss = mixed(params)
            told.append((params, loss, State.FAILED if i % 7 == 3 else State.COMPLETE))
            tell(live, len(told) - 1, *told[-1])
        fresh = build(MIXED)
        for number, facts in enumerate(told):
            tell(fresh, number, *facts)
        assert ask(fresh, len(told), 3, waiting) == ask(live, len(told), 3, waiting)
    assert live.generation > 5


def test_a_generation_ends_with_its_populations_first_tells() -> None:
    algorithm = build(population=6)
    slate = [p.params for p in ask(algorithm, 0, 9)]  # more workers than points of a generation
    assert {p.note for p in ask(algorithm, 0, 9)} == {"generation 0 of 6 points"}
    for number, params in enumerate(slate[3:]):
        assert algorithm.generation == 0
        tell(algorithm, number, params, ellipsoid(params))
    assert algorithm.generation == 1 and ask(algorithm, 6)[0].note == "generation 1 of 6 points"
    before = ask(algorithm, 9)
    for number, params in enumerate(slate[:3], start=6):  # too late for their generation
        tell(algorithm, number, params, ellipsoid(params))
    assert algorithm.generation == 1 and ask(algorithm, 9) == before


def test_more_workers_than_a_slate_has_points_get_something() -> None:
    algorithm = build(population=4)
    made = ask(algorithm, 0, 20)
    assert len({BOX.key(p.params) for p in made}) == 20
    assert made[15].note == "generation 0 of 4 points" and made[16].note.endswith(
        "a mutant of the best trial, or a uniform draw"
    )


def test_only_the_order_of_losses_counts() -> None:
    def squeezed(params: Params) -> float:
        return -1e9 + math.atan(ellipsoid(params))

    assert run(build(), ellipsoid, 80) == run(build(), squeezed, 80)


def test_failures_rank_last_without_a_number_of_their_own() -> None:
    """Where x0 > 0.5 trials fail, though the loss would be smallest there."""

    def f(params: Params) -> float:
        return math.nan if params["x0"] > 0.5 else -params["x0"]

    def large(params: Params) -> float:
        return 1e12 if params["x0"] > 0.5 else -params["x0"]

    made = run(build(), f, 120)
    assert made == run(build(), large, 120)
    late = [params["x0"] for params in made[60:]]
    assert np.mean(np.array(late) > 0.5) < 0.5 and np.median(late) > 0.35


def test_a_generation_of_nothing_but_failures_teaches_no_direction() -> None:
    algorithm = build(population=6)
    mean = algorithm._cma.mean.copy()
    run(algorithm, lambda params: math.nan, 12)
    assert algorithm.generation == 2 and np.array_equal(algorithm._cma.mean, mean)


def test_lost_trials_are_not_held_against_their_params() -> None:
    algorithm = build(population=4)
    made = ask(algorithm, 0, 4)
    for number, proposal in enumerate(made):
        tell(algorithm, number, proposal.params, 0.0, State.FAILED, "lost")
    assert algorithm.generation == 0 and not algorithm._members
    tell(algorithm, 4, made[0].params, 1.0)  # its second try
    assert list(algorithm._members) == [4]


def test_the_search_begins_at_the_best_that_was_told_before() -> None:
    algorithm = build()
    assert algorithm._cma.mean == pytest.approx(np.full(6, 0.5))
    for number, x in enumerate((0.9, 0.2, 0.6)):
        tell(algorithm, number, dict.fromkeys(BOX.names, x), ellipsoid(dict.fromkeys(BOX.names, x)))
    tell(algorithm, 3, {"outside": 1}, -1.0)  # a baseline
    assert algorithm._cma.mean == pytest.approx(np.full(6, 0.2))
    run(algorithm, ellipsoid, 1, start=4)
    tell(algorithm, 5, dict.fromkeys(BOX.names, 0.37), 0.0)  # once it goes its own way, others do not move it
    assert algorithm._cma.mean == pytest.approx(np.full(6, 0.2)) and len(algorithm._members) == 1


def test_a_later_rung_replaces_the_earlier_within_a_generation() -> None:
    def second(last: float) -> list[Params]:
        algorithm = build(population=4)
        made = ask(algorithm, 0, 4)
        for number, proposal in enumerate(made):
            tell(algorithm, number, proposal.params, float(number))
            if number == 2:
                tell(algorithm, number, proposal.params, last)
        return [p.params for p in ask(algorithm, 4, 4)]

    assert second(2.0) == second(2.5) != second(-1.0)


def test_whole_numbers_do_not_freeze() -> None:
    """Most searches end at the optimum, and neighbours of it are still tried at their end."""
    space = Space({**{f"n{i}": Int(0, 9) for i in range(4)}, "x": Float(0, 1)})

    def off(params: Params) -> int:
        return sum(abs(params[f"n{i}"] - 7) for i in range(4))

    found, late = 0, set()
    for seed in range(6):
        algorithm = CMAES().build(space, LOSS, (), seed, None)
        distances = [off(params) for params in run(algorithm, lambda p: off(p) + p["x"], 200)]
        found += min(distances) == 0
        late |= set(distances[-20:])
    assert found >= 4 and len(late) > 2


def test_it_begins_anew_with_twice_the_population_when_converged() -> None:
    algorithm = build(Space(x=Float(0, 1)), population=4)  # one dimension, which the package does not know
    made = run(algorithm, lambda p: (p["x"] - 0.3) ** 2, 400)
    assert min(abs(p["x"] - 0.3) for p in made) < 1e-5
    assert algorithm.restarts >= 1 and algorithm.population == 4 * 2**algorithm.restarts


def test_a_space_without_numbers_is_left_to_evolution() -> None:
    space = Space(c=Categorical(["a", "b", "c"]), op=Choice(a=Space(w=Float(0, 1)), b=Space()))
    algorithm = CMAES().build(space, LOSS, (), 0, None)
    (proposal,) = ask(algorithm, 0)
    assert proposal.note == "evolution, as no number is always active: uniform draw"


def test_several_objectives_are_ranked_by_fronts() -> None:
    goals = (Objective("u"), Objective("v"))
    algorithm = CMAES().build(BOX, goals, (), 0, None)
    for i in range(100):
        params = ask(algorithm, i)[0].params
        a, b = (sum((x - c) ** 2 for x in params.values()) for c in (0.2, 0.4))
        trial = Trial(i, params, State.COMPLETE, metrics={"u": a, "v": b})
        algorithm.tell(trial, outcome(trial, goals, ()))
    assert np.all(np.abs(algorithm._cma.mean - 0.3) < 0.2)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(InvalidInput, match="cmaes") as caught:
        CMAES().build(BOX, LOSS, (), 0, None)
    assert caught.value.hint == "pip install 'fettle[cmaes]'"


@pytest.mark.parametrize("wrong", [{"population": 3}, {"sigma": 0.0}, {"sigma": 2.0}])
def test_impossible_settings_are_refused(wrong) -> None:
    with pytest.raises(InvalidInput, match="cmaes"):
        CMAES(**wrong)
