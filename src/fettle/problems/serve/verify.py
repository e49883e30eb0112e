"""Tries a model in a process of its own, because a broken or hostile file can crash ONNX Runtime.

`verify` starts this module as a child, hands it one item and reads what came out.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.errors import ModelError
from fettle.core.serving import Tensors
from fettle.problems.serve import codec

TIMEOUT_S = 60.0
TIMEOUT_S_PER_GIB = 30.0
_RUN_HINT = "give real inputs with --inputs samples.npz, and shapes with --input-shape NAME=1,..."


@dataclass(frozen=True, slots=True)
class Verified:
    """outputs: name -> (dtype, shape) of one item's answer. batchable: two items together give the same as apart."""

    outputs: dict[str, tuple[str, tuple[int, ...]]]
    batchable: bool


def verify(path: Path, item: Tensors, *, batchable: bool, timeout_s: float | None = None) -> Verified:
    """Load and run it once (and with two items, if it may be batchable). Raises ModelError with the reason."""
    if timeout_s is None:
        timeout_s = TIMEOUT_S + TIMEOUT_S_PER_GIB * path.stat().st_size / 2**30
    argv = [sys.executable, "-m", __name__, str(path), str(int(batchable))]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    body = codec.encode_request(item)[1]
    try:
        done = subprocess.run(argv, input=body, env=env, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(f"{path}: loading and running it once took more than {timeout_s:.0f} s") from None
    if done.returncode != 0:
        raise ModelError(f"{path}: {_death(done.returncode)} while ONNX Runtime tried it: {_last(done.stderr)}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise ModelError(f"{path}: ONNX Runtime cannot {answer['stage']} it: {answer['error']}", _hint(answer))
    outputs = {name: (dtype, tuple(shape)) for name, (dtype, shape) in answer["outputs"].items()}
    return Verified(outputs, bool(answer["batchable"]))


def _death(code: int) -> str:
    if code >= 0:
        return f"the process ended with {code}"
    try:
        return f"the process was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"the process was killed by signal {-code}"


def _last(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def _hint(answer: dict[str, Any]) -> str:
    text = answer["error"].lower()
    if answer["stage"] == "run":
        return _RUN_HINT
    if "ir version" in text or "opset" in text:
        return "export the model with an older opset, or install a newer onnxruntime"
    if "not a registered" in text or "no op registered" in text or "not implemented" in text:
        return "the model uses operators that this onnxruntime lacks; export it with standard ones"
    return "check it with `python -m onnxruntime.tools.check_onnx_model_mobile_usability` or export it again"


def _child(path: str, batchable: bool, item: dict[str, np.ndarray]) -> dict[str, Any]:
    from fettle.problems.runtimes.onnxruntime import failures, load

    try:
        session = load(Path(path))
    except ModelError as error:
        return {"stage": "load", "error": str(error.__cause__ or error)}
    try:
        alone = session(item)
    except failures() as error:
        return {"stage": "run", "error": str(error)}
    if any(not isinstance(array, np.ndarray) for array in alone.values()):
        return {"stage": "serve", "error": "an output is no tensor"}
    if batchable:
        try:
            together = session({name: np.concatenate([array, array]) for name, array in item.items()})
        except failures():
            together = {}
        batchable = all(_twice(array, together.get(name)) for name, array in alone.items())
    outputs = {name: (codec.dtype_name(array), array.shape) for name, array in alone.items()}
    return {"outputs": outputs, "batchable": batchable}


def _twice(alone: np.ndarray, together: np.ndarray | None) -> bool:
    """Whether the answer to two equal items is the answer to one, twice; sums may round differently."""
    if together is None or not alone.ndim or together.shape != (2 * len(alone), *alone.shape[1:]):
        return False
    expected = np.concatenate([alone, alone])
    if alone.dtype.kind != "f":
        return bool((together == expected).mean() > 0.99) if expected.size else True
    scale = float(np.nanmax(np.abs(expected), initial=0.0))
    return bool(np.allclose(together, expected, rtol=0.05, atol=0.05 * scale + 1e-6, equal_nan=True))


def _main() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    item = codec.decode_request(sys.stdin.buffer.read())
    sys.stdout.write("\n" + json.dumps(_child(sys.argv[1], sys.argv[2] == "1", item)) + "\n")


if __name__ == "__main__":
    _main()
