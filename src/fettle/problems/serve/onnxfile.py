"""What an ONNX file says of itself: inputs, outputs, external data, hash. Nothing is run and no weight is followed
out of the model's folder; `verify` then tries the file in a process of its own."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle.core.errors import ModelError
from fettle.problems.serve.codec import DATATYPES

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Declared:
    """One declared input or output; shape None: of unknown rank; a size None: dynamic."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """path: links resolved. external: data files beside it. precision: a name by the type of most weights."""

    path: Path
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    external: tuple[Path, ...]
    precision: str

    def sha256(self) -> str:
        """Over the file and its external data, streamed."""
        digest = hashlib.sha256()
        for path in (self.path, *self.external):
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
        return digest.hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.path, *self.external))


def read(path: Path) -> OnnxFile:
    """Raises ModelError: missing, no file, not ONNX, truncated, or with external data outside of its folder."""
    proto = _parse(path)
    path = path.resolve()
    graph = proto.graph
    weights = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    inputs = tuple(_declared(path, value) for value in graph.input if value.name not in weights)
    outputs = tuple(_declared(path, value) for value in graph.output)
    if not inputs or not outputs:
        raise ModelError(f"{path}: expected a model with inputs and outputs, got {len(inputs)} and {len(outputs)}")
    locations = sorted({_location(path, tensor) for tensor in _tensors(proto) if tensor.data_location == 1})
    external = tuple(_inside(path, location) for location in locations)
    return OnnxFile(path, inputs, outputs, external, _precision(proto))


def _parse(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.exists():
        raise ModelError(f"{path}: no such file", "give the path of an .onnx file")
    if not path.is_file():
        raise ModelError(f"{path}: expected an ONNX file, got a folder", "give the path of the .onnx file in it")
    hint = "is it truncated, or of another format? Export the model again, e.g. with torch.onnx.export"
    try:
        proto = onnx.load(str(path), format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: not an ONNX model, or a damaged one ({error})", hint) from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not proto.ir_version or not proto.HasField("graph") or not proto.graph.node:
        raise ModelError(f"{path}: not an ONNX model: it holds no graph", hint)
    return proto


def _declared(path: Path, value: Any) -> Declared:
    from onnx import TensorProto, helper

    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(f"{path}: {value.name!r} is of type {kind}; only tensors can be served", "export it without")
    tensor = value.type.tensor_type
    known = {v: k for k, v in TensorProto.DataType.items()}
    dtype = "str" if tensor.elem_type == TensorProto.STRING else ""
    if not dtype and tensor.elem_type in known and tensor.elem_type != TensorProto.UNDEFINED:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    if dtype != "str" and dtype not in DATATYPES:
        found = known.get(tensor.elem_type, tensor.elem_type)
        raise ModelError(
            f"{path}: {value.name!r} has element type {found}; supported: {', '.join(DATATYPES)}, string",
            "add a Cast at that end of the graph",
        )
    shape = tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)
    return Declared(value.name, dtype, shape if tensor.HasField("shape") else None)


def _tensors(proto: Any) -> Iterator[Any]:
    """All tensors of the file: weights and attributes, in subgraphs and functions, too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)
    for training in proto.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            lone = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in [*attribute.sparse_tensors, *lone]:
                yield from (sparse.values, sparse.indices)
            for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _graph_tensors(graph)


def _location(path: Path, tensor: Any) -> str:
    for entry in tensor.external_data:
        if entry.key == "location" and entry.value:
            return str(entry.value)
    raise ModelError(f"{path}: tensor {tensor.name!r} has external data without a location")


def _inside(path: Path, location: str) -> Path:
    """The data file, which must lie in the model's folder, also after links are followed."""
    hint = "put the data file beside the model and save it with a relative location"
    folder = path.parent
    try:
        target = (folder / location).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: external data {location!r}: not a path: {error}", hint) from error
    if Path(location).is_absolute() or not target.is_relative_to(folder):
        raise ModelError(f"{path}: external data {location!r} lies outside of the model's folder", hint)
    if not target.is_file():
        raise ModelError(f"{path}: external data {location!r} is missing", hint)
    return target


def _precision(proto: Any) -> str:
    names = {1: "fp32", 10: "fp16", 11: "fp64", 16: "bf16", 2: "int8", 3: "int8", 21: "int4", 22: "int4"}
    elements: Counter[str] = Counter()
    for tensor in proto.graph.initializer:
        size = 1
        for dim in tensor.dims:
            size *= max(dim, 0)
        if tensor.data_type in names:
            elements[names[tensor.data_type]] += size
    return elements.most_common(1)[0][0] if elements else "default"
