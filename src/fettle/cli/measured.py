"""What `fettle measure` prints: each measurement, and whether the study's prediction held."""

from collections.abc import Sequence
from typing import Any

from fettle.api import Result
from fettle.cli.printing import stdout_console
from fettle.report.figures import figure
from fettle.report.text import plain

_JUDGED = 5  # measurements: with fewer, chance alone may break a 95 % interval
_LEAST_RATIO = 0.8


def document(result: Result, trial: int | None, payloads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """schema 1: every measurement, and per predicted metric its interval, how many lay inside, and whether the
    prediction holds: at least 8 in 10, None with too few to tell."""
    known = result.study.log.trials[trial] if trial is not None else None
    predicted = (known.confirmed or {}).get("prediction", {}) if known is not None else {}
    held = {}
    for metric, (low, high) in predicted.items():
        values = [p["metrics"][metric] for p in payloads if metric in p["metrics"] and p["state"] == "complete"]
        inside = sum(low <= value <= high for value in values)
        holds = inside >= _LEAST_RATIO * len(payloads) if len(payloads) >= _JUDGED else None
        held[metric] = {"low": low, "high": high, "inside": inside, "of": len(payloads), "holds": holds}
    keys = ("state", "metrics", "intervals", "failure", "error")
    return {
        "schema": 1,
        "study": result.study.name,
        "trial": trial,
        "measurements": [{**{k: p.get(k) for k in keys if p.get(k)}, "foreign_ratio": _foreign(p)} for p in payloads],
        "prediction": held,
    }


def show(found: dict[str, Any]) -> None:
    console = stdout_console()
    for i, measured in enumerate(found["measurements"], 1):
        if measured["state"] != "complete":
            console.print(f"{i:3}  {measured['state']}: {plain(measured.get('error', ''))}")
            continue
        shown = ("throughput_rps", "latency_p50_s", "latency_p99_s", "cost_per_million")
        parts = [figure(m, measured["metrics"][m]) for m in shown if m in measured["metrics"]]
        foreign = measured["foreign_ratio"]
        noise = "" if foreign is None else f"  ({foreign:.0%} foreign CPU)"
        console.print(f"{i:3}  {'  '.join(parts)}{noise}")
    for metric, held in found["prediction"].items():
        ends = f"{figure(metric, held['low'])} to {figure(metric, held['high'])}"
        console.print(f"{held['inside']} of {held['of']} inside the predicted {plain(metric)} of {ends}")


def _foreign(payload: dict[str, Any]) -> float | None:
    noise = (payload.get("artifacts") or {}).get("noise") or {}
    value = noise.get("foreign_ratio")
    return None if value is None else float(value)
