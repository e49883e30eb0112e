"""Scores from the rows of bench/search.py, and the statistics on them.

A score is lower for better: the true regret (1: the median random point), floored at 1e-4, 10 where nothing feasible
was found; for several objectives the share of the true front's hypervolume that is missing. Under noise the optimiser's
own answer is scored.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import search_rows as rows
from scipy.stats import wilcoxon

from fettle.testing.search import CHECKPOINTS

FLOOR, NOTHING = 1e-4, 10.0
Pair = tuple[str, int]


@dataclass(slots=True)
class Scores:
    """One method: (problem, seed) -> {evaluations: score}, and -> CPU ms per ask and tell."""

    name: str
    at: dict[Pair, dict[int, float]] = field(default_factory=dict)
    ms: dict[Pair, float] = field(default_factory=dict)
    head: rows.Row = field(default_factory=dict)
    errors: int = 0

    @classmethod
    def read(cls, path: Path) -> "Scores":
        head, found = rows.load(path)
        scores = cls(head.get("method", path.stem), head=head)
        for row in found.values():
            scores.errors += "e" in row
            for n in CHECKPOINTS:
                mine = row["b"] == n if head.get("each") else row["b"] >= n
                if mine and row["n"] >= n:
                    scores.at.setdefault((row["p"], row["s"]), {})[n] = score(row, n)
            if row["b"] == max(CHECKPOINTS) and row["ms"] is not None:
                scores.ms[row["p"], row["s"]] = row["ms"]
        return scores


def score(row: rows.Row, n: int) -> float:
    """Lower is better."""
    if row["k"] == "multi_objective":
        covered = [value for count, value in row["t"] if count <= n]
        return max(FLOOR, 1.0 - (covered[-1] if covered else 0.0))
    if "a" in row:
        found = row["a"].get(str(n))
    else:
        found = next((value for count, value in reversed(row["t"]) if count <= n), None)
    return NOTHING if found is None else min(NOTHING, max(FLOOR, found))


def common(methods: Iterable[Scores], wanted: Sequence[str], n: int) -> list[Pair]:
    """Pairs of the wanted problems that all of the methods have."""
    sets = [{pair for pair, at in m.at.items() if n in at and pair[0] in wanted} for m in methods]
    return sorted(set.intersection(*sets)) if sets else []


def milliseconds(method: Scores, wanted: Iterable[str]) -> np.ndarray:
    """CPU ms per ask and tell of each run on the wanted problems."""
    names = {*wanted}
    return np.array([ms for (name, _), ms in method.ms.items() if name in names])


def column(method: Scores, pairs: Sequence[Pair], n: int) -> np.ndarray:
    return np.array([method.at[pair][n] for pair in pairs])


def geometric(scores: np.ndarray) -> float:
    return float(np.exp(np.log(scores).mean())) if len(scores) else math.nan


def holm(p: dict[str, float]) -> dict[str, float]:
    """Holm 1979: step-down adjusted p."""
    adjusted, highest = {}, 0.0
    for i, name in enumerate(sorted(p, key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - i) * p[name]))
        adjusted[name] = highest
    return adjusted


def one_sided(ours: np.ndarray, theirs: np.ndarray) -> float:
    """p that the peer is not better."""
    difference = np.log(ours) - np.log(theirs)
    return 1.0 if not np.any(difference) else float(wilcoxon(difference, alternative="greater").pvalue)
