"""Features of a model, read from its ONNX graph without running it: work, bytes, depth, and kinds of operators.

Weights are replaced by their shapes before shapes are inferred, so that a model of 100 MB takes well under a second.
An operator counts a multiplication and an addition as two operations. Sizes are those of one item.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fettle.core.errors import ModelError

_MARK = "\0weight:"  # begins the names of weights that stand as inputs; no exporter writes such a name
_SMALL = 256  # elements: initializers up to this size may be shapes and are kept
_KINDS = ("conv", "pointwise", "depthwise", "matmul", "recurrent", "normalise", "pool", "elementwise", "move")
_CONVOLVED = ("conv", "pointwise", "depthwise")
_MOVES = {
    *("Cast", "Concat", "Constant", "ConstantOfShape", "DequantizeLinear", "Expand", "Flatten", "Gather"),
    *("GatherElements", "Identity", "Pad", "QuantizeLinear", "Reshape", "Resize", "Shape", "Slice", "Split"),
    *("Squeeze", "Tile", "Transpose", "Unsqueeze"),
}
_FREE = {"Constant", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"}  # no byte is moved
_POOLS = {"AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"}
_REDUCE = {"ReduceMean", "ReduceSum", "ReduceMax"}
_NORMALISE = {"BatchNormalization", "LayerNormalization", "InstanceNormalization", "Softmax", "LogSoftmax"}
_PER_ELEMENT = {"normalise": 5.0, "elementwise": 1.0, "pool": 1.0, "move": 0.0}
_CONV = {"Conv", "ConvInteger", "QLinearConv", "ConvTranspose"}
_MATMUL = {"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATION_INPUTS = {"QLinearConv": (0, 3), "QLinearMatMul": (0, 3)}  # data and weight, where they are not (0, 1)

Shape = tuple[int, ...]


def model_features(
    path: Path, *, input_shapes: Mapping[str, Shape] = MappingProxyType({}), batch: int = 1
) -> dict[str, float]:
    """The features of an ONNX file, as a flat dict.

    flops: operations per item; weight_bytes; activation_bytes: read and written between operators, per item;
    intensity: flops / (weight_bytes + activation_bytes); depth: operators on the longest path; operators;
    input_elements, input_rank: of the largest input; inputs, outputs; share_KIND: of the flops, by kind of operator
    (conv, pointwise, depthwise, matmul, recurrent, normalise, pool, elementwise, move); wide_kernel: mean kernel size
    of the convolutions by flops; unresolved: share of the operators whose shapes are not known before it runs.

    input_shapes: full shapes of inputs with dynamic sizes beside the batch. Raises ModelError.
    """
    graph, weight_bytes = _prepared(path, input_shapes, batch)
    shapes, widths = _shapes(graph)
    tally = _count(graph, shapes, widths)
    work = {kind: flops / batch for kind, flops in tally.work.items()}
    flops, activation_bytes = sum(work.values()), tally.moved_bytes / batch
    inputs = [value for value in graph.input if not value.name.startswith(_MARK)]
    largest = max((shapes[value.name] for value in inputs), key=math.prod)
    convolved = sum(tally.work[kind] for kind in _CONVOLVED)
    return {
        "flops": flops,
        "weight_bytes": float(weight_bytes),
        "activation_bytes": activation_bytes,
        "intensity": flops / max(1.0, weight_bytes + activation_bytes),
        "depth": float(tally.depth),
        "operators": float(tally.operators),
        "input_elements": math.prod(largest) / batch,
        "input_rank": float(len(largest)),
        "inputs": float(len(inputs)),
        "outputs": float(len(graph.output)),
        "wide_kernel": tally.kernels / convolved if convolved else 0.0,
        "unresolved": tally.unresolved / max(1, tally.operators),
        **{f"share_{kind}": work[kind] / flops if flops else 0.0 for kind in _KINDS},
    }


@dataclass(slots=True)
class _Tally:
    """kernels: sum of flops times kernel size over the convolutions."""

    work: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0.0))
    moved_bytes: float = 0.0
    kernels: float = 0.0
    depth: int = 0
    operators: int = 0
    unresolved: int = 0


def _count(graph: Any, shapes: Mapping[str, Shape], widths: Mapping[str, int]) -> _Tally:
    tally, depths = _Tally(), dict[str, int]()
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {value.name for value in graph.input if value.name.startswith(_MARK)}
    for node in graph.node:
        if node.op_type == "Constant" or (node.op_type == "DequantizeLinear" and node.input[0] in weights):
            weights |= set(node.output)  # a weight in another form
            continue
        depth = max((depths.get(name, 0) for name in node.input), default=0) + (node.op_type not in _FREE)
        depths.update(dict.fromkeys(node.output, depth))
        tally.depth, tally.operators = max(tally.depth, depth), tally.operators + 1
        if any(name and name not in shapes for name in (*node.input, *node.output)):
            tally.unresolved += 1
            continue
        kind = _kind(node, shapes)
        flops = _flops(node, kind, shapes)
        tally.work[kind] += flops
        if kind in _CONVOLVED:
            tally.kernels += flops * math.prod(shapes[node.input[_weight_input(node)]][2:])
        if node.op_type not in _FREE:
            names = [name for name in (*node.input, *node.output) if name and name not in weights]
            tally.moved_bytes += sum(math.prod(shapes[name]) * widths[name] for name in names)
    return tally


def _prepared(path: Path, given: Mapping[str, Shape], batch: int) -> tuple[Any, int]:
    """The graph with known shapes, its large weights turned into inputs; and the bytes of all weights."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import helper, shape_inference

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(f"{path}: cannot be read as an ONNX model: {error}", "give an .onnx file") from error
    graph = model.graph
    if not graph.node or not graph.input:
        raise ModelError(f"{path}: not an ONNX model: it holds no graph", "give an .onnx file")
    names = {tensor.name for tensor in graph.initializer}
    for value in [v for v in graph.input if v.name in names]:
        graph.input.remove(value)
    for value in graph.input:
        _fix(path, value, given, batch)
    total, kept, replaced = 0, [], {}
    for tensor in graph.initializer:
        elements = math.prod(tensor.dims)
        total += elements * _bytes(tensor.data_type)
        if elements > _SMALL:
            replaced[tensor.name] = f"{_MARK}{tensor.name}"
            graph.input.append(helper.make_tensor_value_info(replaced[tensor.name], tensor.data_type, tensor.dims))
        else:
            kept.append(tensor)
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in replaced:
                node.input[i] = replaced[name]
    del graph.value_info[:]  # an exporter's, with the batch left open
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(model, data_prop=True).graph, total
    except shape_inference.InferenceError as error:
        raise ModelError(f"{path}: its shapes contradict each other: {error}", "export it again") from error


def _fix(path: Path, value: Any, given: Mapping[str, Shape], batch: int) -> None:
    """Sets the sizes of an input: those given, else the batch where the first one is open."""
    dims = value.type.tensor_type.shape.dim
    wanted = given.get(value.name)
    if wanted is not None and len(wanted) != len(dims):
        raise ModelError(f"{path}: input {value.name!r} has {len(dims)} dimensions, got the shape {tuple(wanted)}")
    for i, dim in enumerate(dims):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            continue
        size = batch if i == 0 else None if wanted is None else wanted[i]
        if not size:
            raise ModelError(
                f"{path}: input {value.name!r} leaves dimension {i} open", f"give input_shapes={{{value.name!r}: ...}}"
            )
        dim.ClearField("dim_param")
        dim.dim_value = size


def _shapes(graph: Any) -> tuple[dict[str, Shape], dict[str, int]]:
    """Name -> shape and name -> bytes of an element, of what is known."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    widths = {tensor.name: _bytes(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
            widths[value.name] = _bytes(tensor.elem_type)
    return shapes, widths


def _bytes(kind: int) -> int:
    sizes = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
    return sizes.get(kind, 1)


def _kind(node: Any, shapes: Mapping[str, Shape]) -> str:
    op = node.op_type
    if op in _CONV:
        weight: Sequence[int] = shapes.get(node.input[_weight_input(node)], ())
        if op != "ConvTranspose" and len(weight) > 2 and weight[1] == 1 and weight[0] > 1 and _groups(node) > 1:
            return "depthwise"
        return "pointwise" if weight and math.prod(weight[2:]) == 1 else "conv"
    if op in _MATMUL:
        return "matmul"
    if op in _GATES:
        return "recurrent"
    if op in _NORMALISE:
        return "normalise"
    if op in _POOLS or op in _REDUCE:
        return "pool"
    return "move" if op in _MOVES else "elementwise"


def _groups(node: Any) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


def _weight_input(node: Any) -> int:
    return _ACTIVATION_INPUTS.get(node.op_type, (0, 1))[1]


def _flops(node: Any, kind: str, shapes: Mapping[str, Shape]) -> float:
    out = math.prod(shapes[node.output[0]]) if node.output and node.output[0] else 0
    first = math.prod(shapes[node.input[0]]) if node.input and node.input[0] else 0
    if node.op_type in _CONV:
        weight = shapes[node.input[_weight_input(node)]]
        if node.op_type == "ConvTranspose":
            return 2.0 * first * math.prod(weight[1:])
        return 2.0 * out * math.prod(weight[1:])
    if kind == "matmul":
        rows = shapes[node.input[0]]
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return 2.0 * out * (rows[0] if transposed else rows[-1])
    if kind == "recurrent":
        steps, batch = shapes[node.input[0]][:2]
        return 2.0 * steps * batch * sum(math.prod(shapes[name]) for name in node.input[1:3])
    if kind == "pool":
        size = math.prod(next((a.ints for a in node.attribute if a.name == "kernel_shape"), ()))
        return float(out * size) if node.op_type in ("AveragePool", "MaxPool") else float(first)
    return _PER_ELEMENT[kind] * max(out, 0)
