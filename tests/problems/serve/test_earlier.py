"""Measurements of other models, told as trials of a new one."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from earlier_models import FEATURES, PROBE, SPACE, measured

from fettle.core.space import Int, Params, Space
from fettle.problems.serve import earlier, problem
from fettle.problems.serve.cost import Prices
from fettle.problems.serve.earlier import Served, StandIn, nearest, stand_ins
from fettle.problems.serve.slo import SLO

DATA = Path(str(files("fettle.data")))
DEFAULT = {
    "workers": 1, "threads": 2, "spinning": False, "max_batch": 1, "max_wait_s": 0.0, "graph_optimization": "all",
    "precision": "fp32", "cores": 2,
}  # fmt: skip


def served(**more: Any) -> Served:
    made = Served(FEATURES, 0.02, DEFAULT, PROBE, SLO.parse("p99=200ms"), Prices.load(), lambda p: p, 2e-5)
    return replace(made, **more)


def test_what_was_measured_is_taken_as_it_is() -> None:
    task = measured()
    other = StandIn(task, PROBE)
    for params, metrics in task.rows[:20]:
        sessions = {"threads": 1, "spinning": False, "cores": 2, **params}
        assert other.at(sessions) == pytest.approx(metrics["throughput_rps"])


def test_elsewhere_the_roofline_says_how_far_to_go() -> None:
    few, all_ = StandIn(measured(n=40), PROBE), StandIn(measured(), PROBE)
    points = [{"threads": 1, "spinning": False, "cores": 2, **p} for p in SPACE.enumerate()]
    gaps = [abs(np.log(few.at(p) / all_.at(p))) for p in points]
    assert np.median(gaps) < 0.02
    larger = {**DEFAULT, "max_batch": 64}  # outside of what was measured
    assert 0.9 < all_.at(larger) / all_.at({**larger, "max_batch": 16}) < 1.2
    one = {**DEFAULT, "workers": 2, "threads": 1}
    assert all_.at({**one, "cores": 1}) == pytest.approx(0.5 * all_.at(one), rel=0.2)


def test_the_stand_in_is_as_fast_as_the_new_model() -> None:
    """The defaults alone, without a limit that binds: a little under one request per pace."""
    metrics = served(slo=SLO.parse("p99=20s")).metrics(StandIn(measured(), PROBE), DEFAULT)
    assert 0.8 / 0.02 < metrics["throughput_rps"] < 1.0 / 0.02


@pytest.mark.parametrize(
    "params", [DEFAULT, {**DEFAULT, "workers": 2, "threads": 1, "max_batch": 8, "max_wait_s": 0.01}]
)
def test_a_tighter_limit_leaves_less(params: Params) -> None:
    other = StandIn(measured(), PROBE)
    rates = [served(slo=SLO.parse(f"p99={ms}ms")).metrics(other, params) for ms in (2000, 500, 100)]
    found = [metrics["throughput_rps"] for metrics in rates]
    assert found == sorted(found, reverse=True)
    assert found[0] > 1.1 * found[-1]
    beyond = served(slo=SLO.parse("p99=10ms")).metrics(other, params)
    assert beyond["latency_p99_s"] > 0.01
    assert "throughput_rps" not in beyond


def test_cost_counts_cores_and_memory() -> None:
    other = StandIn(measured(), PROBE)
    two = served().metrics(other, DEFAULT)
    hour = Prices.load().per_hour(cores=2, memory_bytes=two["rss_bytes"])
    assert two["cost_per_million"] == pytest.approx(hour / (3600 * two["throughput_rps"]) * 1e6)
    fixed = served(memory_bytes=10 << 30).metrics(other, DEFAULT)
    assert fixed["cost_per_million"] > two["cost_per_million"]


def test_the_nearest_models_come_first() -> None:
    tasks = [measured(str(i), n=2, flops=2e9 * 4.0**i) for i in range(6)]
    assert [m.name for m in nearest({**FEATURES, "flops": 3.3e10}, tasks, 3)] == ["2", "3", "1"]


def test_rows_are_in_the_params_and_metrics_of_the_study() -> None:
    made = problem.make({"fp32": DATA / "digits-fp32.onnx", "int8": DATA / "digits-int8.onnx"}, slo="p99=50ms")
    tasks = stand_ins(made, [measured(str(i), n=60, flops=2e9 * 2.0**i) for i in range(5)], n=3, points=40)
    assert len(tasks) == 3
    for task in tasks:
        assert len(task.rows) == 40
        for params, metrics in task.rows:
            assert made.space.contains(params)
            assert set(metrics) <= {"cost_per_million", "latency_p99_s"}
    again = stand_ins(made, [measured(str(i), n=60, flops=2e9 * 2.0**i) for i in range(5)], n=3, points=40)
    assert [params for params, _ in again[0].rows] == [params for params, _ in tasks[0].rows]


def test_a_target_that_tells_nothing_of_its_sessions_has_no_stand_ins() -> None:
    command = {"name": "command", "command": "x --port {port}", "space": Space(t=Int(1, 4)).to_json()}
    made = problem.make(DATA / "digits-fp32.onnx", slo="p99=50ms", target=command)
    assert stand_ins(made, [measured()], n=3, points=40) == []


def test_models_that_only_failed_are_left_out() -> None:
    made = problem.make(DATA / "digits-fp32.onnx", slo="p99=50ms")
    failed = replace(measured("failed", n=2), rows=tuple((p, {}, "crash") for p, *_ in measured(n=2).rows))
    assert [task.name for task in stand_ins(made, [failed, measured(n=60)], n=3, points=5)] == ["other"]


def test_a_probe_is_taken_where_the_processor_is_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    taken = []
    monkeypatch.setattr(earlier, "machine_features", lambda server: taken.append(server) or PROBE)
    made = problem.make(DATA / "digits-fp32.onnx", slo="p99=50ms")
    assert stand_ins(made, [measured(n=60)], n=1, points=5)
    assert len(taken) == 1
