"""Few-shot search: it profits from tasks that are alike, and is not lost where they are not."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import fettle
from fettle import registry
from fettle.core.errors import Exhausted, InvalidInput
from fettle.core.space import Space
from fettle.core.trial import Constraint, Objective, State, Trial, outcome
from fettle.surrogates.meta import MetaModel, Task, train
from fettle.surrogates.meta.methods import METHODS as ALL_METHODS
from fettle.testing import algorithms as suite

# second-order MAML trains for half a minute
METHODS = [pytest.param(name, marks=pytest.mark.slow) if name == "maml" else name for name in ALL_METHODS]

SPACE = Space(batch=fettle.Int(1, 256, log=True), workers=fettle.Int(1, 8), mode=fettle.Categorical(["a", "b"]))
GRID = [
    {"batch": b, "workers": w, "mode": m}
    for b in (1, 2, 4, 8, 16, 32, 64, 128, 256)
    for w in (1, 2, 4, 8)
    for m in "ab"
]
LISTED = Space(dict(SPACE.domains), only=GRID)
RATE = Objective("rate", "maximize")


def served(seed: int, *, memory: float | None = None) -> list[tuple[dict, object]]:
    """A made-up server: rates that saturate in the batch and fall with too many workers; memory runs out."""
    rng = np.random.default_rng(seed)
    speed, knee, best = rng.lognormal(5.0, 0.7), rng.lognormal(2.5, 0.5), rng.lognormal(1.2, 0.3)
    room = rng.lognormal(6.0, 0.4) if memory is None else memory
    rows: list[tuple[dict, object]] = []
    for params in GRID:
        b, w = float(params["batch"]), float(params["workers"])
        if b * w > room:
            rows.append((params, "oom"))
            continue
        rate = speed * b / (b + knee) * np.exp(-0.5 * np.log(w / best) ** 2) * (1.2 if params["mode"] == "a" else 1.0)
        noise = rng.lognormal(0.0, 0.02)
        rows.append((params, {"rate": rate * noise, "latency_s": b * w / rate}))
    return rows


def task(seed: int) -> Task:
    return Task(f"task {seed}", served(seed))


@pytest.fixture(scope="module")
def model() -> MetaModel:
    return train([task(seed) for seed in range(6)], SPACE)


def searched(
    algorithm: object, rows: Sequence[tuple[dict, object]], *, n: int, seed: int = 0, bounds: Sequence[Constraint] = ()
) -> tuple[list[float], list[dict]]:
    """Best share of the optimum after each sample, and what was tried."""
    truth = {LISTED.key(LISTED.validate(p)): v for p, v in rows}
    allowed = [
        v["rate"] for v in truth.values() if isinstance(v, dict) and all(c.violation(v[c.metric]) <= 0 for c in bounds)
    ]
    run = registry.settings("algorithms", algorithm).build(LISTED, [RATE], bounds, seed, None)
    shares, tried, best = [], [], 0.0
    for number in range(n):
        params = run.ask(1, number, [], np.random.default_rng([seed, number]))[0].params
        figures = truth[LISTED.key(params)]
        failed = isinstance(figures, str)
        state = State.FAILED if failed else State.COMPLETE
        trial = Trial(number, params, state, metrics={} if failed else figures, failure=figures if failed else "")
        run.tell(trial, outcome(trial, [RATE], bounds))
        if isinstance(figures, dict) and all(c.violation(figures[c.metric]) <= 0 for c in bounds):
            best = max(best, figures["rate"])
        shares.append(best / max(allowed))
        tried.append(params)
    return shares, tried


@pytest.mark.slow
@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_conformance_with_a_model_of_another_space(check: suite.Check, tmp_path: Path) -> None:
    """Knobs in common with the suite's spaces, some that they lack, and words that the tasks never saw."""
    rng = np.random.default_rng(0)
    space = Space(a=fettle.Int(1, 4), x=fettle.Float(0, 1), n=fettle.Int(1, 8), c=fettle.Categorical(["u"]))
    tasks = []
    for t in range(3):
        rows = [(p, {"loss": p["x"] + t + 0.1 * p["n"], "size": 1.0 + p["a"]}) for p in space.sample(30, rng)]
        tasks.append(Task(str(t), [*rows, (space.sample(1, rng)[0], "oom")]))
    path = train(tasks, space).save(tmp_path / "model.npz")
    check(fettle.FewShot(path))


@pytest.mark.medium
@pytest.mark.parametrize("method", METHODS)
def test_every_method_searches_a_finite_space_to_its_end(method: str) -> None:
    space = Space(batch=fettle.Ordinal([1, 4, 16]), workers=fettle.Int(1, 3))
    tasks = []
    for t in range(3):
        known = [p for p in space.enumerate() if p["batch"] < 16 or t]
        tasks.append(Task(str(t), [(p, {"rate": (1 + t) * p["batch"] / p["workers"]}) for p in known]))
    settings = fettle.FewShot(train(tasks, space, method=method))
    run = suite.Run(settings, space, objectives=[RATE], constraints=[Constraint("rate", upper=9.0)])
    while run.step(lambda n, p: Trial(n, p, State.COMPLETE, metrics={"rate": p["batch"] / p["workers"]})):
        pass
    assert len({space.key(trial.params) for trial in run.trials}) == len(run.trials) == 9
    with pytest.raises(Exhausted):
        run.ask()


@pytest.mark.medium
def test_related_tasks_save_samples(model: MetaModel) -> None:
    """Mean regret over ten samples, against the same search from scratch; sign test over twenty new tasks."""
    wins = 0
    for seed in range(100, 120):
        rows = served(seed)
        ours = np.mean(searched(fettle.FewShot(model), rows, n=10, seed=seed)[0])
        wins += bool(ours > np.mean(searched("gp_bo", rows, n=10, seed=seed)[0]))
    assert wins >= 16  # p < 0.006


def unlike(seed: int) -> list[tuple[dict, object]]:
    """Rates that have nothing to do with those of the tasks: small batches and many workers win."""
    return [
        (p, {"rate": 50.0 * p["workers"] / (1 + p["batch"] / 8) * (1.5 if p["mode"] == "b" else 1.0)}) for p in GRID
    ]


@pytest.mark.medium
def test_an_unlike_task_costs_little(model: MetaModel) -> None:
    ours = np.mean([np.mean(searched(fettle.FewShot(model), unlike(0), n=20, seed=s)[0]) for s in range(3)])
    plain = np.mean([np.mean(searched("gp_bo", unlike(0), n=20, seed=s)[0]) for s in range(3)])
    assert ours > plain - 0.1


def test_credit_is_lost_on_an_unlike_task(model: MetaModel) -> None:
    learned = model.of("rate")
    Z = model.knobs.encode([p for p, _ in unlike(0)])
    rng = np.random.default_rng(0)
    some = rng.permutation(len(Z))[:12]
    shares = []
    for rows in (served(77, memory=1e9), unlike(0)):
        y = np.log([figures["rate"] for _, figures in rows])  # type: ignore[index]
        shares.append(learned.fit(Z[some], y[some], columns=model.knobs.columns).credit)
    assert shares[0] > 0.9
    assert shares[1] < 0.5


def test_failures_teach(model: MetaModel) -> None:
    """A task with less memory than all before: few trials are lost, though the best rates lie in that region."""
    rows = served(5, memory=100.0)
    _, tried = searched(fettle.FewShot(model), rows, n=20)
    assert sum(p["batch"] * p["workers"] > 100 for p in tried) <= 5


def test_what_needs_no_less_than_a_failure_is_not_tried(model: MetaModel) -> None:
    run = fettle.FewShot(model).build(LISTED, [RATE], [], 0, None)
    params = LISTED.validate({"batch": 8, "workers": 2, "mode": "a"})
    trial = Trial(0, params, State.FAILED, failure="oom")
    run.tell(trial, outcome(trial, [RATE], []))
    for number in range(1, 12):
        p = run.ask(1, number, [], np.random.default_rng(number))[0].params
        assert not (p["batch"] >= 8 and p["workers"] >= 2 and p["mode"] == "a")
        trial = Trial(number, p, State.COMPLETE, metrics={"rate": 1.0 + number})
        run.tell(trial, outcome(trial, [RATE], []))


def test_bounds_are_decided_by_the_study(model: MetaModel) -> None:
    """The same model under a latency that none of the tasks was searched for."""
    shares, _ = searched(fettle.FewShot(model), served(200), n=12, bounds=[Constraint("latency_s", upper=0.5)])
    assert shares[-1] > 0.9


def test_a_study_keeps_its_model(model: MetaModel, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'my.db'}"
    study = fettle.Study(LISTED, objectives=[RATE], algorithm=fettle.FewShot(model), storage=storage, name="s")
    first = study.ask()
    stored = study.log.experiment["algorithm"]
    assert stored["name"] == "fewshot"
    assert json.loads(json.dumps(stored))["sha256"] == model.sha256
    study.tell(first, {"rate": 5.0})
    wanted = study.ask().params
    study.close()
    again = fettle.Study.open("s", storage)
    assert again.trials[1].params == wanted
    again.close()
    Path(stored["model"]).write_bytes(b"changed")
    with pytest.raises(InvalidInput):
        fettle.Study.open("s", storage)


def test_without_a_model_it_is_gp_bo() -> None:
    proposals = []
    for name in ("fewshot", "gp_bo"):
        run = registry.settings("algorithms", name).build(LISTED, [RATE], [], 3, None)
        proposals.append(run.ask(1, 0, [], np.random.default_rng(0))[0].params)
    assert proposals[0] == proposals[1]


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="expected a meta-model"):
        fettle.FewShot(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no meta-model"):
        fettle.FewShot(tmp_path / "none.npz").build(LISTED, [RATE], [], 0, None)


def test_a_search_needs_numpy_and_scipy_alone(model: MetaModel, tmp_path: Path) -> None:
    path = model.save(tmp_path / "m.npz")
    code = (
        "import sys, fettle, numpy as np\n"
        f"study = fettle.Study(fettle.Space.from_json({LISTED.to_json()!r}), "
        f"objectives=[fettle.Objective('rate', 'maximize')], algorithm=fettle.FewShot({str(path)!r}))\n"
        "study.tell(study.ask(), {'rate': 1.0}); study.ask()\n"
        "assert not {'torch', 'sklearn', 'pandas', 'onnx', 'cmaes'} & {name.partition('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
