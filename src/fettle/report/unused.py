"""Which share of the allotted cores and memory a server leaves unused, and what fewer cores would save."""

import math
from collections.abc import Mapping
from typing import Any

from fettle.core.trial import Trial, TrialLog
from fettle.report.figures import figure, number
from fettle.report.summary import finite
from fettle.report.text import plain

_ROOM = 0.1  # of a core, which has to stay free where one is taken away


def unused(log: TrialLog, trials: Mapping[str, Trial]) -> list[dict[str, Any]]:
    """One row for each role (winner, closest, defaults) whose usage was recorded: shares of the allotted cores and
    memory, and what taking away the cores that idle would save, null where none does or there is no price.

    cores_used is a mean over the trial, in which pauses between probes count as idle.
    """
    return [row for role, trial in trials.items() if (row := _row(log, role, trial)) is not None]


def _row(log: TrialLog, role: str, trial: Trial) -> dict[str, Any] | None:
    usage = trial.artifacts.get("usage")
    if not isinstance(usage, Mapping) or not all(finite(usage.get(key)) for key in ("cores", "cores_used")):
        return None
    cores, used = usage["cores"], min(float(usage["cores_used"]), float(usage["cores"]))
    allotted, peak = (usage.get(key) or math.nan for key in ("memory_bytes", "peak_rss_bytes"))
    given = _mapping(log, "problem").get("memory_bytes") is not None
    idle = max(0, int(cores - used - _ROOM))
    left = 1.0 - peak / allotted if finite(allotted) and finite(peak) else None
    row = {
        "trial": trial.number,
        "role": role,
        "cores": cores,
        "cores_used": used,
        "cores_unused_ratio": 1.0 - used / cores,
        "memory_bytes": allotted if finite(allotted) else None,
        "memory_peak_bytes": peak if finite(peak) else None,
        "memory_unused_ratio": None if left is None else max(0.0, left),
        "memory_given": given,
        "saving": _saving(log, trial, idle) if idle else None,
    }
    return {**row, "text": _text(log, row)}


def _saving(log: TrialLog, trial: Trial, idle: int) -> dict[str, Any] | None:
    price, hourly = _mapping(log, "prices").get("core_hour"), trial.metrics.get("cost_per_hour")
    if not finite(price) or not finite(hourly) or not hourly or not price:
        return None
    return {"cores": idle, "per_hour": idle * price, "ratio": min(1.0, idle * price / hourly)}


def _text(log: TrialLog, row: Mapping[str, Any]) -> str:
    who = {"winner": "The winner", "defaults": "The defaults"}.get(row["role"], f"Trial {row['trial']}")
    left = row["cores_unused_ratio"]
    said = f"{who} left {100 * left:.0f} % of {number(row['cores'])} allotted core{'s' * (row['cores'] != 1)} unused"
    if row["memory_unused_ratio"] is not None:
        how = "" if row["memory_given"] else " (what is charged above its peak, as no memory was given)"
        said += f", and {100 * row['memory_unused_ratio']:.0f} % of {figure('rss_bytes', row['memory_bytes'])}{how}"
    if (saving := row["saving"]) is not None:
        money = plain(_mapping(log, "prices").get("currency") or "", limit=10)
        n = saving["cores"]
        said += (
            f"; {n} core{'s' * (n != 1)} less would save {figure('cost_per_hour', saving['per_hour'], money)} "
            f"({100 * saving['ratio']:.0f} %) if the rate held"
        )
    return f"{said}."


def _mapping(log: TrialLog, key: str) -> Mapping[str, Any]:
    found = log.experiment.get(key)
    return found if isinstance(found, Mapping) else {}
