"""The command with real servers, in a process of its own, on a small budget."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import MODELS, Fettle, Ran, check, events

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve-digits.yaml"
SLO = "p90=200ms"  # p99 would take more requests than so short a trial has
pytestmark = pytest.mark.medium


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock on measuring lies in the temporary folder: another test's measurement must not fail these."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "fettle.cli.main", *map(str, words)]


def run(*words: object, timeout_s: float = 120.0) -> Ran:
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=timeout_s, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def still_running(folder: Path) -> list[str]:
    """Command lines of processes that work in the folder."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and int(process.name) != os.getpid():
                inside = (process / "cwd").readlink().is_relative_to(folder)
                if inside or str(folder).encode() in (process / "cmdline").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_an_experiment_from_file_to_exported_winner(tmp_path: Path, fettle: Fettle) -> None:
    text = EXAMPLE.read_text().replace("../src/fettle/data", str(MODELS)).replace("p99: 50ms", SLO.replace("=", ": "))
    (tmp_path / "experiment.yaml").write_text(text)
    ran = run("run", "experiment.yaml", "--budget", "25s", "--trials", "1", "--json", "--storage", "fettle.db")
    assert "Traceback" not in ran.err
    check("answer", ran.document)
    assert ran.code == (0 if ran.document["feasible"] else 1)
    assert "trial 0 started (the server's defaults)" in ran.err
    assert ran.document["trial"] is None or ran.document["trial"]["metrics"]["latency_p90_s"] <= 0.2
    assert Path(ran.document["artifacts"]["report"]).exists()
    assert still_running(tmp_path) == []
    before = fettle("best", "digits", "--json").document
    measured = run("measure", "digits", "--trial", "0", "--repeat", "2", "--json")
    assert measured.code in (0, 1), measured
    check("measure", measured.document)
    for one in measured.document["measurements"]:
        assert one["state"] == "complete" or (one["failure"] and one["error"])
    assert len(measured.document["measurements"]) == 2
    why = fettle("explain", "digits", "--json").document
    check("explain", why)
    if (before["baseline"] or {}).get("state") == "complete":
        assert why["limits"]["limit"] != "unknown" and why["limits"]["figures"]["cores_used"] > 0
        assert 0 <= why["unused"][0]["cores_unused_ratio"] < 1
    after = fettle("best", "digits", "--json").document
    for key in ("trial", "baseline", "feasible", "reason", "gain"):
        assert after[key] == before[key], "measuring again never changes the answer"
    assert still_running(tmp_path) == []


def test_an_interrupted_run_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    words = ["serve", MODELS / "digits-fp32.onnx", "--slo", SLO, "--budget", "25s", "--trials", "2"]
    with (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command(*words, "--name", "cut", "--json"), stdout=subprocess.PIPE, stderr=err)
    give_up = time.monotonic() + 60
    while not list(tmp_path.glob("fettle.files/cut/**/server.log")):
        assert process.poll() is None and time.monotonic() < give_up, (tmp_path / "err").read_text()
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    ran = Ran(process.returncode, out.decode(), (tmp_path / "err").read_text())
    assert ran.code == 130, ran
    check("error", ran.document)
    assert "Traceback" not in ran.err
    assert still_running(tmp_path) == []
    kinds = [e.kind for e in events(tmp_path / "fettle.db", "cut")]
    assert kinds == ["created", "enqueued", "started", "lost", "enqueued"]  # and its params are in line once more
    resumed = run("resume", "cut", "--json")
    assert resumed.code in (0, 1), resumed
    check("answer", resumed.document)
    trials: list[dict[str, Any]] = run("show", "cut", "--json").document["trials"]
    assert trials[0]["failure"] == "lost"
    assert trials[1]["params"] == trials[0]["params"]
    assert trials[1]["state"] in ("complete", "stopped", "failed")  # it has been tried
    assert still_running(tmp_path) == []


def test_a_server_that_ignores_its_port(tmp_path: Path) -> None:
    """It never answers where Fettle looks for it: a failed trial of a known class, no answer, nothing left."""
    (tmp_path / "server.py").write_text(
        "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "HTTPServer(('127.0.0.1', 0), BaseHTTPRequestHandler).serve_forever()\n"
    )
    (tmp_path / "space.yaml").write_text("space: {threads: {int: [1, 1]}}\n")
    line = f"{sys.executable} {tmp_path / 'server.py'} {{port}}"
    words = ["--target", "command", "--command", line, "--space", "space.yaml", "--budget", "15s", "--trials", "1"]
    ran = run("serve", MODELS / "digits-fp32.onnx", "--slo", "p99=50ms", *words, "--name", "deaf", "--json")
    assert ran.code == 1, ran
    check("answer", ran.document)
    assert "start_timeout" in ran.document["reason"] or "timeout" in ran.document["reason"]
    assert still_running(tmp_path) == []
