"""Gaussian-process search where it could break: used-up spaces, failures, bounds, extreme losses, priors."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from gp_runs import BOX, TREE, WORDS, ask, bowl, build, run, tell

from fettle.algorithms.gp_bo import GPBO
from fettle.core.errors import Exhausted, InvalidInput
from fettle.core.space import Categorical, Float, Int, Params, Space
from fettle.core.trial import Constraint, Objective, State

# -- ends and odd data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acquisition", ["log_ei", "ucb", "thompson"])
def test_words_alone_are_used_up_without_repeats(acquisition: str) -> None:
    algorithm = build(WORDS, acquisition=acquisition)
    found = run(algorithm, 24, lambda p: float("pqrs".index(p["a"])) + (p["b"] == "u"))
    assert len({WORDS.key(p) for p in found}) == 24 == WORDS.size
    with pytest.raises(Exhausted):
        ask(algorithm, 24)
    small = build(WORDS)
    run(small, 22)
    assert len(ask(small, 22, 5)) == 2  # as many as there are left


def test_known_constraints_are_kept() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1), n=Int(1, 4), where=["x + y <= 1.05", "x + y >= 0.95", "n * x <= 2"])
    algorithm = build(space)
    assert all(space.contains(params) for params in run(algorithm, 15, lambda p: p["x"]))


def test_listed_params_are_the_only_ones_proposed() -> None:
    listed = [{"x": i / 40, "c": c} for i in range(40) for c in "uv"]
    space = Space(x=Float(0, 1), c=Categorical(["u", "v"]), only=listed)
    found = run(build(space), 18, lambda p: (p["x"] - 0.4) ** 2 + (p["c"] == "u"))
    assert all(space.contains(p) for p in found) and len({space.key(p) for p in found}) == 18
    assert {"x": 0.4, "c": "v"} in found


def test_params_from_elsewhere_are_learned_from_and_those_outside_tolerated() -> None:
    algorithm, good = build(BOX), dict.fromkeys(BOX.names, 0.31)
    tell(algorithm, 0, {"threads": 4}, loss=-5.0)  # a baseline outside the space
    tell(algorithm, 1, dict.fromkeys(BOX.names, 7.0), loss=-9.0)
    tell(algorithm, 2, good, loss=bowl(good))
    tell(algorithm, 3, good, loss=bowl(good))  # a repeat
    found = [ask(algorithm, 4, 1, [{"threads": 4}])[0].params]
    for number in range(4, 16):
        (proposal,) = ask(algorithm, number)
        found += [] if proposal.repeat else [proposal.params]
        tell(algorithm, number, proposal.params, loss=bowl(proposal.params))
    assert all(BOX.contains(p) for p in found) and good not in found
    near = [max(abs(p[name] - 0.3) for name in BOX.names) < 0.25 for p in found]
    assert sum(near) >= 5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_losses_that_are_no_numbers_are_failures(value: float) -> None:
    algorithm = build(BOX)
    found = run(algorithm, 16, lambda p: value if p["x0"] > 0.5 else bowl(p))
    assert all(BOX.contains(p) for p in found)
    assert sum(p["x0"] > 0.6 for p in found[8:]) <= 3


@pytest.mark.parametrize("loss", [lambda p: 1e300 * p["x0"], lambda p: 1e-300 * p["x0"], lambda p: 7.0,
                                  lambda p: 1.7e308 if p["x0"] > 0.5 else p["x0"]],
                         ids=["huge", "tiny", "constant", "penalty"])  # fmt: skip
def test_extreme_losses_are_survived(loss: Callable[[Params], float]) -> None:
    assert all(BOX.contains(p) for p in run(build(BOX), 12, loss))


@pytest.mark.parametrize("acquisition", ["log_ei", "thompson"])
@pytest.mark.parametrize("space", [BOX, TREE, WORDS], ids=["box", "tree", "words"])
def test_starts_that_all_fail_are_left(space: Space, acquisition: str) -> None:
    algorithm = build(space, acquisition=acquisition)
    found = []
    for number in range(9):
        found.append(ask(algorithm, number)[0].params)
        tell(algorithm, number, found[-1], State.FAILED, failure="oom" if number % 2 else "crash")
    assert len({space.key(p) for p in found}) == 9
    for number in range(9, 18):
        params = ask(algorithm, number)[0].params
        assert space.contains(params)
        tell(algorithm, number, params, loss=bowl(params))


def test_failures_in_a_corner_are_run_into_less() -> None:
    """The loss falls towards them, and is lowest shortly before."""

    def failures(seed: int, *, told: bool) -> int:
        algorithm, count = build(Space({f"x{i}": Float(0, 1) for i in range(3)}), seed=seed), 0
        for number in range(25):
            params = ask(algorithm, number, seed=seed)[0].params
            bad = params["x0"] + params["x1"] > 1.3
            count += bad
            loss = (params["x0"] - 0.6) ** 2 + (params["x1"] - 0.55) ** 2 + (params["x2"] - 0.2) ** 2
            if bad and told:
                tell(algorithm, number, params, State.FAILED)
            elif not bad:
                tell(algorithm, number, params, loss=loss)
        return count

    knowing, deaf = (sum(failures(seed, told=told) for seed in range(1, 4)) for told in (True, False))
    assert 2 * knowing < deaf


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("acquisition", ["log_ei", "thompson"])
@pytest.mark.parametrize("goals", [1, 2])
def test_bounds_alone_are_no_losses(side: int, acquisition: str, goals: int) -> None:
    """Servers that could not be loaded to their limit give nothing but upper bounds."""
    objectives = tuple(Objective(f"u{k}") for k in range(goals))
    algorithm = build(BOX, goals=objectives, acquisition=acquisition)
    for number in range(9):
        params = ask(algorithm, number)[0].params
        figures = {f"u{k}": bowl(params) for k in range(goals)}
        ends = {m: (v, math.inf, 3) if side > 0 else (-math.inf, v, 3) for m, v in figures.items()}
        tell(algorithm, number, params, goals=objectives, intervals=ends, **figures)
    assert BOX.contains(ask(algorithm, 9)[0].params)


def test_nothing_feasible_yet_seeks_what_is_allowed() -> None:
    bounds = (Constraint("size", upper=0.15),)
    algorithm = build(BOX, constraints=bounds)
    sizes = []
    for number in range(16):
        params = ask(algorithm, number)[0].params
        sizes.append(params["x0"] + 0.5 * params["x1"])
        tell(algorithm, number, params, constraints=bounds, loss=-params["x2"], size=sizes[-1])
    assert min(sizes) <= 0.15


def test_several_objectives_in_a_tree_of_choices() -> None:
    goals = (Objective("u"), Objective("v", "maximize"))
    algorithm = build(TREE, goals=goals)
    for number in range(16):
        params = ask(algorithm, number)[0].params
        assert TREE.contains(params)
        tell(algorithm, number, params, goals=goals, u=bowl(params), v=float(params["n"]))


@pytest.mark.parametrize("goals", [1, 2])
def test_more_trials_than_a_process_takes(goals: int) -> None:
    objectives = tuple(Objective(f"u{k}") for k in range(goals))
    algorithm = build(BOX, goals=objectives)
    for number, params in enumerate(BOX.sample(540, np.random.default_rng(0))):
        figures = {f"u{k}": bowl({n: v + 0.2 * k for n, v in params.items()}) for k in range(goals)}
        tell(algorithm, number, params, goals=objectives, **figures)
    (proposal,) = ask(algorithm, 540)
    assert BOX.contains(proposal.params) and proposal.predicted is not None
    if goals == 1:
        assert max(abs(v - 0.3) for v in proposal.params.values()) < 0.15


# -- what users bring -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [{}, {"c": Categorical(["p", "q", "r"])}], ids=["numbers", "with words"])
def test_a_prior_pulls_early_proposals_and_wears_off(space) -> None:
    """The user is wrong: the loss is lowest elsewhere."""

    def gaps(prior, n: int) -> list[float]:
        domains = {"x": Float(0, 1), "y": Float(0, 1), **space}
        algorithm = build(Space(domains, prior=prior), budget=n)
        return [abs(p["x"] - 0.9) for p in run(algorithm, n, lambda p: (p["x"] - 0.2) ** 2 + (p["y"] - 0.5) ** 2)]

    believing, plain = gaps({"x": {"at": 0.9, "spread": 0.08}}, 40), gaps(None, 9)
    assert np.mean(believing[5:9]) < 0.5 * np.mean(plain[5:9])
    assert min(believing) < 0.1 and max(believing) > 0.6
    assert min(abs(gap - 0.7) for gap in believing[9:]) < 0.02  # the true optimum


def test_a_proposal_says_what_it_expects() -> None:
    algorithm = build(BOX, goals=(Objective("rate", "maximize"),))
    for number in range(12):
        (proposal,) = ask(algorithm, number)
        tell(algorithm, number, proposal.params, goals=(Objective("rate", "maximize"),), rate=-bowl(proposal.params))
    (proposal,) = ask(algorithm, 12)
    assert proposal.predicted is not None
    value, low, high = proposal.predicted["rate"]
    assert low <= value <= high and -2.0 < value < 0.5


@pytest.mark.parametrize("wrong", [{"acquisition": "kg"}, {"weight": -1.0}, {"weight": math.nan}, {"initial": 1}])
def test_impossible_settings_are_refused(wrong) -> None:
    with pytest.raises(InvalidInput, match="gp_bo"):
        GPBO(**wrong)
