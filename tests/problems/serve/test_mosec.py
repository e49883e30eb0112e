"""Real servers: what is asked for is what answers."""

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fettle.core.serving import Launch, Machine, Model, Request, TensorSpec
from fettle.problems.serve.model import load_model, reference, samples
from fettle.problems.serve.targets.mosec import INFER_PATH, Mosec

DATA = Path(str(files("fettle.data")))
Serve = Callable[[Launch, int], Path]


def machine(cores: int) -> Machine:
    return Machine(tuple(range(cores)), 2**32)


@pytest.fixture(scope="module")
def digits() -> Model:
    return load_model({"fp32": DATA / "digits-fp32.onnx", "int8": DATA / "digits-int8.onnx"})


def drawn(*, batchable: bool, variants: int) -> Model:
    spec = (TensorSpec("x", "float32", (1, 3)),)
    paths = {f"v{i}": Path(f"v{i}.onnx") for i in range(variants)}
    return Model("m", paths, dict.fromkeys(paths, ""), spec, spec, batchable)


@pytest.mark.parametrize("cores", [1, 2, 5, 64])
@pytest.mark.parametrize("batchable", [True, False])
@pytest.mark.parametrize("variants", [1, 2])
def test_only_knobs_that_act(cores: int, batchable: bool, variants: int) -> None:
    model, target = drawn(batchable=batchable, variants=variants), Mosec()
    space = target.space(model, machine(cores))
    assert ("batching" in space.names) == batchable
    assert ("precision" in space.names) == (variants > 1)
    assert {"threads", "spinning", "cores"} <= set(space.names) or cores == 1
    assert all(column.size is None or column.size > 1 for column in space.columns)
    defaults = target.defaults(model, machine(cores))
    assert space.validate(defaults) == defaults
    assert defaults["workers"] == 1
    assert defaults.get("threads", 1) == defaults.get("cores", 1) == cores
    for params in space.sample(100, np.random.default_rng(0)):
        granted = params.get("cores", 1)
        assert params["workers"] * params.get("threads", 1) <= 2 * granted
        assert params.get("threads", 1) <= granted
        assert params.get("threads", 1) > 1 or not params.get("spinning", False)


@pytest.mark.medium
def test_no_two_params_describe_the_same_server() -> None:
    model, target = drawn(batchable=True, variants=2), Mosec()
    launches = [target.launch(model, p, 1) for p in target.space(model, machine(2)).enumerate()]
    seen = {(launch.files["config.json"], launch.files["model.onnx"], launch.cores) for launch in launches}
    assert len(seen) == len(launches)


def test_the_launch_says_what_it_does(digits: Model) -> None:
    params = Mosec().defaults(digits, machine(2)) | {"workers": 2, "threads": 1, "spinning": False}
    params |= {"batching": "on", "batching.on.max_batch": 8, "batching.on.max_wait_ms": 5}
    launch = Mosec().launch(digits, params, 1234)
    assert "--address=127.0.0.1" in launch.argv
    assert launch.concurrency == 16
    assert launch.cores == 2
    assert launch.record["timeout_s"] == 10
    assert launch.record["queue_capacity"] == 1024
    assert not {"Host", "Content-Length"} & set(launch.encode(samples(digits, n=1)[0]).headers)


SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "int8": {"precision": "int8", "graph_optimization": "extended"},
    "batched": {
        "workers": 2,
        "threads": 1,
        "spinning": False,
        "batching": "on",
        "batching.on.max_batch": 8,
        "batching.on.max_wait_ms": 20,
    },
}


@pytest.mark.medium
@pytest.mark.parametrize("settings", list(SETTINGS))
def test_answers_are_those_of_the_runtime(digits: Model, serve: Serve, onnx_tools: Any, settings: str) -> None:
    params = Mosec().defaults(digits, machine(2)) | SETTINGS[settings]
    port = onnx_tools.free_port()
    launch = Mosec().launch(digits, params, port)
    serve(launch, port)
    items = samples(digits, inputs=DATA / "digits-samples.npz")[:24]
    expected = reference(digits, params["precision"], items)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda item: onnx_tools.call(port, launch.encode(item)), items))
    assert launch.decode is not None
    for (status, body), right in zip(answers, expected, strict=True):
        assert status == 200
        np.testing.assert_allclose(launch.decode(body)["logits"], right["logits"], atol=0.02)
    if settings == "batched":
        lines = onnx_tools.call(port, Request("GET", "/metrics"))[1].decode().splitlines()
        counted = {line.split("{")[0]: float(line.split()[-1]) for line in lines if "batch_size_" in line}
        sums = [v for k, v in counted.items() if k.endswith("batch_size_sum")]
        counts = [v for k, v in counted.items() if k.endswith("batch_size_count")]
        assert sums[0] > counts[0], "requests that come together are put together"


@pytest.mark.medium
def test_several_inputs_and_outputs_and_items_in_one_request(tmp_path: Path, serve: Serve, onnx_tools: Any) -> None:
    model = load_model(onnx_tools.add_and_subtract(tmp_path / "m.onnx"))
    params = Mosec().defaults(model, machine(1)) | SETTINGS["batched"]
    port = onnx_tools.free_port()
    launch = Mosec().launch(model, {k: v for k, v in params.items() if k not in ("threads", "spinning")}, port)
    serve(launch, port)
    rng = np.random.default_rng(0)
    items = [{name: rng.standard_normal((1 + i % 3, 4)).astype(np.float32) for name in "ab"} for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda item: onnx_tools.call(port, launch.encode(item)), items))
    assert launch.decode is not None
    for (status, body), item in zip(answers, items, strict=True):
        assert status == 200
        out = launch.decode(body)
        np.testing.assert_allclose(out["plus"], item["a"] + item["b"])
        np.testing.assert_allclose(out["minus"], item["a"] - item["b"])


@pytest.mark.medium
def test_fixed_batch_text_and_garbage(tmp_path: Path, serve: Serve, onnx_tools: Any) -> None:
    from onnx import helper

    inputs = [onnx_tools.tensor("x", [2, 2]), onnx_tools.tensor("t", [2], "STRING")]
    outputs = [onnx_tools.tensor("y", [2, 2]), onnx_tools.tensor("u", [2], "STRING")]
    nodes = [helper.make_node("Sqrt", ["x"], ["y"]), helper.make_node("Identity", ["t"], ["u"])]
    path = onnx_tools.save(tmp_path / "m.onnx", nodes, inputs, outputs)
    np.savez(tmp_path / "i.npz", x=np.ones((1, 2, 2), np.float32), t=np.array([["a", "ü"]]))
    model = load_model(path, inputs=tmp_path / "i.npz")
    assert not model.batchable
    port = onnx_tools.free_port()
    launch = Mosec().launch(model, Mosec().defaults(model, machine(1)), port)
    serve(launch, port)
    item = {"x": np.array([[4, 9], [-1, 0]], np.float32), "t": np.array(["a", "ü"])}
    wrong = [
        b"garbage",
        b"{",
        launch.encode(item).body[:-1],
        launch.encode({"x": item["x"]}).body,
        launch.encode({**item, "z": item["x"]}).body,
        launch.encode({**item, "x": item["x"].astype(np.float64)}).body,
        launch.encode({**item, "x": np.ones((3, 2), np.float32)}).body,
    ]
    for body in wrong:
        status, text = onnx_tools.call(port, Request("POST", INFER_PATH, {}, body))
        assert 400 <= status < 500, (status, text)
    assert launch.decode is not None
    status, body = onnx_tools.call(port, launch.encode(item))
    assert status == 200
    answer = launch.decode(body)
    assert answer["u"].tolist() == ["a", "ü"]
    np.testing.assert_array_equal(answer["y"], np.array([[2, 3], [np.nan, 0]], np.float32))
    # What the front says without any worker is no answer of the model:
    assert onnx_tools.call(port, Request("POST", INFER_PATH, {}, b""))[0] == 200
    with pytest.raises(ValueError):
        launch.decode(onnx_tools.call(port, Request("POST", INFER_PATH, {}, b""))[1])


@pytest.mark.medium
def test_two_servers_side_by_side(tmp_path: Path, serve: Serve, onnx_tools: Any) -> None:
    model = load_model(onnx_tools.double(tmp_path / "m.onnx"))
    params, item = Mosec().defaults(model, machine(1)), {"x": np.ones((1, 3), np.float32)}
    launches = {port: Mosec().launch(model, params, port) for port in (onnx_tools.free_port(), onnx_tools.free_port())}
    folders = [serve(launch, port) for port, launch in launches.items()]
    for port, launch in launches.items():
        assert onnx_tools.call(port, launch.encode(item))[0] == 200
    assert all(list(folder.glob("ipc-*/*.socket")) for folder in folders), "sockets lie in the work folder"


@pytest.mark.medium
def test_not_ready_before_every_worker_has_loaded(tmp_path: Path, onnx_tools: Any) -> None:
    """With a model that cannot be loaded, mosec's front listens and answers GET /, but nothing is ready."""
    model = load_model(onnx_tools.double(tmp_path / "m.onnx"))
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"\x00")
    port = onnx_tools.free_port()
    launch = Mosec().launch(
        replace(model, variants={"default": bad}), Mosec().defaults(model, machine(1)) | {"workers": 2}, port
    )
    for name, content in launch.files.items():
        (tmp_path / name).write_bytes(content.read_bytes() if isinstance(content, Path) else content)
    statuses = []
    with onnx_tools.running(list(launch.argv), tmp_path, dict(launch.env)) as process:
        while process.poll() is None and len(statuses) < 200:
            statuses.append(onnx_tools.call(port, launch.ready, 1.0)[0])
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
    assert statuses
    assert 200 not in statuses
