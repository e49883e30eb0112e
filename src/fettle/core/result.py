"""From what an evaluator or a user gives to the payload of a `told` event."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fettle.core.errors import InvalidInput, TrialFailure, TrialStopped
from fettle.core.trial import FAILURES, Estimate, Objective, State


def result(
    metrics: Mapping[str, float | Estimate], *, error: str = "", failure: str = "", state: State = State.COMPLETE
) -> dict[str, Any]:
    """The payload of a `told` event. Figures that are NaN or infinite make it a failure of class 'nan'.

    Raises InvalidInput for unknown failure classes and for metrics that are no mapping to numbers.
    """
    if failure and failure not in FAILURES:
        raise InvalidInput(f"unknown failure class {failure!r}", f"known: {', '.join(FAILURES)}")
    if not isinstance(metrics, Mapping):
        raise InvalidInput(
            f"expected metrics as a mapping of name to number, got {metrics!r:.200}", "return {'loss': 0.3}"
        )
    values: dict[str, float] = {}
    intervals: dict[str, list[float | None]] = {}
    broken = []
    for name, given in metrics.items():
        value = _number(name, given.value if isinstance(given, Estimate) else given)
        if not math.isfinite(value):
            broken.append(name)
            continue
        values[name] = value
        if isinstance(given, Estimate):
            low, high = float(given.low), float(given.high)
            if low == low and high == high:  # NaN: the interval is not known; infinite: the value is a bound
                intervals[name] = [*(end if math.isfinite(end) else None for end in (low, high)), int(given.n)]
    if broken and not failure:
        failure, error = "nan", error or f"not a finite number: {', '.join(broken)}"
    failure = failure or ("other" if error else "")
    payload: dict[str, Any] = {"state": str(State.FAILED if failure else state), "metrics": values}
    payload.update({k: v for k, v in (("intervals", intervals), ("failure", failure), ("error", error)) if v})
    return payload


def reported(fidelity: float, metrics: Mapping[str, float]) -> dict[str, Any]:
    """The payload of a `reported` event; figures that are not finite are left out.

    Raises InvalidInput for a fidelity that is no finite number and for metrics that are no mapping to numbers.
    """
    level = _number("fidelity", fidelity)
    if not math.isfinite(level):
        raise InvalidInput(f"expected a finite fidelity, got {fidelity!r}", "report(fidelity=3, metrics={'loss': 0.4})")
    if not isinstance(metrics, Mapping):
        raise InvalidInput(f"expected metrics as a mapping, got {metrics!r:.200}", "report {'loss': 0.4}")
    values = {name: _number(name, given) for name, given in metrics.items()}
    return {"fidelity": level, "metrics": {name: v for name, v in values.items() if math.isfinite(v)}}


def _number(name: Any, given: Any) -> float:
    if not isinstance(name, str):
        raise InvalidInput(f"expected names of metrics as strings, got {name!r:.200}", "return {'loss': 0.3}")
    try:
        if not isinstance(given, str | bytes):
            return float(given)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidInput(f"metric {name!r}: expected a number, got {given!r:.200}", "tell numbers only")


def missing(payload: Mapping[str, Any], objectives: Sequence[Objective]) -> list[str]:
    """Objectives that a completed trial's payload lacks."""
    if payload["state"] != State.COMPLETE:
        return []
    return [o.metric for o in objectives if o.metric not in payload["metrics"]]


def from_error(error: Exception) -> dict[str, Any]:
    """The payload for an exception that ended an evaluation."""
    if isinstance(error, TrialStopped):
        return {**result(error.metrics, state=State.STOPPED), "error": str(error)}
    if isinstance(error, TrialFailure):
        finite = {k: v for k, v in error.metrics.items() if math.isfinite(v.value if isinstance(v, Estimate) else v)}
        failure = error.failure if error.failure in FAILURES else "other"
        payload = result(finite, error=str(error), failure=failure)
        return {**payload, "artifacts": {"log": error.log}} if error.log else payload
    failure = "oom" if isinstance(error, MemoryError) else "other"
    return result({}, error=f"{type(error).__name__}: {error}"[:2000], failure=failure)
