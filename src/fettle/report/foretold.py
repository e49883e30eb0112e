"""What algorithms expected of each trial against what was measured: records, a sentence, a table and a chart."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fettle.core.trial import Objective, State, Trial, TrialLog
from fettle.report.figures import NONE, figure, label, with_interval
from fettle.report.scales import Scale, fitted
from fettle.report.summary import finite
from fettle.report.svg import HEIGHT, WIDTH, Frame, dot, drawing, titled
from fettle.report.tables import Cell, Table

_WIDE = 8.0  # times the smallest figure, above which a scale is logarithmic


def foretold(log: TrialLog) -> list[dict[str, Any]]:
    """For each objective of which anything was expected: {"metric", "trials", "inside", "of", "text"}.

    trials: every ended one, {"number", "expected", "low", "high", "measured", "bound", "inside"}, null where there is
    nothing; bound says that the measured figure is one (the trial was stopped, or the load generator was the limit).
    inside, of: how many exact figures lie in their interval, of how many that have one.
    """
    ended = [t for t in log.trials if t.state.finished]
    return [found for o in log.objectives if (found := _of(log, o, ended)) is not None]


def _of(log: TrialLog, objective: Objective, ended: Sequence[Trial]) -> dict[str, Any] | None:
    rows = [_row(log, objective, trial) for trial in ended]
    if all(row["expected"] is None for row in rows):
        return None
    judged = [row["inside"] for row in rows if row["inside"] is not None]
    name, first = label(objective.metric), sum(row["expected"] is None for row in rows)
    said = f"Measured {name} lies inside the expected 95 % interval in {sum(judged)} of {len(judged)} trials"
    if not judged:
        said = f"No trial with an exact figure of {name} had one expected"
    bounds = sum(row["expected"] is not None and row["bound"] for row in rows)
    rest = [f"of {first} trial{'s' * (first != 1)} nothing was expected"] * bool(first)
    rest += [f"{bounds} gave only a bound"] * bool(bounds)
    return {
        "metric": objective.metric,
        "trials": rows,
        "inside": sum(judged),
        "of": len(judged),
        "text": f"{'; '.join([said, *rest])}.",
    }


def _row(log: TrialLog, objective: Objective, trial: Trial) -> dict[str, Any]:
    ends = (trial.predicted or {}).get(objective.metric)
    known = isinstance(ends, list | tuple) and len(ends) == 3 and all(map(finite, ends))
    expected, low, high = map(float, ends) if known and ends else (None, None, None)
    measured = trial.metrics.get(objective.metric) if trial.state is not State.FAILED else None
    measured = float(measured) if measured is not None and finite(measured) else None
    bound = measured is not None and log.outcome(trial).censored[log.objectives.index(objective)] != 0
    inside = None
    if measured is not None and low is not None and high is not None and not bound:
        inside = low <= measured <= high
    row = {"number": trial.number, "expected": expected, "low": low, "high": high, "measured": measured}
    return {**row, "bound": bound, "inside": inside}


def table(found: Mapping[str, Any], currency: str = "") -> Table:
    """Every trial, with what was expected of it."""
    metric, rows = found["metric"], []
    for row in found["trials"]:
        verdict = {True: "inside", False: "outside", None: "a bound" if row["bound"] else NONE}[row["inside"]]
        expected = with_interval(metric, row["expected"], (row["low"], row["high"]), currency)
        measured = Cell(figure(metric, row["measured"], currency), row["measured"], strong=True)
        number = Cell(str(row["number"]), row["number"])
        rows.append((number, Cell(expected, row["expected"]), measured, Cell(verdict)))
    titles = (("trial", False), ("expected, with its 95 % interval", True), ("measured", True), ("verdict", False))
    return Table(f"Expected and measured {label(metric)}", titles, tuple(rows))


def chart(found: Mapping[str, Any], currency: str = "") -> Markup:
    """A line from low to high for what was expected of each trial, and a dot for what came out."""
    metric, rows = found["metric"], found["trials"]
    values = [row[key] for row in rows for key in ("low", "high", "measured") if row[key] is not None]
    positive = [v for v in values if v > 0]
    wide = len(positive) == len(values) and max(positive) > _WIDE * min(positive)
    last = max(row["number"] for row in rows)
    frame = Frame(Scale(-0.5, last + 0.5, 58.0, WIDTH - 20.0), fitted(values, HEIGHT - 48.0, 34.0, log=wide))
    parts = [frame.grid("trial", metric, currency)]
    for row in rows:
        if row["low"] is not None:
            x, ends = frame.x(row["number"]), [frame.y(row[key]) for key in ("low", "high")]
            hint = f"trial {row['number']}: {figure(metric, row['expected'], currency)} was expected"
            parts.append(titled("line", hint, x1=x, x2=x, y1=ends[0], y2=ends[1], class_="expected"))
            y = frame.y(row["expected"])
            parts.append(titled("line", hint, x1=x - 4, x2=x + 4, y1=y, y2=y, class_="whisker"))
    for row in rows:
        if row["measured"] is not None:
            class_ = {True: "winner", False: "defaults", None: "plain hollow" if row["bound"] else "plain"}[
                row["inside"]
            ]
            hint = f"trial {row['number']}: {'a bound, ' * row['bound']}{figure(metric, row['measured'], currency)}"
            parts.append(dot(frame, row["number"], row["measured"], hint, class_))
    return drawing(f"Expected and measured {label(metric)}", found["text"], *parts)
