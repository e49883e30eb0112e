"""Whole trials against a server that misbehaves, and the search for what they leave behind."""

import os
import shlex
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fettle.core.protocols import Job
from fettle.executors.process import ProcessExecutor
from fettle.problems.serve.problem import ServeProblem, make

SCRIPT = Path(__file__).parent / "misbehaving.py"


def holding(mark: str) -> list[int]:
    """Live processes of this machine whose command line or environment holds the mark, ourselves excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark.encode() in text and state not in "ZX":
            found.append(int(entry.name))
    return found


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Trials:
    """Runs whole trials of the serve problem in worker processes. mark: in the command line of every server."""

    folder: Path
    model: Path
    ours: bool = True  # whether the port that the server was given is its own
    mark: str = field(default_factory=lambda: f"mark-{uuid.uuid4().hex}")

    def target(self, mode: str, **more: Any) -> dict[str, Any]:
        words = [sys.executable, str(SCRIPT), "{port}", mode, self.mark]
        space = {"threads": {"int": [1, 2]}}
        options = {"command": shlex.join(words).replace("'{port}'", "{port}"), "space": space, "ready": "/ready"}
        return {"name": "command", "expect": "oip", "path": "/infer", **options, **more}

    def problem(self, mode: str, **options: Any) -> ServeProblem:
        options = {"slo": "p99=500ms", "target": self.target(mode), **options}
        return make(self.model, **options)

    def left(self) -> list[int]:
        return holding(self.mark)

    def port(self) -> int:
        """That of the last server; 0, where nothing can answer, if it never came so far."""
        file = self.folder / "trial" / "server" / "port"
        return int(file.read_text()) if file.exists() else 0

    def server_pid(self) -> int:
        return next(pid for pid in holding(self.mark) if SCRIPT.name in Path(f"/proc/{pid}/cmdline").read_text())

    def run(
        self,
        problem: ServeProblem,
        *,
        limit_s: float = 10.0,
        incumbent: Mapping[str, float] | None = None,
        on_progress: Callable[[int, Mapping[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """The payload of the trial's `told` event; when it comes, nothing of the server may be left."""
        executor = ProcessExecutor(on_progress=on_progress)
        try:
            job = Job(0, {"threads": 1}, 7, self.folder / "trial", limit_s=limit_s, incumbent=incumbent)
            executor.submit(job, problem.evaluate)
            events, give_up = [], time.monotonic() + limit_s + 15.0
            while not events and time.monotonic() < give_up:
                events = executor.poll(0.5, lambda number, report: True)
            assert [e.kind for e in events] == ["told"]
            assert holding(self.mark) == []
            assert not self.ours or not answers(self.port())
            return dict(events[0].payload)
        finally:
            executor.close()


@pytest.fixture
def trials(tmp_path: Path, onnx_tools: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trials]:
    """With a machine lock of its own: a search elsewhere on this machine must not hold the tests up."""
    locks = tmp_path / "tmp"
    locks.mkdir()
    monkeypatch.setenv("TMPDIR", str(locks))
    monkeypatch.setattr(tempfile, "tempdir", None)
    made = Trials(tmp_path, onnx_tools.double(tmp_path / "double.onnx"))
    yield made
    assert holding(made.mark) == []
