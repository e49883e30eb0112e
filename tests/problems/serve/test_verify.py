"""A model that crashes or blocks the runtime costs a child process, and gives a message."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fettle.core.errors import ModelError
from fettle.problems.serve.verify import verify

ITEM = {"x": np.ones((1, 3), np.float32)}


def interpreter(tmp_path: Path, script: str) -> str:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "message"),
    [("echo free: invalid pointer >&2; kill -SEGV $$", "SIGSEGV.*invalid pointer"), ("exit 3", "ended with 3")],
)
def test_a_dead_child_is_a_model_error(
    tmp_path: Path, onnx_tools: Any, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    path = onnx_tools.double(tmp_path / "m.onnx")
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, script))
    with pytest.raises(ModelError, match=message):
        verify(path, ITEM, batchable=True)


def test_a_child_that_does_not_end_is_killed(tmp_path: Path, onnx_tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = onnx_tools.double(tmp_path / "m.onnx")
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, "exec sleep 60"))
    with pytest.raises(ModelError, match="more than"):
        verify(path, ITEM, batchable=True, timeout_s=0.2)


def test_what_came_out(tmp_path: Path, onnx_tools: Any) -> None:
    found = verify(onnx_tools.double(tmp_path / "m.onnx"), ITEM, batchable=True)
    assert found.outputs == {"y": ("float32", (1, 3))}
    assert found.batchable
