"""The one document that the terminal, the JSON output and the HTML page are made from."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fettle.core.answer import effective
from fettle.core.trial import State, Trial, TrialLog
from fettle.report.explanation import ended
from fettle.report.gain import gain
from fettle.report.headline import headline
from fettle.report.summary import Row, Summary, finite
from fettle.report.text import plain

GIB = 1 << 30


def answer(
    log: TrialLog, best: int | None, front: Sequence[int], reason: str, artifacts: Mapping[str, str]
) -> dict[str, Any]:
    """What `fettle best --json` prints (schema 1); strict JSON, with null for what is unknown or unbounded.

    best, front, reason: of `core.answer`. artifacts: name -> path of what was exported or written.
    """
    winner = None if best is None else effective(log.trials[best])
    baseline = None if log.baseline is None else effective(log.baseline)
    closest = None if winner else _closest(log)
    objective = log.objectives[0] if log.objectives else None
    found = {
        "schema": 1,
        "study": str(log.experiment.get("name") or ""),
        "feasible": winner is not None,
        "trial": None if winner is None else record(winner),
        "baseline": None if baseline is None else record(baseline),
        "closest": None if closest is None else record(closest),
        "reason": reason,
        "front": [int(n) for n in front],
        "artifacts": {str(k): str(v) for k, v in artifacts.items()},
        "gain": gain(winner, baseline, objective),
        "gain_at_equal_precision": _equal_precision(log, winner, baseline),
        "cost": _cost(log),
        "ended": ended(log),
    }
    clean: dict[str, Any] = _clean(found)
    return clean


def _equal_precision(log: TrialLog, winner: Trial | None, baseline: Trial | None) -> dict[str, Any] | None:
    """The gain of the best confirmed trial that serves the defaults' precision; None where the winner itself does."""
    if winner is None or baseline is None or winner.params.get("precision") == baseline.params.get("precision"):
        return None
    alike = [
        effective(t)
        for t in log.trials
        if (t.confirmed or {}).get("passed") and t.params.get("precision") == baseline.params["precision"]
    ]
    if not alike:
        return None
    found = gain(min(alike, key=lambda t: (log.outcome(t).order, t.number)), baseline, log.objectives[0])
    if found is None:
        return None
    precision = plain(baseline.params["precision"], limit=40)
    return {**found, "precision": precision, "text": f"at {precision} alone: {found['text']}"}


def summarise(
    log: TrialLog, best: int | None, front: Sequence[int], reason: str, artifacts: Mapping[str, str]
) -> Summary:
    """Everything that is shown of a study; same arguments as `answer`. Missing artefacts leave parts out."""
    document = answer(log, best, front, reason, artifacts)
    rows = tuple(_row(log, trial, best) for trial in log.trials)
    closest = document["closest"]
    summary = Summary(
        answer=document,
        experiment=log.experiment,
        objectives=log.objectives,
        constraints=log.constraints,
        rows=rows,
        winner=None if best is None else rows[best],
        defaults=None if log.baseline is None else rows[log.baseline.number],
        closest=rows[closest["number"]] if closest else None,
        headline="",
    )
    return replace(summary, headline=headline(summary))


def _row(log: TrialLog, first: Trial, best: int | None) -> Row:
    trial = effective(first)
    passed = first.confirmed is None or first.confirmed.get("passed", True) is not False
    feasible = trial.state is State.COMPLETE and passed and log.outcome(trial).feasible
    is_default = log.baseline is not None and first.number == log.baseline.number
    role = "winner" if first.number == best else "defaults" if is_default else ""
    return Row(trial, first, role, feasible, tuple(_marks(first)))


def _marks(trial: Trial) -> list[str]:
    noise, client = trial.artifacts.get("noise"), trial.artifacts.get("client")
    marks = []
    if trial.state is State.STOPPED:
        marks.append("stopped early")
    if isinstance(client, Mapping) and client.get("limited"):
        marks.append("client limited")
    if isinstance(noise, Mapping) and noise.get("marked"):
        marks.append("noisy")
    if trial.confirmed is not None:
        marks.append("confirmed" if trial.confirmed.get("passed", True) else "not confirmed")
    return marks


def _closest(log: TrialLog) -> Trial | None:
    """The trial that comes nearest to holding every constraint; None where none was completed."""
    complete = [t for t in log.trials if t.state is State.COMPLETE]
    return min(map(effective, complete), key=lambda t: (log.outcome(t).order, t.number), default=None)


def record(trial: Trial) -> dict[str, Any]:
    """One trial as in the JSON documents; strict JSON."""
    found: dict[str, Any] = _clean(_fields(trial))
    return found


def _fields(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": str(trial.state),
        "params": dict(trial.params),
        "metrics": dict(trial.metrics),
        "intervals": {name: list(ends[:2]) for name, ends in trial.intervals.items()},
        "failure": trial.failure,
    }


def _cost(log: TrialLog) -> dict[str, Any]:
    """What the search itself took. money: the whole machine at the price table, for as long as it was used."""
    prices, machine = log.experiment.get("prices"), log.experiment.get("fingerprint")
    money = None
    if isinstance(prices, Mapping) and isinstance(machine, Mapping):
        cores, memory = machine.get("cores"), machine.get("memory_bytes")
        n_cores = len(cores) if isinstance(cores, list | tuple) else cores
        per_hour = _product(n_cores, prices.get("core_hour")) + _product(memory, prices.get("gib_hour")) / GIB
        money = log.seconds / 3600 * per_hour
    cpu = [t.timings["cpu_s"] for t in log.trials if finite(t.timings.get("cpu_s"))]
    cpu += [c["cpu_s"] for t in log.trials if (c := t.confirmed or {}) and finite(c.get("cpu_s"))]
    states = Counter(str(t.state) for t in log.trials)
    return {
        "wall_s": log.seconds,
        "cpu_s": sum(cpu) if cpu else None,
        "money": money,
        "currency": str(prices.get("currency") or "") if isinstance(prices, Mapping) else "",
        "trials": {str(state): states[state] for state in State if states[state]},
    }


def _product(a: Any, b: Any) -> float:
    return float(a) * float(b) if finite(a) and finite(b) else 0.0


def _clean(value: Any) -> Any:
    """The value as strict JSON: NaN and infinities become null, tuples lists, other objects text."""
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
