"""Gaussian-process search: its strength as statistics over seeds, replays, and its manners in batches."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from gp_runs import BOX, LOSS, PLANE, TREE, WORDS, ask, bowl, build, run, tell
from scipy.stats import mannwhitneyu, wilcoxon

from fettle.algorithms.gp_bo import GPBO
from fettle.core.protocols import Proposal
from fettle.core.space import Choice, Float, Int, Params, Space
from fettle.core.trial import Event, Objective, State, Trial, TrialLog, outcome
from fettle.problems.synthetic import make
from fettle.surrogates.warping import Warp
from fettle.testing.search import search

# -- its strength -------------------------------------------------------------------------------------------------


@cache
def scores(name: str, n: int, seeds: int, algorithm: str = "random", **settings: str) -> list[float]:
    """True regrets of the answers (several objectives: minus the share of the hypervolume)."""
    found = []
    for seed in range(seeds):
        problem = make(name, seed)
        result = search({"name": algorithm, **settings}, problem, evaluations=n, checkpoints=(n,))
        found.append(-result.answers[n] if problem.reference else result.answers[n])
    return found


def beats_random(name: str, n: int, seeds: int = 5, **settings: str) -> bool:
    ours, theirs = scores(name, n, seeds, "gp_bo", **settings), scores(name, n, 20)
    return bool(mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.01)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "n", "seeds"),
    [
        ("hartmann6", 30, 4),
        ("mixed_network", 25, 4),
        ("two_level", 35, 4),
        ("serving8", 25, 5),
        ("memory", 25, 4),
        ("waves2", 20, 4),
        ("zdt1", 20, 4),
        ("noisy_hartmann6", 35, 8),
    ],
)
def test_it_beats_random_search(name: str, n: int, seeds: int) -> None:
    """On a smooth, a mixed, a conditional, a finite, a failing, a constrained, a two-objective and a noisy problem."""
    assert beats_random(name, n, seeds)


@pytest.mark.medium
def test_warped_inputs_find_optima_of_functions_that_are_steep_at_one_end_earlier() -> None:
    """Branin's x and y are nearly the logarithms of what is searched, over 1.7 decades, one the other way round."""

    def regret(seed: int, *, warp: bool) -> float:
        problem, algorithm, found = make("branin", seed), build(PLANE, seed=seed, warp=warp), []
        for number in range(20):
            (proposal,) = ask(algorithm, number, seed=seed)
            u = Warp(np.array([4.0, -4.0]))(np.array(list(proposal.params.values()))[None])
            found.append(problem.regret(problem.space.decode(u)[0]))
            tell(algorithm, number, proposal.params, loss=found[-1])
        return min(found)

    plain, warped = ([regret(seed, warp=warp) for seed in range(24)] for warp in (False, True))
    assert wilcoxon(warped, plain, alternative="less").pvalue < 0.01


@pytest.mark.medium
@pytest.mark.parametrize("acquisition", ["ei", "pi", "ucb", "thompson"])
def test_every_acquisition_beats_random_search(acquisition: str) -> None:
    """The probability of improvement is the greediest: it stays in a local optimum now and then."""
    assert beats_random("branin", 25, 8 if acquisition == "pi" else 4, acquisition=acquisition)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["levy5", "mixed_vision", "late_of_four", "cell4_small", "nan_corner", "branin_disc",
                                  "size_conditional_3", "noisy_six_hump_camel_log"])  # fmt: skip
def test_it_beats_random_search_on_problems_that_nothing_is_tuned_on(name: str) -> None:
    assert beats_random(name, 60, 8)


@pytest.mark.medium
def test_the_answer_under_noise_is_not_the_luckiest_trial() -> None:
    """By their true losses: what it recommends, beside the lowest figure of the same trials."""
    space = Space(x=Float(0, 1), y=Float(0, 1))
    named, lucky = [], []
    for seed in range(20):
        algorithm, noise = build(space, seed=seed, budget=30, again=0), np.random.default_rng([9, seed])
        log = TrialLog(LOSS)
        for number in range(30):
            params = ask(algorithm, number, seed=seed)[0].params
            log.append(Event("started", number, {"params": params}, 0.0))
            told = {"state": "complete", "metrics": {"loss": bowl(params) + 0.1 * float(noise.standard_normal())}}
            trial = log.append(Event("told", number, told, 0.0))
            assert trial is not None
            algorithm.tell(trial, log.outcome(trial))
        best = algorithm.recommend(log)
        assert best is not None and log.incumbent is not None
        named.append(bowl(log.trials[best].params))
        lucky.append(bowl(log.incumbent.params))
    assert wilcoxon(named, lucky, alternative="less").pvalue < 0.01 and np.median(named) < 0.02


def test_without_noise_it_recommends_nothing_of_its_own() -> None:
    algorithm = build(Space(x=Float(0, 1), y=Float(0, 1)))
    run(algorithm, 15)
    assert algorithm.recommend(TrialLog(LOSS)) is None


@pytest.mark.medium
def test_improvement_per_cost_spends_less() -> None:
    """The far end is a hundred times dearer and no better: what is spent until the loss is low."""
    space = Space(x=Float(0, 1), y=Float(0, 1))

    def spent(seed: int, cost: str) -> float:
        algorithm, total = build(space, seed=seed, budget=40, cost=cost), 0.0
        for number in range(40):
            (proposal,) = ask(algorithm, number, seed=seed)
            x, y = proposal.params["x"], proposal.params["y"]
            price, loss = 100.0**x, (np.sin(6 * x) / 3) ** 2 + (y - 0.7) ** 2
            total += price
            tell(algorithm, number, proposal.params, loss=float(loss), price=price)
            if loss < 1e-4:
                break
        return total

    knowing, blind = ([spent(seed, cost) for seed in range(10)] for cost in ("price", ""))
    assert mannwhitneyu(knowing, blind, alternative="less").pvalue < 0.01


@pytest.mark.medium
def test_what_is_hot_is_varied_while_the_server_is_warm() -> None:
    """A start takes ten times as long as a trial: seconds until the loss is low."""
    space = Space(threads=Int(1, 8), batch=Int(1, 16), delay=Float(0, 1))

    def spent(seed: int, hot: tuple[str, ...]) -> float:
        algorithm, total, last = build(space, seed=seed, budget=60, cost="wall_s", hot=hot), 0.0, None
        for number in range(60):
            (proposal,) = ask(algorithm, number, seed=seed)
            threads, batch, delay = proposal.params.values()
            start_s, last = 0.0 if threads == last else 10.0, threads
            loss = ((threads - 5) / 8) ** 2 + ((batch - 11) / 16) ** 2 + (delay - 0.3) ** 2
            timings = {"wall_s": 1.0 + start_s, "start_s": start_s}
            tell(algorithm, number, proposal.params, loss=float(loss), timings=timings)
            total += timings["wall_s"]
            if loss < 1e-4:
                break
        return total

    knowing, blind = ([spent(seed, hot) for seed in range(10)] for hot in (("batch", "delay"), ()))
    assert mannwhitneyu(knowing, blind, alternative="less").pvalue < 0.01


# -- seeds and replays --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [BOX, TREE, WORDS], ids=["box", "tree", "words"])
def test_a_seed_gives_the_same_proposals_and_another_seed_others(space: Space) -> None:
    first, again, other = (run(build(space, seed=seed), 10, seed=seed) for seed in (0, 0, 1))
    assert first == again and first != other


def steep(params: Params) -> float:
    """A bowl in the logarithms of numbers that were not declared so."""
    return bowl({k: math.log10(1e-3 + v) / 3 + 1 if isinstance(v, float) else v for k, v in params.items()})


@pytest.mark.parametrize("settings", [{}, {"acquisition": "thompson"}, {"warp": True}], ids=str)
@pytest.mark.parametrize("space", [BOX, TREE, WORDS], ids=["box", "tree", "words"])
def test_a_replay_proposes_the_same(space: Space, settings: dict[str, Any]) -> None:
    """Of tells alone, failures and later rungs among them: what was asked in between leaves no trace."""
    algorithm = build(space, **settings)
    trials: list[Trial] = []
    for number in range(20):
        params = ask(algorithm, number)[0].params
        state = State.FAILED if number % 6 == 5 else State.STOPPED if number % 7 == 6 else State.COMPLETE
        trials.append(tell(algorithm, number, params, state, loss=steep(params)))
        if number in (4, 14):  # a later rung of an earlier trial
            trials.append(tell(algorithm, number - 2, trials[number - 2].params, loss=0.5))
        if number in (7, 12, 18, 19):
            replayed = build(space, **settings)
            for trial in trials:
                replayed.tell(trial, outcome(trial, LOSS, ()))
            here = len({trial.number for trial in trials})
            busy = [space.sample(1, np.random.default_rng(5))[0]]
            assert ask(replayed, here, 2, busy) == ask(algorithm, here, 2, busy)


# -- batches ------------------------------------------------------------------------------------------------------


def spread(space: Space, points: Sequence[Params]) -> float:
    """The smallest gap between two of them."""
    U = np.nan_to_num(space.encode(points), nan=0.5)
    gaps = np.linalg.norm(U[:, None] - U, axis=2)
    return float(gaps[np.triu_indices(len(U), 1)].min())


@pytest.mark.parametrize("acquisition", ["log_ei", "ucb", "thompson"])
def test_a_batch_does_not_collapse(acquisition: str) -> None:
    """Pending trials count as if they had come out as expected: beside them there is little more to gain."""
    batches, alone = [], []
    for seed in range(4):
        algorithm = build(BOX, acquisition=acquisition, seed=seed)
        run(algorithm, 9, seed=seed)
        batch = [p.params for p in ask(algorithm, 9, 4, seed=seed)]
        one_by_one: list[Params] = []
        for number in range(9, 13):
            one_by_one += [p.params for p in ask(algorithm, number, 1, one_by_one, seed=seed)]
        for made in (batch, one_by_one):
            assert len({BOX.key(p) for p in made}) == 4
            batches.append(spread(BOX, made))
        alone.append(spread(BOX, [ask(algorithm, 9, seed=more)[0].params for more in range(4)]))
    assert np.median(batches) > 0.03
    assert acquisition == "thompson" or np.median(alone) < 0.01


@pytest.mark.medium
def test_batches_of_four_are_nearly_as_good_as_single_trials() -> None:
    """Forty trials, four at a time, where a batch that collapses comes no nearer than 0.01."""
    regrets = []
    for seed in range(4):
        problem = make("hartmann6", seed)
        algorithm = build(problem.space, seed=seed, budget=40)
        for number in range(0, 40, 4):
            for i, proposal in enumerate(ask(algorithm, number, 4, seed=seed)):
                regrets.append(problem.regret(proposal.params))
                tell(algorithm, number + i, proposal.params, loss=problem.truth(proposal.params))
    assert np.median([min(regrets[40 * seed : 40 * seed + 40]) for seed in range(4)]) < 0.005


def test_the_first_batch_is_spread_too() -> None:
    for space in (BOX, TREE, WORDS):
        made = [p.params for p in ask(build(space), 0, 6)]
        assert len({space.key(p) for p in made}) == 6 and spread(space, made) > 0.05


def test_batches_of_several_objectives_do_not_collapse() -> None:
    goals = (Objective("u"), Objective("v"))
    algorithm = build(BOX, goals=goals)
    for number in range(10):
        params = ask(algorithm, number)[0].params
        tell(algorithm, number, params, goals=goals, u=bowl(params), v=1.0 - params["x0"])
    made = [p.params for p in ask(algorithm, 10, 4)]
    assert len({BOX.key(p) for p in made}) == 4 and spread(BOX, made) > 0.1


def test_what_is_pending_in_one_branch_says_nothing_of_another() -> None:
    space = Space(kind=Choice(a=Space(x=Float(0, 1)), b=Space(y=Float(0, 1))))
    algorithm = build(space)
    for number in range(12):
        params = ask(algorithm, number)[0].params
        tell(algorithm, number, params, loss=params.get("kind.a.x", 0.6) + 0.2 * params.get("kind.b.y", 0.0))
    far = [{"kind": "b", "kind.b.y": y} for y in (0.9, 0.95)]
    alone, beside = ask(algorithm, 12)[0], ask(algorithm, 12, 1, far)[0]
    assert alone.params["kind"] == "a" and alone == beside


def test_under_noise_the_answer_so_far_is_measured_again_but_not_for_ever() -> None:
    def run_with(again: int) -> list[Proposal]:
        algorithm, made = GPBO(again=again).build(BOX, LOSS, (), 0, 60), []
        for number in range(60):
            (proposal,) = algorithm.ask(1, number, [], np.random.default_rng([0, number]))
            made.append(proposal)
            noise = 0.3 * float(np.random.default_rng([5, number]).normal())
            trial = Trial(number, proposal.params, State.COMPLETE, metrics={"loss": bowl(proposal.params) + noise})
            algorithm.tell(trial, outcome(trial, LOSS, ()))
        return made

    repeats = [p.params for p in run_with(8) if p.repeat]
    assert 3 <= len(repeats) <= 7
    assert max(repeats.count(params) for params in repeats) <= 3
    assert not any(p.repeat for p in run_with(0))
