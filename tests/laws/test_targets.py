"""The conformance suite on the targets that ship, and on ones that break its rules."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fettle.core.errors import TrialFailure
from fettle.core.serving import Launch, Machine, Model
from fettle.core.space import Int, Params, Space
from fettle.host.machine import machine
from fettle.problems.serve.model import load_model
from fettle.problems.serve.targets.command import Command
from fettle.problems.serve.targets.mosec import Mosec
from fettle.testing import targets as suite

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    do_POST = do_GET

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def model() -> Model:
    folder = Path(__file__).parents[2] / "src" / "fettle" / "data"
    return load_model({"fp32": folder / "digits-fp32.onnx", "int8": folder / "digits-int8.onnx"})


@pytest.mark.medium
def test_mosec(model: Model, tmp_path: Path) -> None:
    suite.check_target(Mosec(), model, tmp_path)


def test_command(model: Model, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    target = Command(f"{sys.executable} {tmp_path / 'server.py'} {{port}} {{threads}}", Space(threads=Int(1, 4)))
    suite.check_target(target, model, tmp_path)


class Broken(Mosec):
    """mosec with one fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.launched = 0

    def space(self, model: Model, machine: Machine) -> Space:
        more = {"idle one": Int(1, 1), "knob that does nothing": Int(1, 2)}
        if self.fault not in more:
            return super().space(model, machine)
        return Space({**super().space(model, machine).domains, "more": more[self.fault]})

    def defaults(self, model: Model, machine: Machine) -> Params:
        made = super().defaults(model, machine)
        if self.fault in ("idle one", "knob that does nothing"):
            made["more"] = 1
        if self.fault == "defaults that cannot be stored":
            made["cores"] = (1, 2)
        return made

    def launch(self, model: Model, params: Params, port: int) -> Launch:
        made = super().launch(model, params, port)
        self.launched += 1
        changes: dict[str, Callable[[], dict[str, Any]]] = {
            "port not passed on": lambda: {"argv": ("srv",), "env": {}},
            "file outside": lambda: {"files": {**made.files, "../server.py": b""}},
            "another one each time": lambda: {"env": {**made.env, "N": str(self.launched)}},
            "too many cores": lambda: {"cores": 10_000},
        }
        return replace(made, **changes[self.fault]()) if self.fault in changes else made


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("idle one", suite.check_space),
        ("defaults that cannot be stored", suite.check_space),
        ("knob that does nothing", suite.check_launch),
        ("port not passed on", suite.check_launch),
        ("file outside", suite.check_launch),
        ("another one each time", suite.check_launch),
        ("too many cores", suite.check_launch),
    ],
)
def test_the_suite_finds_faults(fault: str, check: Any, model: Model) -> None:
    with pytest.raises(AssertionError):
        check(Broken(fault), model, machine())


def test_a_server_that_answers_something_else(model: Model, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    line = f"{sys.executable} {tmp_path / 'server.py'} {{port}} {{threads}}"
    with pytest.raises(TrialFailure, match="bad_body"):
        suite.check_serves(Command(line, Space(threads=Int(1, 4)), expect="oip"), model, machine(), tmp_path)
