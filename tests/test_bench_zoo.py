"""The zoo: every architecture runs at several batches, in both precisions, and the card says what the rows say."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import meta_card
import meta_figures
from zoo.__main__ import write
from zoo.catalogue import MODELS, build
from zoo.graph import make_items

from fettle.problems.serve.collect import rows
from fettle.problems.serve.collect.grid import ordered, shared_space
from fettle.problems.serve.roofline import roofline

SAMPLE = (
    "resnet20_small",
    "densenet_small",
    "mobilenet_v3",
    "shufflenet_v2",
    "unet_small",
    "bert_tiny",
    "tcn",
    "lstm",
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def session(data: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def check(name: str, folder: Path) -> None:
    model = build(name)
    fp32 = session(model.SerializeToString())
    items = make_items(model, 4, seed=1)
    together = fp32.run(None, items)
    alone = fp32.run(None, {key: array[:1] for key, array in items.items()})
    for many, one in zip(together, alone, strict=True):
        assert many.shape == (4, *one.shape[1:])
        assert np.isfinite(many).all()
        np.testing.assert_allclose(many[:1], one, rtol=0.01, atol=0.01 * float(np.abs(one).max()))
    assert 1e-4 < float(together[0].std()) < 1e4  # neither denormal nor about to overflow
    assert all(dim.dim_param == "batch" for value in model.graph.input for dim in value.type.tensor_type.shape.dim[:1])
    write(name, folder)
    int8 = folder / f"{name}.int8.onnx"
    if not int8.exists():
        assert (folder / f"{name}.int8.txt").read_text().strip()
        return
    answers = session(str(int8)).run(None, items)
    assert all(np.isfinite(array).all() for array in answers)
    for path in folder.iterdir():
        path.unlink()


def test_the_catalogue_is_large_and_named_plainly() -> None:
    assert len(MODELS) >= 40
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in MODELS)


def test_weights_are_the_seeds() -> None:
    a, b, c = (build("tcn", seed=seed).SerializeToString() for seed in (0, 0, 1))
    assert a == b != c


@pytest.mark.medium
@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_runs(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*MODELS} - {*SAMPLE}))
def test_the_rest_runs(name: str, tmp_path: Path) -> None:
    check(name, tmp_path)


PROBE = {
    "cores": 2.0,
    "flops_fp32_1": 1e11,
    "flops_fp32_all": 1.8e11,
    "ops_int8_1": 4e11,
    "ops_int8_all": 7e11,
    "bandwidth_1": 1e10,
    "bandwidth_all": 2e10,
}
FINGERPRINT = {"cpu_model": "c", "cores": 2, "memory_bytes": 1 << 33, "kernel": "k", "packages": {"onnxruntime": "1"}}


def collected(path: Path, *, repeats: int, noise: float) -> Path:
    """Rows as the roofline predicts them, of four models, two with the full grid."""
    space, rng = shared_space(2), np.random.default_rng(0)
    points = ordered(space, seed=0)
    writer = rows.Writer(path)
    settings = {"points": 60, "full": 2, "top": 20, "repeats": repeats, "seed": 0}
    header = {"schema": 1, "space": space.to_json(), "settings": settings, "fingerprint": FINGERPRINT, "probe": PROBE}
    writer.append("header", header)
    features: dict[str, dict[str, float]] = {}
    for i, name in enumerate("abcd"):
        features[name] = {
            "flops": 1e8 * 4**i,
            "weight_bytes": 1e8 / 3**i,
            "activation_bytes": 1e6,
            "operators": 100.0,
            "share_conv": 1.0,
        }
        writer.append("model", {"name": name, "features": features[name], "sha256": ""})
    for name in "abcd":
        predict = roofline(features[name], PROBE)
        for j, params in enumerate(points if name in "ab" else points[:60]):
            for repeat in range(1 + repeats * (j < 20 and name in "ab")):
                found = {
                    metric: v * float(np.exp(noise * rng.standard_normal())) for metric, v in predict(params).items()
                }
                metrics = {**found, "latency_p99_s": 1.1 * found["latency_p50_s"], "rss_bytes": 1e8}
                line = {"model": name, "params": params, "repeat": repeat, "metrics": metrics, "intervals": {}}
                writer.append("row", line | {"foreign": 0.0, "tries": 1, "runs": 50, "seconds": 0.3, "at": 1e9 + j})
    failed = {"model": "d", "params": points[60], "repeat": 0, "metrics": {}, "intervals": {}, "failure": "oom"}
    writer.append("row", failed | {"foreign": 0.2, "tries": 3, "runs": 0, "seconds": 0.0, "at": 1e9})
    writer.close()
    return path


def test_the_card_says_what_the_rows_say(tmp_path: Path) -> None:
    path = collected(tmp_path / "rows.jsonl", repeats=5, noise=0.02)
    table = meta_figures.Table.of(rows.read(path))
    assert table.full() == ["a", "b"]
    noise = meta_figures.repeats(table)
    assert noise is not None and noise.points == 40
    assert noise.spread["throughput_rps"][0] == pytest.approx(0.02, rel=0.2)
    assert noise.covered > 0.85
    effects = {effect.name: effect for effect in meta_figures.knobs(table)}
    assert effects["spinning"].throughput[0] < 1.1 < effects["precision"].throughput[0]
    assert effects["precision"].share > 5 * effects["spinning"].share
    prior = meta_figures.roofline_correlations(rows.read(path), table)
    assert min(prior.values()) > 0.95
    text = meta_card.card(path)
    for said in ("4 models", "1 oom", "Apache-2.0", "`precision`", "| 1.5 x |", "1 rows remain", "## The models"):
        assert said in text, said


def test_points_that_do_not_differ_are_counted_once(tmp_path: Path) -> None:
    """Without noise, spinning changes nothing that the roofline knows of, nor do the last two levels in int8."""
    table = meta_figures.Table.of(rows.read(collected(tmp_path / "rows.jsonl", repeats=0, noise=0.0)))
    assert meta_figures.repeats(table) is None
    distinct = meta_figures.distinct(table)
    assert all(20 < n <= 180 for n in distinct.values()), distinct
    idle = {effect.name: effect.idle for effect in meta_figures.knobs(table)}
    assert idle["spinning"] == 1.0 > idle["precision"]


def test_the_static_policy_knows_nothing_of_the_model(tmp_path: Path) -> None:
    table = meta_figures.Table.of(rows.read(collected(tmp_path / "rows.jsonl", repeats=0, noise=0.0)))
    regrets = meta_figures.static(table)
    assert set(regrets) == {"none", "3 x", "1.5 x"}
    assert all(((r >= 0) & (r <= 1)).all() and len(r) == 4 for r in regrets.values())
    correlations = meta_figures.correlations(table)
    assert correlations is not None and len(correlations.values) == 6
    assert json.dumps(correlations.most)
