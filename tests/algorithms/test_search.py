"""What each algorithm promises beyond the conformance suite; strength is tested as statistics over seeds."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from scipy.stats import qmc as reference

from fettle import registry
from fettle.algorithms.auto import Auto
from fettle.algorithms.evolution import Evolution
from fettle.algorithms.grid import Grid
from fettle.algorithms.qmc import QMC
from fettle.algorithms.random import Random
from fettle.algorithms.sobol import DIMENSIONS, Sobol
from fettle.core.errors import Exhausted, InvalidInput
from fettle.core.space import Categorical, Choice, Float, Int, Params, Space
from fettle.core.trial import Constraint, Objective, State, Trial, outcome

LOSS = (Objective("loss"),)
BOX = Space({f"x{i}": Float(0, 1) for i in range(6)})


def search(settings, space: Space, f: Callable[[Params], float], n: int, seed: int) -> list[float]:
    """Losses of n trials in order."""
    algorithm = settings.build(space, LOSS, (), seed, n)
    losses = []
    for i in range(n):
        (proposal,) = algorithm.ask(1, i, [], np.random.default_rng([seed, i]))
        losses.append(f(proposal.params))
        trial = Trial(i, proposal.params, State.COMPLETE, metrics={"loss": losses[-1]})
        algorithm.tell(trial, outcome(trial, LOSS, ()))
    return losses


def told(algorithm, number: int, params: Params, *, state: State = State.COMPLETE, **metrics: float) -> None:
    trial = Trial(number, params, state, metrics=metrics, failure="oom" if state is State.FAILED else "")
    algorithm.tell(trial, outcome(trial, LOSS, ()))


def ask(algorithm, number: int, n: int = 1, pending: tuple[Params, ...] = ()):
    return algorithm.ask(n, number, list(pending), np.random.default_rng([0, number]))


def bowl(params: Params) -> float:
    return sum((float(x) - 0.3) ** 2 for x in params.values())


def test_evolution_beats_random_search_on_a_bowl() -> None:
    ours = [min(search(Evolution(), BOX, bowl, 100, seed)) for seed in range(12)]
    theirs = [min(search(Random(), BOX, bowl, 100, seed)) for seed in range(12)]
    assert mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.01


def test_evolution_beats_random_search_in_a_conditional_discrete_space() -> None:
    op = Choice(conv=Space(k=Categorical([1, 3, 5, 7]), w=Int(1, 16)), pool=Space(), skip=Space())
    space = Space({f"e{i}": op for i in range(4)})

    def f(params: Params) -> float:
        right = sum(params[f"e{i}"] == ("conv" if i % 2 else "skip") for i in range(4))
        wide = sum(abs(params.get(f"e{i}.conv.w", 0) - 9) for i in (1, 3))
        return -4.0 * right + wide / 4

    ours = [min(search(Evolution(), space, f, 150, seed)) for seed in range(12)]
    theirs = [min(search(Random(), space, f, 150, seed)) for seed in range(12)]
    assert mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.01


def test_quasi_random_points_leave_smaller_holes_than_random_ones() -> None:
    """32 points in the square: how far the worst-served of 200 targets is from its nearest point."""
    square = Space(x=Float(0, 1), y=Float(0, 1))
    targets = np.random.default_rng(0).random((200, 2))

    def hole(settings, seed: int) -> float:
        points: list[tuple[float, float]] = []
        search(settings, square, lambda p: points.append((p["x"], p["y"])) or 0.0, 32, seed)  # type: ignore[func-returns-value]
        return float(np.linalg.norm(targets[:, None] - np.array(points), axis=2).min(axis=1).max())

    ours, theirs = ([hole(settings, seed) for seed in range(20)] for settings in (QMC(), Random()))
    assert mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.01


def test_quasi_random_search_beats_random_search_on_a_mean() -> None:
    """The mean of an additive function over 64 trials: what an even spread is for."""
    error = {
        name: [abs(np.mean(search(settings, BOX, bowl, 64, seed)) - 6 * (1 / 12 + 0.04)) for seed in range(15)]
        for name, settings in (("qmc", QMC()), ("random", Random()))
    }
    assert mannwhitneyu(error["qmc"], error["random"], alternative="less").pvalue < 0.01


def test_sobol_points_agree_with_scipy() -> None:
    sobol = Sobol(DIMENSIONS, 0)
    sobol._shift[:] = 0
    index = np.arange(512)
    gray = index ^ (index >> 1)  # SciPy walks in Gray-code order
    ours = sobol.points(0, 512)[gray] - 0.5 / 2**30
    assert np.array_equal(ours, reference.Sobol(DIMENSIONS, scramble=False, bits=30).random(512))
    assert np.array_equal(sobol.points(100, 7), sobol.points(0, 512)[100:107])


def test_sobol_is_shifted_by_the_seed_and_goes_beyond_its_table() -> None:
    a, b = Sobol(40, 1).points(0, 256), Sobol(40, 2).points(0, 256)
    assert a.shape == (256, 40) and not np.any(a == b) and a.min() > 0 and a.max() < 1
    for column in a.T:  # each of eight equal parts holds about an eighth
        assert np.all(np.abs(np.histogram(column, 8, (0, 1))[0] - 32) <= 6)
    assert np.abs(np.corrcoef(a.T) - np.eye(40)).max() < 0.5


def test_grid_goes_in_row_order_and_fills_gaps() -> None:
    space = Space(a=Int(1, 2), x=Float(0, 1))
    grid = Grid(levels=3).build(space, LOSS, (), 0, None)
    order = list(space.grid(3))
    assert [p.params for p in ask(grid, 0, 2)] == order[:2]
    assert ask(grid, 1, 1, (order[0],))[0].params == order[1]
    told(grid, 0, order[1], loss=1.0)  # its neighbour is told first; then the worker of the first one dies
    assert [p.params for p in ask(grid, 1, 9)] == [order[0], *order[2:]]
    for i, params in enumerate(order):
        told(grid, i, params, loss=1.0)
    with pytest.raises(Exhausted):
        ask(grid, 6)
    with pytest.raises(InvalidInput, match="levels"):
        Grid(levels=0)


def test_evolution_takes_its_parents_from_the_good_ones() -> None:
    space = Space(a=Int(0, 100), b=Int(0, 100))
    evolution = Evolution(population=6, tournament=6, initial=2).build(space, LOSS, (), 0, None)
    told(evolution, 0, {"a": 1, "b": 1}, loss=5.0)
    assert ask(evolution, 1)[0].note == "uniform draw"
    told(evolution, 1, {"a": 2, "b": 2}, loss=1.0)
    told(evolution, 2, {"a": 3, "b": 3}, state=State.FAILED, loss=-9.0)
    told(evolution, 3, {"a": 4, "b": 4}, state=State.STOPPED, loss=0.5)  # at least 0.5: may be worse than 1.0
    told(evolution, 4, {"a": 5, "b": 5}, loss=math.nan)
    child = ask(evolution, 5)[0]
    assert child.note == "mutant of trial 1" and sum(child.params[k] != 2 for k in "ab") == 1
    told(evolution, 1, {"a": 2, "b": 2}, loss=9.0)  # a later rung
    assert ask(evolution, 5)[0].note == "mutant of trial 0"
    for number in range(6, 12):  # the old ones die, however good
        told(evolution, number, {"a": number, "b": 0}, loss=50.0 + number)
    assert ask(evolution, 12)[0].note == "mutant of trial 6"


def test_evolution_prefers_feasible_parents_and_the_pareto_front() -> None:
    goals, bounds = (Objective("u"), Objective("v")), (Constraint("p99_s", upper=1.0),)
    evolution = Evolution(population=5, tournament=5, initial=1).build(BOX, goals, bounds, 0, None)
    figures = [(1, 9, 0.5), (9, 1, 0.5), (9, 9, 0.5), (0, 0, 2.0), (5, 9, 0.5)]
    for number, (u, v, p99) in enumerate(figures):
        params = BOX.sample(1, np.random.default_rng(number))[0]
        trial = Trial(number, params, State.COMPLETE, metrics={"u": u, "v": v, "p99_s": p99})
        evolution.tell(trial, outcome(trial, goals, bounds))
    assert {ask(evolution, number)[0].note for number in range(5, 45)} == {"mutant of trial 0", "mutant of trial 1"}


def test_evolution_leaves_discrete_values_that_failed_twice() -> None:
    space = Space(x=Float(0, 1), mode=Categorical(["good", "bad"]))
    evolution = Evolution(population=4, tournament=2, initial=1).build(space, LOSS, (), 0, None)
    told(evolution, 0, {"x": 0.5, "mode": "good"}, loss=1.0)
    tried = [ask(evolution, number)[0].params["mode"] for number in range(1, 80)]
    for number in (1, 2):
        told(evolution, number, {"x": 0.1 * number, "mode": "bad"}, state=State.FAILED)
    after = [ask(evolution, number)[0].params["mode"] for number in range(3, 83)]
    assert after.count("bad") < 10 < tried.count("bad")


@pytest.mark.parametrize("wrong", [{"population": 0}, {"tournament": 99}, {"initial": 0}])
def test_impossible_evolution_settings_are_refused(wrong) -> None:
    with pytest.raises(InvalidInput, match="evolution"):
        Evolution(**wrong)


@pytest.mark.parametrize("name", registry.names("algorithms"))
def test_settings_survive_the_journal(name: str) -> None:
    made = registry.settings("algorithms", name)
    assert registry.settings("algorithms", registry.describe("algorithms", made)) == made


def test_a_large_finite_space_is_searched_to_its_end() -> None:
    space = Space(a=Int(1, 14), b=Int(1, 14), where="a <= b")
    for settings in (Random(), QMC(), Evolution(), Auto()):
        losses = search(settings, space, lambda p: float(p["a"] * p["b"]), 105, 0)
        assert len(losses) == 105 and sorted(losses) == sorted(a * b for b in range(1, 15) for a in range(1, b + 1))
