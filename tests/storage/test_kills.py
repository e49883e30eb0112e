"""SIGKILL at random points, many times over: nothing told is lost, nothing is left running, the study goes on.

A driver process runs a study with two workers. Each time a result has been recorded - `study.record` has
returned - it writes what it was told to a side file before it goes on. The test kills the driver, a worker or a
supervisor at a random moment, and then holds the journal against the side file.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fettle.core.trial import State
from fettle.host import supervisor
from fettle.storage.sql import SqlStorage
from fettle.study import Study

LEASE_S = 1.0
DEAD_S = 5.0  # nothing may outlive its driver by more

_DRIVER = f"""
import json, os, sys, time
import fettle, fettle.loop, fettle.proposing, fettle.study
for module in (fettle.loop, fettle.proposing, fettle.study):
    module.LEASE_S = {LEASE_S}
url, side, trials = sys.argv[1], sys.argv[2], int(sys.argv[3])

def evaluate(params, ctx):
    import subprocess
    if ctx.number % 5 == 0:
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    ctx.report(1, {{"loss": params["x"]}})
    time.sleep(0.02)
    return {{"loss": params["x"], "number": ctx.number}}

class Noted(fettle.Study):
    def record(self, events):
        super().record(events)
        fd = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for event in events:
            if event.kind == "told":
                row = {{"number": event.number, "metrics": event.payload["metrics"], "state": event.payload["state"]}}
                os.write(fd, (json.dumps(row) + "\\n").encode())
        os.close(fd)

space = fettle.Space(x=fettle.Float(0, 1))
study = Noted(space, objectives=["loss"], algorithm="random", storage=url, name="s")
study.run(evaluate, trials=trials, executor="process", workers=2)
"""


class Storm:
    """Drivers of one study after another, each killed or hurt, until `kills` have struck."""

    def __init__(self, folder: Path, seed: int, kills: int, driver: str = _DRIVER) -> None:
        self.url, self.side = folder / "a.db", folder / "told.jsonl"
        self.rng, self.kills, self.driver = random.Random(seed), kills, driver
        self.struck = {"driver": 0, "worker": 0, "supervisor": 0}
        self.mark = f"FETTLE_STORM={os.getpid()}-{seed}-{time.monotonic_ns()}"

    def drive(self, trials: int) -> subprocess.Popen[bytes]:
        name, _, value = self.mark.partition("=")
        argv = [sys.executable, "-c", self.driver, str(self.url), str(self.side), str(trials)]
        return subprocess.Popen(argv, env={**os.environ, name: value})

    def run(self) -> None:
        trials = 0
        while sum(self.struck.values()) < self.kills:
            trials += 500
            driver = self.drive(trials)
            try:
                while driver.poll() is None and sum(self.struck.values()) < self.kills:
                    self.strike(driver)
            finally:
                driver.kill()
                driver.wait()
            self.check_after_death()

    def strike(self, driver: subprocess.Popen[bytes]) -> None:
        """Waits for a random moment and kills one of the three."""
        time.sleep(self.rng.choice([0.0, 0.02, 0.1, 0.4]) * self.rng.random() + self.rng.random() * 0.05)
        what = self.rng.choices(list(self.struck), [3, 2, 2])[0]
        if what == "driver":
            if len(self.running()) < 3 and self.rng.random() < 0.8:
                return  # it has just begun: most strikes are to hit a driver that works
            driver.kill()
            driver.wait()
            self.struck["driver"] += 1
            return
        found = [pid for pid in supervisor.descendants(driver.pid) if self.command(pid, what)]
        if found:
            os.kill(self.rng.choice(found), signal.SIGKILL)
            self.struck[what] += 1

    @staticmethod
    def command(pid: int, what: str) -> bool:
        mark = b"fettle.executors.worker" if what == "worker" else b"supervisor.py"
        try:
            return mark in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    def running(self) -> list[int]:
        """Live processes that descend from any of our drivers, by a mark in their environment."""
        found = []
        for pid, fields in supervisor.processes().items():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if self.mark.encode() in environment and supervisor.is_alive(pid, fields):
                found.append(pid)
        return found

    def check_after_death(self) -> None:
        give_up = time.monotonic() + DEAD_S
        while (left := self.running()) and time.monotonic() < give_up:
            time.sleep(0.05)
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left if Path(f"/proc/{pid}").exists()]
        assert not left, f"these outlived the driver: {commands}"
        self.check_journal()

    def check_journal(self) -> Study | None:
        """Everything that was noted is told, unchanged, and the numbers have no hole."""
        if not self.url.exists() or "s" not in SqlStorage(self.url).studies():
            return None
        events = SqlStorage(self.url).open("s").read()
        assert [e.seq for e in events] == list(range(1, len(events) + 1))
        first: dict[int, str] = {}
        for event in events:
            if event.kind in ("started", "enqueued") and event.number not in first:
                first[event.number] = event.kind
        assert list(first) == list(range(len(first))), "the numbers have a hole, or one was given twice"
        if not events:
            return None
        study = Study.open("s", self.url)
        for row in self.noted():
            trial = study.trials[row["number"]]
            assert str(trial.state) == row["state"], row
            assert dict(trial.metrics) == row["metrics"], row
        return study

    def noted(self) -> list[dict[str, Any]]:
        """Whole lines: the last one may have been cut by the kill."""
        text = self.side.read_text() if self.side.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def finish(self) -> None:
        """The study is resumed and runs to its end: exactly as many trials as were asked for."""
        study = self.check_journal()
        assert study is not None
        time.sleep(LEASE_S + 0.2)  # what the last kill left running is overdue
        trials = study.log.started + 20
        driver = self.drive(trials)
        assert driver.wait(100) == 0
        self.check_after_death()
        done = Study.open("s", self.url)
        assert done.log.started == trials
        assert done.log.running == {}, "a trial was neither told nor lost"
        lost = [t for t in done.trials if t.failure == "lost"]
        retried = {t.parent for t in done.trials if t.parent is not None}
        assert {t.number for t in lost if t.parent is None} <= retried, "a lost trial was not put in line again"
        for trial in done.trials:
            if trial.parent is not None:
                assert trial.params == done.trials[trial.parent].params
            if trial.state is State.COMPLETE:
                assert trial.metrics["loss"] == trial.params["x"]
        params = [t.params["x"] for t in done.trials if t.parent is None]
        assert len(set(params)) == len(params), "the same params were proposed twice"
        assert len(self.noted()) > 20


@pytest.mark.medium
@pytest.mark.parametrize("seed", [0, 1])
def test_twenty_kills(tmp_path: Path, seed: int) -> None:
    storm = Storm(tmp_path, seed, kills=20)
    storm.run()
    storm.finish()
    assert all(storm.struck.values()), storm.struck


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 14))
def test_fifty_kills(tmp_path: Path, seed: int) -> None:
    storm = Storm(tmp_path, seed, kills=50)
    storm.run()
    storm.finish()
    assert all(storm.struck.values()), storm.struck


@pytest.mark.medium
@pytest.mark.parametrize(
    ("sound", "faulty"),
    [
        (
            "super().record(events)",
            "super().record([e for e in events if e.kind != 'told' or e.number % 5 != 2])",
        ),
        (
            "super().record(events)",
            "super().record([type(e)(e.kind, e.number, {**e.payload, 'metrics': {'loss': 9.0}}, 0.0) for e in events])",
        ),
        (
            "study = Noted(",
            "import subprocess; subprocess.Popen(['sleep', '20'], start_new_session=True)\nstudy = Noted(",
        ),
    ],
    ids=["a result is dropped", "a result is changed", "a process is left"],
)
def test_the_checks_find_faults(tmp_path: Path, sound: str, faulty: str) -> None:
    assert _DRIVER.count(sound) == 1
    storm = Storm(tmp_path, 0, kills=6, driver=_DRIVER.replace(sound, faulty))
    with pytest.raises(AssertionError) as caught:
        storm.run()
        storm.finish()
    assert ("outlived" in str(caught.value)) == ("sleep" in faulty)
    for pid in storm.running():
        os.kill(pid, signal.SIGKILL)
