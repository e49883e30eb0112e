"""The answer as JSON, and the summary that everything shown is made from."""

import json
import math
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from fettle.core.trial import State
from fettle.report import tables
from fettle.report.document import answer
from fettle.report.summary import Summary

from . import studies


def document(name: str) -> dict[str, Any]:
    journal, found = studies.ALL[name]()
    return answer(journal.log, found.best, found.front, found.reason, {"report": "report.html"})


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("fettle.schemas").joinpath(f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(loaded)
    return loaded


@pytest.mark.parametrize("name", studies.ALL)
def test_answers_are_strict_json_and_fit_the_schema(name: str) -> None:
    found = document(name)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    jsonschema.validate(found, schema("answer"))


def test_the_answer_of_a_serve_study() -> None:
    journal, found = studies.serve()
    made = document("serve")
    winner = journal.log.trials[found.best or 0]
    assert made["feasible"]
    assert made["trial"]["number"] == winner.number
    assert winner.confirmed is not None
    assert made["trial"]["metrics"]["throughput_rps"] == winner.confirmed["metrics"]["throughput_rps"]
    assert made["baseline"]["number"] == 0
    assert made["gain"]["shown"]
    assert made["cost"]["trials"] == {"complete": 16, "stopped": 3, "failed": 4}
    told = sum(t.timings["wall_s"] for t in journal.log.trials)
    assert made["cost"]["wall_s"] == pytest.approx(told + 3 * 21.0)
    per_hour = 2 * 0.04 + 8 * 0.005
    assert made["cost"]["money"] == pytest.approx(made["cost"]["wall_s"] / 3600 * per_hour)


def test_an_infeasible_study_names_the_closest_trial() -> None:
    made = document("infeasible")
    assert not made["feasible"]
    assert made["trial"] is None
    assert made["closest"]["state"] == "complete"
    assert made["gain"] is None


def test_bounds_and_nan_become_null() -> None:
    journal, _ = studies.serve()
    limited = next(t for t in journal.log.trials if t.intervals.get("throughput_rps", (0, 0, 0))[1] == math.inf)
    made = answer(journal.log, limited.number, [], "", {})
    assert made["trial"]["intervals"]["throughput_rps"][1] is None
    odd = answer(studies.infeasible()[0].log, None, [], "", {})
    odd["closest"]["metrics"]["x"] = None
    jsonschema.validate(odd, schema("answer"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("serve", ["digits-cnn holds", "req/s", "per million requests", "% lower cost"]),
        ("infeasible", ["SLO infeasible: the best attainable p99 latency is", "the limit is 2 ms"]),
        ("empty", ["No trial has been run"]),
        ("all_failed", ["no trial was completed", "2 by crash"]),
        ("function", ["is the best found, with loss", "and accuracy"]),
    ],
)
def test_headlines(name: str, words: list[str], summary_of: Callable[[str], Summary]) -> None:
    headline = summary_of(name).headline
    assert [w for w in words if w not in headline] == []


def test_marks_and_roles(summary_of: Callable[[str], Summary]) -> None:
    summary = summary_of("serve")
    marks = {mark for row in summary.rows for mark in row.marks}
    assert marks == {"stopped early", "client limited", "noisy", "confirmed"}
    assert [r.role for r in summary.rows if r.role] == ["defaults", "winner"]
    assert summary.ranked[0].role == "winner"
    assert all(r.trial.state is State.COMPLETE for r in summary.ranked)


def test_a_confirmation_that_failed_is_infeasible() -> None:
    journal, found = studies.serve()
    assert found.best is not None
    journal.add("remeasured", found.best, {"source": "confirm", "metrics": {}, "passed": False, "wall_s": 1.0})
    from fettle.report.document import summarise

    row = summarise(journal.log, None, (), "", {}).rows[found.best]
    assert not row.feasible
    assert "not confirmed" in row.marks


def test_the_comparison_shows_both_with_intervals(summary_of: Callable[[str], Summary]) -> None:
    table = tables.comparison(summary_of("serve"))
    assert [title.split(" (")[0] for title, _ in table.columns] == ["", "Winner", "Defaults"]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert all("[" in text for text in rows["throughput"])
    assert rows["precision"] == ["int8", "fp32"]
    assert table.rows[table.split][0].text == "workers"


@pytest.mark.parametrize("name", studies.ALL)
def test_every_table_is_rectangular(name: str, summary_of: Callable[[str], Summary]) -> None:
    summary = summary_of(name)
    makers = (tables.comparison, tables.trials, tables.cost, tables.experiment, tables.machine, tables.measurement)
    for table in (make(summary) for make in makers):
        assert {len(row) for row in table.rows} <= {len(table.columns)}, table.caption


def test_list_and_error_documents_fit_their_schemas() -> None:
    made = document("serve")
    listed = {"name": "s", "state": "open", "problem": "serve", "trials": {"complete": 3}, "best": made["trial"]}
    jsonschema.validate({"schema": 1, "studies": [listed, {**listed, "best": None}]}, schema("list"))
    jsonschema.validate({"schema": 1, "error": "no such file", "hint": ""}, schema("error"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": 1, "error": ""}, schema("error"))


GOOD: list[dict[str, Any]] = [
    {"problem": "serve", "model": "m.onnx", "slo": "p99=50ms"},
    {"problem": "serve", "model": {"fp32": "a.onnx", "int8": "b.onnx"}, "slo": {"p99": 0.05, "errors": "1%"}},
    {"problem": "serve", "model": "m", "slo": {"p99.9": "50ms"}, "objective": ["cost", "latency"], "budget": "1h30m"},
    {"problem": "serve", "model": "m", "slo": "p99=1s", "objective": "cost,throughput", "budget": 300, "seed": 1},
    {"problem": "serve", "model": "m", "slo": "p99=1s", "algorithm": {"name": "random"}, "param": {"workers": [1, 2]}},
    {"problem": "serve", "model": "m", "slo": "p99=1s", "memory_limit": "2GiB", "prices": {"core_hour": 0.1}},
    {
        "problem": "serve",
        "model": "m",
        "slo": "p99=1s",
        "target": "command",
        "command": {"command": "s --port {port}", "space": "space.yaml", "ready": "/health"},
    },
]


@pytest.mark.parametrize("experiment", GOOD)
def test_experiments(experiment: dict[str, Any]) -> None:
    jsonschema.validate(experiment, schema("experiment"))


@pytest.mark.parametrize(
    "change",
    [
        {"budgett": "5m"},
        {"slo": {"p98": 1}},
        {"slo": {}},
        {"trials": 0},
        {"budget": 0},
        {"budget": "soon"},
        {"objective": "speed"},
        {"objective": ["cost", "cost"]},
        {"target": "command"},
        {"target": "triton"},
        {"param": {"workers": []}},
        {"input_shape": {"x": [0]}},
        {"cores": True},
        {"prices": {"core_hour": -1}},
        {"problem": "tune"},
    ],
)
def test_wrong_experiments(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**GOOD[0], **change}, schema("experiment"))


def test_every_key_of_an_experiment_says_what_it_is() -> None:
    keys = schema("experiment")["properties"]
    assert [k for k, v in keys.items() if not v.get("title")] == []
