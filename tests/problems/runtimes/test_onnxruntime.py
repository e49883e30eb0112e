from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fettle.core.errors import InvalidInput, ModelError
from fettle.problems.runtimes.onnxruntime import LEVELS, benchmark, load

DATA = Path(str(files("fettle.data")))


@pytest.mark.parametrize("level", list(LEVELS))
def test_levels_and_threads_give_the_same_answer(level: str) -> None:
    with np.load(DATA / "digits-samples.npz") as stored:
        item = {"image": stored["image"][:2]}
    plain = load(DATA / "digits-fp32.onnx")(item)["logits"]
    tuned = load(DATA / "digits-fp32.onnx", threads=2, spinning=True, graph_optimization=level)(item)["logits"]
    assert plain.shape == (2, 10)
    np.testing.assert_allclose(plain, tuned, atol=1e-3)


def test_benchmark_gives_a_time_per_run(tmp_path: Path, onnx_tools: Any) -> None:
    session = load(onnx_tools.double(tmp_path / "m.onnx"))
    times_s = benchmark(session, {"x": np.ones((1, 3), np.float32)}, runs=5)
    assert times_s.shape == (5,)
    assert (times_s > 0).all()


def test_bad_settings_and_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="threads"):
        load(DATA / "digits-fp32.onnx", threads=0)
    with pytest.raises(InvalidInput, match="graph_optimization"):
        load(DATA / "digits-fp32.onnx", graph_optimization="most")
    (tmp_path / "x.onnx").write_bytes(b"garbage")
    with pytest.raises(ModelError, match="cannot load"):
        load(tmp_path / "x.onnx")
