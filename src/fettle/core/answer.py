"""Which trial is the answer. Confirmed figures come before unconfirmed ones."""

from dataclasses import dataclass, replace

import numpy as np

from fettle.core import pareto
from fettle.core.protocols import Recommender
from fettle.core.trial import State, Trial, TrialLog, interval


@dataclass(frozen=True, slots=True)
class Answer:
    """best: the recommended feasible trial or None; front: non-dominated feasible trials; reason: in words."""

    best: int | None
    front: tuple[int, ...]
    reason: str


def effective(trial: Trial) -> Trial:
    """The trial with its confirmed figures in place of the first ones."""
    if trial.confirmed is None:
        return trial
    ends = {name: interval(value) for name, value in trial.confirmed.get("intervals", {}).items()}
    return replace(
        trial,
        metrics={**trial.metrics, **trial.confirmed.get("metrics", {})},
        intervals={**trial.intervals, **ends},
    )


def answer(log: TrialLog, recommender: Recommender | None = None) -> Answer:
    """The best feasible trial by the first objective; a baseline outside the space cannot win."""
    complete = [t for t in log.trials if t.state is State.COMPLETE and t.source != "outside"]
    confirmed = [t for t in complete if t.confirmed is not None]
    passed = [t for t in confirmed if t.confirmed is not None and t.confirmed.get("passed", True)]
    candidates = passed if confirmed else complete
    failed = {t.number for t in confirmed} - {t.number for t in passed}
    outcomes = {t.number: log.outcome(effective(t)) for t in complete if t.number not in failed}
    feasible = [n for n, o in outcomes.items() if o.feasible]
    losses = np.array([outcomes[n].losses for n in feasible]).reshape(len(feasible), len(log.objectives))
    front = tuple(feasible[i] for i in pareto.front(losses))
    ranked = sorted((outcomes[t.number].order, t.number) for t in candidates if outcomes[t.number].feasible)
    if not ranked:
        return Answer(None, (), _why_not(log, complete, bool(confirmed)))
    best = ranked[0][1]
    if recommender is not None and not confirmed and (named := recommender.recommend(log)) in outcomes:
        best = named if named is not None and outcomes[named].feasible else best
    how = "by figures measured again on fresh starts" if confirmed else "by its own trial, not confirmed"
    return Answer(best, front if best in front else (best, *front), f"best of {len(complete)} complete trials {how}")


def _why_not(log: TrialLog, complete: list[Trial], confirmed: bool) -> str:
    if not log.trials:
        return "no trial has been run"
    if not complete:
        failures = sorted({t.failure for t in log.trials if t.failure})
        why = f": failures of class {', '.join(failures)}" if failures else ""
        return f"none of {len(log.trials)} trials in the space was completed{why}"
    if confirmed:
        return "no candidate held its constraints when it was measured again on a fresh start"
    closest = min(complete, key=lambda t: (log.outcome(t).order, t.number))
    broken = [
        (f"{c.metric} = {closest.metrics[c.metric]:.4g}" if v == v else f"no figure for {c.metric}")
        + (f", allowed at most {c.upper:.4g}" if c.upper is not None else f", allowed at least {c.lower:.4g}")
        for c, v in zip(log.constraints, log.outcome(closest).violations, strict=True)
        if not v <= 0
    ]
    return f"no trial met every constraint; the closest, trial {closest.number}, has {'; '.join(broken)}"
