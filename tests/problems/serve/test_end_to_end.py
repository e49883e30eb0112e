"""From a model to a confirmed, exported answer, with real servers; and whatever interrupts it."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fettle
from fettle.core.trial import State
from fettle.problems.serve import measure
from fettle.study import Study

DATA = Path(measure.__file__).parents[2] / "data"
SLO = "p90=200ms"  # generous, and no more requests than a short trial has
pytestmark = pytest.mark.medium


def test_serve_finds_confirms_and_exports(trials: Any, tmp_path: Path) -> None:
    result = fettle.serve(
        {"fp32": DATA / "digits-fp32.onnx"},
        slo=SLO,
        budget="36s",
        trials=2,
        inputs=DATA / "digits-samples.npz",
        storage=tmp_path / "studies.db",
        fix={"graph_optimization": "all"},
    )
    best, document = result.best, result.document
    assert best is not None, document["reason"]
    assert best.confirmed is not None
    assert best.confirmed["passed"] is True
    assert best.confirmed["rounds"]
    assert best.metrics["latency_p90_s"] <= 0.2
    assert document["feasible"] is True
    assert document["baseline"]["number"] == 0
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    low, high = best.confirmed["prediction"]["throughput_rps"]
    assert low <= best.metrics["throughput_rps"] <= high
    usage = best.artifacts["usage"]
    assert usage["memory_bytes"] == pytest.approx(measure.MEMORY_MARGIN * usage["peak_rss_bytes"])
    assert Path(result.artifacts["report"]).read_text().startswith("<!DOCTYPE html")
    assert (Path(result.artifacts["winner"]) / "run.sh").exists()
    assert len(result.study.trials) == 2
    assert Study.open(result.study.name, tmp_path / "studies.db").best == best


def test_several_objectives_give_a_front(trials: Any, tmp_path: Path) -> None:
    result = fettle.serve(
        trials.model,
        slo=SLO,
        objective="cost,latency",
        budget="30s",
        trials=2,
        target=trials.target("good"),
        storage=tmp_path / "studies.db",
    )
    done = [t for t in result.study.trials if t.state is State.COMPLETE]
    assert done, [t.error for t in result.study.trials]
    assert all({"cost_per_million", "latency_p99_at_rate_s"} <= set(t.metrics) for t in done)
    assert len({t.artifacts["rate"] for t in done if "rate" in t.artifacts}) <= 1, "latency is compared at one rate"
    assert result.document["front"] or not result.document["feasible"]


def test_trial_0_outside_the_space_is_measured_and_cannot_win(trials: Any, tmp_path: Path) -> None:
    result = fettle.serve(
        trials.model,
        slo=SLO,
        objective="throughput",
        budget="30s",
        trials=2,
        target=trials.target("good"),
        fix={"threads": 2},
        storage=tmp_path / "studies.db",
    )
    first, second = result.study.trials
    assert (first.params, first.source) == ({"threads": 1}, "outside")
    assert second.params == {"threads": 2}
    assert first.state is State.COMPLETE, first.error
    assert result.best is None or result.best.number == 1
    assert result.document["baseline"]["number"] == 0


@contextlib.contextmanager
def started(words: list[str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`fettle` in a process of its own, with everything it says in err.txt. Who died is missed after 3 s, not 30."""
    impatient = "from fettle import loop; loop.LEASE_S = 3.0; from fettle.cli.main import main; main()"
    with (folder / "err.txt").open("ab") as err:
        command = [sys.executable, "-c", impatient, *words]
        process = subprocess.Popen(command, cwd=folder, stdout=err, stderr=err)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], object], timeout_s: float) -> bool:
    give_up = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.02)
    return bool(condition())


def test_interrupted_then_killed_then_finished(trials: Any, tmp_path: Path) -> None:
    """Ctrl-C, then SIGKILL of the driver, each while a server is under load; the third try comes to an answer."""
    target = trials.target("good")
    (tmp_path / "space.yaml").write_text("space: {threads: {int: [1, 2]}}\n")
    words = ["serve", str(trials.model), "--slo", SLO, "--budget", "30s", "--trials", "3", "--name", "cut"]
    words += ["--target", "command", "--command", target["command"], "--space", "space.yaml", "--ready", "/ready"]
    resume = ["resume", "cut"]

    def said() -> str:
        return (tmp_path / "err.txt").read_text()

    def server_runs() -> bool:
        lines = [Path(f"/proc/{pid}/cmdline") for pid in trials.left()]
        with contextlib.suppress(OSError):
            return any("misbehaving.py" in line.read_text() and "loop.LEASE_S" not in line.read_text() for line in lines)
        return False

    with started(words, tmp_path) as process:
        assert until(server_runs, 20.0), said()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(15.0) == 130, said()
        assert trials.left() == [], "it ends what it started before it ends itself"
    with started(resume, tmp_path) as process:
        assert until(server_runs, 20.0), said()
        time.sleep(0.5)
        process.kill()
        process.wait()
        assert until(lambda: not trials.left(), 5.0), [Path(f"/proc/{p}/cmdline").read_text() for p in trials.left()]
    before = {t.number: t.state for t in stored(tmp_path).trials}
    with started(resume, tmp_path) as process:
        assert process.wait(90.0) in (0, 1), said()
    assert trials.left() == []
    assert "Traceback" not in said()
    study = stored(tmp_path)
    assert any(t.failure == "lost" for t in study.trials)
    assert all(t.state.finished for t in study.trials)
    assert {n: s for n, s in before.items() if s.finished}.items() <= {t.number: t.state for t in study.trials}.items()
    assert sum(t.state is State.COMPLETE for t in study.trials) >= 1, [t.error for t in study.trials]


def stored(folder: Path) -> Study:
    return Study.open("cut", folder / "fettle.db")
