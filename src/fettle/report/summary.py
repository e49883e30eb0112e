"""The records that everything shown is made from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fettle.core.trial import Constraint, Objective, Trial
from fettle.report.text import plain

SERVE = "serve"


@dataclass(frozen=True, slots=True)
class Row:
    """One trial as it is shown. `trial` carries the confirmed figures where there are any; `first` does not.

    role: 'winner', 'defaults' or ''. marks: what a reader has to know before trusting its figures.
    """

    trial: Trial
    first: Trial
    role: str
    feasible: bool
    marks: tuple[str, ...]

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def probes(self) -> list[Mapping[str, Any]]:
        """The rates that were tried, in order; [] for problems that know none."""
        found = self.trial.artifacts.get("probes") or []
        return [p for p in found if isinstance(p, Mapping) and finite(p.get("rate"))]


@dataclass(frozen=True, slots=True)
class Summary:
    """answer: the JSON document of `fettle best --json`. front: trial numbers. ranked: feasible trials, best first."""

    answer: Mapping[str, Any]
    experiment: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    rows: tuple[Row, ...]
    winner: Row | None
    defaults: Row | None
    closest: Row | None
    headline: str

    @property
    def study(self) -> str:
        return str(self.answer["study"])

    @property
    def problem(self) -> Mapping[str, Any]:
        found = self.experiment.get("problem")
        return found if isinstance(found, Mapping) else {"name": str(found or "")}

    @property
    def is_serve(self) -> bool:
        return self.problem.get("name") == SERVE

    @property
    def currency(self) -> str:
        prices = self.experiment.get("prices")
        return plain(prices.get("currency") or "", limit=10) if isinstance(prices, Mapping) else ""

    @property
    def ranked(self) -> list[Row]:
        """Feasible trials by the first objective, best first; the winner leads."""
        if not self.objectives:
            return []
        first = self.objectives[0]
        known = [r for r in self.rows if r.feasible and first.metric in r.trial.metrics]
        return sorted(known, key=lambda r: (r.role != "winner", first.sign * r.trial.metrics[first.metric], r.number))


def finite(value: Any) -> bool:
    """Whether it is a number that can be shown and calculated with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
