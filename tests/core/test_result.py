"""From figures and exceptions to payloads."""

import json
import math
from typing import Any

import numpy as np
import pytest

from fettle.core.errors import InvalidInput, TrialFailure, TrialStopped
from fettle.core.result import from_error, missing, reported, result
from fettle.core.trial import FAILURES, Estimate, Objective, State


def test_figures_become_plain_floats() -> None:
    p99: Any = Estimate(np.float64(2.0), 1, np.float32(3), np.int64(9))  # type: ignore[arg-type]
    given: dict[str, Any] = {"loss": np.float32(0.5), "n": np.int64(3), "ok": True, "p99": p99}
    payload = result(given)
    assert json.loads(json.dumps(payload)) == payload
    assert payload == {
        "state": "complete",
        "metrics": {"loss": 0.5, "n": 3.0, "ok": 1.0, "p99": 2.0},
        "intervals": {"p99": [1.0, 3.0, 9]},
    }
    assert {type(v) for v in payload["metrics"].values()} == {float}


def test_an_infinite_end_is_a_bound_and_an_unknown_one_is_no_interval() -> None:
    payload = result({"a": Estimate(1, 1, math.inf, 5), "b": Estimate(1, math.nan, 2), "c": Estimate(1, -math.inf, 1)})
    assert payload["intervals"] == {"a": [1.0, None, 5], "c": [None, 1.0, 1]}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, Estimate(math.nan, 0, 1)])
def test_figures_that_are_not_finite_make_a_failure(value: Any) -> None:
    payload = result({"loss": value, "other": 1.0})
    assert (payload["state"], payload["failure"], payload["metrics"]) == ("failed", "nan", {"other": 1.0})
    assert "loss" in payload["error"]


def test_errors_and_failures() -> None:
    assert result({"loss": 1.0}, error="broke") == {
        "state": "failed", "metrics": {"loss": 1.0}, "failure": "other", "error": "broke"
    }  # fmt: skip
    for failure in FAILURES:
        assert result({}, failure=failure) == {"state": "failed", "metrics": {}, "failure": failure}
    assert result({"loss": math.nan}, failure="oom")["failure"] == "oom"
    assert result({"loss": 1.0}, state=State.STOPPED)["state"] == "stopped"


@pytest.mark.parametrize(
    "metrics",
    [None, 0.3, [0.3], {"loss": "0.3"}, {"loss": None}, {"loss": b"1"}, {1: 0.3}, {"loss": [1, 2]}, {"x": 10**400}],
)
def test_what_is_no_mapping_to_numbers_is_refused(metrics: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        result(metrics)
    assert caught.value.hint


def test_unknown_failure_class() -> None:
    with pytest.raises(InvalidInput, match="no such") as caught:
        result({}, failure="no such")
    assert "oom" in caught.value.hint


def test_missing_objectives() -> None:
    objectives = [Objective("a"), Objective("b")]
    assert missing(result({"b": 1}), objectives) == ["a"]
    assert missing(result({}, error="x"), objectives) == []


def test_reports() -> None:
    assert reported(3, {"loss": np.float32(0.5), "bad": math.nan}) == {"fidelity": 3.0, "metrics": {"loss": 0.5}}
    for fidelity, metrics in ((math.nan, {}), ("x", {}), (1, None), (1, {"loss": "x"})):
        with pytest.raises(InvalidInput):
            reported(fidelity, metrics)  # type: ignore[arg-type]


def test_exceptions() -> None:
    failure = TrialFailure("no room", failure="oom", log="tail", metrics={"loss": 1.0, "bad": math.inf})
    assert from_error(failure) == {
        "state": "failed", "metrics": {"loss": 1.0}, "failure": "oom", "error": "no room", "artifacts": {"log": "tail"}
    }  # fmt: skip
    assert from_error(TrialStopped("hopeless", {"loss": 2.0})) == {
        "state": "stopped", "metrics": {"loss": 2.0}, "error": "hopeless"
    }  # fmt: skip
    assert from_error(MemoryError("x"))["failure"] == "oom"
    assert from_error(KeyError("x")) == {
        "state": "failed", "metrics": {}, "failure": "other", "error": "KeyError: 'x'"
    }  # fmt: skip
    assert from_error(TrialFailure("x", failure="no such"))["failure"] == "other"
    assert len(from_error(ValueError("x" * 10_000))["error"]) == 2000
