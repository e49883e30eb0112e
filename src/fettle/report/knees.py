"""Where the curve of the first objective turns for each numeric parameter, all others held at the best trial's values.

By the surrogate: functions are drawn from it, and the gain of one value over another is looked at within each, so that
what two values have in common does not count as doubt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fettle.core.space import Params, Space
from fettle.core.trial import Objective
from fettle.report.figures import label, setting
from fettle.report.summary import finite
from fettle.report.text import plain
from fettle.surrogates.response import SURE, Response
from fettle.surrogates.threads import on_one_thread

NOTHING, NOISE = 0.02, 0.05  # of the figure at the best trial: a gain up to that is none; with much noise, up to that
DOUBT = 0.15  # and up to that may be hidden where it is said to be none, but not for sure
_DRAWN = 200  # functions
_GRID = 9  # values of a parameter that has more
_SEED = 0x4E4E
_EACH = {"workers": "worker", "threads": "thread", "cores": "core"}


def is_number(space: Space, name: str) -> bool:
    """Whether the values of a parameter are numbers."""
    column = space.columns[space.names.index(name)]
    if column.kind == "ordinal":
        return all(finite(value) for value in column.domain.values())
    return column.kind in ("float", "int")


@on_one_thread
def knees(response: Response | None, space: Space, objective: Objective, best: Params) -> list[dict[str, Any]]:
    """One row per numeric parameter of `best`:

    {"name", "at", "verdict", "sure", "value", "next", "gain": {"value", "low", "high"}, "ends", "text"}

    verdict: "turns" (beyond `value` nothing gains more than 2 %, or than the noise of one measurement, 5 % at most;
    not sure where the 95 % interval goes further, up to 15 %), "rises" (the last step still gains), "fixed" (the other
    parameters of `best` allow one value only), "unknown" (the trials do not tell). gain: of the step from `value` to
    `next`, relative to the figure at `best`, with its 95 % interval; null where nothing is modelled. ends: whether the
    last value is the end of its range, rather than what the other parameters allow.
    """
    if not space.contains(best):
        return []
    found = []
    for name in best:
        if not is_number(space, name):
            continue
        values = _values(space, name, best)
        row = {"name": name, "at": best[name], "ends": _ends(space, name, values[-1])}
        if len(values) > 1:
            row |= _turn(response, space, objective, best, name, values)
        else:
            row |= {"verdict": "fixed", "value": values[0], "next": values[0], "gain": None, "sure": True}
        if space.columns[space.names.index(name)].size != 1:
            found.append({**row, "text": _text(row, objective)})
    return found


def _values(space: Space, name: str, best: Params) -> list[Any]:
    """In order: all that the constraints allow, or some of them, evenly on the parameter's own scale."""
    column = space.columns[space.names.index(name)]
    if column.size is not None and column.size <= 4 * _GRID:
        every = list(column.domain.values())
    else:
        every = [*column.domain.decode_many(np.linspace(0.0, 1.0, _GRID)), best[name]]
    return sorted({v for v in every if space.contains({**best, name: v})})


def _ends(space: Space, name: str, last: Any) -> bool:
    domain = space.columns[space.names.index(name)].domain
    return bool(np.isclose(domain.encode(last), max(domain.encode_many(domain.decode_many(np.array([0.0, 1.0]))))))


def _turn(
    response: Response | None, space: Space, goal: Objective, best: Params, name: str, values: Sequence[Any]
) -> dict[str, Any]:
    """The smallest value beyond which none gains by the mean; for sure, where 97.5 % of the functions drawn say so."""
    last = {"value": values[-2], "next": values[-1]}
    nothing = {"verdict": "unknown", "gain": None, **last, "sure": False}
    if response is None or not response.explains:
        return nothing
    U = space.encode([{**best, name: v} for v in [*values, best[name]]])
    drawn = response.functions(_DRAWN, np.random.default_rng(_SEED))(U)
    centre = abs(float(drawn[-1, 0]))
    if not centre:
        return nothing
    losses = goal.sign * drawn[:-1] / centre
    enough = max(NOTHING, min(NOISE, _noise(response, U[-1:]) / centre))
    for i in range(len(values) - 1):
        ahead = losses[i] - losses[i + 1 :]  # (later values, functions): what they gain
        if ahead[:, 0].max() <= enough:
            most = float(np.quantile(ahead[:, 1:], 0.975, axis=1).max())
            verdict = "turns" if most <= DOUBT else "unknown"
            step = {"value": values[i], "next": values[i + 1], "gain": _gain(ahead[0])}
            return {"verdict": verdict, **step, "sure": most <= enough}
    gain = _gain(losses[-2] - losses[-1])
    rises = gain["low"] > 0.0 and gain["value"] > NOTHING
    return {"verdict": "rises" if rises else "unknown", "gain": gain, **last, "sure": rises}


def _noise(response: Response, Z: np.ndarray) -> float:
    """Standard deviation of one measurement about the function, in units of the metric."""
    function, next_one = (np.ptp(response.metric(Z, once_more=more)[1:, 0]) / (2.0 * SURE) for more in (False, True))
    return float(np.sqrt(max(0.0, next_one**2 - function**2)))


def _gain(values: np.ndarray) -> dict[str, float]:
    """values (1 + n,): by the mean, then by functions drawn."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    value = float(values[0])
    return {"value": value, "low": min(float(low), value), "high": max(float(high), value)}


def _text(row: Mapping[str, Any], objective: Objective) -> str:
    metric, gain = label(objective.metric), row["gain"]
    name, value, following = plain(row["name"], limit=80), *(setting(row["name"], row[k]) for k in ("value", "next"))
    if row["verdict"] == "fixed":
        return f"{name}: only {value} goes with the other settings."
    if gain is None:
        return f"{name}: too few trials to say where its curve turns, or nothing explains them."
    span = f"{100 * gain['low']:+.0f} % to {100 * gain['high']:+.0f} %".replace("-", "\u2212")
    if row["verdict"] == "turns":
        each = _EACH.get(row["name"])
        step = f"{name} {value}, a step to {following}"
        if each:
            step = f"{value} {each}{'s' * (row['value'] != 1)} a further one"
        what = "loses" if gain["high"] < 0.0 else "buys nothing" if row["sure"] else "probably buys nothing"
        return f"Beyond {step} {what} (gain in {metric} {span})."
    if row["verdict"] == "rises":
        where = "the most that the other settings allow"
        if row["ends"]:
            where = f"the end of its range: {'more cores may help' if name == 'cores' else 'widen it'}"
        return f"{name}: {metric} still gains at {following} ({span} over {value}), {where}."
    return f"{name}: too few trials to say; {following} instead of {value} would gain {span} in {metric}."
