"""Whole trials against servers that misbehave: the right class, the server's own words, and nothing left behind."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.medium

MIB = 1 << 20


def failed(payload: Mapping[str, Any], failure: str, *words: str) -> None:
    """Of that class, with those words in its error, the server's last lines without their secret, no traceback."""
    assert (payload["state"], payload["failure"]) == ("failed", failure), payload
    for word in words:
        assert word in payload["error"]
    log = payload["artifacts"]["log"]
    assert "the server says hello" in log
    assert "hunter22" not in log
    assert "Traceback" not in log + payload["error"]


def violated(problem: Any, metrics: Mapping[str, float]) -> bool:
    return any(c.violation(metrics[c.metric]) > 0 for c in problem.constraints if c.metric in metrics)


@pytest.mark.parametrize(
    ("mode", "failure", "words"),
    [
        ("dies", "crash", ("signal 9",)),
        ("exits", "crash", ("did not start", "exit status 1")),
        ("daemon", "crash", ("exit status 0", "foreground")),
        ("garbage", "bad_request", ("not HTTP",)),
        ("nan", "bad_request", ("not_finite",)),
        ("wrong", "bad_request", ("wrong_output",)),
        ("empty", "bad_request", ("empty_body",)),
        ("busy", "bad_request", ("status 503",)),
        ("stalls", "timeout", ("no whole answer",)),
    ],
)
def test_a_server_that_fails(trials: Any, mode: str, failure: str, words: tuple[str, ...]) -> None:
    payload = trials.run(trials.problem(mode, slo="p99=100ms"))
    failed(payload, failure, *words)
    assert payload["timings"]["wall_s"] < 10.0


def test_its_last_lines_tell_why_it_exited(trials: Any) -> None:
    payload = trials.run(trials.problem("exits"))
    assert payload["artifacts"]["log"].rstrip().endswith("the server found no weights")


@pytest.mark.parametrize("mode", ["never_ready", "deaf"])
def test_a_server_that_is_never_ready(trials: Any, mode: str) -> None:
    payload = trials.run(trials.problem(mode), limit_s=4.0)
    failed(payload, "start_timeout", "not ready")
    assert payload["timings"]["wall_s"] < 4.0


@pytest.mark.needs("cgroup")
def test_a_server_that_eats_memory(trials: Any) -> None:
    payload = trials.run(trials.problem("eats", memory_bytes=200 * MIB))
    failed(payload, "oom", "memory")


def test_a_server_that_stalls_later(trials: Any) -> None:
    payload = trials.run(trials.problem("stalls_later", slo="p99=50ms"), limit_s=8.0)
    failed(payload, "timeout")


def test_a_program_that_is_not_there(trials: Any) -> None:
    target = trials.target("good") | {"command": "/no/such/program {port}"}
    problem = trials.problem("good", target=target)
    payload = trials.run(problem)
    assert (payload["state"], payload["failure"]) == ("failed", "crash")
    assert "No such file" in payload["error"]
    assert "Traceback" not in str(payload)


def test_killed_from_outside_in_the_middle(trials: Any) -> None:
    killed: list[int] = []

    def kill(number: int, info: Mapping[str, Any]) -> None:
        if info["phase"] == "probed" and not killed:
            killed.append(trials.server_pid())
            os.kill(killed[0], signal.SIGKILL)

    payload = trials.run(trials.problem("good"), on_progress=kill)
    assert killed
    failed(payload, "crash", "signal 9")


class _Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def stranger(port_file: Path) -> Iterator[list[HTTPServer]]:
    """Listens on the port that the trial's server was told to take, before that does."""
    servers: list[HTTPServer] = []

    def listen() -> None:
        give_up = time.monotonic() + 10.0
        while not (port_file.exists() and port_file.read_text()) and time.monotonic() < give_up:
            time.sleep(0.01)
        servers.append(HTTPServer(("127.0.0.1", int(port_file.read_text())), _Stranger))
        servers[0].serve_forever(poll_interval=0.05)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield servers
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        thread.join()


def test_another_program_answers_on_the_port(trials: Any) -> None:
    with stranger(trials.folder / "trial" / "server" / "port") as servers:
        trials.ours = False
        payload = trials.run(trials.problem("squatted"))
        assert servers, "nobody took the port"
    failed(payload, "start_timeout", "another program answers")


def test_no_rate_holds_the_slo(trials: Any) -> None:
    payload = trials.run(trials.problem("slow", slo="p99=5ms"))
    assert payload["state"] == "complete"
    assert payload["metrics"]["latency_p99_s"] > 0.03
    assert violated(trials.problem("slow", slo="p99=5ms"), payload["metrics"])
    assert payload["metrics"]["throughput_rps"] > 0
    assert payload["metrics"]["cost_per_million"] > 0
    assert payload["artifacts"]["feasible"] is False
    assert "best attainable p99 is" in payload["artifacts"]["reason"]


def test_errors_over_their_limit(trials: Any) -> None:
    payload = trials.run(trials.problem("flaky", slo="p99=500ms,errors=1%"))
    assert payload["state"] == "complete"
    assert payload["metrics"]["error_ratio"] > 0.1
    assert payload["artifacts"]["feasible"] is False
    assert violated(trials.problem("flaky", slo="p99=500ms,errors=1%"), payload["metrics"])
    assert any("http_503" in probe["marks"] for probe in payload["artifacts"]["probes"])
