"""How much the winner gains over the defaults, in one line that claims no more than was measured."""

import math
from typing import Any

from fettle.core.trial import Objective, Trial
from fettle.report.figures import label, number


def gain(winner: Trial | None, baseline: Trial | None, objective: Objective | None) -> dict[str, Any] | None:
    """{"metric", "value", "low", "high", "shown", "text"}: the ratio winner / defaults with its 95 % interval.

    The paired ratio of the confirmation where there is one; else the ratio of the two figures, whose interval
    [low / high, high / low] is wider than 95 %. None where there is nothing to compare.
    """
    if winner is None or baseline is None or objective is None:
        return None
    metric = objective.metric
    if winner.number == baseline.number:
        return _record(metric, 1.0, None, None, False, "no gain shown: the defaults are the best that was found")
    paired = (winner.confirmed or {}).get("ratio") or {}
    if _positive(paired.get("value")):
        return _worded(paired.get("metric", metric), paired["value"], paired.get("low"), paired.get("high"), objective)
    ours, theirs = winner.metrics.get(metric), baseline.metrics.get(metric)
    if not (_positive(ours) and _positive(theirs)):
        return None
    low, high = _ends(winner, baseline, metric)
    return _worded(metric, float(ours or 0) / float(theirs or 1), low, high, objective)


def _ends(winner: Trial, baseline: Trial, metric: str) -> tuple[float | None, float | None]:
    ours, theirs = winner.intervals.get(metric), baseline.intervals.get(metric)
    if not ours or not theirs or not (ours[0] > 0 and theirs[0] > 0):
        return None, None
    low, high = ours[0] / theirs[1], ours[1] / theirs[0]
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def _worded(metric: str, ratio: float, low: Any, high: Any, objective: Objective) -> dict[str, Any]:
    what = label(metric)
    better_is_less = objective.goal == "minimize"
    if not (_positive(low) and _positive(high)):
        text = f"no gain shown: {number(ratio)}x the {what} of the defaults, but too few figures for an interval"
        return _record(metric, ratio, None, None, False, text)
    ends = f"95 % interval {number(low)} to {number(high)}"
    if low <= 1.0 <= high:
        text = f"no gain shown: {number(ratio)}x the {what} of the defaults, and the {ends} contains 1"
        return _record(metric, ratio, low, high, False, text)
    if (ratio < 1.0) != better_is_less:
        text = f"no gain shown: worse than the defaults, {number(ratio)}x their {what} ({ends})"
        return _record(metric, ratio, low, high, False, text)
    if better_is_less:
        less = f"{100.0 * (1.0 - ratio):.3g}"
        text = f"{less} % lower {what} than the defaults (ratio {number(ratio)}, {ends})"
    else:
        text = f"{number(ratio)}x the {what} of the defaults ({ends})"
    return _record(metric, ratio, low, high, True, text)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _record(metric: str, value: float, low: float | None, high: float | None, shown: bool, text: str) -> dict[str, Any]:
    return {"metric": metric, "value": value, "low": low, "high": high, "shown": shown, "text": text}
