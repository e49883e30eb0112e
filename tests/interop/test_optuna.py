"""The sampler inside the real Optuna."""

import math
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from fettle.algorithms.tpe import TPE  # noqa: E402
from fettle.core.errors import InvalidInput  # noqa: E402
from fettle.interop.optuna import FettleSampler  # noqa: E402


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def two_models(trial: Any) -> float:
    """Two branches with parameters of their own; the better one is hard to tune, the other good at once."""
    if trial.suggest_categorical("model", ["linear", "tree"]) == "linear":
        l2, mix = trial.suggest_float("l2", 1e-5, 10, log=True), trial.suggest_float("mix", 0, 1)
        return 0.3 + (math.log10(l2) + 1) ** 2 / 4 + (mix - 0.2) ** 2
    depth = trial.suggest_int("depth", 1, 32)
    rate, share = trial.suggest_float("rate", 0.01, 1, log=True), trial.suggest_float("share", 0.2, 1)
    return (depth - 24) ** 2 / 100 + (math.log10(rate) + 1.3) ** 2 + (share - 0.8) ** 2


def ran(objective: Any = two_models, n: int = 30, sampler: Any = None, **more: Any) -> Any:
    study = optuna.create_study(sampler=sampler or FettleSampler("tpe", seed=1), **more)
    study.optimize(objective, n_trials=n, catch=(RuntimeError,))
    return study


def params(study: Any) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


@pytest.mark.medium
@pytest.mark.parametrize("peer", ["TPESampler", "RandomSampler"])
def test_it_beats_optunas_samplers_on_a_conditional_program(peer: str) -> None:
    wins = 0
    for seed in range(12):
        ours = ran(n=30, sampler=FettleSampler("gp_bo", seed=seed)).best_value
        wins += ours < ran(n=30, sampler=getattr(optuna.samplers, peer)(seed=seed)).best_value
    assert wins >= 11  # by a coin: p = 0.003


def test_conditional_parameters_are_proposed_and_not_drawn() -> None:
    sampler = FettleSampler("tpe", seed=0)
    drawn = []
    independent = sampler.sample_independent
    sampler.sample_independent = lambda study, trial, name, d: (  # type: ignore[method-assign]
        drawn.append(trial.number) or independent(study, trial, name, d)
    )
    ran(n=40, sampler=sampler)
    assert drawn
    assert max(drawn) < 10, "after the first sight of each branch nothing is drawn"


GRAMMAR = {
    "f": FloatDistribution(-1, 1),
    "log": FloatDistribution(1e-4, 10, log=True),
    "step": FloatDistribution(0, 1, step=0.25),
    "i": IntDistribution(-3, 7),
    "ilog": IntDistribution(1, 1000, log=True),
    "istep": IntDistribution(1, 10, step=3),
    "c": CategoricalDistribution([None, True, 1.5, "x"]),
    "one": IntDistribution(4, 4),
    "huge": IntDistribution(0, 2**62, step=2),
    "wide": FloatDistribution(-1.7e308, 1.7e308),
}


@pytest.mark.parametrize("name", GRAMMAR)
@pytest.mark.parametrize("algorithm", ["tpe", "auto", "random"])
def test_every_distribution(name: str, algorithm: str) -> None:
    study = optuna.create_study(sampler=FettleSampler(algorithm, seed=3))
    for i in range(25):
        trial = study.ask({name: GRAMMAR[name], "other": GRAMMAR["f"]})
        value = trial.params[name]
        assert GRAMMAR[name]._contains(GRAMMAR[name].to_internal_repr(value))
        study.tell(trial, float(i))
    size = len({str(p[name]) for p in params(study)})
    assert size == 1 if name == "one" else size >= 3


def test_objects_as_categories() -> None:
    study = ran(lambda t: len(t.suggest_categorical("c", ["a", "bb", "ccc"])) + t.suggest_float("x", 0, 1), n=20)
    assert study.best_params["c"] == "a"


def test_the_seed_is_honoured() -> None:
    first = params(ran(sampler=FettleSampler("tpe", seed=5)))
    assert first == params(ran(sampler=FettleSampler("tpe", seed=5)))
    assert first != params(ran(sampler=FettleSampler("tpe", seed=6)))
    assert params(ran(sampler=FettleSampler())) != params(ran(sampler=FettleSampler()))
    reseeded = FettleSampler("tpe", seed=5)
    reseeded.reseed_rng()
    assert first != params(ran(sampler=reseeded))


def test_incremental_and_rebuilt_state_are_the_same() -> None:
    study = ran(n=30)
    copied = pickle.loads(pickle.dumps(study.sampler))
    other = optuna.create_study(sampler=copied)
    other.add_trials(study.trials)
    study.optimize(two_models, n_trials=5)
    other.optimize(two_models, n_trials=5)
    assert params(study) == params(other)


@pytest.mark.medium
def test_a_study_resumes_from_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"

    def part(n: int) -> list[dict[str, Any]]:
        storage = optuna.storages.RDBStorage(url)
        study = ran(n=n, sampler=FettleSampler("tpe", seed=2), storage=storage, study_name="s", load_if_exists=True)
        found = params(study)
        storage.remove_session()
        storage.engine.dispose()
        return found

    part(12)
    assert part(12) == params(ran(n=24, sampler=FettleSampler("tpe", seed=2)))


def test_several_objectives() -> None:
    def objective(trial: Any) -> tuple[float, float]:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return x + 3 * y, -((x - 1) ** 2) - 3 * y

    study = ran(objective, n=60, sampler=FettleSampler("nsga2", seed=0), directions=["minimize", "maximize"])
    uniform = ran(objective, n=60, sampler=FettleSampler("random", seed=0), directions=["minimize", "maximize"])
    late, drawn = ([t.params["y"] for t in s.trials[30:]] for s in (study, uniform))
    assert sum(late) < 0.6 * sum(drawn), "y is bad for both objectives, whose goals differ"


def test_constraints_by_function_and_by_name() -> None:
    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.set_user_attr("excess", 0.6 - x)
        return x

    def excess(trial: Any) -> tuple[float]:
        return (trial.user_attrs["excess"],)

    study = ran(objective, n=40, sampler=FettleSampler("tpe", seed=0, constraints_func=excess))
    assert 0.6 <= study.best_trials[0].params["x"] < 0.65, "the best that is allowed"
    near = sum(abs(p["x"] - 0.6) < 0.2 for p in params(study)[20:])
    assert near >= 14, "by chance 8 of 20: p = 0.006"

    def named(trial: Any) -> float:
        x = objective(trial)
        trial.set_constraint("room", 0.6 - x)
        return x

    if hasattr(optuna.Trial, "set_constraint"):
        assert params(ran(named, n=40, sampler=FettleSampler("tpe", seed=0))) == params(study)
    nan = FettleSampler(seed=0, constraints_func=lambda trial: (math.nan,))
    with pytest.raises(ValueError, match="NaN"):
        ran(objective, n=1, sampler=nan)


def test_failures_teach() -> None:
    def objective(trial: Any) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if y < 0.5:
            raise RuntimeError("out of memory")
        return x

    studies = [ran(objective, n=50, sampler=FettleSampler("tpe", seed=seed)) for seed in range(4)]
    late = [trial.state for study in studies for trial in study.trials[25:]]
    assert late.count(TrialState.FAIL) <= 37, "by chance 50 of 100: p = 0.006"


def test_nothing_but_failures_and_nothing_but_pruned_trials() -> None:
    def fails(trial: Any) -> float:
        trial.suggest_float("x", 0, 1)
        raise RuntimeError

    def pruned(trial: Any) -> float:
        trial.suggest_float("x", 0, 1)
        raise optuna.TrialPruned

    assert len(ran(fails, n=15).trials) == len(ran(pruned, n=15).trials) == 15


def test_pruned_trials_count_as_bounds() -> None:
    told = []

    class Spy(FettleSampler):
        def _synced(self, study: Any) -> Any:
            fold = super()._synced(study)
            tell, fold._algorithm.tell = fold._algorithm.tell, lambda trial, outcome: (
                told.append((trial.number, outcome)), tell(trial, outcome))  # fmt: skip
            return fold

    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.report(2 * x, 1)
        trial.report(x, 2)
        if trial.number % 2:
            raise optuna.TrialPruned
        return x

    study = ran(objective, n=12, sampler=Spy("tpe", seed=0), pruner=optuna.pruners.NopPruner())
    seen = dict(told)
    assert seen[3].censored == (1,)
    assert seen[3].losses == (study.trials[3].params["x"],)
    assert seen[2].censored == (0,)


def test_hyperband_filters_nothing_away() -> None:
    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0, 1)
        for step in range(4):
            trial.report(x, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x

    pruner = optuna.pruners.HyperbandPruner(max_resource=4)
    study = ran(objective, n=30, pruner=pruner)
    assert study.best_value < 0.1


def test_enqueued_trials_and_trials_of_other_samplers() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(two_models, n_trials=30)
    study.sampler = FettleSampler("gp_bo", seed=0)
    study.enqueue_trial({"model": "tree", "depth": 24})
    study.optimize(two_models, n_trials=15)
    assert params(study)[30]["depth"] == 24
    assert study.best_value < 0.01, "thirty random trials were a warm start"


def test_a_fixed_parameter_and_changing_ranges() -> None:
    study = ran(n=15)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.sampler = optuna.samplers.PartialFixedSampler({"model": "tree", "depth": 24}, study.sampler)
    study.optimize(two_models, n_trials=20)
    assert {(p["model"], p["depth"]) for p in params(study)[15:]} == {("tree", 24)}

    def moving(trial: Any) -> float:
        high = trial.suggest_int("high", 1, 20)
        return trial.suggest_float("x", 0, high) + trial.suggest_int("k", -trial.number, 5)

    study = ran(moving, n=40)
    assert all(p["x"] <= p["high"] for p in params(study))


def test_a_used_up_space_goes_on() -> None:
    study = ran(lambda trial: trial.suggest_int("x", 0, 3) + trial.suggest_categorical("c", [0, 1]), n=20)
    assert len({tuple(p.values()) for p in params(study)[:9]}) == 8
    assert len(study.trials) == 20


def test_threads_and_running_trials() -> None:
    barrier = threading.Barrier(3, timeout=20)

    def objective(trial: Any) -> float:
        value = trial.suggest_int("x", 0, 30)
        barrier.wait()  # three at a time: what the others try is known only as pending
        return float(value)

    study = optuna.create_study(sampler=FettleSampler("tpe", seed=0))
    study.add_trial(optuna.create_trial(params={"x": 5}, distributions={"x": IntDistribution(0, 30)}, value=5.0))
    study.optimize(objective, n_trials=24, n_jobs=3)
    assert len({p["x"] for p in params(study)}) == 25, "no pending point is proposed again"


def test_trials_that_run_elsewhere_are_pending() -> None:
    distributions = {"x": IntDistribution(0, 3)}
    study = optuna.create_study(sampler=FettleSampler("tpe", seed=0))
    study.add_trial(optuna.create_trial(params={"x": 0}, distributions=distributions, value=0.0))
    other = optuna.load_study(study_name=study.study_name, storage=study._storage, sampler=FettleSampler("tpe", seed=0))
    asked = [s.ask(distributions).params["x"] for s in (study, other, study)]
    assert sorted(asked) == [1, 2, 3]


WORKER = """
import sys, optuna
from fettle.interop.optuna import FettleSampler
study = optuna.load_study(study_name="s", storage=sys.argv[1], sampler=FettleSampler("tpe", seed=0))
def objective(trial):
    if trial.suggest_categorical("k", ["a", "b"]) == "a":
        return trial.suggest_float("x", 0, 1)
    return 0.5 + trial.suggest_float("y", 0, 1)
study.optimize(objective, n_trials=12)
"""


@pytest.mark.medium
def test_several_processes_share_a_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(storage=storage, study_name="s")
    argv = [sys.executable, "-c", WORKER, url]
    path = os.pathsep.join(p for p in sys.path if p)
    workers = [subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": path}) for _ in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    done = study.trials
    storage.remove_session()
    storage.engine.dispose()
    assert [trial.state for trial in done] == [TrialState.COMPLETE] * 24
    assert [trial.number for trial in done] == list(range(24))
    assert len({str(trial.params) for trial in done[8:]}) == 16, "draws by trial number never repeat"


def test_one_sampler_for_several_studies() -> None:
    sampler = FettleSampler("tpe", seed=4)
    first = params(ran(n=15, sampler=sampler))
    assert params(ran(n=15, sampler=sampler)) == first


def test_bad_arguments() -> None:
    with pytest.raises(InvalidInput, match="seed"):
        FettleSampler(seed=-1)
    with pytest.raises(InvalidInput, match="unknown algorithm"):
        FettleSampler("tpee")
    assert ran(n=12, sampler=FettleSampler(TPE(initial=3), seed=0, n_trials=12)).best_value < 5
