"""Features of a machine: its cores and memory, and what a probe of two seconds measures of its speed.

The best of several repeats counts: strangers on the machine can only slow it down.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fettle.core.errors import InvalidInput
from fettle.core.serving import Machine
from fettle.problems.runtimes.onnxruntime import LEVELS

_SIDE = 384  # of the square matrices: large enough to keep a core busy, small enough for its cache
_COPY_BYTES = 64 << 20  # more than most last-level caches hold of both ends
_COPIES_BYTES = 512 << 20  # of all cores' copies at most
_SLICE_S = 0.03
_INT8_DOT = {"avx_vnni", "avx512_vnni", "i8mm", "asimddp"}
_SHARES = 6  # measurements that the seconds are shared among


def machine_features(machine: Machine, *, seconds: float = 2.0, seed: int = 0) -> dict[str, float]:
    """A flat dict: cores, memory_bytes; avx512 and int8_dot, 1 where the fingerprint (the facts) says that the
    processor has wide vectors and products of 8-bit integers; and as measured on one core and on all of them

    flops_fp32_1, flops_fp32_all: operations per second of a matrix product in ONNX Runtime (two per multiply-add);
    ops_int8_1, ops_int8_all: the same of unsigned times signed 8-bit integers, without the scaling around it;
    bandwidth_1, bandwidth_all: bytes per second read and written by copies of 64 MiB, of less on more than 8 cores.

    Takes about `seconds`, and never more than twice that on a machine that can run one product in a tenth of it.
    The seed draws the matrices. Raises InvalidInput.
    """
    if seconds <= 0:
        raise InvalidInput(f"probe: expected positive seconds, got {seconds}", "two seconds are enough")
    cores, share = len(machine.cores), seconds / _SHARES
    rng = np.random.default_rng(seed)
    operations = 2.0 * _SIDE**3
    isa = set(machine.facts.get("isa", ()))
    found = {
        "cores": float(cores),
        "memory_bytes": float(machine.memory_bytes),
        "avx512": float("avx512f" in isa or "avx512bw" in isa),
        "int8_dot": float(bool(isa & _INT8_DOT)),
    }
    for name, runs in (
        ("flops_fp32", _products(rng, cores, int8=False)),
        ("ops_int8", _products(rng, cores, int8=True)),
    ):
        found[f"{name}_1"] = operations * _best_rate(runs[:1], share)
        found[f"{name}_all"] = operations * _best_rate(runs, share)
    size = min(_COPY_BYTES, _COPIES_BYTES // cores)
    copies = [_copy(size) for _ in range(cores)]
    found["bandwidth_1"] = 2.0 * size * _best_rate(copies[:1], share)
    found["bandwidth_all"] = 2.0 * size * _best_rate(copies, share)
    return found


def remember(machine: Machine, found: Mapping[str, float]) -> Path:
    """Keeps the features of this machine for later studies. Raises InvalidInput where they cannot be written."""
    path = _kept(machine)
    written = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(json.dumps(dict(found)), encoding="utf-8")
        written.replace(path)
    except OSError as error:
        raise InvalidInput(f"cannot keep the probe in {path}: {error.strerror}", "set XDG_CACHE_HOME") from error
    return path


def remembered(machine: Machine) -> dict[str, float]:
    """What was last kept of a machine with this fingerprint; {} where nothing was."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_kept(machine).read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(v, int | float) and math.isfinite(v) for v in found.values()):
            return {str(key): float(value) for key, value in found.items()}
    return {}


def _kept(machine: Machine) -> Path:
    """A file per host, processor and number of cores, in the user's cache folder."""
    same = [machine.facts.get("host"), machine.facts.get("cpu_model"), len(machine.cores)]
    key = hashlib.sha256(json.dumps(same).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "fettle" / f"probe-{key}.json"


def _best_rate(runs: Sequence[Callable[[], object]], seconds: float) -> float:
    """The highest number of runs per second in a slice of time, all of them side by side, one thread each."""
    for run in runs:
        run()  # warm
    best, give_up = 0.0, time.perf_counter() + seconds
    with ThreadPoolExecutor(len(runs)) as pool:
        while not best or time.perf_counter() < give_up:
            end = time.perf_counter() + _SLICE_S
            best = max(best, sum(pool.map(lambda run, end=end: _rate(run, end), runs)))
    return best


def _rate(run: Callable[[], object], end: float) -> float:
    n, begun = 0, time.perf_counter()
    while not n or time.perf_counter() < end:
        run()
        n += 1
    return n / (time.perf_counter() - begun)


def _products(rng: np.random.Generator, n: int, *, int8: bool) -> list[Callable[[], object]]:
    """One matrix product per core, each in a session of its own with one thread."""
    import onnxruntime
    from onnx import TensorProto, helper

    kinds = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32) if int8 else (TensorProto.FLOAT,) * 3
    a, b, c = (
        helper.make_tensor_value_info(name, kind, [_SIDE, _SIDE]) for name, kind in zip("abc", kinds, strict=True)
    )
    node = helper.make_node("MatMulInteger" if int8 else "MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "product", [a, b], [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS["all"])
    if int8:
        given = {
            "a": rng.integers(0, 255, (_SIDE, _SIDE), np.uint8),
            "b": rng.integers(-127, 127, (_SIDE, _SIDE), np.int8),
        }
    else:
        given = {name: rng.standard_normal((_SIDE, _SIDE), np.float32) for name in "ab"}
    data = model.SerializeToString()
    made = [onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]) for _ in range(n)]
    return [functools.partial(session.run, None, given) for session in made]


def _copy(size: int) -> Callable[[], object]:
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    return functools.partial(np.copyto, target, source)
