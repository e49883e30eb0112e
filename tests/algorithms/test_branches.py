"""Branches and words as arms: every leaf gets a trial, late ones are found, refused and empty ones do no harm."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fettle.algorithms.branches import Arm, Scout, chosen
from fettle.algorithms.cube import Cube
from fettle.algorithms.gp_bo import GPBO
from fettle.core.space import Categorical, Choice, Float, Params, Space
from fettle.core.trial import Objective, State, Trial, outcome

LOSS = (Objective("loss"),)
TREE = Space(
    lr=Float(0, 1),
    kind=Choice(
        net=Space(opt=Choice(sgd=Space(m=Float(0, 1)), adam=Space(a=Float(0, 1), b=Float(0, 1)))),
        tree=Space(depth=Float(0, 1)),
        none=Space(),
    ),
)


def run(
    space: Space, f: Callable[[Params], float], n: int, *, seed: int = 0, goals=LOSS, fails=lambda params: False
) -> list[tuple[Params, str]]:
    """(params, note) of n trials."""
    algorithm = GPBO().build(space, goals, (), seed, n)
    found = []
    for i in range(n):
        (proposal,) = algorithm.ask(1, i, [], np.random.default_rng([seed, i]))
        found.append((proposal.params, proposal.note))
        state = State.FAILED if fails(proposal.params) else State.COMPLETE
        value = f(proposal.params)
        metrics = {goal.metric: value * (-1) ** k for k, goal in enumerate(goals)}
        failure = "crash" if state is State.FAILED else ""
        trial = Trial(i, proposal.params, state, metrics=metrics, failure=failure)
        algorithm.tell(trial, outcome(trial, goals, ()))
    return found


def late(params: Params) -> float:
    """The branch a is decent at once and goes no lower than 0.2; b starts at 1 or so and ends at 0."""
    if params["kind"] == "a":
        return 0.2 + 0.1 * (params["kind.a.x"] - 0.5) ** 2
    return sum(3.0 * (params[f"kind.b.{name}"] - at) ** 2 for name, at in (("u", 0.8), ("v", 0.15), ("w", 0.9)))


LATE = Space(kind=Choice(a=Space(x=Float(0, 1)), b=Space(u=Float(0, 1), v=Float(0, 1), w=Float(0, 1))))


@pytest.mark.parametrize("seed", range(3))
def test_every_leaf_of_a_small_tree_is_tried_first(seed: int) -> None:
    tried = [params for params, _ in run(TREE, lambda p: p["lr"], 4, seed=seed)]
    leaves = {(p["kind"], p.get("kind.net.opt")) for p in tried}
    assert leaves == {("net", "sgd"), ("net", "adam"), ("tree", None), ("none", None)}
    numbers = [v for p in tried for v in p.values() if isinstance(v, float)]
    assert numbers == pytest.approx([0.5] * len(numbers))  # the middle of each


@pytest.mark.medium
def test_a_branch_that_pays_late_is_found() -> None:
    best = [min(late(params) for params, _ in run(LATE, late, 40, seed=seed)) for seed in range(4)]
    assert max(best) < 0.1


def test_a_branch_that_is_good_at_once_is_not_left_for_one_that_never_pays() -> None:
    def early(params: Params) -> float:
        return late(params) + 2.0 * (params["kind"] == "b")

    found = run(LATE, early, 20)
    assert sum(params["kind"] == "a" for params, _ in found) >= 6
    assert min(early(params) for params, _ in found) < 0.2001


def test_words_get_their_turn() -> None:
    space = Space(x=Float(0, 1), word=Categorical(["p", "q", "r", "s"]))
    centre = {"p": (0.5, 0.1), "q": (0.05, 0.0), "r": (0.5, 0.3), "s": (0.9, 0.25)}

    def f(params: Params) -> float:
        at, floor = centre[params["word"]]
        return floor + 2.0 * (params["x"] - at) ** 2

    found = run(space, f, 30)
    assert set(Counter(p["word"] for p, _ in found)) == set(centre)
    assert min(f(p) for p, _ in found) < 0.01


def test_a_leaf_that_known_constraints_refuse_is_left_alone() -> None:
    """It would for ever be untried, and nothing would be modelled."""
    refusing = Space(
        kind=Choice(a=Space(x=Float(0, 1)), b=Space(y=Float(0, 1)), c=Space(z=Float(0, 1))), where="kind != 'b'"
    )
    found = run(refusing, lambda p: p.get("kind.a.x", 0.9), 16)
    assert {p["kind"] for p, _ in found} == {"a", "c"} and "log_ei" in found[-1][1]
    alone = Space(kind=Choice(a=Space(x=Float(0, 1)), b=Space(y=Float(0, 1))), where="kind == 'a'")
    assert min(p["kind.a.x"] for p, _ in run(alone, lambda p: p["kind.a.x"], 12)) < 0.02


def test_a_leaf_whose_middle_is_refused_is_tried_elsewhere() -> None:
    space = Space(kind=Choice(a=Space(x=Float(0, 1)), b=Space(y=Float(0, 1), z=Float(0, 1), where=["y + z <= 0.3"])))
    scout = Scout(Cube(space), 0, None, several=False)
    first = run(space, lambda p: 1.0, 2)
    assert {p["kind"] for p, _ in first} == {"a", "b"} and len(scout.leaves) == 2


@pytest.mark.parametrize("several", [False, True])
def test_a_branch_without_parameters_is_tried_once(several: bool) -> None:
    goals = (Objective("u"), Objective("v")) if several else LOSS
    space = Space(kind=Choice(a=Space(x=Float(0, 1), y=Float(0, 1)), none=Space()))
    found = run(space, lambda p: p.get("kind.a.x", 0.4), 24, goals=goals)
    assert sum(p["kind"] == "none" for p, _ in found) == 1
    assert not any("uniform" in note for _, note in found)


def test_a_branch_without_parameters_may_fail() -> None:
    space = Space(kind=Choice(a=Space(x=Float(0, 1)), none=Space()))
    found = run(space, lambda p: p["kind.a.x"] if p["kind"] == "a" else 0.0, 16, fails=lambda p: p["kind"] == "none")
    assert min(p.get("kind.a.x", 1.0) for p, _ in found) < 0.02


def test_a_branch_that_always_fails_is_given_up() -> None:
    space = Space(kind=Choice(a=Space(x=Float(0, 1)), bad=Space(y=Float(0, 1), z=Float(0, 1))))
    failing = [
        sum(p["kind"] == "bad" for p, _ in run(space, lambda p: p.get("kind.a.x", 0.0), 30, seed=seed,
                                               fails=lambda p: p["kind"] == "bad"))
        for seed in range(2)
    ]  # fmt: skip
    assert max(failing) <= 16


@pytest.mark.medium
def test_many_leaves_are_searched_by_their_words() -> None:
    """Sixteen leaves: one process for all; still better than random search."""
    op = Choice({name: Space(x=Float(0, 1)) for name in "abcd"})
    space = Space(one=op, two=op)
    assert Scout(Cube(space), 0, None, several=False).leaves == []

    def f(params: Params) -> float:
        cost = {"a": 0.5, "b": 0.0, "c": 0.8, "d": 0.3}
        return sum(cost[params[k]] + (params[f"{k}.{params[k]}.x"] - 0.7) ** 2 for k in ("one", "two"))

    ours = [min(f(p) for p, _ in run(space, f, 30, seed=seed)) for seed in range(6)]
    theirs = [min(f(p) for p in space.sample(30, np.random.default_rng(seed))) for seed in range(30)]
    assert mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.01


# -- which arm goes on --------------------------------------------------------------------------------------------


def test_the_live_arm_with_the_fewest_tries_goes_on() -> None:
    arms = [Arm(0, 9, -1.0, False, best=True), Arm(1, 4, 2.0, False), Arm(2, 1, 5.0, False), Arm(3, 2, 0.0, True)]
    assert chosen(arms, 1).place == 1


def test_where_all_are_spent_those_given_up_get_their_turn_and_so_does_the_best() -> None:
    arms = [Arm(0, 9, -1.0, True, best=True), Arm(1, 4, 4.0, False), Arm(2, 2, 5.0, False), Arm(3, 0, np.inf, True)]
    places = [chosen(arms, turn).place for turn in range(6)]
    assert set(places) == {0, 2}  # the nearer one has had more tries
    assert chosen([arms[0], arms[3]], 1).place == 0
