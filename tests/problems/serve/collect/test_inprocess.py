"""One measurement in process: figures of a real model, and how failures are told."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fettle.core.protocols import Job
from fettle.executors.process import ProcessExecutor
from fettle.problems.serve import onnxfile
from fettle.problems.serve.collect import inprocess
from fettle.problems.serve.collect.inprocess import InProcess, Item, Measured

DATA = Path(str(files("fettle.data")))
DIGITS = Measured(
    {name: DATA / f"digits-{name}.onnx" for name in ("fp32", "int8")},
    {},
    {
        value.name: Item((value.shape or ())[1:], value.dtype)
        for value in onnxfile.read(DATA / "digits-fp32.onnx").inputs
    },
)
PARAMS = {
    "workers": 1,
    "threads": 1,
    "spinning": False,
    "max_batch": 1,
    "precision": "fp32",
    "graph_optimization": "all",
}
Measure = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def executor() -> Iterator[ProcessExecutor]:
    with closing(ProcessExecutor(threads=1)) as made:
        yield made


@pytest.fixture
def measure(executor: ProcessExecutor, tmp_path: Path) -> Measure:
    def run(model: Measured = DIGITS, **params: Any) -> dict[str, Any]:
        evaluate = InProcess({"m": model}, min_s=0.1, max_s=0.2)
        executor.submit(Job(1, {"model": "m", **PARAMS, **params}, 1, tmp_path / "work"), evaluate)
        return dict(executor.poll(60.0, lambda number, report: True)[0].payload)

    return run


def test_figures_agree_with_each_other(measure: Measure) -> None:
    """With one worker the loop is never idle, so that throughput is the batch over the mean latency."""
    for batch in (1, 4):
        told = measure(max_batch=batch)
        assert told["state"] == "complete"
        metrics, intervals = told["metrics"], told["intervals"]
        assert set(metrics) == {"throughput_rps", "latency_p50_s", "latency_p99_s", "rss_bytes"}
        low, high, n = intervals["throughput_rps"]
        assert low <= metrics["throughput_rps"] <= high
        assert n == told["artifacts"]["runs"] >= 3
        busy = metrics["throughput_rps"] * told["artifacts"]["seconds"] / batch
        assert n == pytest.approx(busy, abs=1.5)
        assert intervals["latency_p50_s"][0] <= metrics["latency_p50_s"] <= metrics["latency_p99_s"]
        assert intervals["latency_p99_s"][1] is None or n >= 368
        assert metrics["rss_bytes"] > 2e7


@pytest.mark.parametrize(
    "params",
    [
        {"workers": 3},
        {"workers": 2, "threads": 2, "spinning": True, "max_batch": 2},
        {"precision": "int8", "graph_optimization": "basic"},
        {"precision": "int8", "graph_optimization": "extended", "threads": 2},
    ],
)
def test_every_knob_runs(measure: Measure, params: dict[str, Any]) -> None:
    assert measure(**params)["metrics"]["throughput_rps"] > 0


def test_memory_is_of_one_measurement_alone(measure: Measure) -> None:
    """A large one leaves nothing behind."""
    before = measure()["metrics"]["rss_bytes"]
    large = measure(max_batch=64, workers=2)["metrics"]["rss_bytes"]
    after = measure()["metrics"]["rss_bytes"]
    assert large > 1.2 * before
    assert after == pytest.approx(before, rel=0.1)


def test_a_missing_version_is_a_failure(measure: Measure) -> None:
    model = Measured({"fp32": DIGITS.files["fp32"]}, {"int8": "no operator"}, DIGITS.inputs)
    told = measure(model, precision="int8")
    assert (told["failure"], told["error"]) == ("other", "no operator")


def test_a_file_that_does_not_load_is_a_failure(measure: Measure, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    told = measure(Measured({"fp32": tmp_path / "broken.onnx"}, {}, DIGITS.inputs))
    assert told["failure"] == "other"
    assert "broken.onnx" in told["error"]
    told = measure(Measured(DIGITS.files, {}, {"image": Item((1, 95, 7), "float32")}))
    assert told["failure"] == "other"


def test_outputs_that_are_not_finite_are_a_failure(measure: Measure, tmp_path: Path, onnx_tools: Any) -> None:
    from onnx import helper

    log = helper.make_node("Log", ["x"], ["y"])
    shape = ["batch", 8]
    path = onnx_tools.save(
        tmp_path / "log.onnx", [log], [onnx_tools.tensor("x", shape)], [onnx_tools.tensor("y", shape)]
    )
    assert measure(Measured({"fp32": path}, {}, {"x": Item((8,), "float32")}))["failure"] == "nan"


def dies(number: int) -> dict[str, Any]:
    os.kill(os.getpid(), number)
    time.sleep(10)
    return {}


def raises(error: Exception) -> dict[str, Any]:
    raise error


@pytest.mark.parametrize(
    ("work", "failure"),
    [
        (lambda: dies(signal.SIGTRAP), "crash"),
        (lambda: dies(signal.SIGKILL), "oom"),
        (lambda: os._exit(3), "crash"),
        (lambda: raises(MemoryError("too much")), "oom"),
        (lambda: raises(RuntimeError("Failed to allocate memory for a buffer")), "oom"),
        (lambda: raises(RuntimeError("shapes differ")), "other"),
    ],
)
def test_a_child_may_end_in_any_way(work: Callable[[], dict[str, Any]], failure: str) -> None:
    found = inprocess._forked(work)
    assert found["failure"] == failure
    assert "error" in found


def test_a_child_answers() -> None:
    assert inprocess._forked(lambda: {"runs": 3}) == {"runs": 3}


def test_rates_count_runs_that_are_under_way() -> None:
    """Two workers, of 10 and 4 runs per second, whose runs end at other times."""
    times = [np.arange(0.03, 2.0, 0.1), np.arange(0.11, 2.0, 0.25)]
    rate, half = inprocess._rate(times)
    assert rate == pytest.approx(14.0)
    assert half < 1e-6


def test_the_interval_covers() -> None:
    """Of noisy runs, about 95 % of the intervals hold the true rate."""
    rng = np.random.default_rng(0)
    n_within, n = 0, 400
    for _ in range(n):
        times = [np.cumsum(rng.gamma(25.0, 0.01 / 25.0, 200)) for _ in range(2)]
        rate, half = inprocess._rate(times)
        n_within += abs(rate - 200.0) <= half
    assert 0.91 < n_within / n < 0.985
