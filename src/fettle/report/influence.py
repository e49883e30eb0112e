"""Importances, curves and predictions of an `explanation`, as charts and as tables."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from fettle.report.figures import figure, label
from fettle.report.scales import Scale, fitted
from fettle.report.svg import WIDTH, Frame, drawing, polyline, tag, titled, words
from fettle.report.tables import Cell, Table
from fettle.report.text import plain, sentence, shorten
from fettle.surrogates.whatif import FAILURE

_ROW, _SHOWN = 26.0, 10
_CURVE = (320.0, 230.0)


def bars(goal: Mapping[str, Any]) -> Markup:
    """The strongest parameters: in full colour what each explains alone, pale what it does with its interactions."""
    shown = goal["parameters"][:_SHOWN]
    left, right, top = 150.0, WIDTH - 52.0, 8.0
    scale = Scale(0.0, max([0.05, *(p["total"]["high"] for p in shown)]), left, right)
    parts = []
    for i, p in enumerate(shown):
        y = top + i * _ROW
        alone, total = p["alone"], p["total"]
        hint = f"{plain(p['name'], limit=80)}: {_interval(alone)} alone, {_interval(total)} with its interactions"
        parts.append(words(shorten(plain(p["name"]), 22), left - 8, y + 15, anchor="end"))
        for share, class_ in ((total, "bar pale"), (alone, "bar")):
            width = max(scale(share["value"]) - left, 0.0)
            parts.append(titled("rect", hint, x=left, y=y + 3, width=width, height=_ROW - 10, class_=class_))
        middle = y + 3 + (_ROW - 10) / 2
        ends = scale(total["low"]), scale(total["high"])
        parts.append(tag("line", x1=ends[0], x2=ends[1], y1=middle, y2=middle, class_="whisker"))
        parts.append(words(_percent(total["value"]), max(ends) + 6, y + 15, class_="tick"))
    bottom = top + len(shown) * _ROW
    parts.append(tag("line", x1=left, x2=left, y1=top, y2=bottom, class_="axis"))
    about = "; ".join(f"{plain(p['name'], limit=80)} {_interval(p['total'])}" for p in shown)
    title = f"Importance of the parameters for {label(goal['metric'])}"
    return drawing(title, about, *parts, height=bottom + 8)


def dependence(curve: Mapping[str, Any], metric: str, currency: str = "") -> Markup:
    """The mean of the metric by one parameter, with its 95 % band."""
    width, height = _CURVE
    xs, mean, low, high = (curve[key] for key in ("values", "mean", "low", "high"))
    x = Scale(min(xs), max(xs), 50.0, width - 12.0, log=bool(curve["log"]))
    frame = Frame(x, fitted([*low, *high], height - 46.0, 30.0))
    ends = [frame.at(a, b) for a, b in zip(xs, low, strict=True)]
    ends += [frame.at(a, b) for a, b in zip(reversed(xs), reversed(high), strict=True)]
    band = tag("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in ends), class_="band")
    line = polyline([frame.at(a, b) for a, b in zip(xs, mean, strict=True)], "line winner")
    spans = [f"{figure(metric, mean[i], currency)} at {xs[i]:.4g}" for i in (0, -1)]
    about = f"The mean over all other parameters goes from {spans[0]} to {spans[1]}; the band is its 95 % interval."
    title = f"{sentence(label(metric))} by {plain(curve['name'], limit=80)}"
    grid = frame.grid(curve["name"], metric, currency, n=4)
    return drawing(title, about, grid, band, line, width=width, height=height)


def parameters(goal: Mapping[str, Any]) -> Table:
    """Every parameter's shares of the variance."""
    rows = [
        (
            Cell(plain(p["name"], limit=80)),
            *(Cell(_interval(p[key]), p[key]["value"], key == "total") for key in ("alone", "total")),
            Cell(_percent(p["active"]), p["active"]),
        )
        for p in goal["parameters"]
    ]
    titles = (("parameter", False), ("alone", True), ("with interactions", True), ("exists in", True))
    return Table(f"What explains {label(goal['metric'])}: shares of its variance over the space", titles, tuple(rows))


def interactions(goal: Mapping[str, Any]) -> Table:
    rows = [
        (Cell(" and ".join(plain(n, limit=80) for n in pair["names"])), Cell(_interval(pair), pair["value"]))
        for pair in goal["interactions"]
    ]
    return Table("What two explain only together", (("parameters", False), ("share", True)), tuple(rows))


def prediction(found: Mapping[str, Any], currency: str = "") -> Table:
    """One more measurement at the given params."""
    rows = []
    for metric, e in found["metrics"].items():
        name = "chance of failure" if metric == FAILURE else label(metric)
        figures = [Cell(figure(metric, e[key], currency), e[key], key == "value") for key in ("value", "low", "high")]
        rows.append((Cell(name), *figures, Cell(str(e["n"]), e["n"])))
    titles = (("predicted", False), ("value", True), ("95 % low", True), ("high", True), ("trials", True))
    return Table("What one more measurement would give", titles, tuple(rows))


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g} %" if share >= 0.001 else "0 %"


def _interval(share: Mapping[str, float]) -> str:
    """41.3 [38.0, 44.1] %."""
    value, low, high = (f"{100.0 * share[key]:.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}] %"
