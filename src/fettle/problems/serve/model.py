"""Models to serve: read from ONNX files, tried once, with items to send and answers to expect."""

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fettle.core.errors import InvalidInput, ModelError
from fettle.core.serving import Model, Tensors, TensorSpec
from fettle.problems.serve import onnxfile
from fettle.problems.serve.codec import dtype_name
from fettle.problems.serve.verify import verify

MIN_ITEMS = 32  # distinct bodies that a load test needs at least
FEATURES_BYTES = 200 << 20  # of a file at most, whose features are counted at each start: 0.14 s for 100 MB
INTEGERS_BELOW = 2  # generated integers are 0 or 1: an index that exists in any table of two rows
_NO_SCORES = re.compile("embed|hidden|pool|feature", re.IGNORECASE)


def load_model(
    paths: Mapping[str, Path] | Path,
    *,
    input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    inputs: Path | None = None,
) -> Model:
    """Read and try a model, or variants of it (precision name -> file, the first is the reference).

    A dynamic first dimension is the batch: one item per request. input_shapes: input -> full shape, needed for
    any other dynamic dimension. inputs: real items (see `samples`) to try it with. Raises ModelError.
    """
    if isinstance(paths, Path):
        files = {(only := onnxfile.read(paths)).precision: only}
    else:
        files = {name: onnxfile.read(path) for name, path in paths.items()}
    if not files:
        raise ModelError("expected at least one model file, got none", "give the path of an .onnx file")
    first = next(iter(files.values()))
    specs = _inputs(first, input_shapes)
    _check_alike(files, input_shapes)
    name = next(iter([paths] if isinstance(paths, Path) else paths.values())).stem
    batchable = all(declared.shape and declared.shape[0] is None for declared in first.inputs)
    draft = Model(name, {}, {}, specs, (), batchable)
    item = {k: np.asarray(v) for k, v in _probe_item(draft, inputs).items()}
    tried = {key: verify(file.path, item, batchable=batchable) for key, file in files.items()}
    batchable = batchable and all(result.batchable for result in tried.values())
    answers = next(iter(tried.values())).outputs
    for key, result in tried.items():
        if {n: d for n, (d, _) in result.outputs.items()} != {n: d for n, (d, _) in answers.items()}:
            raise ModelError(f"variant {key!r} answers {_brief(result.outputs)}, the first one {_brief(answers)}")
    outputs = tuple(_output(declared, *answers[declared.name], batchable) for declared in first.outputs)
    return Model(
        name=name,
        variants={key: file.path for key, file in files.items()},
        hashes={key: file.sha256() for key, file in files.items()},
        inputs=specs,
        outputs=outputs,
        batchable=batchable,
    )


def samples(
    model: Model, *, inputs: Path | None = None, n: int = MIN_ITEMS, seed: int = 0
) -> list[dict[str, np.ndarray]]:
    """n >= 1 items, each name -> array of one request's shape.

    inputs: an .npz with an array per input, items along the first dimension, all of which are used (and repeated
    if there are fewer than n). Otherwise they are drawn from the seed: floats standard normal, integers 0 or 1
    (ids out of range crash embeddings; `inputs` is the cure for models that need real ones), booleans even.
    Raises InvalidInput.
    """
    if inputs is not None:
        items = _stored(model, inputs)
        return [items[i % len(items)] for i in range(max(n, len(items)))]
    rng = np.random.default_rng(seed)
    return [{spec.name: _draw(spec, rng) for spec in model.inputs} for _ in range(n)]


def reference(model: Model, precision: str, items: Sequence[Tensors]) -> list[dict[str, np.ndarray]]:
    """The outputs of ONNX Runtime in this process, one thread, for each item."""
    from fettle.problems.runtimes.onnxruntime import failures, load

    session = load(model.variants[precision])
    try:
        return [session(item) for item in items]
    except failures() as error:
        raise ModelError(f"{model.name}: ONNX Runtime cannot run an item: {error}", "check --inputs") from error


def features(model: Model) -> dict[str, float]:
    """Operations, bytes and kinds of operators of the reference, see `runtimes.onnxgraph`; {} of a large file, which
    would delay the start, and of a graph whose shapes cannot be told without running it."""
    from fettle.problems.runtimes.onnxgraph import model_features

    path = next(iter(model.variants.values()))
    if path.stat().st_size > FEATURES_BYTES:
        return {}
    try:
        return model_features(path, input_shapes={spec.name: spec.shape for spec in model.inputs})
    except (ModelError, LookupError, ValueError):  # a graph that runs need not be one that can be counted
        return {}


def agreement(a: Sequence[Tensors], b: Sequence[Tensors]) -> dict[str, Any]:
    """How far b's outputs agree with a's (the reference), item by item.

    {"metric": "top1_agreement", "output", "value", "items"} for the first output that looks like class scores,
    otherwise {"metric": "output_agreement", "value": mean cosine (1 = equal direction), "relative_error", "items"}
    over all numeric outputs; "exact_agreement" (share of equal elements) where none is a float.
    """
    if not a or len(a) != len(b):
        raise InvalidInput(f"agreement: expected as many items on both sides, at least one, got {len(a)} and {len(b)}")
    for name, array in a[0].items():
        if _is_scores(name, array):
            same = [np.argmax(x[name], axis=-1) == np.argmax(y[name], axis=-1) for x, y in zip(a, b, strict=True)]
            value = float(np.concatenate([s.ravel() for s in same]).mean())
            return {"metric": "top1_agreement", "output": name, "value": value, "items": len(a)}
    floats = [name for name, array in a[0].items() if array.dtype.kind == "f"]
    if not floats:
        equal = [np.mean([np.array_equal(x[name], y[name]) for name in x]) for x, y in zip(a, b, strict=True)]
        return {"metric": "exact_agreement", "value": float(np.mean(equal)), "items": len(a)}
    cosines, errors = [], []
    for x, y in zip(a, b, strict=True):
        u = np.concatenate([np.asarray(x[name], float).ravel() for name in floats])
        v = np.concatenate([np.asarray(y[name], float).ravel() for name in floats])
        if u.shape != v.shape:
            cosines.append(0.0)
            errors.append(float("inf"))
            continue
        norm = float(np.linalg.norm(u))
        product = norm * float(np.linalg.norm(v))
        cosines.append(float(u @ v) / product if product else float(np.array_equal(u, v)))
        errors.append(float(np.linalg.norm(u - v)) / (norm or 1.0))
    figures = {"value": float(np.mean(cosines)), "relative_error": float(np.mean(errors))}
    return {"metric": "output_agreement", **figures, "items": len(a)}


def _is_scores(name: str, array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and array.ndim == 2 and array.shape[1] > 1 and not _NO_SCORES.search(name)


def _inputs(file: onnxfile.OnnxFile, given: Mapping[str, tuple[int, ...]]) -> tuple[TensorSpec, ...]:
    if unknown := [name for name in given if name not in {declared.name for declared in file.inputs}]:
        hint = f"inputs: {', '.join(declared.name for declared in file.inputs)}"
        raise ModelError(f"--input-shape names {unknown[0]!r}, which is no input of {file.path.name}", hint)
    specs, missing = [], []
    for declared in file.inputs:
        if declared.name in given:
            shape = _given(declared, tuple(given[declared.name]))
        elif declared.shape is None or None in declared.shape[1:]:
            missing.append(declared)
            continue
        else:
            shape = tuple(1 if size is None else size for size in declared.shape)
        specs.append(TensorSpec(declared.name, declared.dtype, shape))
    if missing:
        found = "; ".join(f"input {declared.name!r} has shape {_written(declared.shape)}" for declared in missing)
        flags = " ".join(f"--input-shape {declared.name}={_example(declared.shape)}" for declared in missing)
        raise ModelError(f"{file.path}: dynamic sizes must be given: {found}", f"add {flags} with the sizes you serve")
    return tuple(specs)


def _given(declared: onnxfile.Declared, shape: tuple[int, ...]) -> tuple[int, ...]:
    fits = all(size > 0 for size in shape)
    if declared.shape is not None:
        pairs = zip(declared.shape, shape, strict=False)
        fits = fits and len(shape) == len(declared.shape) and all(fixed in (None, size) for fixed, size in pairs)
        if fits and shape and declared.shape[0] is None and shape[0] != 1:
            raise ModelError(
                f"--input-shape {declared.name}: the first dimension is the batch, expected 1, got {shape[0]}",
                "one item is one request; the server's knobs decide about batches",
            )
    if not fits:
        written = ",".join(map(str, shape))
        raise ModelError(
            f"--input-shape {declared.name}={written} does not fit the model's {_written(declared.shape)}",
            f"e.g. --input-shape {declared.name}={_example(declared.shape)}",
        )
    return shape


def _written(shape: tuple[int | None, ...] | None) -> str:
    return "unknown" if shape is None else "[" + ", ".join("?" if s is None else str(s) for s in shape) + "]"


def _example(shape: tuple[int | None, ...] | None) -> str:
    sizes = (1, None) if shape is None else shape
    return ",".join(str(size) if size else "1" if i == 0 else "64" for i, size in enumerate(sizes))


def _check_alike(files: Mapping[str, onnxfile.OnnxFile], given: Mapping[str, tuple[int, ...]]) -> None:
    first, *others = files.items()
    for name, file in others:
        if set(file.inputs) != set(first[1].inputs):
            raise ModelError(
                f"variant {name!r} has inputs {_list(file.inputs)}, {first[0]!r} has {_list(first[1].inputs)}",
                "variants must take the same requests",
            )
        if {(o.name, o.dtype) for o in file.outputs} != {(o.name, o.dtype) for o in first[1].outputs}:
            raise ModelError(
                f"variant {name!r} has outputs {_list(file.outputs)}, {first[0]!r} has {_list(first[1].outputs)}",
                "variants must give the same answers",
            )


def _list(declared: Sequence[onnxfile.Declared]) -> str:
    return ", ".join(f"{d.name}: {d.dtype} {_written(d.shape)}" for d in declared)


def _brief(outputs: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name}: {dtype}" for name, (dtype, _) in outputs.items())


def _output(declared: onnxfile.Declared, dtype: str, shape: tuple[int, ...], batchable: bool) -> TensorSpec:
    said = declared.shape if declared.shape is not None and len(declared.shape) == len(shape) else (None,) * len(shape)
    sizes = [size if size is not None else -1 for size in said]
    if batchable:
        sizes[0] = shape[0]
    return TensorSpec(declared.name, dtype, tuple(sizes))


def _probe_item(model: Model, inputs: Path | None) -> Tensors:
    return samples(model, inputs=inputs, n=1)[0]


def _draw(spec: TensorSpec, rng: np.random.Generator) -> np.ndarray:
    if spec.dtype == "str":
        raise InvalidInput(f"input {spec.name!r} takes text, which is not made up", "give it with --inputs samples.npz")
    kind = np.dtype(spec.dtype).kind
    if kind == "f":
        return rng.standard_normal(spec.shape).astype(spec.dtype)
    return rng.integers(0, INTEGERS_BELOW, size=spec.shape).astype(spec.dtype)


def _stored(model: Model, path: Path) -> list[dict[str, np.ndarray]]:
    hint = f"write it with numpy.savez(path, {', '.join(spec.name + '=...' for spec in model.inputs)})"
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file", "give --inputs the path of an .npz file")
    try:
        if not zipfile.is_zipfile(path):
            raise InvalidInput(f"{path}: not an .npz file", hint)
        with np.load(path, allow_pickle=False) as stored:
            if lacking := [spec.name for spec in model.inputs if spec.name not in stored.files]:
                raise InvalidInput(f"{path}: no array {lacking[0]!r}; it has {', '.join(stored.files) or 'none'}", hint)
            arrays = {spec.name: _items(path, spec, stored[spec.name]) for spec in model.inputs}
    except InvalidInput:
        raise
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidInput(f"{path}: not a readable .npz file: {error}", hint) from error
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        raise InvalidInput(f"{path}: the arrays hold different numbers of items: {counts}", hint)
    return [{name: array[i] for name, array in arrays.items()} for i in range(next(iter(counts.values())))]


def _items(path: Path, spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """(items, *one request's shape); the request's leading 1 may be missing in the file."""
    if not array.ndim or not len(array):
        raise InvalidInput(f"{path}: {spec.name!r}: expected items along the first dimension, got {array.shape}")
    if dtype_name(array) != spec.dtype:
        raise InvalidInput(
            f"{path}: {spec.name!r}: expected {spec.dtype}, got {dtype_name(array)}",
            f"convert it with .astype({spec.dtype!r})",
        )
    if array.shape[1:] == spec.shape:
        return array
    if spec.shape[:1] == (1,) and array.shape[1:] == spec.shape[1:]:
        return array[:, None]
    raise InvalidInput(
        f"{path}: {spec.name!r}: expected items of shape {spec.shape}, got {array.shape[1:]}",
        "items lie along the first dimension",
    )
