"""The test problems have the answers that they say, and are as hard as they say."""

import json
import math

import numpy as np
import pytest

import fettle
from fettle.core.errors import InvalidInput, TrialFailure
from fettle.core.pareto import hypervolume
from fettle.core.space import Space
from fettle.problems.synthetic import KINDS, Synthetic, kind_of, make, names
from fettle.problems.synthetic import functions as f
from fettle.problems.synthetic.numeric import michalewicz_minimum
from fettle.problems.synthetic.record import stream
from fettle.testing.search import search

SINGLE = [name for kind in KINDS if kind != "multi_objective" for name in names(kind, "all")]
SEVERAL = names("multi_objective", "all")
each_single = pytest.mark.parametrize("name", SINGLE)
each_several = pytest.mark.parametrize("name", SEVERAL)
each = pytest.mark.parametrize("name", SINGLE + SEVERAL)


def slack(problem: Synthetic) -> float:
    return 1e-9 * (problem.typical - problem.optimum)


def random_regrets(name: str, seed: int, n: int = 100) -> np.ndarray:
    problem = make(name, seed)
    rng = np.random.default_rng([1, seed])
    return np.array([problem.regret(params) for params in problem.space.sample(n, rng)])


@each_single
def test_the_optimum_is_where_it_is_said(name: str) -> None:
    for seed in (0, 1):
        problem = make(name, seed)
        assert problem.space.contains(problem.best)
        assert abs(problem.truth(problem.best) - problem.optimum) <= slack(problem)
        rng = stream(name, seed, 9)
        near = [problem.space.mutate(problem.best, rng, n=1 + i % 3) for i in range(150)]
        U = problem.space.encode([problem.best])
        if problem.space.only is None:
            for scale in (1e-4, 1e-3, 1e-2, 1e-1):
                near += problem.space.decode(np.nan_to_num(U + scale * rng.standard_normal((60, U.shape[1])), nan=0.5))
        near += problem.space.sample(500, rng)
        lowest = min(problem.truth(params) for params in near)
        assert lowest >= problem.optimum - slack(problem)
        assert problem.regret(problem.best) == pytest.approx(0, abs=1e-9)


@each
def test_neither_centre_nor_border_is_a_gift(name: str) -> None:
    """Continuous parameters that matter: uniform in [0.1, 0.9] of each side, over seeds."""
    places = []
    for seed in range(8):
        problem = make(name, seed)
        U = problem.space.encode([problem.best])[0]
        trade_offs = ("x0", "size") if problem.reference else ()  # those that move along the front
        trade_offs += ("x1",) if problem.reference and len(problem.objectives) == 3 else ()
        floats = [c.size is None and c.name not in trade_offs for c in problem.space.columns]
        places += U[np.array(floats, bool) & ~np.isnan(U)].tolist()
    if places:
        assert min(places) >= 0.1 - 1e-9 and max(places) <= 0.9 + 1e-9
        assert len(set(places)) == len(places), "the same place for two seeds"


@each
def test_same_name_and_seed_same_problem(name: str) -> None:
    one, other, third = make(name, 3), make(name, 3), make(name, 4)
    assert one.space == other.space
    assert one.best == other.best
    assert one.best != third.best
    for params in one.space.sample(20, np.random.default_rng(0)):
        assert _shown(one, params) == _shown(other, params)


def _shown(problem: Synthetic, params: fettle.core.space.Params) -> str:
    try:
        return str(problem.evaluate(params, np.random.default_rng(5)))
    except TrialFailure as failure:
        return failure.failure


@each
def test_spaces_survive_json(name: str) -> None:
    problem = make(name, 0)
    again = Space.from_json(json.loads(json.dumps(problem.space.to_json())))
    assert again == problem.space
    assert again.validate(json.loads(json.dumps(problem.best))) == problem.best


@each_single
def test_random_search_is_neither_lost_nor_done(name: str) -> None:
    regrets = np.array([random_regrets(name, seed) for seed in range(4)])
    best = np.median(regrets.min(axis=1))
    assert 0 <= best < 1
    assert best > 0 or name == "table300"
    finite = regrets[np.isfinite(regrets)]
    assert 0.5 < np.median(finite) < 2  # 1 is the median random point
    failed = np.mean(~np.isfinite(regrets))
    assert (failed > 0) == (problem_can_fail(name))


def problem_can_fail(name: str) -> bool:
    return kind_of(name) in ("failing", "constrained")


@pytest.mark.parametrize("name", ["two_level", "early_late", "three_levels", "late_of_four"])
def test_decoys_hold_random_search(name: str) -> None:
    """At 60 evaluations the median regret of random search is about 0.24, and the decoy's floor is not far below;
    the late branch is worse than the decoys at a typical point, and holds the optimum."""
    regrets = [random_regrets(name, seed, 60).min() for seed in range(20)]
    assert 0.15 < np.median(regrets) < 0.35
    for seed in range(5):
        problem = make(name, seed)
        losses: dict[str, list[float]] = {}
        for params in problem.space.sample(1500, np.random.default_rng(seed)):
            leaf = "/".join(
                str(params[c.name]) for c in problem.space.columns if c.kind == "choice" and c.name in params
            )
            losses.setdefault(leaf, []).append(problem.regret(params))
        late = "/".join(str(v) for c in problem.space.columns if c.kind == "choice" and (v := problem.best.get(c.name)))
        others = [leaf for leaf in losses if leaf != late]
        assert np.median(losses[late]) > min(np.median(losses[leaf]) for leaf in others)
        assert min(min(losses[leaf]) for leaf in others) > 0.1


@each_several
def test_fronts(name: str) -> None:
    """No random point lies beyond the true front, and random points cover a part of it."""
    problem = make(name, 0)
    points = [losses for p in problem.space.sample(300, np.random.default_rng(0)) if (losses := problem.losses(p))]
    assert 0.3 < problem.coverage(points) < 1
    assert problem.truth(problem.best) == pytest.approx(problem.optimum)
    along = []
    for x in np.linspace(0, 1, 101):
        ends = {"x0": float(x)} if "x0" in problem.best else {"size": float(x)}
        if len(problem.objectives) == 3:
            along += [problem.losses({**problem.best, "x0": float(x), "x1": y}) for y in np.linspace(0, 1, 15).tolist()]
        else:
            along.append(problem.losses({**problem.best, **ends}))
    assert 0.97 < problem.coverage([a for a in along if a is not None]) < 1.001
    both = hypervolume(np.array(points + [a for a in along if a is not None]), problem.reference)
    assert both <= problem.ideal * 1.001


def test_noise_is_in_what_is_shown_alone() -> None:
    problem = make("noisy_hartmann6", 0)
    shown = [problem.evaluate(problem.best, np.random.default_rng(i))["loss"] for i in range(400)]
    assert np.std(shown) == pytest.approx(0.2, rel=0.15)
    assert np.mean(shown) == pytest.approx(problem.optimum, abs=0.05)
    assert problem.truth(problem.best) == problem.optimum
    for name in names("noisy", "all"):
        problem = make(name, 0)
        assert problem.noise is not None
        typical = np.median([problem.noise(p) for p in problem.space.sample(100, np.random.default_rng(0))])
        assert 0.02 < typical / (problem.typical - problem.optimum) < 0.4


def test_failures() -> None:
    seen: dict[str, set[str]] = {}
    for name in names("failing", "all"):
        problem = make(name, 1)
        for params in problem.space.sample(200, np.random.default_rng(0)):
            try:
                metrics = problem.evaluate(params, np.random.default_rng(0))
                failed = "" if math.isfinite(metrics["loss"]) else "nan"
            except TrialFailure as failure:
                failed = failure.failure
            assert (problem.truth(params) == math.inf) == bool(failed)
            seen.setdefault(name, set()).add(failed)
        assert len(seen[name]) == 2
    assert set().union(*seen.values()) == {"", "oom", "crash", "nan", "timeout"}


def test_scales_change_what_is_shown_and_not_the_regret() -> None:
    problem = make("zakharov3_millions", 0)
    assert problem.evaluate(problem.best, np.random.default_rng(0))["loss"] == pytest.approx(3e7)
    problem = make("levy3_exp", 0)
    shown = [problem.evaluate(p, np.random.default_rng(0))["loss"] for p in problem.space.sample(200, stream("", 0))]
    assert max(shown) > 1e4 * min(shown)
    for name in ("zakharov3_millions", "levy3_exp", "beale", "goldstein_price"):
        problem = make(name, 0)
        points = problem.space.sample(50, np.random.default_rng(0))
        shown = [problem.evaluate(p, np.random.default_rng(0))["loss"] for p in points]
        assert np.array_equal(np.argsort(shown), np.argsort([problem.truth(p) for p in points]))


def test_published_minima() -> None:
    assert f.branin(np.array([math.pi, 2.275])) == pytest.approx(0.397887, abs=1e-6)
    assert f.goldstein_price(np.array([0.0, -1.0])) == pytest.approx(3)
    assert f.beale(np.array([3.0, 0.5])) == pytest.approx(0)
    assert f.michalewicz(np.array(michalewicz_minimum(10))) == pytest.approx(-9.66015, abs=1e-4)
    assert f.trid(np.array([6.0, 10, 12, 12, 10, 6])) == pytest.approx(-50)
    assert make("hartmann6").optimum == pytest.approx(-3.32237, abs=1e-5)
    assert make("shekel4").optimum == pytest.approx(-10.4029, abs=1e-3)
    assert make("noisy_styblinski_tang3_rising").optimum == pytest.approx(-39.16617 * 3, abs=1e-4)


def test_lists_are_disjoint_and_hold_every_kind() -> None:
    for kind in KINDS:
        tuned, holdout = names(kind), names(kind, "holdout")
        assert len(tuned) >= 3 and len(holdout) >= 3
        assert not {*tuned} & {*holdout}
        assert sorted(names(kind, "all")) == sorted(tuned + holdout)
        assert {kind_of(name) for name in tuned + holdout} == {kind}
    assert len(names("conditional")) >= 5 and len(names("conditional", "holdout")) >= 4
    with pytest.raises(InvalidInput, match="unknown test problem 'hartman6'"):
        make("hartman6")
    with pytest.raises(InvalidInput):
        names("smoth")


def test_a_study_takes_one_as_it_is() -> None:
    problem = make("latency_bound", 0)
    study = fettle.Study(
        problem.space, objectives=problem.objectives, constraints=problem.constraints, algorithm="random", seed=0
    )
    study.run(problem, trials=30)
    assert study.best is not None
    assert 0 < problem.regret(study.best.params) < 1


@pytest.mark.parametrize("name", ["two_level", "memory", "waves2", "noisy_branin"])
def test_the_light_driver_does_what_a_study_does(name: str) -> None:
    problem = make(name, 2)
    run = search("evolution", problem, evaluations=60)
    study = fettle.Study(
        problem.space, objectives=problem.objectives, constraints=problem.constraints, algorithm="evolution", seed=2
    )
    for number in range(60):
        trial = study.ask()
        try:
            metrics = problem.evaluate(trial.params, stream(name, 2, 3, number))
            study.tell(trial, metrics)
        except TrialFailure as failure:
            study.tell(trial, error=str(failure), failure=failure.failure)
    assert [t.params for t in study.trials] == [t.params for t in run.log.trials]
    assert study.best is not None
    assert run.answers[60] == problem.regret(study.best.params)
    if problem.noise is None:
        assert run.answers[60] == run.judge.best(60)
    assert run.judge.best(30) >= run.judge.best(60)


def test_the_driver_ends_where_the_space_does() -> None:
    run = search("random", make("table300", 0), evaluations=400, checkpoints=(30, 400))
    assert run.judge.count == 300
    assert run.answers[400] == 0
