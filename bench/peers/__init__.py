"""Other optimisers behind one interface: ask, tell, answer. One file each; none is imported before it is wanted.

Every peer gets the space in its own terms (conditions, logs, integers where it has them), failures and constraints
through its own mechanism where it has one, and proposes flat params as Fettle has them.
"""

import importlib
import math
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import numpy as np

from fettle.core.space import Params, Space
from fettle.core.trial import Constraint
from fettle.problems.synthetic import Synthetic


@dataclass(frozen=True, slots=True)
class Told:
    """losses: minimised; None where the trial failed. excess: per constraint, above 0 where it is violated, in units of
    its bound."""

    losses: tuple[float, ...] | None
    excess: tuple[float, ...] = ()

    @property
    def feasible(self) -> bool:
        return self.losses is not None and all(e <= 0 for e in self.excess)


class Peer(Protocol):
    """Made by `Peer(problem, budget)`; the seed is the problem's."""

    def ask(self) -> Params: ...

    def tell(self, told: Told) -> None:
        """The result of the params that were asked last."""
        ...

    def answer(self) -> Params | None:
        """What its user would take now."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """where: module and class. packages: whose versions are recorded. kinds: what it is run on (empty: all);
    numeric: only where every parameter is a plain number. slow: run on few functions."""

    where: str
    packages: tuple[str, ...]
    several: bool = False
    numeric: bool = False
    slow: bool = False


ENTRIES: dict[str, Entry] = {
    "random": Entry("plain:Random", ("numpy",), several=True),
    "hyperopt_tpe": Entry("hyperopt_tpe:HyperoptTPE", ("hyperopt",)),
    "cmaes": Entry("cma:CMAES", ("cmaes",), numeric=True),
    "optuna_tpe": Entry("optuna_samplers:TPE", ("optuna",), several=True),
    "optuna_tpe_mv": Entry("optuna_samplers:GroupTPE", ("optuna",), several=True),
    "optuna_nsga2": Entry("optuna_samplers:NSGA2", ("optuna",), several=True),
    "nevergrad_ngopt": Entry("nevergrad_ngopt:NGOpt", ("nevergrad",)),
    "optuna_gp": Entry("optuna_samplers:GP", ("optuna", "torch"), several=True),
    "ax": Entry("ax_client:AxClient", ("ax-platform", "botorch", "torch"), slow=True),
    "hebo": Entry("hebo_peer:Hebo", ("HEBO", "torch"), slow=True),
    "smac": Entry("smac_peer:Smac", ("smac", "ConfigSpace"), slow=True),
}


def make(name: str, problem: Synthetic, budget: int) -> Peer:
    module, _, attribute = ENTRIES[name].where.partition(":")
    peer: Peer = getattr(importlib.import_module(f"peers.{module}"), attribute)(problem, budget)
    return peer


def takes(name: str, problem: Synthetic) -> bool:
    """Whether the peer is run on such a problem."""
    entry = ENTRIES[name]
    plain = all(column.kind == "float" for column in problem.space.columns) and problem.space.only is None
    return (entry.several or not problem.reference) and (plain or not entry.numeric)


def versions(name: str) -> dict[str, str]:
    found = {}
    for package in ENTRIES[name].packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def excess(constraint: Constraint, value: float) -> float:
    """Signed and relative: above 0 where the bound is broken."""
    bound = constraint.upper if constraint.upper is not None else constraint.lower
    assert bound is not None
    over = value - bound if constraint.upper is not None else bound - value
    return over / (abs(bound) or 1.0)


class Single:
    """One loss for optimisers that know neither failures nor constraints: a trial that is infeasible or failed is as
    bad as the worst so far and its distance from the best, plus its violation in the same unit."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.best: Params | None = None

    def __call__(self, told: Told, params: Params) -> float:
        if told.losses is not None and told.feasible:
            loss = told.losses[0]
            if loss < self.low:
                self.low, self.best = loss, params
            self.high = max(self.high, loss)
            return loss
        spread = (self.high - self.low) if self.high > self.low else 1.0
        worst = self.high if math.isfinite(self.high) else 0.0
        return worst + spread * (1.0 + sum(max(0.0, e) for e in told.excess))


def nearest(space: Space, params: Params) -> Params:
    """The listed params next to the given: by other categories first, then by the distance of the numbers."""
    if space.only is None:
        return params
    words = np.array([column.kind in ("categorical", "choice") for column in space.columns])
    off = np.abs(space.listed_cube - space.encode([params]))
    distance = (off[:, words] > 1e-9).sum(1) + (off[:, ~words] ** 2).sum(1)
    return dict(space.only[int(np.argmin(distance))])
