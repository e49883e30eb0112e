"""Every trial at full fidelity: the scheduler of studies without any."""

from dataclasses import dataclass

from numpy.random import Generator

from fettle.core.protocols import Assignment
from fettle.core.trial import Trial, TrialLog


@dataclass(frozen=True, slots=True)
class Full:
    """fidelity: given to every trial; None where the evaluator knows no fidelity."""

    fidelity: float | None = None

    def assign(self, log: TrialLog, rng: Generator) -> Assignment:
        return Assignment(self.fidelity)

    def decide(self, log: TrialLog, trial: Trial) -> bool:
        return True
