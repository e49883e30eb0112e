"""Builds ONNX graphs: nodes, seeded random weights, and the shapes of what flows between them.

A shape leaves out the batch, which is dynamic and comes first everywhere. Layers are written as exporters write them:
batch normalisation is folded into the convolution before it, GELU and hard-swish are made of simple operators.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 17, 8
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
Shape = tuple[int, ...]


class Graph:
    """`shape[name]`: one item's. Every method that adds a layer returns the name of its output."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.shape: dict[str, Shape] = {}
        self._rng = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._inputs: list[Any] = []
        self._shared: dict[Any, str] = {}

    def input(self, name: str, shape: Shape, dtype: str = "float32") -> str:
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], ["batch", *shape]))
        self.shape[name] = shape
        return name

    def op(self, kind: str, *inputs: str, shape: Shape, outputs: int = 1, **attributes: Any) -> str:
        """Any operator; `shape` is that of its first output. Further outputs are named NAME.1, NAME.2 ..."""
        first = f"{kind.lower()}_{len(self._nodes)}"
        names = [first, *(f"{first}.{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=first, **attributes))
        self.shape[first] = shape
        return first

    def constant(self, values: Any, dtype: str = "float32") -> str:
        """A small constant; equal ones are stored once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self._store(array)
        return self._shared[key]

    def weight(self, *shape: int, fan_in: int, gain: float = 1.0) -> str:
        """Normal with variance gain² / fan_in: activations keep their scale, so that none becomes denormal."""
        values = self._rng.standard_normal(shape, np.float32)
        return self._store(values * np.float32(gain / math.sqrt(fan_in)))

    def finish(self, *outputs: str) -> onnx.ModelProto:
        declared = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *self.shape[n]]) for n in outputs]
        graph = helper.make_graph(self._nodes, self.name, self._inputs, declared, initializer=self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        onnx.checker.check_model(model)
        return model

    # layers that all families share

    def act(self, x: str, kind: str | None) -> str:
        shape = self.shape[x]
        if kind is None:
            return x
        if kind == "relu6":
            return self.op("Clip", x, self.constant(0.0), self.constant(6.0), shape=shape)
        if kind == "silu":
            return self.mul(x, self.op("Sigmoid", x, shape=shape))
        if kind == "hard_swish":
            return self.op("HardSwish", x, shape=shape)
        if kind == "gelu":
            erf = self.op("Erf", self.op("Div", x, self.constant(math.sqrt(2.0)), shape=shape), shape=shape)
            half = self.mul(x, self.op("Add", erf, self.constant(1.0), shape=shape))
            return self.op("Mul", half, self.constant(0.5), shape=shape)
        return self.op({"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}[kind], x, shape=shape)

    def add(self, x: str, y: str) -> str:
        return self.op("Add", x, y, shape=self.shape[x])

    def mul(self, x: str, y: str) -> str:
        return self.op("Mul", x, y, shape=self.shape[x])

    def concat(self, parts: Sequence[str], axis: int = 1) -> str:
        """Along one item's axis - 1: axis 1 is the first after the batch."""
        shape = list(self.shape[parts[0]])
        shape[axis - 1] = sum(self.shape[part][axis - 1] for part in parts)
        return self.op("Concat", *parts, shape=tuple(shape), axis=axis)

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.constant([0, *shape], "int64"), shape=shape)

    def transpose(self, x: str, *order: int) -> str:
        """order: of one item's axes, counted from 1."""
        shape = tuple(self.shape[x][axis - 1] for axis in order)
        return self.op("Transpose", x, shape=shape, perm=[0, *order])

    def dense(self, x: str, width: int, act: str | None = None, *, gain: float = 1.0) -> str:
        """Along the last axis: Gemm for vectors, MatMul and Add for sequences."""
        shape = self.shape[x]
        out = (*shape[:-1], width)
        weight, bias = self.weight(shape[-1], width, fan_in=shape[-1], gain=gain), self.weight(width, fan_in=100)
        if len(shape) == 1:
            return self.act(self.op("Gemm", x, weight, bias, shape=out), act)
        return self.act(self.op("Add", self.op("MatMul", x, weight, shape=out), bias, shape=out), act)

    def layer_norm(self, x: str) -> str:
        width = self.shape[x][-1]
        scale, bias = self._store(np.ones(width, np.float32)), self._store(np.zeros(width, np.float32))
        return self.op("LayerNormalization", x, scale, bias, shape=self.shape[x], axis=-1, epsilon=1e-5)

    def embed(self, ids: str, rows: int, width: int) -> str:
        table = self.weight(rows, width, fan_in=1)
        return self.op("Gather", table, ids, shape=(*self.shape[ids], width), axis=0)

    def position(self, length: int, width: int) -> str:
        """A learnt embedding of positions, to be added to a sequence."""
        return self.weight(1, length, width, fan_in=4)

    def _store(self, array: np.ndarray) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name


def make_items(model: onnx.ModelProto, batch: int, seed: int) -> dict[str, np.ndarray]:
    """Random inputs: floats standard normal; integers 0 or 1, which any table of two rows holds."""
    rng = np.random.default_rng(seed)
    items = {}
    for value in model.graph.input:
        shape = [batch, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])]
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            items[value.name] = rng.standard_normal(shape, np.float32)
        else:
            items[value.name] = rng.integers(0, 2, shape)
    return items
