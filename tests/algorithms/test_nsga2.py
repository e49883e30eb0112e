"""NSGA-II: ranks, crowding and crossover by hand, its strength as statistics over seeds."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fettle.algorithms.nsga2 import NSGA2, NonDominatedSorting
from fettle.algorithms.random import Random
from fettle.algorithms.ranking import Ranking, by_front, crowding, ordered
from fettle.core.errors import InvalidInput
from fettle.core.pareto import front, hypervolume
from fettle.core.space import Categorical, Choice, Float, Int, Ordinal, Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, State, Trial, outcome

GOALS = (Objective("u"), Objective("v"))
BOX = Space({f"x{i}": Float(0, 1) for i in range(5)})
OP = Choice(conv=Space(k=Categorical([1, 3, 5]), w=Float(0, 1)), skip=Space())
TREE = Space(a=OP, b=Choice(in_=Space(c=OP), out=Space(n=Int(1, 9))), o=Ordinal([1, 2, 4, 8]))


def tell(
    algorithm, number: int, params: Params, *figures: float, state: State = State.COMPLETE, p99: float = 0
) -> None:
    metrics = {**dict(zip("uv", figures, strict=False)), "p99_s": p99}
    trial = Trial(number, params, state, metrics=metrics, failure="oom" if state is State.FAILED else "")
    algorithm.tell(trial, outcome(trial, GOALS[: len(figures)], (Constraint("p99_s", upper=1.0),)))


def run(settings, space: Space, f, n: int, seed: int) -> np.ndarray:
    """Losses (n, k) of n trials."""
    k = len(f(space.sample(1, np.random.default_rng(0))[0]))
    algorithm = settings.build(space, GOALS[:k], (), seed, n)
    figures = []
    for i in range(n):
        (proposal,) = algorithm.ask(1, i, [], np.random.default_rng([seed, i]))
        figures.append(f(proposal.params))
        tell(algorithm, i, proposal.params, *figures[-1])
    return np.array(figures)


def zdt1(params: Params) -> tuple[float, float]:
    """Zitzler, Deb & Thiele 2000: the front is v = 1 - sqrt(u)."""
    u, *rest = params.values()
    g = 1 + 9 * sum(rest) / len(rest)
    return u, g * (1 - math.sqrt(u / g))


def in_the_tree(params: Params) -> tuple[float, float]:
    """Cheap or right."""
    cost = sum(params.get(f"{name}.conv.w", 0.0) for name in ("a", "b.in_.c")) + params["o"] / 8
    wrong = (params["a"] != "conv") + abs(params.get("a.conv.w", 0.0) - 0.6) + (params["b"] != "in_")
    return cost, wrong + (params.get("b.in_.c.conv.k") != 3)


@pytest.mark.parametrize(("space", "f", "worst"), [(BOX, zdt1, (1.1, 8.0)), (TREE, in_the_tree, (3.5, 4.5))])
def test_it_finds_better_fronts_than_random_search(space, f, worst) -> None:
    ours, theirs = (
        [hypervolume(run(settings, space, f, 120, seed), worst) for seed in range(12)]
        for settings in (NSGA2(), Random())
    )
    assert mannwhitneyu(ours, theirs, alternative="greater").pvalue < 0.01


def test_it_beats_random_search_with_one_objective() -> None:
    def bowl(params: Params) -> tuple[float]:
        return (sum((x - 0.3) ** 2 for x in params.values()),)

    ours, theirs = ([run(s, BOX, bowl, 100, seed).min() for seed in range(12)] for s in (NSGA2(), Random()))
    assert mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.01


def test_crowding_by_hand() -> None:
    front_ = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0]])
    assert crowding(front_) == pytest.approx([math.inf, 0.4 + 0.5, 0.9 + 0.6, math.inf])
    assert crowding(front_[[2, 0, 3, 1]]) == pytest.approx([1.5, math.inf, math.inf, 0.9])
    assert crowding(np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])).tolist() == [math.inf, 0.0, math.inf]
    assert crowding(np.array([[1.0, 2.0]])).tolist() == [math.inf]


def test_fronts_by_hand() -> None:
    losses = np.array([[2, 2], [1, 3], [3, 1], [2, 3], [3, 2], [4, 4], [2, 2]], dtype=float)
    assert by_front(losses, 4).tolist()[:2] == [1, 2] and set(by_front(losses, 4).tolist()) == {0, 1, 2, 6}
    assert set(by_front(losses, 6).tolist()[4:]) == {3, 4} and by_front(losses, 99).tolist()[6:] == [5]
    assert by_front(losses, 0).tolist() == [] and by_front(np.empty((0, 2)), 3).tolist() == []


@pytest.mark.parametrize("k", [2, 3])
def test_fronts_are_those_of_core(k: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        losses = rng.integers(0, 6, (int(rng.integers(1, 30)), k)).astype(float)
        left = np.arange(len(losses))
        order = by_front(losses, len(losses)).tolist()
        while len(left):
            members = left[front(losses[left])].tolist()
            assert sorted(order[: len(members)]) == members
            order, left = order[len(members) :], np.setdiff1d(left, members)


def test_ranking_of_one_objective_is_feasible_first_then_by_violation() -> None:
    ranking = Ranking(1)
    given = [((3.0,), (0.0,)), ((1.0,), (0.5,)), ((2.0,), (0.0,)), ((9.0,), (0.1,)), ((math.nan,), (0.0,))]
    for number, (losses, violations) in enumerate(given):
        ranking.put(number, Outcome(losses, violations))
    ranking.put(5, Outcome((0.0,), (0.0,), ok=False, failure="oom"))
    ranking.put(6, Outcome((0.0,), (0.0,), censored=(1,)))
    ranking.put(7, Outcome((2.5,), (0.0,), censored=(-1,)))  # at most 2.5
    assert ranking.best(9) == [2, 7, 0, 3, 1] and len(ranking) == 5
    ranking.put(2, Outcome((4.0,), (0.0,)))
    ranking.put(7, Outcome((2.5,), ok=False))
    assert ranking.best(3) == [0, 2, 3]


def test_all_places_are_ordered_failures_last() -> None:
    bad, stopped = Outcome((0.0,), ok=False), Outcome((0.0,), censored=(1,))
    assert ordered([bad, stopped, Outcome((5.0,)), bad, Outcome((4.0,))], 1) == [4, 2, 1, 0, 3]


def primed(space: Space, settings: NSGA2, figures: list[tuple[float, ...]]) -> NonDominatedSorting:
    algorithm = settings.build(space, GOALS[: len(figures[0])], (), 0, None)
    for number, params in enumerate(space.sample(len(figures), np.random.default_rng(3))):
        tell(algorithm, number, params, *figures[number])
    return algorithm


def test_the_population_is_the_best_of_all_told_trials() -> None:
    algorithm = primed(BOX, NSGA2(population=3, initial=1), [(1, 9), (9, 1), (9, 9), (5, 6), (8, 8), (4, 7)])
    assert algorithm.population == [0, 1, 3]  # both ends, then the one with more room
    params = BOX.sample(4, np.random.default_rng(9))
    tell(algorithm, 6, params[0], 0.0, 0.0, p99=2.0)  # infeasible
    tell(algorithm, 7, params[1], 0.0, 0.0, state=State.FAILED)
    tell(algorithm, 8, params[2], 0.0, 0.0, state=State.STOPPED)
    assert algorithm.population == [0, 1, 3]
    tell(algorithm, 9, params[3], 0.5, 0.5)
    assert algorithm.population[0] == 9 and set(algorithm.population) == {9, 0, 1}
    tell(algorithm, 9, params[3], 0.5, 0.5, state=State.FAILED)  # a later rung
    assert algorithm.population == [0, 1, 3]


def test_parents_come_from_the_population() -> None:
    algorithm = primed(BOX, NSGA2(population=2, initial=1), [(float(i),) for i in (5, 1, 9, 2)])
    notes = {algorithm.ask(1, n, [], np.random.default_rng(n))[0].note for n in range(4, 40)}
    assert notes <= {"mutant of trial 1", "mutant of trial 3", "child of trials 1 and 3", "child of trials 3 and 1"}
    assert len(notes) == 4


def test_a_choice_is_crossed_with_its_whole_branch() -> None:
    algorithm = NSGA2().build(TREE, GOALS, (), 0, None)
    a = {"a": "conv", "a.conv.k": 1, "a.conv.w": 0.2, "b": "in_", "b.in_.c": "conv", "b.in_.c.conv.k": 3}
    a |= {"b.in_.c.conv.w": 0.5, "o": 1}
    b = {"a": "conv", "a.conv.k": 5, "a.conv.w": 0.4, "b": "out", "b.out.n": 7, "o": 8}
    children = [algorithm._crossed(a, b, np.random.default_rng(i)) for i in range(200)]
    for child in children:
        assert TREE.validate(child) == child
        inner = {name: value for name, value in child.items() if name.startswith("b.")}
        assert inner == {name: value for name, value in (a if child["b"] == "in_" else b).items() if name[:2] == "b."}
        assert child["a.conv.k"] in (1, 5)
    assert {child["b"] for child in children} == {"in_", "out"} and {c["o"] for c in children} >= {1, 8}
    widths = [child["a.conv.w"] for child in children]  # the same branch in both: crossed inside
    assert len(set(widths)) > 50 and np.mean(widths) == pytest.approx(0.3, abs=0.02)


def test_simulated_binary_crossover_spreads_as_its_index_says() -> None:
    """P(beta <= 1) = 1 / 2, and P(beta <= b) = b^(eta + 1) / 2 within the parents (Deb & Agrawal 1995)."""
    algorithm = NSGA2(eta=4.0).build(BOX, GOALS, (), 0, None)
    rng = np.random.default_rng(0)
    beta = np.array([abs(algorithm._blend(0.4, 0.6, rng) - 0.5) / 0.1 for _ in range(4000)])
    assert np.mean(beta <= 1) == pytest.approx(0.5, abs=0.03) and beta.max() > 1.5
    assert np.mean(beta <= 0.8) == pytest.approx(0.8**5 / 2, abs=0.03)
    ends = [algorithm._blend(0.0, 0.05, rng) for _ in range(400)]
    assert min(ends) >= 0.0


def test_children_obey_constraints_and_lists() -> None:
    tied = Space(a=Int(1, 60), b=Int(1, 60), where="a + b <= 40")
    listed = Space(
        x=Float(0, 1), c=Categorical(["u", "v"]), only=[{"x": i / 50, "c": c} for i in range(50) for c in "uv"]
    )
    for space in (tied, listed):
        algorithm = primed(space, NSGA2(population=6, initial=2), [(float(i % 4), float(i % 3)) for i in range(12)])
        for i in range(12, 40):
            (proposal,) = algorithm.ask(1, i, [], np.random.default_rng(i))
            assert space.contains(proposal.params) and proposal.note
            tell(algorithm, i, proposal.params, 1.0, 1.0)


@pytest.mark.parametrize("wrong", [{"population": 1}, {"initial": 0}, {"crossover": 2.0}, {"eta": 0.0}])
def test_impossible_settings_are_refused(wrong) -> None:
    with pytest.raises(InvalidInput, match="nsga2"):
        NSGA2(**wrong)
