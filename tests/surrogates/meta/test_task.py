"""Tasks: what they take, what they refuse, and how studies become tasks."""

import json
import math
from typing import Any

import pytest

import fettle
from fettle.core.errors import InvalidInput
from fettle.surrogates.meta import Row, Task

GOOD = ({"batch": 8}, {"throughput_rps": 812.0, "latency_p99_s": 0.04})


def test_rows_may_have_three_forms() -> None:
    task = fettle.meta.Task("m", rows=[GOOD, ({"batch": 9}, "oom"), ({"batch": 7}, {"rss_bytes": 3}, "crash"), GOOD])
    assert task.rows[1] == Row({"batch": 9}, {}, "oom")
    assert task.rows[2] == Row({"batch": 7}, {"rss_bytes": 3.0}, "crash")
    assert task.metrics == ["latency_p99_s", "rss_bytes", "throughput_rps"]
    assert task.rows[0] == task.rows[3]  # repeats are kept


def test_what_is_not_known_is_left_out() -> None:
    assert Task("m", [({"a": 1}, {"x": math.nan, "y": 2.0, "z": math.inf})]).metrics == ["y"]


@pytest.mark.parametrize(
    ("name", "rows", "more", "message"),
    [
        ("", [GOOD], {}, "expected a name"),
        ("m", [], {}, "at least one"),
        ("m", "oom", {}, "list of rows"),
        ("m", [GOOD, {"batch": 8}], {}, r"rows\[1\]: expected \(params, metrics\)"),
        ("m", [({"batch": 8}, 3.0)], {}, r"rows\[0\]: expected metrics"),
        ("m", [({"batch": 8}, "boom")], {}, "unknown failure 'boom'"),
        ("m", [({"batch": 8}, {"x": "fast"})], {}, "'x': expected a number, got 'fast'"),
        ("m", [({"batch": 8}, {"x": None})], {}, "'x': expected a number, got None"),
        ("m", [({"batch": 8}, {"x": math.nan})], {}, "no row has"),
        ("m", [GOOD], {"space": {"batch": 8}}, "expected a fettle.Space"),
        ("m", [GOOD], {"features": {"flops": "many"}}, "features: 'flops'"),
    ],
)
def test_wrong_input_is_named(name: str, rows: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Task(name, rows, **more)


def test_json_brings_a_task_back() -> None:
    space = fettle.Space(batch=fettle.Int(1, 16, unit="items"))
    task = Task("m", [GOOD, ({"batch": 9}, "oom")], space=space, features={"flops": 1e9}, context={"cores": 2})
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_a_study_becomes_a_task() -> None:
    study = fettle.Study(fettle.Space(x=fettle.Int(0, 9)), objectives=["loss"], algorithm="grid", name="s")
    study.tell(study.ask(), {"loss": 1.0, "seconds": 2.0})
    study.tell(study.ask(), error="killed", failure="oom")
    study.tell(study.ask(), failure="lost")
    study.ask()
    task = Task.from_study(study)
    assert [(row.params["x"], row.failure) for row in task.rows] == [(0, ""), (1, "oom")]
    assert task.rows[0].metrics == {"loss": 1.0, "seconds": 2.0}
    assert task.space == study.space
    with pytest.raises(InvalidInput, match="no finished trial"):
        Task.from_study(fettle.Study(study.space, objectives=["loss"]))
