"""Hot knobs are varied on a warm server, by real worker processes on a real one."""

import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fettle.core.protocols import Job
from fettle.executors.process import ProcessExecutor
from fettle.problems.serve.measure import evaluate
from fettle.problems.serve.problem import ServeProblem
from tests.problems.serve.conftest import Trials, holding

SCRIPT = Path(__file__).parent / "hot_server.py"


@dataclass
class Served:
    """One worker's trials. starts: "threads delay" of every process that was started."""

    trials: Trials
    problem: ServeProblem
    executor: ProcessExecutor
    number: int = 0

    def run(self, threads: int, delay_ms: int, *, warm: bool = True) -> dict[str, Any]:
        """The payload of a trial at a low rate, which a busy machine holds, too."""
        self.number += 1
        params = {"threads": threads, "delay_ms": delay_ms}
        job = Job(self.number, params, 7, self.trials.folder / f"trial-{self.number}", limit_s=8.0)
        self.executor.submit(job, functools.partial(evaluate, self.problem, mode="rate", rate=100.0, warm=warm))
        events, give_up = [], time.monotonic() + 25.0
        while not events and time.monotonic() < give_up:
            events = self.executor.poll(0.5, lambda number, report: True)
        (event,) = events
        return dict(event.payload)

    @property
    def starts(self) -> list[str]:
        return (self.trials.folder / "starts").read_text().splitlines()


@pytest.fixture
def served(trials: Trials) -> Any:
    words = f"{sys.executable} {SCRIPT} {{port}} {{threads}} {{delay_ms}} {trials.folder / 'starts'} {trials.mark}"
    target = {
        "name": "command",
        "command": words,
        "expect": "json",
        "space": {"threads": {"int": [1, 2]}, "delay_ms": {"ordinal": [1, 13, 20]}},
        "hot": {"knobs": ["delay_ms"], "path": "/settings", "body": '{"delay_ms": {delay_ms}}'},
    }
    executor = ProcessExecutor()
    try:
        yield Served(trials, trials.problem("", target=target, slo="p90=500ms"), executor)
    finally:
        executor.close()
    assert holding(trials.mark) == []


@pytest.mark.medium
def test_a_warm_server_serves_trials_that_differ_in_hot_knobs(served: Served) -> None:
    fast, slow = served.run(1, 1), served.run(1, 20)
    assert (fast["state"], slow["state"]) == ("complete", "complete")
    assert served.starts == ["1 1"]
    assert not fast["artifacts"]["server"]["warm"]
    assert slow["artifacts"]["server"]["warm"]
    assert slow["timings"]["start_s"] == 0.0 < fast["timings"]["start_s"]
    assert slow["artifacts"]["server"]["argv"][-3] == "20"  # as it would be started with these params
    assert fast["metrics"]["latency_p50_s"] < 0.015 < slow["metrics"]["latency_p50_s"]
    other = served.run(2, 20)
    assert other["state"] == "complete"
    assert served.starts == ["1 1", "2 20"]  # a knob that is not hot needs a new process
    assert len([pid for pid in holding(served.trials.mark) if _is_server(pid)]) == 1  # the old one is gone


@pytest.mark.medium
def test_measurements_that_are_reported_come_from_fresh_servers(served: Served) -> None:
    served.run(1, 1)
    assert served.run(1, 1, warm=False)["state"] == "complete"
    assert served.starts == ["1 1", "1 1"]
    assert [pid for pid in holding(served.trials.mark) if _is_server(pid)] == []


@pytest.mark.medium
def test_a_server_that_refuses_its_knobs_is_not_used_again(served: Served) -> None:
    served.run(1, 1)
    refused = served.run(1, 13)
    assert (refused["state"], refused["failure"]) == ("failed", "bad_request")
    assert "an unlucky number" in refused["error"]
    assert served.run(1, 20)["state"] == "complete"
    assert served.starts == ["1 1", "1 20"]


def _is_server(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return words[:2] == [sys.executable, str(SCRIPT)]
