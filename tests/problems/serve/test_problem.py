import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fettle.core.errors import InvalidInput
from fettle.core.serving import Machine
from fettle.core.trial import State, Trial
from fettle.host.machine import usable_cores
from fettle.problems.serve import measure, model
from fettle.problems.serve.cost import GIB, Prices
from fettle.problems.serve.model import features
from fettle.problems.serve.priority import as_generator, place
from fettle.problems.serve.problem import ServeProblem, make

DATA = Path(measure.__file__).parents[2] / "data"
DIGITS = {"fp32": DATA / "digits-fp32.onnx", "int8": DATA / "digits-int8.onnx"}
NEEDS_TWO = pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores")


@pytest.fixture(scope="module")
def problem() -> ServeProblem:
    return make(DIGITS, slo="p99=50ms", inputs=DATA / "digits-samples.npz")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"objective": "speed"}, "speed"),
        ({"objective": ""}, "unknown objective"),
        ({"objective": []}, "objective"),
        ({"objective": "cost,cost"}, "once"),
        ({"objective": ["cost", "cost_per_million"]}, "once"),
        ({"slo": "p98=50ms"}, "p98"),
        ({"slo": "p99=50"}, "unit"),
        ({"slo": {"p99": "soon"}}, "soon"),
        ({"rate": 0}, "rate"),
        ({"rate": -3.0}, "rate"),
        ({"rate": math.nan}, "rate"),
        ({"rate": math.inf}, "rate"),
        ({"rate": "fast"}, "fast"),
        ({"rate": True}, "rate"),
        ({"arrivals": "bursty"}, "bursty"),
        ({"cores": 0}, "cores"),
        ({"cores": 1000}, "cores"),
        ({"cores": "2"}, "cores"),
        ({"memory_bytes": 0}, "memory"),
        ({"memory_bytes": -1}, "memory"),
        ({"prices": {"core_hour": -1}}, "core_hour"),
        ({"prices": "missing.yaml"}, "missing.yaml"),
        ({"target": "apache"}, "apache"),
        ({"target": {}}, "lacks a name"),
        ({"target": {"name": "mosec", "colour": "red"}}, "colour"),
    ],
)
def test_options_are_checked_before_anything_starts(options: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInput, match=word) as caught:
        make(DIGITS, **{"slo": "p99=50ms", **options})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"fix": {"colour": 1}}, "colour"),
        ({"fix": {"workers": 100_000}}, "workers"),
        ({"params": {"workers": []}}, "workers"),
        ({"inputs": "missing.npz"}, "missing.npz"),
        ({"input_shapes": {"nothing": [1, 2]}}, "nothing"),
    ],
)
def test_options_that_do_not_fit_the_model(options: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        make(DIGITS["fp32"], **{"slo": "p99=50ms", **options})


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "cost,latency", "rate": 50.0, "arrivals": "constant", "seed": 3},
        {"slo": {"p99": 0.05, "p50": "10ms", "errors": 0.02}, "params": {"workers": [1, 2]}, "memory_bytes": GIB},
        {"fix": {"graph_optimization": "all"}, "prices": {"core_hour": 1, "currency": "EUR"}, "cores": 1},
        {
            "target": {
                "name": "command",
                "command": "srv --port {port} --t {t}",
                "space": {"t": {"int": [1, 4]}},
                "expect": "json",
            }
        },
    ],
)
def test_a_problem_is_made_again_from_its_record(options: dict[str, Any]) -> None:
    first = make(DIGITS, **{"slo": "p99=50ms", "inputs": DATA / "digits-samples.npz", **options})
    spec = json.loads(json.dumps(first.spec(), allow_nan=False))
    again = ServeProblem.from_spec(spec)
    assert again.space == first.space
    assert again.objectives == first.objectives
    assert again.constraints == first.constraints
    assert again.defaults() == first.defaults()
    for name in ("prices", "rate", "arrivals", "inputs", "memory_bytes", "seed", "slo", "machine"):
        assert getattr(again, name) == getattr(first, name), name
    assert again.spec() == first.spec()


def test_a_model_that_has_changed_is_refused(tmp_path: Path, problem: ServeProblem) -> None:
    spec = json.loads(json.dumps(problem.spec()))
    spec["model"]["hashes"]["int8"] = "0" * 64
    with pytest.raises(InvalidInput, match=r"digits-int8.onnx has changed"):
        ServeProblem.from_spec(spec)
    spec["model"]["variants"]["int8"] = str(tmp_path / "gone.onnx")
    with pytest.raises(InvalidInput, match=r"gone.onnx"):
        ServeProblem.from_spec(spec)


def test_secrets_are_not_stored_and_missed_on_resume() -> None:
    target = {
        "name": "command",
        "command": "srv --port {port} --api-key s3cr3tvalue",
        "space": {"t": {"int": [1, 4]}},
        "headers": {"Authorization": "Bearer s3cr3tvalue", "X-Api-Key": "s3cr3tvalue", "Accept": "text/plain"},
    }
    made = make(DIGITS["fp32"], slo="p99=50ms", target=target)
    spec = json.dumps(made.spec())
    assert "s3cr3t" not in spec
    assert "text/plain" in spec
    with pytest.raises(InvalidInput, match="secret") as caught:
        ServeProblem.from_spec(json.loads(spec))
    assert "--name" in caught.value.hint


def test_the_record_is_json(problem: ServeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    record = json.loads(json.dumps(problem.record(), allow_nan=False))
    assert set(record["fingerprint"]["model_hash"]) == {"fp32", "int8"}
    assert record["fingerprint"]["cores"] == len(usable_cores())
    assert record["coding_cost_s"] > 0
    assert record["agreement"]["int8"]
    assert record["baseline"] is True
    assert 8e8 < record["features"]["flops"] < 9e8 and record["probe"] == {}


def test_a_graph_that_cannot_be_counted_delays_and_breaks_nothing(
    problem: ServeProblem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert features(problem.model)["weight_bytes"] > 0
    monkeypatch.setattr(model, "FEATURES_BYTES", 1000)
    assert features(problem.model) == {}
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    assert features(dataclasses.replace(problem.model, variants={"fp32": tmp_path / "m.onnx"})) == {}


def complete(number: int, precision: str, **more: Any) -> Trial:
    metrics = {"throughput_rps": 100.0 - number, "cost_per_million": 1.0 + number}
    return Trial(number, {"n": number, "precision": precision}, State.COMPLETE, metrics=metrics, **more)


def confirmed(problem: ServeProblem, ranked: list[Trial], baseline: Trial | None) -> tuple[list[int], list[int]]:
    """(who was confirmed, whose rate was tested) with a measure that is always content."""
    tested: list[int] = []

    def again(params: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
        if settings["mode"] == "rate":
            tested.append(params["n"])
        metrics = {"throughput_rps": settings["rate"], "cost_per_million": 100 / settings["rate"]}
        return {"state": "complete", "metrics": metrics}

    found = [c.number for c in problem.confirm(ranked, baseline, again, budget_s=60.0)]
    return sorted(found), tested


def test_the_best_three_the_defaults_and_the_best_at_equal_precision_are_confirmed(problem: ServeProblem) -> None:
    ranked = [complete(n, "fp32" if n in (5, 6) else "int8") for n in (1, 2, 3, 4, 5, 6)]
    found, tested = confirmed(problem, ranked, complete(0, "fp32"))
    assert found == [0, 1, 2, 3, 5]
    assert set(tested) >= {0, 5}


def test_defaults_that_failed_are_not_confirmed(problem: ServeProblem) -> None:
    ranked = [complete(n, "fp32") for n in (1, 2)]
    baseline = dataclasses.replace(complete(0, "fp32"), state=State.FAILED)
    assert confirmed(problem, ranked, baseline)[0] == [1, 2]
    assert confirmed(problem, ranked, None)[0] == [1, 2]


def test_latency_is_compared_at_what_the_first_good_trial_has_shown(problem: ServeProblem) -> None:
    by_latency = dataclasses.replace(problem, objective=("latency",))
    assert by_latency.completed([]).rate is None
    assert by_latency.completed([Trial(0, {}, State.FAILED)]).rate is None
    shown = complete(1, "fp32", artifacts={"rate": 40.0})
    completed = by_latency.completed([Trial(0, {}, State.FAILED), shown, complete(2, "fp32", artifacts={"rate": 9.0})])
    assert completed.rate == 40.0
    assert completed.completed([]).rate == 40.0
    assert dataclasses.replace(by_latency, rate=7.0).completed([shown]).rate == 7.0
    assert problem.completed([shown]).rate is None


@pytest.mark.parametrize(
    ("objective", "incumbent", "floor"),
    [
        (("throughput",), {"throughput_rps": 80.0}, 80.0),
        (("throughput",), None, None),
        (("cost",), {"cost_per_million": 2.0}, (2 * 0.5 + 1.3 * 0.1) / (3600 * 2.0) * 1e6),
        (("cost",), {"cost_per_million": 0.0}, None),
        (("latency",), {"latency_p99_at_rate_s": 0.01}, None),
        (("cost", "latency"), {"cost_per_million": 2.0}, None),
    ],
)
def test_the_rate_that_has_to_be_beaten(
    problem: ServeProblem, objective: tuple[str, ...], incumbent: Any, floor: float | None
) -> None:
    """With what the server takes so far: its memory only grows, so the floor is a lenient one."""
    priced = dataclasses.replace(problem, objective=objective, prices=Prices("USD", 0.5, 0.1))
    run = SimpleNamespace(
        problem=priced, ctx=SimpleNamespace(incumbent=incumbent), server=SimpleNamespace(cores=(0, 1))
    )
    found = measure._floor(run, SimpleNamespace(peak_bytes=GIB))  # type: ignore[arg-type]
    assert found is None if floor is None else found == pytest.approx(floor)


def test_memory_that_was_given_is_charged(problem: ServeProblem) -> None:
    priced = dataclasses.replace(problem, prices=Prices("USD", 0.0, 1.0))
    run = SimpleNamespace(problem=priced, server=SimpleNamespace(cores=(0,)))
    observer = SimpleNamespace(peak_bytes=GIB)
    assert measure._cost_per_hour(run, observer) == pytest.approx(1.3)  # type: ignore[arg-type]
    run.problem = dataclasses.replace(priced, memory_bytes=4 * GIB)
    assert measure._cost_per_hour(run, observer) == pytest.approx(4.0)  # type: ignore[arg-type]


@NEEDS_TWO
def test_cores_may_be_fixed_and_the_defaults_then_lie_outside() -> None:
    made = make(DIGITS["fp32"], slo="p99=50ms", fix={"cores": "1"})
    assert made.defaults()["cores"] == len(place(made.machine).server.cores)
    assert not made.space.contains(made.defaults())
    assert made.space.contains({**made.defaults(), "cores": 1, "threads": 1, "spinning": False})


def test_placement() -> None:
    few, many = place(Machine((0, 1), GIB)), place(Machine(tuple(range(8)), GIB))
    assert (few.server.cores, few.generator_cores, few.shared) == ((0, 1), (1,), True)
    assert (many.server.cores, many.generator_cores, many.shared) == (tuple(range(7)), (7,), False)


def test_the_generator_gives_its_core_and_priority_back() -> None:
    before = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    with as_generator(place(Machine(usable_cores(), GIB))) as nice:
        assert nice >= 0
        assert len(os.sched_getaffinity(0)) == 1
    assert (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)) == before
