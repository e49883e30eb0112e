"""Seeded test problems for search algorithms, whose answers are known.

    problem = make("two_level", seed=3)
    study = fettle.Study(problem.space, objectives=problem.objectives, constraints=problem.constraints)
    study.run(problem, trials=60)
    problem.regret(study.best.params)  # 0: the optimum, 1: the median random point

Each problem is deterministic in (name, seed). `names(kind)` lists the functions that algorithms are tuned on;
`names(kind, "holdout")` others of the same kinds, which nothing is ever tuned on.
"""

import difflib
from collections.abc import Mapping
from types import ModuleType

from fettle.core.errors import InvalidInput
from fettle.problems.synthetic import (
    conditional,
    constrained,
    failing,
    finite,
    mixed,
    multi_objective,
    numeric,
)
from fettle.problems.synthetic.record import Maker, Synthetic

__all__ = ["KINDS", "LISTS", "Synthetic", "kind_of", "make", "names"]

KINDS = (
    "smooth", "many_dimensional", "noisy", "mixed", "conditional", "finite", "failing", "constrained", "multi_objective"
)  # fmt: skip
LISTS = ("tuned", "holdout", "all")
_MODULES: tuple[ModuleType, ...] = (numeric, mixed, conditional, finite, failing, constrained, multi_objective)


def _collected(which: str) -> dict[str, dict[str, Maker]]:
    tables: dict[str, dict[str, Maker]] = {kind: {} for kind in KINDS}
    for module in _MODULES:
        if which in ("tuned", "all"):
            _put(tables, module.TUNED)
        if which in ("holdout", "all"):
            _put(tables, module.HOLDOUT)
    return tables


def _put(tables: dict[str, dict[str, Maker]], more: Mapping[str, Mapping[str, Maker]]) -> None:
    for kind, table in more.items():
        tables[kind].update(table)


_TABLES = {which: _collected(which) for which in LISTS}


def names(kind: str | None = None, which: str = "tuned") -> list[str]:
    """The problems of a kind (None: of all), of one of the LISTS."""
    if which not in LISTS or (kind is not None and kind not in KINDS):
        hint = f"lists: {', '.join(LISTS)}; kinds: {', '.join(KINDS)}"
        raise InvalidInput(f"no list {which!r} of kind {kind!r}", hint)
    return [name for of, table in _TABLES[which].items() if kind in (None, of) for name in table]


def kind_of(name: str) -> str:
    return _found(name)[0]


def make(name: str, seed: int = 0) -> Synthetic:
    """The problem of that name, with the box, levels and noise of that seed."""
    problem: Synthetic = _found(name)[1](name, seed)
    return problem


def _found(name: str) -> tuple[str, Maker]:
    for kind, table in _TABLES["all"].items():
        if name in table:
            return kind, table[name]
    close = difflib.get_close_matches(name, names(which="all"), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names(which='all'))}"
    raise InvalidInput(f"unknown test problem {name!r}", hint)
