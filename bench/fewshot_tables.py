"""Figures of few-shot search on other people's tables: one row over all of them, and one a set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
OURS, SCRATCH = "prior_gp", ("gp_bo", "auto")
METHODS = (OURS, *SCRATCH, "static", "random")
WORSE = 1.05  # times the area from scratch, above which a set is said to be worse


def rows(sets: Mapping[str, Sequence[Row]]) -> list[Row]:
    """at: mean regret after so many samples, over cases whose seeds are averaged; p: Wilcoxon over cases, that ours is
    no better than from scratch; area: mean regret of samples 1 to 20."""
    from scipy.stats import wilcoxon

    cases = {name: _cases(found) for name, found in sets.items()}
    whole = [case for own in cases.values() for case in own]
    if not whole:
        return []
    total: Row = {"row": "all", "sets": sum(map(bool, cases.values())), "cases": len(whole), "at": {}, "p": {}}
    for n in ("5", "10", "20"):
        figures = {m: np.array([case[m][n] for case in whole]) for m in METHODS}
        total["at"][n] = {m: float(values.mean()) for m, values in figures.items()}
        total["p"][n] = {m: float(wilcoxon(figures[OURS], figures[m], alternative="less").pvalue) for m in SCRATCH}
    made = [total]
    for name, own in cases.items():
        if own:
            area = {m: float(np.mean([case[m]["area"] for case in own])) for m in METHODS}
            worse = area[OURS] > WORSE * min(area[m] for m in SCRATCH)
            made.append({"row": "set", "set": name, "cases": len(own), "area": area, "worse": worse})
    return made


def _cases(found: Sequence[Row]) -> list[dict[str, dict[str, float]]]:
    """Those that all methods were run on: method -> figures, seeds averaged."""
    grouped: dict[str, dict[str, list[Row]]] = {}
    for row in found:
        grouped.setdefault(row["case"], {}).setdefault(row["method"], []).append(row)
    made = []
    for methods in grouped.values():
        if set(METHODS) <= set(methods):
            made.append({m: _mean(methods[m]) for m in METHODS})
    return made


def _mean(runs: Sequence[Row]) -> dict[str, float]:
    at = {n: float(np.mean([run["at"][n] for run in runs])) for n in ("5", "10", "20")}
    return {**at, "area": float(np.mean([run["regret"] for run in runs]))}
