"""The analytic prior: it moves the right way, and ranks what is measured."""

import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
from meta_figures import spearman
from zoo.__main__ import write

from fettle.core.protocols import Job
from fettle.executors.process import ProcessExecutor
from fettle.host.machine import machine
from fettle.problems.runtimes.onnxgraph import model_features
from fettle.problems.runtimes.probe import machine_features
from fettle.problems.serve.collect.campaign import find
from fettle.problems.serve.collect.grid import ordered, shared_space
from fettle.problems.serve.collect.inprocess import InProcess
from fettle.problems.serve.roofline import roofline

MACHINE = {
    "cores": 4.0,
    "flops_fp32_1": 1e11,
    "flops_fp32_all": 3.6e11,
    "ops_int8_1": 4e11,
    "ops_int8_all": 1.4e12,
    "bandwidth_1": 1e10,
    "bandwidth_all": 2e10,
}
MODEL = {"flops": 2e9, "weight_bytes": 5e7, "activation_bytes": 2e7, "operators": 100.0, "share_conv": 1.0}
PARAMS = {"workers": 1, "threads": 1, "max_batch": 1, "precision": "fp32", "graph_optimization": "all"}


def test_it_moves_the_right_way() -> None:
    predict = roofline(MODEL, MACHINE)

    def change(**more: object) -> tuple[float, float]:
        now, then = predict(PARAMS), predict(PARAMS | more)
        return (
            then["throughput_rps"] / now["throughput_rps"],
            then["latency_p50_s"] / now["latency_p50_s"],
        )

    assert change(precision="int8")[0] > 2
    assert change(precision="int8", graph_optimization="basic")[0] < 1
    assert 1.5 < change(threads=2)[0] < 2
    throughput, latency = change(workers=4)
    assert 3 < throughput <= 4 and latency < 1.34
    throughput, latency = change(workers=8)  # twice the cores: no gain, twice the latency
    assert 3 < throughput <= 4 and 2 <= latency < 2.7
    throughput, latency = change(max_batch=8)
    assert 1 <= throughput < 1.5 and 7 < latency <= 8
    assert predict({})["throughput_rps"] == predict(PARAMS)["throughput_rps"]


def test_batches_pay_where_weights_are_the_load() -> None:
    predict = roofline(MODEL | {"flops": 1e7, "activation_bytes": 1e5}, MACHINE)
    one, many = (predict(PARAMS | {"max_batch": n})["throughput_rps"] for n in (1, 8))
    assert many > 6 * one


def test_one_core_is_a_machine() -> None:
    small = MACHINE | {"cores": 1.0, "flops_fp32_all": 1e11, "ops_int8_all": 4e11}
    assert 0 < roofline(MODEL, small)(PARAMS)["latency_p50_s"] < 1


@pytest.mark.medium
def test_it_ranks_what_is_measured(tmp_path: Path) -> None:
    """Over configurations of each model, and over models at the defaults."""
    names = ("resnet20_small", "bert_mini", "mlp_deep")
    for name in names:
        write(name, tmp_path)
    here, models = machine(), find(tmp_path)
    probe = machine_features(here, seconds=1.0)
    points = ordered(shared_space(len(here.cores)), seed=0)[:24:2]
    evaluate, everything = InProcess(models, min_s=0.1, max_s=0.2), []
    with closing(ProcessExecutor(threads=1)) as executor:
        for name in names:
            predict = roofline(model_features(models[name].files["fp32"]), probe)
            pairs = []
            for i, params in enumerate(points):
                executor.submit(Job(i, {"model": name, **params}, i, tmp_path / "work"), evaluate)
                payload = executor.poll(60.0, lambda number, report: True)[0].payload
                assert payload["state"] == "complete", payload
                pairs.append((predict(params)["throughput_rps"], payload["metrics"]["throughput_rps"]))
            guess, truth = np.array(pairs).T
            assert spearman(guess, truth) > 0.5, name
            everything += pairs
    guess, truth = np.array(everything).T
    assert spearman(guess, truth) > 0.6
