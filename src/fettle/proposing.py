"""What is started next, and what follows from a trial that was lost: events for a turn to append."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fettle.core.errors import InvalidInput
from fettle.core.protocols import Algorithm, Done, Proposal, Scheduler, Wait
from fettle.core.trial import Event, State, TrialLog

LEASE_S = 30.0  # a turn or a trial whose holder gives no sign of life for so long is given up


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop. trials: started in the study, retries included. units: the sum of started fidelities
    (1 a trial where there is none). timeout_s: nothing starts after it. trial_limit_s: wall-clock of one trial.
    failures: the search ends where so many trials have failed and none was completed. stop_regret: it ends where at
    most so much of the first objective could still be gained (see `surrogates.regret`), stop_gain: where the last ones
    were expected to gain less than that (see `surrogates.gain`); loops look at both, not `room`.
    """

    trials: int | None = None
    units: float | None = None
    timeout_s: float | None = None
    trial_limit_s: float | None = None
    failures: int | None = None
    stop_regret: float | None = None
    stop_gain: float | None = None

    def __post_init__(self) -> None:
        for name in ("trials", "units", "timeout_s", "trial_limit_s", "failures", "stop_regret", "stop_gain"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidInput(f"expected {name} above 0, got {value!r}", f"leave {name} out for no limit")

    def room(self, log: TrialLog, n: int, cost: float, *, new: bool = True) -> int:
        """How many of n starts at `cost` units each fit; asked inside a turn, so workers cannot exceed it together."""
        if new and self.trials is not None:
            n = min(n, self.trials - log.started)
        if self.units is not None and cost > 0:
            n = min(n, int((self.units - log.units + 1e-9) // cost))
        return max(0, n)


@dataclass(frozen=True, slots=True)
class Proposer:
    """Asks the scheduler for a fidelity and the algorithm for params."""

    algorithm: Algorithm
    scheduler: Scheduler
    seed: int

    def starts(self, log: TrialLog, n: int, limits: Limits, lease_s: float | None) -> list[Event]:
        """`started` events for up to n trials, by one call of the algorithm; none where the limits are reached."""
        number, now = len(log.trials), time.time()
        rng = np.random.default_rng([self.seed, number])
        assigned = self.scheduler.assign(log, rng)
        if isinstance(assigned, Wait | Done):
            return []
        best = log.incumbent
        common = {
            "seen": log.seen,
            "lease_s": lease_s,
            "incumbent": None if best is None else best.number,
            "fidelity": assigned.fidelity,
        }
        cost = 1.0 if assigned.fidelity is None else assigned.fidelity
        if assigned.resume is not None:
            reached = log.trials[assigned.resume].fidelity
            fits = limits.room(log, 1, cost - (reached or 0.0), new=False)
            return [Event("started", assigned.resume, {**common, "resume_from": reached}, now)][:fits]
        n = limits.room(log, n, cost)
        if n == 0:
            return []
        if assigned.params is not None:
            return [Event("started", number, {"params": assigned.params, "parent": assigned.copy_from, **common}, now)]
        if log.waiting:  # enqueued params come before the algorithm's
            return [Event("started", waiting, common, now) for waiting in list(log.waiting)[:n]]
        proposals = self.algorithm.ask(n, number, list(log.running.values()), rng)
        return [
            Event("started", number + i, {"params": p.params, **_extras(p), **common}, now)
            for i, p in enumerate(proposals)
        ]


def _extras(proposal: Proposal) -> dict[str, Any]:
    pairs = {"note": proposal.note, "predicted": proposal.predicted, "repeat": proposal.repeat}
    return {key: value for key, value in pairs.items() if value}


def losses(log: TrialLog, reasons: Mapping[int, str], *, seen_s: float | None = None) -> list[Event]:
    """`lost` events for those of the trials that still run, and an `enqueued` one for each second try.

    seen_s: the last sign of life, where it is older than now: what came after it is not charged to the budget.
    """
    now, events, number = time.time(), list[Event](), len(log.trials)
    more = {} if seen_s is None else {"seen_s": min(seen_s, now)}
    for lost, error in reasons.items():
        trial = log.trials[lost]
        if trial.state is not State.RUNNING:
            continue
        events.append(Event("lost", lost, {"error": error, **more}, now))
        if trial.source == "enqueued" and trial.parent is not None:
            continue  # it was a second try itself
        again = {"params": trial.params, "note": f"second try of lost trial {lost}", "parent": lost}
        if trial.source == "outside":
            again["outside"] = True
        events.append(Event("enqueued", number, again, now))
        number += 1
    return events
