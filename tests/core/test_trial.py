"""The fold: from events to trials, counts, rungs, the incumbent."""

import math
from typing import Any

import pytest

from fettle.core.errors import InvalidInput
from fettle.core.trial import Constraint, Event, Objective, Outcome, State, Trial, TrialLog, outcome

LOSS = (Objective("loss"),)


class Log(TrialLog):
    """With one short method per kind of event; each is a second after the last."""

    def __init__(self, objectives: Any = LOSS, constraints: Any = ()) -> None:
        super().__init__(objectives, constraints)
        self.now = 0.0

    def add(self, kind: str, number: int, **payload: Any) -> Trial | None:
        self.now += 1.0
        return self.append(Event(kind, number, payload, self.now))

    def start(self, number: int, **payload: Any) -> None:
        self.add("started", number, params={"x": number}, **payload)

    def tell(self, number: int, loss: float = 1.0, *, state: str = "complete", **payload: Any) -> Trial | None:
        return self.add("told", number, state=state, metrics={"loss": loss}, **payload)


def test_a_trial_from_start_to_end() -> None:
    log = Log()
    log.add("created", -1, space={})
    log.start(0, note="first")
    assert (log.trials[0].state, log.running, log.counts[State.RUNNING]) == (State.RUNNING, {0: {"x": 0}}, 1)
    told = log.tell(0, 0.5, intervals={"loss": [0.4, None, 3]}, timings={"wall_s": 1.0}, artifacts={"log": "x"})
    assert told is log.trials[0]
    assert told.state is State.COMPLETE
    assert told.note == "first"
    assert told.intervals["loss"] == (0.4, math.inf, 3)
    assert (log.running, log.counts[State.RUNNING], log.counts[State.COMPLETE]) == ({}, 0, 1)
    assert (log.seen, log.seconds, log.last_s) == (3, 1.0, 3.0)
    assert log.experiment == {"space": {}}


def test_enqueued_trials_wait_and_do_not_count_before_they_start() -> None:
    log = Log()
    log.add("enqueued", 0, params={"x": 9}, note="mine")
    assert (log.trials[0].state, log.waiting, log.started, len(log)) == (State.WAITING, {0: {"x": 9}}, 0, 1)
    log.add("started", 0)
    assert (log.trials[0].state, log.trials[0].params, log.waiting, log.started) == (State.RUNNING, {"x": 9}, {}, 1)
    assert (log.trials[0].source, log.trials[0].note) == ("enqueued", "mine")


def test_told_from_elsewhere_counts_apart_and_only_once() -> None:
    log = Log()
    assert log.add("told", 0, params={"x": 1}, state="complete", metrics={"loss": 1.0}) is not None
    assert (log.started, log.elsewhere, log.trials[0].source) == (0, 1, "elsewhere")
    assert log.tell(0, 0.1) is None
    assert log.trials[0].metrics == {"loss": 1.0}


def test_of_several_tells_the_first_counts() -> None:
    log = Log()
    log.start(0)
    assert log.tell(0, 1.0) is not None
    assert log.tell(0, 0.5) is None
    assert log.trials[0].metrics["loss"] == 1.0
    assert log.was_told(0, None)
    assert not log.was_told(0, 1.0)
    assert log.counts[State.COMPLETE] == 1


def test_a_tell_after_lost_replaces_it() -> None:
    log = Log()
    log.start(0)
    lost = log.add("lost", 0, error="gone")
    assert lost is not None
    assert (lost.state, lost.failure, lost.error) == (State.FAILED, "lost", "gone")
    assert log.add("lost", 0) is None
    assert log.tell(0, 0.5) is not None
    assert (log.trials[0].state, log.trials[0].failure, log.trials[0].error) == (State.COMPLETE, "", "")
    assert log.incumbent is log.trials[0]
    assert log.add("lost", 0) is None, "what was told cannot be lost any more"


def test_rungs() -> None:
    """A later rung overwrites, each rung is told once, and each trial stands once in each rung."""
    log = Log()
    log.start(0, fidelity=1.0)
    log.start(1, fidelity=1.0)
    log.add("reported", 0, fidelity=1.0, metrics={"loss": 7.0})
    assert log.trials[0].reports[0].metrics == {"loss": 7.0}
    log.tell(0, 5.0, state="paused", fidelity=1.0)
    log.tell(1, 3.0, state="paused", fidelity=1.0)
    assert log.rungs == {1.0: [(3.0, 1), (5.0, 0)]}
    assert (log.units, log.started, log.incumbent) == (2.0, 2, None)
    log.add("started", 1, fidelity=3.0, resume_from=1.0)
    assert (log.trials[1].state, log.trials[1].resume_from, log.units, log.started) == (State.RUNNING, 1.0, 4.0, 2)
    assert log.tell(1, 9.9, state="paused", fidelity=1.0) is None
    assert log.tell(1, 2.0, fidelity=3.0) is not None
    assert log.rungs == {1.0: [(3.0, 1), (5.0, 0)], 3.0: [(2.0, 1)]}
    assert log.tell(1, 4.0, fidelity=9.0) is not None
    assert log.incumbent is log.trials[1]
    log.add("reported", 0, fidelity=1.0, metrics={"other": 1.0})
    log.tell(0, 1.0, state="failed", fidelity=3.0, failure="oom")
    assert log.rungs[3.0] == [(2.0, 1)], "a failure has no rank"


def test_rungs_of_a_maximised_metric_are_sorted_by_loss() -> None:
    log = Log((Objective("acc", "maximize"),))
    for number, acc in enumerate((0.1, 0.9)):
        log.start(number)
        log.add("reported", number, fidelity=1.0, metrics={"acc": acc})
    assert log.rungs[1.0] == [(-0.9, 1), (-0.1, 0)]


def test_the_incumbent() -> None:
    log = Log(constraints=(Constraint("t", upper=1.0),))
    for number, (loss, t, state) in enumerate(
        [(1.0, 9.0, "complete"), (5.0, 1.0, "complete"), (5.0, 0.5, "complete"), (0.0, 1.0, "stopped")]
    ):
        log.start(number)
        log.add("told", number, state=state, metrics={"loss": loss, "t": t})
    assert log.incumbent is log.trials[1], "feasible first, then loss, then the earlier"
    log.add("told", 1, state="complete", metrics={"loss": 6.0, "t": 1.0}, fidelity=2.0)
    assert log.incumbent is log.trials[2], "its own later rung was worse"
    log.add("told", 2, state="failed", metrics={}, fidelity=2.0, failure="oom")
    assert log.incumbent is log.trials[1]
    log.add("enqueued", 4, params={"y": 1}, outside=True)
    log.add("started", 4)
    log.add("told", 4, state="complete", metrics={"loss": 0.0, "t": 0.0})
    assert log.incumbent is log.trials[1], "a baseline outside the space cannot win"


def test_remeasured_figures_count_only_from_a_confirmation() -> None:
    log = Log()
    log.start(0)
    log.tell(0)
    assert log.add("remeasured", 0, source="measure", metrics={"loss": 9.0}, wall_s=2.0) is None
    assert log.trials[0].confirmed is None
    log.add("remeasured", 0, source="confirm", metrics={"loss": 2.0}, wall_s=3.0)
    assert log.trials[0].confirmed is not None
    assert log.seconds == 6.0


def test_seconds_leave_out_downtime() -> None:
    log = Log()
    log.start(0)  # at 1
    log.now = 1000.0
    log.add("lost", 0, seen_s=31.0)
    assert log.seconds == 30.0


def test_events_of_another_version() -> None:
    with pytest.raises(InvalidInput, match="schema 99") as caught:
        TrialLog().append(Event("told", 0, {}, 0.0, schema=99))
    assert "update" in caught.value.hint
    with pytest.raises(InvalidInput, match="unknown kind"):
        TrialLog().append(Event("gossip", 0, {}, 0.0))


def test_a_replay_gives_the_same_log() -> None:
    events = [
        Event("created", -1, {"space": {}}, 0.0, seq=1),
        Event("started", 0, {"params": {"x": 0}, "fidelity": 1.0}, 1.0, seq=2),
        Event("enqueued", 1, {"params": {"x": 1}}, 2.0, seq=3),
        Event("reported", 0, {"fidelity": 1.0, "metrics": {"loss": 3.0}}, 3.0, seq=4),
        Event("started", 1, {}, 4.0, seq=5),
        Event("told", 0, {"state": "complete", "metrics": {"loss": 2.0}}, 5.0, seq=6),
        Event("lost", 1, {}, 6.0, seq=7),
    ]
    whole, parts = TrialLog(LOSS), TrialLog(LOSS)
    assert [t.number for t in whole.extend(events)] == [0, 1]
    for event in events:
        parts.append(event)
    assert vars(whole) == vars(parts)
    assert whole.seen == 7


def test_outcomes_are_minimised_and_know_their_noise() -> None:
    goals = (Objective("loss"), Objective("acc", "maximize"))
    bounds = (Constraint("t", upper=2.0), Constraint("acc", lower=0.5), Constraint("none", upper=0.0))
    trial = Trial(
        0, {}, State.COMPLETE, metrics={"loss": 1.0, "acc": 0.25, "t": 3.0}, intervals={"loss": (0.02, 1.98, 9)}
    )
    made = outcome(trial, goals, bounds)
    assert made.losses == (1.0, -0.25)
    assert made.violations[:2] == (0.5, 0.5)
    assert math.isnan(made.violations[2])
    assert made.noise[0] == pytest.approx(0.5)
    assert math.isnan(made.noise[1])
    assert (made.ok, made.feasible, made.censored) == (True, False, (0, 0))


@pytest.mark.parametrize(
    ("goal", "state", "ends", "censored"),
    [
        ("minimize", State.STOPPED, None, 1),
        ("maximize", State.STOPPED, None, 1),
        ("minimize", State.COMPLETE, (1.0, math.inf, 3), 1),
        ("maximize", State.COMPLETE, (1.0, math.inf, 3), -1),
        ("maximize", State.COMPLETE, (-math.inf, 1.0, 3), 1),
        ("minimize", State.COMPLETE, (0.0, 2.0, 3), 0),
    ],
)
def test_censoring(goal: str, state: State, ends: Any, censored: int) -> None:
    """+1: the true loss is at least this; -1: at most this."""
    trial = Trial(0, {}, state, metrics={"m": 1.0}, intervals={} if ends is None else {"m": ends})
    made = outcome(trial, (Objective("m", goal),), ())
    assert made.censored == (censored,)
    assert math.isnan(made.noise[0]) == bool(censored)


def test_order_of_outcomes() -> None:
    ranked = [
        Outcome((1.0,)),
        Outcome((2.0,), (0.0,)),
        Outcome((math.nan,)),
        Outcome((0.0,), (0.1,)),
        Outcome((0.0,), (0.2,)),
        Outcome((-1.0,), (0.2, math.nan)),
        Outcome((-9.0,), ok=False),
    ]
    assert sorted(ranked, key=lambda o: o.order) == ranked
    assert [o.feasible for o in ranked] == [True, True, True, False, False, False, False]


def test_constraints_and_objectives_that_cannot_be() -> None:
    assert Constraint("t", upper=0.0).violation(2.0) == 2.0, "absolute where the bound is 0"
    assert Constraint("t", lower=4.0).violation(5.0) == 0.0
    for wrong in ({}, {"upper": 1.0, "lower": 0.0}):
        with pytest.raises(InvalidInput, match="exactly one"):
            Constraint("t", **wrong)
    with pytest.raises(InvalidInput, match="minimize"):
        Objective("loss", "min")
