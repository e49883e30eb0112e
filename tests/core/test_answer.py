"""Which trial is the answer, and the reason in words."""

from typing import Any

from fettle.core.answer import answer, effective
from fettle.core.trial import Constraint, Event, Objective, Trial, TrialLog

LOSS = [Objective("loss")]


def log_of(
    *told: dict[str, Any],
    objectives: list[Objective] = LOSS,
    constraints: tuple[Constraint, ...] = (),
    outside: int | None = None,
) -> TrialLog:
    """A log of trials with these metrics; a metric `failure` fails it, `state` sets its state."""
    log = TrialLog(objectives, constraints)
    for number, figures in enumerate(told):
        figures = dict(figures)
        failure, state = figures.pop("failure", ""), figures.pop("state", None)
        payload = {"state": state or ("failed" if failure else "complete"), "metrics": figures, "failure": failure}
        where = {"outside": True} if number == outside else {}
        log.append(Event("enqueued", number, {"params": {"x": number}, **where}, 0.0))
        log.append(Event("started", number, {"seen": log.seen}, 0.0))
        log.append(Event("told", number, payload, 1.0))
    return log


def confirm(log: TrialLog, number: int, source: str = "confirm", **payload: Any) -> None:
    log.append(Event("remeasured", number, {"source": source, **payload}, 2.0))


class Named:
    def __init__(self, number: int | None) -> None:
        self.number = number

    def recommend(self, log: TrialLog) -> int | None:
        return self.number


def test_the_lowest_loss_and_the_first_of_equals() -> None:
    made = answer(log_of({"loss": 2}, {"loss": 1}, {"loss": 1}))
    assert (made.best, made.front) == (1, (1, 2))
    assert "not confirmed" in made.reason
    assert answer(log_of({"loss": 2}, {"loss": 3}, objectives=[Objective("loss", "maximize")])).best == 1


def test_infeasible_failed_stopped_and_outside_trials_cannot_win() -> None:
    log = log_of(
        {"loss": 0, "t": 1},
        {"loss": 1, "t": 9},
        {"loss": 1},
        {"loss": 1, "t": 1, "failure": "oom"},
        {"loss": 1, "t": 1, "state": "stopped"},
        {"loss": 5, "t": 2},
        constraints=(Constraint("t", upper=2),),
        outside=0,
    )
    assert (answer(log).best, answer(log).front) == (5, (5,))


def test_confirmed_figures_come_first() -> None:
    log = log_of({"loss": 1}, {"loss": 2}, {"loss": 3})
    confirm(log, 0, metrics={"loss": 9.0}, intervals={"loss": [8.0, None, 3]})
    confirm(log, 1, metrics={"loss": 2.5}, intervals={})
    made = answer(log)
    assert made.best == 1, "trial 2 was not confirmed, trial 0 did not keep its promise"
    assert "again" in made.reason
    first = effective(log.trials[0])
    assert (first.metrics["loss"], first.intervals["loss"]) == (9.0, (8.0, float("inf"), 3))
    assert effective(log.trials[2]) is log.trials[2]


def test_a_later_measurement_changes_nothing() -> None:
    log = log_of({"loss": 1}, {"loss": 2})
    confirm(log, 0, source="measure", metrics={"loss": 9.0})
    assert answer(log).best == 0
    assert log.trials[0].confirmed is None


def test_a_candidate_that_did_not_pass_again() -> None:
    log = log_of({"loss": 1}, {"loss": 2})
    confirm(log, 0, metrics={"loss": 0.5}, passed=False)
    made = answer(log)
    assert made.best is None
    assert "again" in made.reason
    confirm(log, 1, metrics={"loss": 2.0}, passed=True)
    assert (answer(log).best, answer(log).front) == (1, (1,))


def test_a_recommender_names_the_answer_unless_it_cannot_win() -> None:
    log = log_of({"loss": 1}, {"loss": 2}, {"loss": 3, "failure": "oom"})
    assert answer(log, Named(1)).best == 1
    assert answer(log, Named(1)).front == (1, 0)
    for wrong in (2, 99, None):
        assert answer(log, Named(wrong)).best == 0
    confirm(log, 0, metrics={"loss": 1.0})
    assert answer(log, Named(1)).best == 0, "confirmed figures come before a model's"


def test_the_front_of_two_objectives() -> None:
    objectives = [Objective("loss"), Objective("rate", "maximize")]
    log = log_of({"loss": 1, "rate": 1}, {"loss": 2, "rate": 5}, {"loss": 3, "rate": 4}, objectives=objectives)
    assert (answer(log).best, answer(log).front) == (0, (0, 1))


def test_reasons() -> None:
    assert answer(TrialLog(LOSS)).reason == "no trial has been run"
    assert "oom, timeout" in answer(log_of({"failure": "timeout"}, {"failure": "oom"})).reason
    bounds = (Constraint("t", upper=2), Constraint("acc", lower=0.9))
    reason = answer(log_of({"loss": 1, "t": 9}, {"loss": 2, "t": 3, "acc": 0.95}, constraints=bounds)).reason
    assert reason == "no trial met every constraint; the closest, trial 1, has t = 3, allowed at most 2"
    reason = answer(log_of({"loss": 1, "t": 1}, constraints=bounds)).reason
    assert "no figure for acc, allowed at least 0.9" in reason


def test_types() -> None:
    made = answer(log_of({"loss": 1}))
    assert type(made.best) is int
    assert {type(n) for n in made.front} == {int}
    assert isinstance(effective(log_of({"loss": 1}).trials[0]), Trial)
