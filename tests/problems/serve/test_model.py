import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fettle.core.errors import InvalidInput, ModelError
from fettle.core.serving import TensorSpec
from fettle.problems.serve.model import MIN_ITEMS, agreement, load_model, reference, samples

DATA = Path(str(files("fettle.data")))


def test_the_shipped_models() -> None:
    model = load_model({"fp32": DATA / "digits-fp32.onnx", "int8": DATA / "digits-int8.onnx"})
    assert model.batchable
    assert model.inputs == (TensorSpec("image", "float32", (1, 1, 72, 72)),)
    assert model.outputs == (TensorSpec("logits", "float32", (1, 10)),)
    assert len(set(model.hashes.values())) == 2
    assert all(path.stat().st_size < 500_000 for path in model.variants.values())
    items = samples(model, inputs=DATA / "digits-samples.npz")
    assert len(items) == 64
    with np.load(DATA / "digits-samples.npz") as stored:
        labels = stored["label"]
    answers = {name: reference(model, name, items) for name in model.variants}
    for outputs in answers.values():
        assert np.mean([o["logits"].argmax() == y for o, y in zip(outputs, labels, strict=True)]) >= 0.97
    found = agreement(answers["fp32"], answers["int8"])
    assert found["metric"] == "top1_agreement"
    assert found["value"] >= 0.98


def test_old_ir_lists_weights_as_inputs(tmp_path: Path, onnx_tools: Any) -> None:
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    inputs = [onnx_tools.tensor("x", ["n", 3]), onnx_tools.tensor("w", [3])]
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    outputs = [onnx_tools.tensor("y", ["n", 3])]
    path = onnx_tools.save(tmp_path / "old.onnx", nodes, inputs, outputs, initializer=[weight], ir_version=3, opset=8)
    model = load_model(path)
    assert [spec.name for spec in model.inputs] == ["x"]
    assert list(model.variants) == ["fp32"]


def test_other_dynamic_sizes_must_be_given(tmp_path: Path, onnx_tools: Any) -> None:
    path = onnx_tools.double(tmp_path / "m.onnx", ["n", 3, "h", "w"])
    with pytest.raises(ModelError, match="'x'") as caught:
        load_model(path)
    assert "--input-shape x=1,3,64,64" in caught.value.hint
    model = load_model(path, input_shapes={"x": (1, 3, 8, 4)})
    assert model.inputs[0].shape == (1, 3, 8, 4)
    assert model.outputs[0].shape == (1, 3, -1, -1)
    assert model.batchable
    for wrong in ((1, 4, 8, 4), (1, 3, 8), (2, 3, 8, 4), (1, 3, 0, 4)):
        with pytest.raises(ModelError, match="--input-shape x"):
            load_model(path, input_shapes={"x": wrong})
    with pytest.raises(ModelError, match="'z'"):
        load_model(path, input_shapes={"z": (1,)})


def test_unknown_rank_must_be_given(tmp_path: Path, onnx_tools: Any) -> None:
    from onnx import helper

    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    path = onnx_tools.save(tmp_path / "m.onnx", nodes, [onnx_tools.tensor("x", None)], [onnx_tools.tensor("y", None)])
    with pytest.raises(ModelError, match="unknown"):
        load_model(path)
    assert not load_model(path, input_shapes={"x": (2, 2)}).batchable


def test_fixed_batch_is_not_batchable(tmp_path: Path, onnx_tools: Any) -> None:
    assert not load_model(onnx_tools.double(tmp_path / "m.onnx", [1, 3])).batchable


@pytest.mark.parametrize("axis", [0, 1])
def test_a_batch_that_does_not_hold_is_found_out(tmp_path: Path, onnx_tools: Any, axis: int) -> None:
    """A mean over the first dimension mixes requests, although the dimension is dynamic."""
    from onnx import helper

    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[axis], keepdims=1)]
    outputs = [onnx_tools.tensor("y", [None, None])]
    path = onnx_tools.save(tmp_path / "m.onnx", nodes, [onnx_tools.tensor("x", ["n", 3])], outputs)
    assert load_model(path).batchable == (axis == 1)


def broken(tmp_path: Path, tools: Any, kind: str) -> Path:
    from onnx import TensorProto, helper

    path, good = tmp_path / "bad.onnx", (DATA / "digits-fp32.onnx").read_bytes()
    x, y = [tools.tensor("x", ["n", 3])], [tools.tensor("y", ["n", 3])]
    if kind == "folder":
        path.mkdir()
    elif kind in ("empty", "text", "truncated", "cut in half", "garbage"):
        junk = np.random.default_rng(0).bytes(5000)
        cut = {"truncated": good[:-9], "cut in half": good[: len(good) // 2], "garbage": junk}
        path.write_bytes({"empty": b"", "text": b"this is not a model\n" * 50, **cut}[kind])
    elif kind == "opset":
        tools.save(path, [helper.make_node("Neg", ["x"], ["y"])], x, y, opset=999)
    elif kind == "ir":
        tools.save(path, [helper.make_node("Neg", ["x"], ["y"])], x, y, ir_version=999)
    elif kind == "op":
        tools.save(path, [helper.make_node("Frobnicate", ["x"], ["y"])], x, y)
    elif kind == "no inputs":
        constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])
        tools.save(path, [helper.make_node("Constant", [], ["y"], value=constant)], [], [tools.tensor("y", [1])])
    elif kind == "bfloat16":
        tools.double(path, dtype="BFLOAT16")
    elif kind == "dangling":
        tools.save(path, [helper.make_node("Neg", ["nowhere"], ["y"])], x, y)
    return path


BROKEN = ["missing", "folder", "empty", "text", "truncated", "cut in half", "garbage", "opset", "ir", "op"]


@pytest.mark.parametrize("kind", [*BROKEN, "no inputs", "bfloat16", "dangling"])
def test_bad_files_are_model_errors(tmp_path: Path, onnx_tools: Any, kind: str) -> None:
    path = broken(tmp_path, onnx_tools, kind)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "bad.onnx" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path, onnx_tools: Any) -> None:
    path = onnx_tools.double(tmp_path / "m.onnx")
    path.chmod(0)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(path)


def with_external_data(path: Path, location: str) -> Path:
    import onnx
    from onnx import TensorProto, helper

    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], initializer=[weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    assert onnx.load(str(path), load_external_data=False).graph.initializer[0].external_data[0].value == location
    return path


def test_external_data_beside_the_model_count_in_the_hash(tmp_path: Path) -> None:
    data = tmp_path / "w.bin"
    data.write_bytes(np.arange(3, dtype=np.float32).tobytes())
    path = with_external_data(tmp_path / "m.onnx", "w.bin")
    before = load_model(path)
    answer = reference(before, "fp32", [{"x": np.zeros((1, 3), np.float32)}])[0]["y"]
    assert answer.tolist() == [[0, 1, 2]]
    data.write_bytes(np.ones(3, np.float32).tobytes())
    assert load_model(path).hashes != before.hashes


@pytest.mark.parametrize("location", ["../w.bin", "sub/../../w.bin", "{absolute}", "link.bin", "gone.bin", "sub", "\0"])
def test_external_data_cannot_leave_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(3, np.float32).tobytes())
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    place = location.format(absolute=tmp_path / "w.bin")
    with pytest.raises(ModelError, match="external data"):
        load_model(with_external_data(folder / "m.onnx", place))


def test_external_data_in_a_subgraph_is_seen(tmp_path: Path, onnx_tools: Any) -> None:
    from onnx import TensorProto, helper

    leak = TensorProto(name="v", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    leak.external_data.add(key="location", value="/etc/hostname")
    out = [onnx_tools.tensor("o", [1])]
    branch = helper.make_graph([helper.make_node("Identity", ["v"], ["o"])], "b", [], out, initializer=[leak])
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    inputs, outputs = [onnx_tools.tensor("x", [1], "BOOL")], [onnx_tools.tensor("y", [1])]
    with pytest.raises(ModelError, match="outside"):
        load_model(onnx_tools.save(tmp_path / "m.onnx", nodes, inputs, outputs))


def test_variants_must_be_alike(tmp_path: Path, onnx_tools: Any) -> None:
    one, other = onnx_tools.double(tmp_path / "a.onnx"), onnx_tools.double(tmp_path / "b.onnx", ["batch", 4])
    with pytest.raises(ModelError, match="'int8'"):
        load_model({"fp32": one, "int8": other})
    with pytest.raises(ModelError, match="at least one"):
        load_model({})


@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "DOUBLE", "INT32", "INT64"])
def test_items_follow_dtype_and_seed(tmp_path: Path, onnx_tools: Any, dtype: str) -> None:
    model = load_model(onnx_tools.double(tmp_path / "m.onnx", ["n", 9], dtype))
    items = samples(model, seed=1)
    assert len(items) == MIN_ITEMS
    assert all(item["x"].dtype == model.inputs[0].dtype and item["x"].shape == (1, 9) for item in items)
    again, other = samples(model, seed=1), samples(model, seed=2)
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(items, again, strict=True))
    assert any(not np.array_equal(a["x"], b["x"]) for a, b in zip(items, other, strict=True))
    assert len({item["x"].tobytes() for item in items}) > MIN_ITEMS // 2


def test_given_items(tmp_path: Path, onnx_tools: Any) -> None:
    model = load_model(onnx_tools.double(tmp_path / "m.onnx"))
    file = tmp_path / "items.npz"
    flat = np.arange(15, dtype=np.float32).reshape(5, 3)
    for array in (flat, flat[:, None]):
        np.savez(file, x=array, label=np.zeros(5))
        items = samples(model, inputs=file)
        assert len(items) == MIN_ITEMS
        assert items[7]["x"].tolist() == [flat[2].tolist()]
    assert len(samples(model, inputs=file, n=1)) == 5


@pytest.mark.parametrize("kind", ["missing", "text", "npy", "name", "dtype", "shape", "empty", "pickle", "cut"])
def test_bad_items(tmp_path: Path, onnx_tools: Any, kind: str) -> None:
    model = load_model(onnx_tools.double(tmp_path / "m.onnx"))
    file = tmp_path / "items.npz"
    good = np.zeros((4, 3), np.float32)
    if kind == "text":
        file.write_text("no archive")
    elif kind == "npy":
        with file.open("wb") as target:
            np.save(target, good)
    elif kind != "missing":
        arrays = {"dtype": good.astype(np.float64), "shape": np.zeros((4, 5), np.float32), "empty": good[:0]}
        array = np.array([{}], dtype=object) if kind == "pickle" else arrays.get(kind, good)
        np.savez(file, **{"z" if kind == "name" else "x": array})
        if kind == "cut":
            file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(InvalidInput, match=r"items\.npz"):
        samples(model, inputs=file)


def test_text_needs_given_items(tmp_path: Path, onnx_tools: Any) -> None:
    from onnx import helper

    x, y = onnx_tools.tensor("x", ["n"], "STRING"), onnx_tools.tensor("y", ["n"], "STRING")
    path = onnx_tools.save(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], [x], [y])
    with pytest.raises(InvalidInput, match="text") as caught:
        load_model(path)
    assert "--inputs" in caught.value.hint
    np.savez(tmp_path / "i.npz", x=np.array(["a", "bü"]))
    model = load_model(path, inputs=tmp_path / "i.npz")
    assert model.inputs[0].dtype == "str"


def test_ids_out_of_range_name_the_cure(tmp_path: Path, onnx_tools: Any) -> None:
    from onnx import helper, numpy_helper

    table = numpy_helper.from_array(np.ones((1, 4), np.float32), "table")  # only id 0 exists
    x, y = [onnx_tools.tensor("x", ["n", 20], "INT64")], [onnx_tools.tensor("y", ["n", 20, 4])]
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    path = onnx_tools.save(tmp_path / "m.onnx", nodes, x, y, initializer=[table])
    with pytest.raises(ModelError, match="run") as caught:
        load_model(path)
    assert "--inputs" in caught.value.hint
    np.savez(tmp_path / "i.npz", x=np.zeros((2, 20), np.int64))
    assert load_model(path, inputs=tmp_path / "i.npz").batchable


def test_agreement_by_kind_of_output() -> None:
    scores = [{"logits": np.array([[0.1, 0.9]])}, {"logits": np.array([[0.8, 0.2]])}]
    half = [{"logits": np.array([[0.1, 0.9]])}, {"logits": np.array([[0.2, 0.8]])}]
    assert agreement(scores, half) == {"metric": "top1_agreement", "output": "logits", "value": 0.5, "items": 2}
    vectors = [{"embedding": np.array([[3.0, 4.0]])}]
    found = agreement(vectors, [{"embedding": np.array([[6.0, 8.0]])}])
    assert found["metric"] == "output_agreement"
    assert found["value"] == pytest.approx(1)
    assert found["relative_error"] == pytest.approx(1)
    ids = [{"ids": np.array([1, 2])}]
    assert agreement(ids, [{"ids": np.array([1, 3])}]) == {"metric": "exact_agreement", "value": 0.0, "items": 1}
    with pytest.raises(InvalidInput):
        agreement(scores, vectors)
