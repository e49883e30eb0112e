"""Where a search starts from: what ships, the own store, and the reasons for starting from nothing."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from earlier_models import measured

import fettle
from fettle import api
from fettle import prior as earlier_prior
from fettle.algorithms.fewshot import FewShot
from fettle.core.errors import InvalidInput
from fettle.prior import prior, said
from fettle.problems.serve import problem
from fettle.problems.serve.collect.rows import Measurements
from fettle.storage import open_storage
from fettle.surrogates.meta import Task
from fettle.surrogates.meta.store import Store

DATA = Path(str(files("fettle.data")))


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three models that ship."""
    monkeypatch.setattr(problem, "measurements", lambda path: models())
    monkeypatch.setattr(problem, "SHIPPED", DATA / "digits-fp32.onnx")
    monkeypatch.setattr(problem, "_POINTS", 40)


def models() -> list[Measurements]:
    return [measured(str(i), n=60, flops=2e9 * 2.0**i) for i in range(3)]


def digits(**more: Any) -> problem.ServeProblem:
    return problem.make(DATA / "digits-fp32.onnx", **{"slo": "p99=50ms", **more})


def own(made: problem.ServeProblem, name: str = "mine", **context: Any) -> Task:
    rows = [(p, {"cost_per_million": 0.1 + 0.01 * i}) for i, p in enumerate(list(made.space.enumerate())[:20])]
    return Task(name, rows, space=made.space, context={"problem": "serve", "target": "mosec", **context})


def test_it_starts_from_what_ships(shipped: None, tmp_path: Path) -> None:
    found = prior(digits(), Store(tmp_path))
    assert isinstance(found.algorithm, FewShot)
    assert found.record == {"method": "prior_gp", "tasks": ["0", "1", "2"], "source": "shipped", "reason": ""}
    assert said(found.record) == "it starts from 3 earlier tasks (shipped); --algorithm auto uses none"


def test_studies_of_the_own_store_join_where_they_are_of_the_same_kind(shipped: None, tmp_path: Path) -> None:
    made, store = digits(), Store(tmp_path)
    store.add(own(made))
    store.add(own(made, "of another target", target="command"))
    store.add(own(made, "of another problem", problem="function"))
    store.add(Task("of another metric", [(p, {"loss": 1.0}) for p in list(made.space.enumerate())[:3]]))
    found = prior(made, store)
    assert found.record["tasks"] == ["0", "1", "2", "mine"]
    assert found.record["source"] == "shipped and store"


def test_what_was_collected_here_counts_as_what_ships(shipped: None, tmp_path: Path) -> None:
    more = measured("collected", n=60, flops=1.9e9)
    Store(tmp_path).add(Task(more.name, more.rows, space=more.space, features=more.features, context=more.context))
    assert "collected" in prior(digits(), Store(tmp_path)).record["tasks"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"objective": "cost,latency"}, "single objective"),
        ({"target": {"name": "command", "command": "x {port}", "space": {"t": {"int": [1, 2]}}}}, "target's knobs"),
    ],
)
def test_the_reason_is_said_where_it_starts_from_nothing(
    shipped: None, tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    found = prior(digits(**given), Store(tmp_path))
    assert found.algorithm is None
    assert reason in said(found.record)


def test_a_damaged_store_is_named(shipped: None, tmp_path: Path) -> None:
    path = Store(tmp_path).add(own(digits()))
    path.write_bytes(b"no")
    with pytest.raises(InvalidInput, match=path.name):
        prior(digits(), Store(tmp_path))


def test_serve_takes_it_unless_told_otherwise_and_stores_it(
    shipped: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "carry_out", lambda study, problem, watch: api.Result(study, problem))
    model, storage = DATA / "digits-fp32.onnx", tmp_path / "studies.db"
    first = fettle.serve(model, slo="p99=50ms", storage=storage, name="one").study
    assert first.log.experiment["algorithm"]["name"] == "fewshot"
    assert first.log.experiment["prior"]["tasks"] == ["0", "1", "2"]
    json.dumps(first.log.experiment, allow_nan=False)
    monkeypatch.setattr(earlier_prior, "prior", lambda *given: pytest.fail("a stored study keeps its own"))
    again = fettle.serve(model, slo="p99=50ms", storage=storage, name="one").study
    assert again.ask().note.startswith("prior_gp of 3 tasks")
    plain = fettle.serve(model, slo="p99=50ms", storage=storage, name="two", algorithm="auto").study
    assert plain.log.experiment["algorithm"]["name"] == "auto"
    assert "prior" not in plain.log.experiment


def test_where_nothing_is_known_a_warm_server_is_still_worth_its_start(
    shipped: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "carry_out", lambda study, problem, watch: api.Result(study, problem))
    hot = {"knobs": ["delay_ms"], "path": "/settings", "body": "{delay_ms}"}
    space = {"threads": {"int": [1, 2]}, "delay_ms": {"int": [1, 9]}}
    target = {"name": "command", "command": "x {port} {threads} {delay_ms}", "space": space, "hot": hot}
    given = {"slo": "p99=50ms", "target": target, "storage": tmp_path / "studies.db", "name": "one"}
    for _ in range(2):  # the second is of the stored study
        study = fettle.serve(DATA / "digits-fp32.onnx", **given).study
        stored = study.log.experiment["algorithm"]
        assert (stored["name"], stored["model"], stored["cost"], list(stored["hot"])) == (
            "fewshot", None, "wall_s", ["delay_ms"],
        )  # fmt: skip
    assert "target's knobs" in study.log.experiment["prior"]["reason"]


def test_a_study_that_was_killed_before_its_first_event_begins(
    shipped: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "carry_out", lambda study, problem, watch: api.Result(study, problem))
    storage = open_storage(tmp_path / "studies.db")
    storage.open("one", create=True)
    study = fettle.serve(DATA / "digits-fp32.onnx", slo="p99=50ms", storage=storage, name="one").study
    assert study.log.experiment["algorithm"]["name"] == "fewshot"
