"""Replays of one case: what each sample would have found, by an algorithm or in a fixed order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle import registry
from fettle.core.errors import Exhausted
from fettle.core.protocols import Algorithm
from fettle.core.trial import State, Trial, outcome
from fettle.replay.cases import Case, key

FIRST = 20  # samples that the regret is the mean over
STATIC = "static"


@dataclass(frozen=True, slots=True)
class Run:
    """to90, to95: samples until that share of the best measured figure; rows + 1 where it was not found. regret: mean
    of 1 - share over the first 20 samples; first: the share after one."""

    task: str
    method: str
    seed: int
    to90: int
    to95: int
    regret: float
    first: float


def replay(case: Case, algorithm: Algorithm, *, method: str, seed: int) -> Run:
    """Asks for params that were measured and tells what was, until 95 % are found and at least 20 samples are taken."""
    shares, best = list[float](), 0.0
    while len(shares) < len(case.rows) and (len(shares) < FIRST or best < 0.95):
        n = len(shares)
        try:
            (proposal,) = algorithm.ask(1, n, [], np.random.default_rng([seed, n]))
        except Exhausted:
            break
        row = case.rows[key(proposal.params)]
        state = State.FAILED if row.failure else State.COMPLETE
        trial = Trial(n, proposal.params, state, metrics=row.metrics, failure=row.failure)
        algorithm.tell(trial, outcome(trial, (case.objective,), case.constraints))
        best = max(best, case.share(row))
        shares.append(best)
    return _run(case, method, seed, shares)


def built(case: Case, spec: object, seed: int) -> Algorithm:
    """An algorithm on the case. spec: its name or settings."""
    made: Algorithm = registry.settings("algorithms", spec).build(
        case.space, (case.objective,), case.constraints, seed, None
    )
    return made


def static(case: Case, taught: Sequence[Case]) -> Run | None:
    """The best configurations of other tasks, by their mean share of each one's best; None where no configuration of
    this task was measured in any other. What a task has not measured counts as 0."""
    worth = dict.fromkeys(case.rows, 0.0)
    for other in taught:
        for name in worth.keys() & other.rows.keys():
            worth[name] += other.share(other.rows[name]) / len(taught)
    if not any(worth.values()):
        return None
    order = sorted(case.rows, key=lambda name: -worth[name])
    found = np.maximum.accumulate([case.share(case.rows[name]) for name in order])
    return _run(case, STATIC, 0, found.tolist())


def _run(case: Case, method: str, seed: int, shares: Sequence[float]) -> Run:
    padded = np.array([*shares, *[shares[-1]] * max(0, FIRST - len(shares))])
    missing = len(case.rows) + 1
    to90, to95 = (next((n for n, s in enumerate(shares, 1) if s >= q - 1e-9), missing) for q in (0.90, 0.95))
    return Run(case.task.name, method, seed, to90, to95, float(np.mean(1.0 - padded[:FIRST])), shares[0])


def geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if len(values) else math.nan
