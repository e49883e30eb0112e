"""Tiny ONNX models, and real servers that are started and ended."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fettle.core.serving import Launch, Request

START_S = 30.0


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], **more: Any) -> Path:
    """more: initializer=..., opset=17, ir_version=8."""
    import onnx
    from onnx import helper

    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializer=more.get("initializer", []))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", more.get("opset", 17))])
    model.ir_version = more.get("ir_version", 8)
    onnx.save(model, str(path))
    return path


def tensor(name: str, shape: list[Any] | None, dtype: str = "FLOAT") -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.DataType.Value(dtype), shape)


def double(path: Path, shape: list[Any] | None = None, dtype: str = "FLOAT") -> Path:
    """y = x + x."""
    from onnx import helper

    shape = ["batch", 3] if shape is None else shape
    return save(
        path, [helper.make_node("Add", ["x", "x"], ["y"])], [tensor("x", shape, dtype)], [tensor("y", shape, dtype)]
    )


def add_and_subtract(path: Path) -> Path:
    """Two inputs, two outputs: plus = a + b, minus = a - b, and their first dimension is the batch."""
    from onnx import helper

    shape = ["batch", 4]
    nodes = [helper.make_node("Add", ["a", "b"], ["plus"]), helper.make_node("Sub", ["a", "b"], ["minus"])]
    return save(path, nodes, [tensor("a", shape), tensor("b", shape)], [tensor("plus", shape), tensor("minus", shape)])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(port: int, request: Request, timeout_s: float = 10.0) -> tuple[int, bytes]:
    """Status and body; 0 where nothing answers."""
    raw = urllib.request.Request(
        f"http://127.0.0.1:{port}{request.path}",
        data=request.body or None,
        headers=dict(request.headers),
        method=request.method,
    )
    try:
        with urllib.request.urlopen(raw, timeout=timeout_s) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def await_ready(port: int, ready: Request, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_S
    while (answer := call(port, ready, timeout_s=1.0))[0] != 200:
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"not ready: {answer}, exit {process.poll()}: {log.read_text()[-2000:]}")
        time.sleep(0.03)


@contextlib.contextmanager
def running(argv: list[str], folder: Path, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a session of its own, all of which is killed at the end."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=folder, env={**os.environ, **env}, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Launch, int], Path]]:
    """serve(launch, port): lays the files out, starts the server, waits until it is ready; gives its folder."""
    with contextlib.ExitStack() as stack:

        def start(launch: Launch, port: int) -> Path:
            folder = tmp_path / f"server-{port}"
            folder.mkdir()
            for name, content in launch.files.items():
                if isinstance(content, Path):
                    (folder / name).symlink_to(content)
                else:
                    (folder / name).write_bytes(content)
            process = stack.enter_context(running(list(launch.argv), folder, dict(launch.env)))
            await_ready(port, launch.ready, process, folder / "log")
            return folder

        yield start


@pytest.fixture
def onnx_tools() -> Any:
    """The functions of this file, for tests in any folder."""
    import types

    names = (save, tensor, double, add_and_subtract, free_port, call, await_ready, running, shutil.which)
    return types.SimpleNamespace(**{function.__name__: function for function in names})
