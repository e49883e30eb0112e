"""The study as its users touch it."""

import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fettle
from fettle import proposing, registry
from fettle.core.errors import (
    Exhausted,
    InvalidInput,
    ParamsError,
    StudyMismatch,
    StudyNotFound,
    TrialFailure,
    TurnExpired,
)
from fettle.core.protocols import Context
from fettle.core.trial import Event, State, TrialLog
from fettle.study import Study

SMALL = fettle.Space(x=fettle.Int(0, 3))
LINE = fettle.Space(x=fettle.Float(0, 1))


def space() -> fettle.Space:
    return fettle.Space(
        lr=fettle.Float(1e-4, 1, log=True),
        n=fettle.Int(1, 8),
        opt=fettle.Choice(sgd=fettle.Space(momentum=fettle.Float(0, 1)), adam=fettle.Space()),
        c=fettle.Categorical(["p", "q"]),
    )


def study(of: fettle.Space = LINE, **more: Any) -> Study:
    return fettle.Study(of, **{"objectives": ["loss"], "algorithm": "random", **more})


def evaluate(params: Any, ctx: Context) -> Any:
    return {"loss": params["x"]}


# -- what the design shows ---------------------------------------------------------------------------------------


def test_the_api_as_it_is_shown(tmp_path: Path) -> None:
    s = fettle.Study(
        space(),
        objectives=[fettle.Objective("loss", "minimize")],
        constraints=[fettle.Constraint("latency_p99_s", upper=0.05)],
        algorithm="auto",
        scheduler=None,
        seed=0,
        storage=f"sqlite:///{tmp_path}/my.db",
        name="s",
    )
    trial = s.ask()
    assert trial.params["opt"] in ("sgd", "adam")
    assert ("opt.sgd.momentum" in trial.params) == (trial.params["opt"] == "sgd")
    assert (trial.fidelity, trial.resume_from, trial.state) == (None, None, State.RUNNING)
    more = s.ask(4)
    assert [t.number for t in more] == [1, 2, 3, 4]
    told = s.tell(trial, {"loss": 0.3, "latency_p99_s": 0.04})
    assert (told.state, told.metrics["loss"]) == (State.COMPLETE, 0.3)
    failed = s.tell(more[0], error="CUDA out of memory", failure="oom")
    assert (failed.state, failed.failure, failed.error) == (State.FAILED, "oom", "CUDA out of memory")
    s.tell(more[1], {"loss": 0.1, "latency_p99_s": 0.06})
    warm = s.tell({"lr": 0.1, "n": 2, "opt": "adam", "c": "p"}, {"loss": 0.2})
    assert (warm.number, warm.source, warm.state) == (5, "elsewhere", State.COMPLETE)
    assert s.report(more[2], fidelity=3, metrics={"loss": 0.4}) is True
    queued = s.enqueue({"lr": 0.5, "n": 1, "opt": "sgd", "opt.sgd.momentum": 0.9, "c": "q"})
    assert queued.state is State.WAITING
    assert s.ask().number == queued.number
    assert s.best is not None
    assert s.best.number == 0, "trial 2 breaks the constraint, the warm start lacks its figure"
    assert [t.number for t in s.pareto] == [0]
    assert len(s.trials) == 7
    assert s.trials[3].reports[0].fidelity == 3.0


def test_everything_after_the_space_is_keyword_only() -> None:
    with pytest.raises(TypeError):
        fettle.Study(LINE, ["loss"])  # type: ignore[misc]


def test_run_in_this_thread_and_in_processes(tmp_path: Path) -> None:
    s = study(storage=tmp_path / "my.db", name="s")
    assert s.run(evaluate, trials=3) is s
    s.run(lambda params, ctx: {"loss": params["x"], "pid": os.getpid()}, trials=7, executor="process", workers=2)
    assert s.log.counts[State.COMPLETE] == len(s.trials) == 7
    pids = {t.metrics["pid"] for t in s.trials[3:]}
    assert os.getpid() not in pids
    assert s.best == min(s.trials, key=lambda t: t.metrics["loss"])


# -- telling -----------------------------------------------------------------------------------------------------


def test_a_double_tell(caplog: pytest.LogCaptureFixture) -> None:
    s = study()
    trial = s.ask()
    s.tell(trial, {"loss": 1.0})
    with caplog.at_level(logging.WARNING):
        assert s.tell(trial, {"loss": 0.0}).metrics["loss"] == 1.0
    assert "first tell counts" in caplog.text
    assert s.tell(trial, {"loss": 0.5}, fidelity=3).metrics["loss"] == 0.5, "another rung is another result"


def test_nan_is_a_failure_of_its_own_class() -> None:
    s = study()
    trial = s.tell(s.ask(), {"loss": math.nan, "acc": 0.5})
    assert (trial.state, trial.failure, trial.metrics) == (State.FAILED, "nan", {"acc": 0.5})
    assert s.best is None


def test_estimates_become_intervals() -> None:
    s = study()
    trial = s.tell(s.ask(), {"loss": fettle.Estimate(1.0, 0.8, 1.2, 30)})
    assert (trial.metrics["loss"], trial.intervals["loss"]) == (1.0, (0.8, 1.2, 30))


@pytest.mark.parametrize("metrics", [None, {}, {"los": 1.0}, {"loss": "1"}, {"loss": None}])
def test_figures_that_cannot_be_told(metrics: Any) -> None:
    s = study()
    trial = s.ask()
    with pytest.raises(InvalidInput) as caught:
        s.tell(trial, metrics)
    assert "loss" in str(caught.value) + caught.value.hint
    assert s.trials[0].state is State.RUNNING, "nothing was written"


def test_params_that_do_not_fit_are_listed() -> None:
    s = study(space())
    with pytest.raises(ParamsError) as caught:
        s.tell({"lr": 0.1, "opt": "adam", "c": "p", "opt.sgd.momentum": 0.5, "zz": 1}, {"loss": 1.0})
    message = str(caught.value)
    assert all(name in message for name in ("zz", "n", "opt.sgd.momentum"))
    with pytest.raises(ParamsError):
        s.enqueue({"lr": 7, "n": 1, "opt": "adam", "c": "p"})
    assert s.trials == []


def test_trials_of_another_study_are_refused() -> None:
    s, other = study(), study(seed=1)
    mine, strange = s.ask(), other.ask()
    for call in (lambda t: s.tell(t, {"loss": 1}), lambda t: s.report(t, 1, {"loss": 1})):
        with pytest.raises(InvalidInput, match="not of study"):
            call(strange)
    ahead = other.ask(3)[-1]
    with pytest.raises(InvalidInput, match="not of study"):
        s.report(ahead, 1, {"loss": 1})
    assert s.tell(mine, {"loss": 1}).state is State.COMPLETE


def test_reports() -> None:
    s = study()
    trial = s.ask()
    assert s.report(trial, 1, {"loss": 3.0, "broken": math.nan})
    assert s.trials[0].reports[0].metrics == {"loss": 3.0}
    for fidelity, metrics in ((math.inf, {}), ("x", {}), (1, {"loss": "x"})):
        with pytest.raises(InvalidInput):
            s.report(trial, fidelity, metrics)  # type: ignore[arg-type]
    s.tell(trial, {"loss": 1.0})
    assert s.report(trial, 2, {"loss": 0.5}) is False
    assert len(s.trials[0].reports) == 1


def test_a_tell_after_lost_replaces_it_and_the_second_try_still_runs() -> None:
    s = study()
    trial = s.ask()
    s.record([Event("lost", 0, {"error": "gone"}, time.time())])
    assert (s.trials[0].failure, s.trials[0].error) == ("lost", "gone")
    assert (s.trials[1].state, s.trials[1].params, s.trials[1].parent) == (State.WAITING, trial.params, 0)
    assert s.tell(trial, {"loss": 1.0}).state is State.COMPLETE
    assert s.ask().number == 1


def test_a_second_try_has_no_third() -> None:
    s = study()
    s.ask()
    for number in (0, 1, 1, 0):
        s.record([Event("lost", number, {}, time.time())])
        if s.log.waiting:
            s.ask()
    assert [t.failure for t in s.trials] == ["lost", "lost"]


def test_a_lost_baseline_outside_the_space_is_tried_again() -> None:
    s = study()
    s.enqueue({"elsewhere": 1}, baseline=True)
    s.ask()
    s.record([Event("lost", 0, {}, time.time())])
    assert (s.trials[1].source, s.trials[1].params) == ("outside", {"elsewhere": 1})
    s.tell(s.ask(), {"loss": 0.0})
    assert s.best is None


def test_overdue_trials_are_lost_and_downtime_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fettle.study.LEASE_S", 0.05)
    s = study()
    s.propose(1, proposing.Limits(), lease_s=0.01)
    user = s.ask()  # no lease: the user's own loop is never overdue
    time.sleep(0.6)
    again = s.ask()
    assert [t.failure for t in s.trials] == ["lost", "", ""]
    assert (again.number, again.params) == (2, s.trials[0].params)
    assert s.log.seconds < 0.5
    assert s.trials[user.number].state is State.RUNNING


# -- resuming ----------------------------------------------------------------------------------------------------


def test_the_same_name_resumes(tmp_path: Path) -> None:
    first = study(space(), storage=tmp_path / "a.db", name="s", experiment={"problem": "mine"})
    first.run(lambda p, ctx: {"loss": p["n"]}, trials=4)
    asked = first.ask()
    for again in (
        study(space(), storage=tmp_path / "a.db", name="s"),
        Study.open("s", tmp_path / "a.db"),
    ):
        assert again.trials == first.trials
        assert again.best == first.best
        assert again.log.experiment["problem"] == "mine"
    assert again.ask().number == asked.number + 1
    assert [t.number for t in first.trials] == list(range(6)), "the first one sees what the other did"


def test_a_study_with_a_scheduler_resumes(tmp_path: Path) -> None:
    made = study(storage=tmp_path / "a.db", name="s", scheduler={"name": "full", "fidelity": 3.0})
    assert [t.fidelity for t in made.ask(2)] == [3.0, 3.0]
    assert Study.open("s", tmp_path / "a.db").ask().fidelity == 3.0
    assert study(scheduler="full").ask().fidelity is None


def test_another_space_shows_the_difference(tmp_path: Path) -> None:
    study(storage=tmp_path / "a.db", name="s")
    with pytest.raises(StudyMismatch) as caught:
        study(fettle.Space(x=fettle.Float(0, 2), y=fettle.Int(0, 1)), storage=tmp_path / "a.db", name="s")
    assert "x" in str(caught.value)
    assert "y" in str(caught.value)
    for more in ({"objectives": ["acc"]}, {"constraints": [fettle.Constraint("t", upper=1)]}):
        with pytest.raises(StudyMismatch, match=next(iter(more))):
            study(storage=tmp_path / "a.db", name="s", **more)
    assert study(storage=tmp_path / "a.db", name="other", objectives=["acc"]).trials == []


def test_unknown_studies_and_storages(tmp_path: Path) -> None:
    with pytest.raises(StudyNotFound, match="no storage"):
        Study.open("s", tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    study(storage=tmp_path / "a.db", name="this")
    with pytest.raises(StudyNotFound) as caught:
        Study.open("that", tmp_path / "a.db")
    assert "this" in caught.value.hint


def test_names_are_found_for_those_who_give_none(tmp_path: Path) -> None:
    assert [study(storage=tmp_path / "a.db").name for _ in range(2)] == ["study-1", "study-2"]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"objectives": []}, "at least one objective"),
        ({"objectives": "loss"}, "list of objectives"),
        ({"constraints": fettle.Constraint("t", upper=1)}, "list of constraints"),
        ({"algorithm": "randon"}, "randon"),
        ({"algorithm": {"name": "random", "zz": 1}}, "zz"),
        ({"algorithm": {"zz": 1}}, "lack a name"),
        ({"algorithm": 7}, "expected a algorithm|expected an algorithm"),
        ({"scheduler": "nope"}, "nope"),
        ({"seed": -1}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"name": "a\nb"}, "printable"),
        ({"name": ""}, "printable"),
        ({"storage": "mysql://x"}, "mysql"),
    ],
)
def test_bad_settings(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        study(**wrong)
    assert caught.value.hint
    with pytest.raises(InvalidInput, match="Space"):
        study({"x": fettle.Float(0, 1)})  # type: ignore[arg-type]


def test_a_misspelt_name_is_corrected() -> None:
    with pytest.raises(InvalidInput) as caught:
        study(algorithm="randon")
    assert "did you mean 'random'" in caught.value.hint


def test_settings_survive_the_record() -> None:
    for name in registry.names("algorithms"):
        made = registry.settings("algorithms", name)
        described = registry.describe("algorithms", made)
        assert described["name"] == name
        assert registry.settings("algorithms", json.loads(json.dumps(described))) == made


# -- what may be proposed ----------------------------------------------------------------------------------------


def test_a_used_up_space() -> None:
    s = study(SMALL)
    asked = s.ask(99)
    assert sorted(t.params["x"] for t in asked) == [0, 1, 2, 3]
    with pytest.raises(Exhausted):
        s.ask()
    assert study(SMALL).run(evaluate, trials=99).log.counts[State.COMPLETE] == 4


def test_limits_on_trials_count_retries_and_leave_out_what_was_told_from_elsewhere() -> None:
    s = study()
    s.tell({"x": 0.5}, {"loss": 1.0})
    s.propose(2, proposing.Limits(), lease_s=None)
    s.record([Event("lost", 1, {}, time.time())])
    s.run(evaluate, trials=5)
    assert s.log.started == 5
    assert len(s.trials) == 6
    assert s.run(evaluate, trials=5).log.started == 5
    s.enqueue({"x": 0.25})
    assert s.run(evaluate, trials=5).log.counts[State.WAITING] == 1, "an enqueued one waits for its turn"


def test_limits_on_units() -> None:
    s = study(scheduler={"name": "full", "fidelity": 3.0})
    s.run(evaluate, budget_units=10)
    assert (s.log.units, len(s.trials)) == (9.0, 3)
    assert len(study().run(evaluate, budget_units=4).trials) == 4


@pytest.mark.parametrize("name", ["trials", "budget_units", "timeout_s", "trial_limit_s"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_limits_that_cannot_be(name: str, value: float) -> None:
    with pytest.raises(InvalidInput, match="above 0"):
        study().run(evaluate, **{name: value})


def test_no_time_left() -> None:
    s = study().run(lambda p, ctx: time.sleep(0.2) or {"loss": 1.0}, timeout_s=0.5)  # type: ignore[func-returns-value]
    assert 1 <= len(s.trials) <= 4
    assert s.log.running == {}


def test_a_hopeless_search_ends() -> None:
    def fail(params: Any, ctx: Context) -> Any:
        raise TrialFailure("no", failure="crash")

    assert len(study().run(fail, trials=50, failures=3).trials) == 3


_UNITS = """
import sys, fettle
s = fettle.Study(fettle.Space(x=fettle.Float(0, 1)), objectives=["loss"], algorithm="random", storage=sys.argv[1],
                 name="s", scheduler={"name": "full", "fidelity": 2.0})
s.run(lambda p, ctx: {"loss": p["x"]}, budget_units=61, trials=int(sys.argv[2]))
"""


@pytest.mark.parametrize(("trials", "expected"), [(999, 30), (25, 25)])
def test_several_processes_never_exceed_the_limits(tmp_path: Path, trials: int, expected: int) -> None:
    argv = [sys.executable, "-c", _UNITS, str(tmp_path / "a.db"), str(trials)]
    runs = [subprocess.Popen(argv) for _ in range(3)]
    assert [r.wait(60) for r in runs] == [0, 0, 0]
    s = Study.open("s", tmp_path / "a.db")
    assert [t.number for t in s.trials] == list(range(expected))
    assert s.log.units == 2.0 * expected
    assert s.log.counts[State.COMPLETE] == expected
    assert replayed(s) == expected


def test_threads_share_one_study() -> None:
    s = study()
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(25):
                trial = s.ask()
                s.tell(trial, {"loss": trial.params["x"]})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert s.log.counts[State.COMPLETE] == len(s.trials) == 100
    assert len({t.params["x"] for t in s.trials}) == 100


def test_a_turn_that_ran_out_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = study(storage=tmp_path / "a.db", name="s")
    real, refused = type(s.journal).append, []

    def append(self: Any, events: Any, turn: Any = None) -> int:
        if turn is not None and len(refused) < 2:
            refused.append(events)
            raise TurnExpired("it ran out")
        return real(self, events, turn)

    monkeypatch.setattr(type(s.journal), "append", append)
    assert [t.number for t in s.ask(3)] == [0, 1, 2]
    assert len(refused) == 2
    refused[:] = []
    assert s.enqueue({"x": 0.5}).number == 3
    monkeypatch.setattr(type(s.journal), "append", lambda *a, **k: (_ for _ in ()).throw(TurnExpired("always")))
    with pytest.raises(TurnExpired):
        s.ask()


# -- the same seed, the same proposals ---------------------------------------------------------------------------


def replayed(s: Study) -> int:
    """Asks a fresh algorithm for every proposal again, from the events up to its `seen`; returns how many."""
    events = list(s.journal.read())
    batches: dict[int, list[Event]] = {}
    for event in events:
        if event.kind == "started" and "params" in event.payload:
            batches.setdefault(event.payload["seen"], []).append(event)
    algorithm = registry.settings("algorithms", s.log.experiment["algorithm"]).build(
        s.space, s.objectives, s.constraints, s.seed, None
    )
    log = TrialLog(s.objectives, s.constraints)
    for event in events:
        trial = log.append(event)
        if trial is not None:
            algorithm.tell(trial, log.outcome(trial))
        if batch := batches.get(event.seq):
            rng = np.random.default_rng([s.seed, len(log.trials)])
            proposals = algorithm.ask(len(batch), len(log.trials), list(log.running.values()), rng)
            assert [p.params for p in proposals] == [b.payload["params"] for b in batch]
    return sum(map(len, batches.values()))


@pytest.mark.parametrize("algorithm", ["random", "qmc", "evolution", "auto", "gp_bo"])
def test_restarts_change_no_proposal(tmp_path: Path, algorithm: str) -> None:
    whole = study(space(), algorithm=algorithm, seed=5)
    parts = study(space(), algorithm=algorithm, seed=5, storage=tmp_path / "a.db", name="s")
    for number in range(25):
        for s in (whole, parts):
            trial = s.ask()
            s.tell(trial, {"loss": trial.params["n"] + trial.params["lr"]})
        if number % 5 == 0:
            parts = Study.open("s", tmp_path / "a.db")
    assert [t.params for t in whole.trials] == [t.params for t in parts.trials]
    assert replayed(parts) == 25
    assert [t.params for t in study(space(), algorithm=algorithm, seed=6).ask(9)] != [
        t.params for t in whole.trials[:9]
    ]


@pytest.mark.medium
@pytest.mark.parametrize("algorithm", ["random", "auto"])
def test_every_proposal_of_several_workers_can_be_replayed(tmp_path: Path, algorithm: str) -> None:
    s = study(space(), algorithm=algorithm, storage=tmp_path / "a.db", name="s")
    s.run(lambda p, ctx: {"loss": p["n"]}, trials=40, executor="process", workers=3)
    assert replayed(Study.open("s", tmp_path / "a.db")) == 40


_TRACE = """
import json, fettle
branch = fettle.Space(z=fettle.Float(0, 1))
space = fettle.Space(o=fettle.Choice(a=branch, b=fettle.Space()), c=fettle.Categorical(list("pqr")))
s = fettle.Study(space, objectives=["loss"], seed=3)
s.run(lambda p, ctx: {"loss": p.get("o.a.z", 0.5)}, trials=30)
print(json.dumps([t.params for t in s.trials]))
"""


def test_hash_seed_changes_no_proposal() -> None:
    traces = [
        subprocess.run(
            [sys.executable, "-c", _TRACE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert len(json.loads(traces[0])) == 30


# -- the loop ----------------------------------------------------------------------------------------------------


def test_failures_are_data_and_a_missing_objective_is_one() -> None:
    def broken(params: Any, ctx: Context) -> Any:
        return [{"other": 1.0}, {"loss": math.nan}, {"loss": 0.5}][ctx.number]

    s = study().run(broken, trials=3)
    assert [t.failure for t in s.trials] == ["other", "nan", ""]
    assert "no loss" in s.trials[0].error
    assert s.best is not None
    assert s.best.number == 2


def test_the_evaluator_knows_the_incumbent_and_its_folder(tmp_path: Path) -> None:
    seen = []

    def look(params: Any, ctx: Context) -> Any:
        seen.append((ctx.incumbent, ctx.workdir.is_dir(), ctx.seed))
        return {"loss": 5.0 - ctx.number}

    study(storage=tmp_path / "a.db", name="../s").run(look, trials=3)
    assert [i for i, _, _ in seen] == [None, {"loss": 5.0}, {"loss": 4.0}]
    assert len({s for _, _, s in seen}) == 3
    assert {p.name for p in (tmp_path / "a.files").iterdir()} == {p.name for p in (tmp_path / "a.files").glob("s-*")}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_loses_nothing(interruption: type[BaseException]) -> None:
    s = study()

    def interrupted(params: Any, ctx: Context) -> Any:
        if ctx.number == 2:
            raise interruption
        return {"loss": params["x"]}

    with pytest.raises(interruption):
        s.run(interrupted, trials=5)
    assert [t.failure for t in s.trials] == ["", "", "lost", ""]
    assert s.trials[3].state is State.WAITING
    s.run(evaluate, trials=5)
    assert (s.log.started, s.log.counts[State.COMPLETE]) == (5, 4)


def test_an_algorithm_that_raises_ends_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fettle.algorithms.random.RandomSearch.ask", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        study().run(evaluate, trials=2)


def test_long_trials_in_this_thread_give_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that proposes meanwhile does not take the trial for lost."""
    monkeypatch.setattr("fettle.loop.LEASE_S", 0.3)
    other = study(storage=tmp_path / "a.db", name="s")

    def slow(params: Any, ctx: Context) -> Any:
        time.sleep(1.0)
        assert other.ask().number == 1
        return {"loss": 1.0}

    s = study(storage=tmp_path / "a.db", name="s").run(slow, trials=1)
    assert [t.failure for t in s.trials] == ["", ""]


def test_a_watch_sees_starts_and_ends() -> None:
    class Seen:
        def __init__(self) -> None:
            self.events: list[str] = []

        def on_event(self, log: TrialLog, event: Event) -> None:
            self.events.append(f"{event.kind} {event.number}")

        def on_progress(self, number: int, info: Any) -> None:
            self.events.append(f"progress {number} {info['step']}")

        def tick(self, left_s: float | None) -> None:
            pass

    watch = Seen()

    def talkative(params: Any, ctx: Context) -> Any:
        ctx.progress({"step": 1})
        return {"loss": 1.0}

    study().run(talkative, trials=2, watch=watch)
    assert watch.events == [f"{what}" for n in (0, 1) for what in (f"started {n}", f"progress {n} 1", f"told {n}")]


def test_an_evaluator_that_cannot_be_sent() -> None:
    s, lock = study(), threading.Lock()
    with pytest.raises(InvalidInput, match="cannot be sent"):
        s.run(lambda p, ctx: {"loss": float(lock.locked())}, trials=1, executor="process")
    assert s.log.running == {}


def test_no_answer_has_a_reason() -> None:
    s = study(constraints=[fettle.Constraint("t", upper=1.0)])
    assert (s.best, s.pareto, s.answer.reason) == (None, [], "no trial has been run")
    s.tell(s.ask(), {"loss": 1.0, "t": 2.0})
    assert s.best is None
    assert "t = 2, allowed at most 1" in s.answer.reason
