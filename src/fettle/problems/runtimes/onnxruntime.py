"""Runtime ONNX Runtime: loads a model on the CPU, runs it and times it. Shared by all problems."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.errors import InvalidInput, ModelError

LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


@dataclass(frozen=True, slots=True)
class Session:
    """A loaded model: `session(tensors)` gives all outputs by name."""

    raw: Any  # onnxruntime.InferenceSession
    outputs: tuple[str, ...]

    def __call__(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self.raw.run(None, dict(tensors)), strict=True))


def load(path: Path, *, threads: int = 1, spinning: bool = False, graph_optimization: str = "all") -> Session:
    """Load an ONNX file. threads: of one operator; at least 1, because ONNX Runtime's own choice (0) counts and
    pins to the machine's cores, whatever this process may use. Raises ModelError if it cannot be loaded.

    A file of unknown origin can crash the process: `problems.serve.model.load_model` tries it in a child first.
    """
    import onnxruntime

    if threads < 1:
        raise InvalidInput(f"threads: expected at least 1, got {threads}", "give the number of cores")
    if graph_optimization not in LEVELS:
        raise InvalidInput(f"graph_optimization: expected one of {', '.join(LEVELS)}, got {graph_optimization!r}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[graph_optimization])
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    try:
        raw = onnxruntime.InferenceSession(str(path.resolve()), options, providers=["CPUExecutionProvider"])
    except failures() as error:
        raise ModelError(f"{path}: ONNX Runtime cannot load it: {error}") from error
    return Session(raw, tuple(output.name for output in raw.get_outputs()))


def failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises. Its own classes share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (RuntimeError, ValueError, TypeError, *own)


def benchmark(session: Session, tensors: Mapping[str, np.ndarray], *, runs: int = 30, warmup: int = 3) -> np.ndarray:
    """Seconds per run, (runs,), in order; the warm-up's are left out."""
    times_s = np.empty(runs)
    for i in range(-warmup, runs):
        start = time.perf_counter()
        session(tensors)
        if i >= 0:
            times_s[i] = time.perf_counter() - start
    return times_s
