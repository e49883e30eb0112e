"""Real process trees for the tests of `fettle.host`."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fettle.host import limits, supervisor
from fettle.host.limits import Limits, isolation_mode
from fettle.host.supervise import Process, spawn

# a main process that has a child, a daemonised re-sessioned grandchild that listens, and one more that ignores SIGTERM
STUBBORN = """
import os, signal, socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.environ.clear()
        open(sys.argv[1] + ".tmp", "w").write(str(server.getsockname()[1]))
        os.rename(sys.argv[1] + ".tmp", sys.argv[1])
        time.sleep(600)
    os._exit(0)
if os.fork() == 0:
    time.sleep(600)
time.sleep(600)
"""

Start = Callable[..., Process]


def until(condition: Callable[[], object], timeout_s: float = 8.0) -> bool:
    give_up = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


def alive(pids: list[int]) -> list[int]:
    return [p for p in pids if (f := supervisor.stat_fields(p)) and supervisor.is_alive(p, f)]


def port_answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stubborn(start: Start, folder: Path) -> tuple[Process, list[int], int]:
    """A started STUBBORN tree: process, its pids, its port."""
    process = start(STUBBORN, str(folder / "port"))
    assert until((folder / "port").exists)
    assert until(lambda: len(process.pids()) == 3)
    return process, process.pids(), int((folder / "port").read_text())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(python_code, *args, limits=, ...) -> Process, stopped after the test."""
    running: list[Process] = []

    def run(code: str, *args: str, limits: Limits | None = None, **more: object) -> Process:
        argv = [sys.executable, "-c", code, *args]
        log = tmp_path / f"{len(running)}.log"
        running.append(spawn(argv, cwd=tmp_path, env=dict(os.environ), log_path=log, limits=limits or Limits(), **more))
        return running[-1]

    yield run
    for process in running:
        process.stop()


@pytest.fixture(params=["groups", "fallback"])
def each_mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once with control groups, once as on a host that has none."""
    if request.param == "fallback":
        monkeypatch.setattr(limits, "_place", lambda: None)
    elif not isolation_mode().startswith("cgroup"):
        pytest.skip("control groups cannot be written here; run as root to test them")
    return str(request.param)


@pytest.fixture
def groups() -> None:
    if not isolation_mode().startswith("cgroup"):
        pytest.skip("control groups cannot be written here; run as root to test them")
