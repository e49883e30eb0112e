import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fettle.core.errors import InvalidInput
from fettle.core.serving import Launch, Machine, Model, TensorSpec
from fettle.core.space import Categorical, Choice, Float, Int, Ordinal, Space
from fettle.problems.serve.targets.command import Command, Hot, load_space

SPACE = Space(
    {
        "threads": Int(1, 4),
        "fast": Categorical([True, False]),
        "batching": Choice({"off": Space(), "on": Space({"size": Ordinal([2, 4])})}),
        "text": Categorical(["a b", "$(touch hacked); `id`"]),
    }
)
X = (TensorSpec("x", "float32", (1, 3)),)
MODEL = Model("m", {"fp32": Path("/models/m.onnx")}, {}, X, X, True)
MACHINE = Machine((0,), 2**30)

SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(b"ok")
    def do_POST(self):
        got = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(json.dumps({"argv": sys.argv[2:], "bytes": len(got), "key": self.headers["X-Key"]}).encode())
    def log_message(self, *a): pass

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_the_template_is_split_before_values_are_put_in() -> None:
    command = "srv --port {port} 'two words' --t={threads} {fast} --b={batching.on.size} {text} {{}} {model}"
    target = Command(command, SPACE)
    params = {"threads": 2, "fast": True, "batching": "off", "text": "$(touch hacked); `id`"}
    argv = target.launch(MODEL, params, 99).argv
    expected = ("srv", "--port", "99", "two words", "--t=2", "true", "$(touch hacked); `id`", "{{}}", "/models/m.onnx")
    assert argv == expected
    argv = target.launch(MODEL, params | {"batching": "on", "batching.on.size": 4, "text": "a b"}, 99).argv
    assert argv[6:8] == ("--b=4", "a b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": "srv {port} {thread}"}, "thread"),
        ({"command": "srv"}, "port"),
        ({"command": "srv {port} 'open"}, "split"),
        ({"command": "  "}, "command line"),
        ({"ready": "http://elsewhere/x"}, "--ready"),
        ({"ready": "//elsewhere/x"}, "--ready"),
        ({"path": "/a b"}, "--path"),
        ({"expect": "magic"}, "expect"),
        ({"method": "GET / HTTP/1.1"}, "method"),
        ({"headers": {"A": "b\r\nC: d"}}, "headers"),
        ({"search": Space({"port": Int(1, 2)})}, "port"),
        ({"default_params": {"threads": 9}}, "threads"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        replace(Command("srv {port}", SPACE), **change)


def test_unknown_placeholders_list_the_known_ones() -> None:
    with pytest.raises(InvalidInput) as caught:
        Command("srv {port} {workers}", SPACE)
    assert all(name in caught.value.hint for name in ("port", "model", "threads", "batching.on.size"))


def test_defaults_are_given_or_the_first_values() -> None:
    target = Command("srv {port}", SPACE)
    assert target.defaults(MODEL, MACHINE) == {"threads": 1, "fast": True, "batching": "off", "text": "a b"}
    given = {"threads": 3, "fast": False, "batching": "off", "text": "a b"}
    assert replace(target, default_params=given).defaults(MODEL, MACHINE) == given
    nested = Space({"k": Choice({"a": Space({"v": Float(0.5, 1)})})})
    assert replace(target, search=nested).defaults(MODEL, MACHINE) == {"k": "a", "k.a.v": 0.5}


@pytest.mark.medium
def test_a_real_server(tmp_path: Path, serve: Callable[[Launch, int], Path], onnx_tools: Any) -> None:
    script = tmp_path / "srv.py"
    script.write_text(SERVER)
    command = f"{sys.executable} {script} {{port}} {{threads}} {{text}}"
    target = Command(command, SPACE, ready="/up", path="/go", headers={"X-Key": "k"}, expect="json")
    params, port = target.defaults(MODEL, MACHINE) | {"text": "$(touch hacked); `id`"}, onnx_tools.free_port()
    launch = target.launch(MODEL, params, port)
    folder = serve(launch, port)
    request = launch.encode({"x": np.zeros((1, 3), np.float32)})
    status, body = onnx_tools.call(port, request)
    assert status == 200
    assert json.loads(body) == {"argv": ["1", "$(touch hacked); `id`"], "bytes": len(request.body), "key": "k"}
    assert not list(folder.glob("hacked"))
    assert launch.decode is not None
    assert launch.decode(body) is None
    with pytest.raises(ValueError):
        launch.decode(b"<html>")
    fixed = replace(target, body=b"same", expect="any").launch(MODEL, params, port)
    assert fixed.encode({}).body == b"same"
    assert fixed.decode is None


@pytest.mark.parametrize(
    "text", ["space: {threads: {int: [1, 8]}}\ndefaults: {threads: 2}", '{"space": {"threads": {"int": [1, 8]}}}']
)
def test_space_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    space, defaults, change = load_space(tmp_path / "s.yaml")
    assert space == Space({"threads": Int(1, 8)})
    assert defaults in ({"threads": 2}, {})
    assert change is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "space: [",
        "- 1",
        "threads: {int: [1, 8]}",
        "space: {threads: {integer: [1, 8]}}",
        "space: {threads: {int: [8, 1]}}",
        "space: {threads: {int: [1, 8]}}\nmore: 1",
        "space: {threads: {int: [1, 8]}}\ndefaults: {threads: 9}",
        "space: {threads: {int: [1, 8]}}\ndefaults: 5",
        "space: !!python/object/apply:os.system ['touch hacked']",
        "\x00\xff",
    ],
)
def test_bad_space_files(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "s.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInput):
        load_space(tmp_path / "s.yaml")


HOT = {"knobs": ["threads"], "path": "/settings", "body": '{"threads": {threads}}'}


def test_hot_knobs_are_set_by_one_request() -> None:
    target = Command("srv {port} {threads}", SPACE, change=Hot.read(HOT))
    assert target.hot == {"threads"}
    request = target.apply({"threads": 3, "fast": True})
    assert request is not None
    assert (request.method, request.path, request.body) == ("POST", "/settings", b'{"threads": 3}')
    assert Command("srv {port}", SPACE).apply({"threads": 3}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"knobs": []}, "list of names"),
        ({"knobs": "threads"}, "list of names"),
        ({"knobs": ["fast"]}, "does not set"),
        ({"knobs": ["batching"], "body": "{batching}"}, "every trial"),
        ({"body": "{threads} {batching.on.size}"}, "every trial"),
        ({"knobs": ["fast"], "body": "{fast}"}, "fresh server"),
        ({"path": "settings"}, "path"),
        ({"path": 5}, "path"),
        ({"path": "//elsewhere/x"}, "path"),
        ({"verb": "PUT"}, "verb"),
        ({"method": "PUT /x"}, "method"),
        ({"headers": 5}, "headers"),
        ({"headers": {"A": 1}}, "headers"),
        ({"headers": {"A": "b\r\nC: d"}}, "headers"),
    ],
)
def test_bad_hot_knobs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Command("srv {port} {threads}", SPACE, change=Hot.read({**HOT, **change}))


def test_hot_knobs_in_a_space_file(tmp_path: Path) -> None:
    form = {"space": {"threads": {"int": [1, 8]}}, "hot": HOT}
    (tmp_path / "s.yaml").write_text(json.dumps(form))
    assert load_space(tmp_path / "s.yaml")[2] == Hot.read(HOT)
    target = Command.from_options("srv {port} {threads}", str(tmp_path / "s.yaml"))
    assert target.hot == {"threads"}
    with pytest.raises(InvalidInput, match="knobs and path"):
        Hot.read({"knobs": ["threads"]})
