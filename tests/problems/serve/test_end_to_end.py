"""From a model to a confirmed, exported answer, with real servers; and whatever interrupts it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import fettle
from fettle import api
from fettle.core.errors import FettleError, TrialFailure
from fettle.core.trial import State
from fettle.executors.inline import InlineExecutor
from fettle.host.machine import machine_lock, usable_cores
from fettle.problems.serve import confirm, measure
from fettle.problems.serve.problem import ServeProblem
from fettle.study import Study

DATA = Path(measure.__file__).parents[2] / "data"
SLO = "p90=40ms"  # generous, and no more requests than a short trial has
pytestmark = pytest.mark.medium


def busy(study: Study) -> bool:
    """Others compute on this machine: then "no answer" is a right answer, too."""
    marked = any(t.artifacts.get("noise", {}).get("marked") for t in study.trials)
    return marked or os.getloadavg()[0] > len(usable_cores())


def test_serve_finds_confirms_and_exports(trials: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm, "MAX_ROUNDS", 1)
    result = fettle.serve(
        {"fp32": DATA / "digits-fp32.onnx"},
        slo=SLO,
        budget="80s",
        trials=1,
        inputs=DATA / "digits-samples.npz",
        storage=tmp_path / "studies.db",
        fix={"graph_optimization": "all"},
    )
    best, document = result.best, result.document
    if best is None and busy(result.study):
        assert document["feasible"] is False
        assert document["reason"]
        assert "run" not in result.artifacts
        pytest.skip("other work on this machine leaves no answer just now")
    assert best is not None, [(t.state, t.error) for t in result.study.trials]
    assert best.confirmed is not None
    assert best.confirmed["passed"] is True
    assert best.confirmed["rounds"]
    assert best.metrics["latency_p90_s"] <= 0.04
    assert document["feasible"] is True
    assert document["baseline"]["number"] == 0
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    usage = best.artifacts["usage"]
    assert usage["memory_bytes"] == pytest.approx(measure.MEMORY_MARGIN * usage["peak_rss_bytes"])
    assert Path(result.artifacts["report"]).read_text().lower().startswith("<!doctype html")
    assert os.access(result.artifacts["run"], os.X_OK)
    assert api.stored_artifacts(result.study).items() <= result.artifacts.items()
    assert len(result.study.trials) == 1
    assert Study.open(result.study.name, tmp_path / "studies.db").best == best


def test_several_objectives_give_a_front(trials: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServeProblem, "confirm", lambda *a, **k: iter(()))  # it has a test of its own
    result = fettle.serve(
        trials.model,
        slo=SLO,
        objective="cost,latency",
        budget="75s",
        trials=2,
        target=trials.target("good"),
        storage=tmp_path / "studies.db",
    )
    done = [t for t in result.study.trials if t.state is State.COMPLETE]
    for trial in result.study.trials:  # a busy machine's bursts may leave too few independent requests for a p99
        assert trial.state is State.COMPLETE or "not enough requests" in trial.error
    assert all({"cost_per_million", "latency_p99_at_rate_s"} <= set(t.metrics) for t in done)
    rates = {t.artifacts["rate"] for t in result.study.trials if "rate" in t.artifacts}
    assert len(rates) <= 1, "latency is compared at one rate"
    assert set(result.document["front"]) <= {t.number for t in done}
    assert result.document["front"] or not result.document["feasible"]


def test_trial_0_outside_the_space_is_measured_and_cannot_win(
    trials: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServeProblem, "confirm", lambda *a, **k: iter(()))
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
    assert first.state.finished
    assert result.best is None or result.best.number == 1
    assert result.document["baseline"]["number"] == 0


def test_defaults_that_gave_no_figure_are_tried_again_later(
    trials: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour's load took trial 0's requests: the answer must not lack its baseline for that."""
    monkeypatch.setattr(ServeProblem, "confirm", lambda *a, **k: iter(()))

    def evaluate(self: ServeProblem, params: Any, ctx: Any) -> Any:
        if ctx.number == 0:
            raise TrialFailure("not enough requests", failure="other")
        return {
            "throughput_rps": 10.0 * ctx.number,
            "cost_per_million": 1.0 / ctx.number,
            "error_ratio": 0.0,
            "latency_p99_s": 0.5,
        }

    monkeypatch.setattr(ServeProblem, "evaluate", evaluate)
    monkeypatch.setattr(api, "_executor", lambda watch: InlineExecutor())
    target = {**trials.target("good"), "space": {"threads": {"int": [1, 9]}}}
    result = fettle.serve(
        trials.model, slo="p99=1s", target=target, trials=6, budget="60s", storage=tmp_path / "studies.db"
    )
    again = [t for t in result.study.trials if t.parent == 0]
    assert [t.params for t in again] == [result.study.trials[0].params]
    assert again[0].number == 3, "when half of the search is done"
    assert result.study.log.baseline == again[0]
    assert result.document["baseline"]["number"] == 3
    assert len(result.study.trials) == 6


def test_two_studies_at_once_take_turns(trials: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the machine is no part of a trial; it is bounded, and says for whom it waited."""

    def serve() -> api.Result:
        target = trials.target("good")
        storage = tmp_path / "studies.db"
        return fettle.serve(trials.model, slo=SLO, budget="25s", trials=1, target=target, storage=storage, name="x")

    monkeypatch.setattr(confirm, "MAX_ROUNDS", 1)
    monkeypatch.setattr(api, "_ALONE_S", 0.3)
    with machine_lock(1.0), pytest.raises(FettleError, match=f"process {os.getpid()}"):
        serve()
    monkeypatch.setattr(api, "_ALONE_S", 30.0)
    held = ExitStack()
    held.enter_context(machine_lock(1.0))
    release = threading.Timer(6.0, held.close)
    release.start()
    begun = time.monotonic()
    result = serve()
    release.join()
    assert time.monotonic() - begun > 6.0
    first = result.study.trials[0]
    assert first.failure not in ("timeout", "lost"), first.error
    assert first.timings["wall_s"] < 6.0, "a fifth of the budget, and the wait not in it"


@contextlib.contextmanager
def started(words: list[str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`fettle` in a process of its own, with everything it says in err.txt. Who died is missed after 3 s, not 30."""
    impatient = (
        "from fettle import loop; loop.LEASE_S = 3.0; "
        "from fettle.problems.serve import confirm; confirm.MAX_ROUNDS = 1; "
        "from fettle.cli.main import main; main()"
    )
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
    words = ["serve", str(trials.model), "--slo", SLO, "--budget", "60s", "--trials", "3", "--name", "cut"]
    words += ["--target", "command", "--command", target["command"], "--space", "space.yaml", "--ready", "/ready"]
    resume = ["resume", "cut"]

    def said() -> str:
        return (tmp_path / "err.txt").read_text()

    def server_runs() -> bool:
        lines = [Path(f"/proc/{pid}/cmdline") for pid in trials.left()]
        with contextlib.suppress(OSError):
            return any("misbehaving.py" in text and "LEASE_S" not in text for text in map(Path.read_text, lines))
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
    tries = [t for t in study.trials if t.parent == 0]
    assert [t.params for t in tries] == [study.trials[0].params], "what was lost is tried once more"
    assert study.log.started == 3


def stored(folder: Path) -> Study:
    return Study.open("cut", folder / "fettle.db")
