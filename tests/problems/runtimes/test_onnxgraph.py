import math
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
from zoo import convnets, mobile
from zoo.graph import Graph

from fettle.core.errors import ModelError
from fettle.problems.runtimes.onnxgraph import model_features

DATA = Path(str(files("fettle.data")))


def weight(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(np.zeros(shape, np.float32), name)


def test_small_graphs_are_counted_as_by_hand(tmp_path: Path, onnx_tools: Any) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    pooled = helper.make_node("GlobalAveragePool", ["y"], ["p"])
    flat = helper.make_node("Flatten", ["p"], ["f"])
    gemm = helper.make_node("Gemm", ["f", "v"], ["z"])
    path = onnx_tools.save(
        tmp_path / "m.onnx",
        [conv, pooled, flat, gemm],
        [onnx_tools.tensor("x", ["batch", 4, 16, 16])],
        [onnx_tools.tensor("z", ["batch", 10])],
        initializer=[weight("w", 8, 4, 3, 3), weight("v", 8, 10)],
    )
    found = model_features(path)
    convolved, dense, pool = 2 * 8 * 8 * 8 * 4 * 9, 2 * 8 * 10, 8 * 8 * 8
    assert found["flops"] == convolved + dense + pool
    assert found["share_conv"] == pytest.approx(convolved / found["flops"])
    assert found["share_matmul"] == pytest.approx(dense / found["flops"])
    assert found["weight_bytes"] == 4 * (8 * 4 * 9 + 80)
    assert found["activation_bytes"] == 4 * ((4 * 256 + 512) + (512 + 8) + (8 + 10))
    assert (found["depth"], found["operators"], found["wide_kernel"]) == (3.0, 4.0, 9.0)  # a Flatten moves nothing
    assert (found["input_elements"], found["input_rank"], found["unresolved"]) == (1024.0, 4.0, 0.0)
    assert sum(v for k, v in found.items() if k.startswith("share_")) == pytest.approx(1.0)
    batched = model_features(path, batch=4)
    assert batched == pytest.approx(found | {"intensity": batched["intensity"]})


def test_recurrent_and_depthwise_operators(tmp_path: Path, onnx_tools: Any) -> None:
    lstm = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=8)
    path = onnx_tools.save(
        tmp_path / "l.onnx",
        [lstm],
        [onnx_tools.tensor("x", [5, 1, 3])],
        [onnx_tools.tensor("y", None)],
        initializer=[weight("w", 1, 32, 3), weight("r", 1, 32, 8)],
    )
    assert model_features(path)["flops"] == 2 * 5 * 32 * (3 + 8)
    depthwise = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], group=6)
    path = onnx_tools.save(
        tmp_path / "d.onnx",
        [depthwise],
        [onnx_tools.tensor("x", ["batch", 6, 5, 5])],
        [onnx_tools.tensor("y", None)],
        initializer=[weight("w", 6, 1, 3, 3)],
    )
    found = model_features(path)
    assert found["share_depthwise"] == 1.0
    assert found["flops"] == 2 * 6 * 9 * 9


@pytest.mark.medium
def test_known_models_have_their_published_work(tmp_path: Path) -> None:
    """Multiply-adds at 224 x 224, and parameters."""
    built = {
        "resnet50": (convnets.resnet(Graph("a", 0), depths=(3, 4, 6, 3), bottleneck=True), 4.1e9, 25.5e6),
        "mobilenet_v2": (mobile.mobilenet_v2(Graph("b", 0)), 0.30e9, 3.5e6),
        "mobilenet_v1": (mobile.mobilenet_v1(Graph("c", 0)), 0.57e9, 4.2e6),
    }
    for name, (model, macs, parameters) in built.items():
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, str(path))
        found = model_features(path)
        assert found["flops"] / 2 == pytest.approx(macs, rel=0.04), name
        assert found["weight_bytes"] / 4 == pytest.approx(parameters, rel=0.02), name
        assert found["unresolved"] == 0.0


def test_shapes_that_are_computed_in_the_graph_are_followed(tmp_path: Path, onnx_tools: Any) -> None:
    """As exporters write x.view(x.shape[0], -1)."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "first"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    numbers = {"zero": np.array(0), "first": np.array([0]), "rest": np.array([-1])}
    path = onnx_tools.save(
        tmp_path / "m.onnx",
        nodes,
        [onnx_tools.tensor("x", ["batch", 4, 6])],
        [onnx_tools.tensor("y", ["batch", 100])],
        initializer=[weight("w", 24, 100), *(numpy_helper.from_array(v, k) for k, v in numbers.items())],
    )
    found = model_features(path)
    assert found["unresolved"] == 0.0
    assert found["flops"] == 2 * 24 * 100


def test_open_sizes_have_to_be_given(tmp_path: Path, onnx_tools: Any) -> None:
    path = onnx_tools.double(tmp_path / "m.onnx", ["batch", "length"])
    with pytest.raises(ModelError, match="leaves dimension 1 open"):
        model_features(path)
    assert model_features(path, input_shapes={"x": (1, 7)})["flops"] == 7.0
    with pytest.raises(ModelError, match="2 dimensions"):
        model_features(path, input_shapes={"x": (1, 7, 3)})


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        model_features(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError):
        model_features(tmp_path / "text.onnx")


def test_all_figures_are_finite_for_the_models_that_ship() -> None:
    for name in ("digits-fp32.onnx", "digits-int8.onnx"):
        found = model_features(DATA / name)
        assert all(isinstance(v, float) and math.isfinite(v) for v in found.values())
        assert found["flops"] > 1e6
    fp32, int8 = (model_features(DATA / f"digits-{p}.onnx") for p in ("fp32", "int8"))
    assert int8["flops"] == pytest.approx(fp32["flops"], rel=0.05)
    assert int8["weight_bytes"] < 0.5 * fp32["weight_bytes"]
