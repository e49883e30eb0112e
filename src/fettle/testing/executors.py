"""Conformance suite for executors.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_executor(check, tmp_path):
        check(MyExecutor, tmp_path)

Each check takes a function that makes an executor (`make(workers=2)`) and an empty folder, and raises
AssertionError. `isolation.py` has further ones for executors that run trials in processes which they can end.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fettle.core.errors import TrialFailure, TrialStopped
from fettle.core.protocols import Context, Executor, Job
from fettle.core.trial import Estimate, Event, Report

Make = Callable[..., Executor]
Check = Callable[[Make, Path], None]
WAIT_S = 30.0


def job(folder: Path, number: int = 0, **more: Any) -> Job:
    return Job(number, more.pop("params", {"x": 0.5}), seed=7, workdir=folder / f"trial-{number}", **more)


@contextmanager
def made(make: Make, workers: int = 1) -> Iterator[Executor]:
    executor = make(workers=workers)
    try:
        yield executor
    finally:
        executor.close()


def go_on(number: int, report: Report) -> bool:
    return True


def gather(executor: Executor, n: int, on_report: Callable[[int, Report], bool] = go_on) -> dict[int, Event]:
    """Polls until n trials have ended; number -> event."""
    events: list[Event] = []
    give_up = time.monotonic() + WAIT_S
    while len(events) < n:
        assert time.monotonic() < give_up, f"only {len(events)} of {n} trials ended"
        events += executor.poll(0.5, on_report)
    assert len({e.number for e in events}) == n, "a trial ended twice"
    return {e.number: e for e in events}


def one(make: Make, folder: Path, evaluate: Any, **more: Any) -> Event:
    """The event that one trial ends with."""
    with made(make) as executor:
        executor.submit(job(folder, **more), evaluate)
        return gather(executor, 1)[0]


def check_told(make: Make, folder: Path) -> None:
    """Figures, intervals, times and fidelity are in the `told` event."""

    def evaluate(params: Any, ctx: Context) -> Any:
        return {"loss": Estimate(params["x"], 0.4, math.inf, 12), "seed": ctx.seed, "n": ctx.number}

    event = one(make, folder, evaluate, fidelity=2.0)
    assert (event.kind, event.number) == ("told", 0)
    assert event.payload["state"] == "complete"
    assert event.payload["metrics"] == {"loss": 0.5, "seed": 7.0, "n": 0.0}
    assert event.payload["intervals"] == {"loss": [0.4, None, 12]}
    assert event.payload["fidelity"] == 2.0
    assert event.payload["timings"]["wall_s"] >= 0.0


def check_context(make: Make, folder: Path) -> None:
    """The evaluator sees its job: work folder (which exists), fidelity, incumbent, prediction, deadline."""
    incumbent = {"loss": 0.25}

    def evaluate(params: Any, ctx: Context) -> Any:
        assert (ctx.number, ctx.seed, ctx.fidelity, ctx.deadline_s) == (0, 7, 3.0, 20.0)
        assert ctx.workdir.is_dir()
        assert dict(ctx.incumbent or {}) == incumbent
        assert dict(ctx.predicted or {}) == {"rate": 5}
        assert ctx.checkpoint == Path("there")
        (ctx.workdir / "mark").write_text("here")
        params["x"] = "changing its own copy harms nobody"
        return {"loss": 1.0}

    more = {"fidelity": 3.0, "limit_s": 20.0, "incumbent": incumbent, "predicted": {"rate": 5}}
    event = one(make, folder, evaluate, checkpoint=Path("there"), **more)
    assert event.payload["state"] == "complete", event.payload
    assert (folder / "trial-0" / "mark").read_text() == "here"


def check_failures(make: Make, folder: Path) -> None:
    """Whatever an evaluator raises or returns becomes a payload, and the next trial runs."""

    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text for you")

    def evaluate(params: Any, ctx: Context) -> Any:
        what = params["what"]
        if what == "failure":
            raise TrialFailure("no memory", failure="oom", log="last words", metrics={"loss": 3.0, "bad": math.nan})
        if what == "unknown class":
            raise TrialFailure("x", failure="no such class")
        if what == "unusable":
            raise TrialFailure("x", metrics={"loss": "text"})
        if what == "stopped":
            raise TrialStopped("cannot win", {"loss": 0.9})
        if what == "error":
            raise ValueError("a plain mistake")
        if what == "memory":
            raise MemoryError
        if what == "hostile":
            raise Hostile
        return {"nan": {"loss": math.nan}, "text": {"loss": "0.5"}, "none": None, "fine": {"loss": 0.5}}[what]

    expected = {
        "failure": ("failed", "oom", "no memory"),
        "unknown class": ("failed", "other", "x"),
        "unusable": ("failed", "other", ""),
        "stopped": ("stopped", "", "cannot win"),
        "error": ("failed", "other", "ValueError: a plain mistake"),
        "memory": ("failed", "oom", ""),
        "hostile": ("failed", "other", "Hostile"),
        "nan": ("failed", "nan", "loss"),
        "text": ("failed", "other", "expected a number"),
        "none": ("failed", "other", "None"),
        "fine": ("complete", "", ""),
    }
    with made(make) as executor:
        for number, (what, (state, failure, error)) in enumerate(expected.items()):
            executor.submit(job(folder, number, params={"what": what}), evaluate)
            payload = gather(executor, 1)[number].payload
            assert (payload["state"], payload.get("failure", "")) == (state, failure), (what, payload)
            assert error in payload.get("error", ""), (what, payload)
            if what == "failure":
                assert payload["metrics"] == {"loss": 3.0}
                assert payload["artifacts"] == {"log": "last words"}
            if what == "stopped":
                assert payload["metrics"] == {"loss": 0.9}
            if what == "error":
                assert "a plain mistake" in payload["artifacts"]["log"], "the traceback is missing"


def check_reports(make: Make, folder: Path) -> None:
    """Each report arrives, and its answer goes back; after a no, the trial ends as stopped."""

    def evaluate(params: Any, ctx: Context) -> Any:
        step = 0
        while ctx.report(step, {"loss": 10.0 - step, "broken": math.inf}):
            step += 1
        again = ctx.report(step + 1, {"loss": 0.0})
        return {"loss": 10.0 - step, "steps": step, "again": again}

    seen: list[tuple[int, float, Any]] = []

    def on_report(number: int, report: Report) -> bool:
        seen.append((number, report.fidelity, dict(report.metrics)))
        return report.fidelity != 3

    with made(make) as executor:
        executor.submit(job(folder, 4), evaluate)
        payload = gather(executor, 1, on_report)[4].payload
    assert payload["state"] == "stopped", payload
    assert payload["metrics"] == {"loss": 7.0, "steps": 3.0, "again": 0.0}
    assert seen[:4] == [(4, float(i), {"loss": 10.0 - i}) for i in range(4)]


def check_bad_reports(make: Make, folder: Path) -> None:
    """A report that nobody could record is the evaluator's failure, not the study's."""
    for fidelity, metrics in ((math.nan, {}), ("three", {}), (1, {"loss": "x"}), (1, [])):

        def evaluate(params: Any, ctx: Context, f: Any = fidelity, m: Any = metrics) -> Any:
            ctx.report(f, m)
            return {"loss": 0.0}

        payload = one(make, folder, evaluate).payload
        assert payload["state"] == "failed", payload
        assert payload["failure"] == "other", payload


def check_artifacts(make: Make, folder: Path) -> None:
    """Artifacts come back as strict JSON, whatever was given."""

    def evaluate(params: Any, ctx: Context) -> Any:
        ctx.artifact("curve", [(1, 2.5), (2, math.nan)])
        ctx.artifact("path", Path("/x"))
        ctx.progress({"step": 1, "of": Path("/y")})
        return {"loss": 0.0}

    payload = one(make, folder, evaluate).payload
    assert payload["artifacts"] == {"curve": [[1, 2.5], [2, None]], "path": "/x"}, payload


def check_keep(make: Make, folder: Path) -> None:
    """`keep` starts once per key, stops when the key changes, at `drop` and at the end, each once, in order."""
    log = folder / "log"

    def evaluate(params: Any, ctx: Context) -> Any:
        def note(text: str) -> str:
            with log.open("a") as file:
                file.write(text + "\n")
            return text

        def stop(value: str) -> None:
            note(f"stop {value}")

        key = params["key"]
        if not key:
            ctx.drop()
            return {"loss": 0.0}
        assert ctx.keep(key, lambda: note(f"start {key}"), stop) == f"start {key}"
        return {"loss": 0.0}

    with made(make) as executor:
        for number, key in enumerate(["a", "a", "b", "b", "", "b"]):
            executor.submit(job(folder, number, params={"key": key}), evaluate)
            payload = gather(executor, 1)[number].payload
            assert payload["state"] == "complete", payload
    until(lambda: log.read_text().count("stop start b\n") == 2, "what was kept was not stopped")
    ends = ["start b", "stop start b"]
    assert log.read_text().split("\n")[:-1] == ["start a", "stop start a", *ends, *ends]


def check_evaluators(make: Make, folder: Path) -> None:
    """Lambdas, closures, bound methods, callables and ones that are defined in `__main__` all work."""
    offset = 2.0

    class Callable_:  # noqa: N801
        def __call__(self, params: Any, ctx: Context) -> Any:
            return {"loss": params["x"] + offset}

        def method(self, params: Any, ctx: Context) -> Any:
            return {"loss": params["x"] + offset}

    names: dict[str, Any] = {"__name__": "__main__"}
    exec("offset = 2.0\ndef evaluate(params, ctx):\n    return {'loss': params['x'] + offset}", names)
    evaluators = [
        lambda params, ctx: {"loss": params["x"] + offset},
        Callable_(),
        Callable_().method,
        names["evaluate"],
    ]
    with made(make) as executor:
        for number, evaluate in enumerate(evaluators):
            executor.submit(job(folder, number), evaluate)
            payload = gather(executor, 1)[number].payload
            assert payload["metrics"] == {"loss": 2.5}, payload


def check_empty_poll(make: Make, folder: Path) -> None:
    """Without trials `poll` comes back at once, `stop` of an unknown trial does nothing, `close` may be repeated."""
    executor = make(workers=1)
    begun = time.monotonic()
    assert executor.poll(20.0, go_on) == []
    assert time.monotonic() - begun < 10.0
    executor.stop(99)
    executor.close()
    executor.close()


def check_capacity(make: Make, folder: Path) -> None:
    """As many trials run at once as `capacity` says, each with params and result of its own."""
    with made(make, workers=2) as executor:
        assert executor.capacity in (1, 2)
        for number in range(executor.capacity):
            executor.submit(job(folder, number, params={"x": number}), lambda params, ctx: {"loss": params["x"]})
        events = gather(executor, executor.capacity)
    assert {n: e.payload["metrics"]["loss"] for n, e in events.items()} == {n: n for n in range(executor.capacity)}


CHECKS: tuple[Check, ...] = (
    check_told,
    check_context,
    check_failures,
    check_reports,
    check_bad_reports,
    check_artifacts,
    check_keep,
    check_evaluators,
    check_empty_poll,
    check_capacity,
)


def until(condition: Callable[[], bool], complaint: str, timeout_s: float = WAIT_S) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, complaint
        time.sleep(0.02)
