"""The charts of a study, as SVG. Colours come from the page's style sheet, by class."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup

from fettle.core import pareto
from fettle.core.trial import State
from fettle.report.figures import exact, figure, label
from fettle.report.scales import fitted, spread
from fettle.report.summary import Row, Summary, finite
from fettle.report.svg import HEIGHT, WIDTH, Frame, dot, drawing, polyline, tag, tagged, words
from fettle.report.text import plain, sentence

BOX = (58.0, 34.0, WIDTH - 20.0, HEIGHT - 48.0)  # left, top, right, bottom of the area between the axes
_GOALS = {"throughput_rps": "maximize", "latency_p99_s": "minimize", "cost_per_million": "minimize"}
_OTHERS = 3


def tradeoffs(summary: Summary) -> list[tuple[str, Markup]]:
    """(caption, chart) for pairs of metrics: throughput against p99 and cost for serving, else the objectives."""
    goals = {o.metric: o.goal for o in summary.objectives}
    names = list(goals)
    if summary.is_serve:
        goals = {**_GOALS, **goals}
        pairs = [("throughput_rps", "latency_p99_s"), ("throughput_rps", "cost_per_million")]
    else:
        pairs = [(names[0], other) for other in names[1:3]]
    found = []
    for x, y in pairs:
        if len(rows := [r for r in summary.rows if _has(r, x, y)]) > 1:
            caption = f"{sentence(label(y))} against {label(x)}"
            found.append((caption, _tradeoff(summary, rows, (x, goals[x]), (y, goals[y]), caption)))
    return found


def _tradeoff(summary: Summary, rows: list[Row], x: tuple[str, str], y: tuple[str, str], caption: str) -> Markup:
    (xm, x_goal), (ym, y_goal) = x, y
    left, top, right, bottom = BOX
    values = [[r.trial.metrics[m] for r in rows] for m in (xm, ym)]
    limits = [c.upper for c in summary.constraints if c.metric == ym and c.upper is not None]
    heights = [*values[1], *limits]
    wide = max(heights) > 8 * max(min(heights), 1e-300)
    frame = Frame(fitted(values[0], left, right, zero=summary.is_serve), fitted(heights, bottom, top, log=wide))
    feasible = [r for r in rows if r.feasible]
    signs = [1.0 if goal == "minimize" else -1.0 for goal in (x_goal, y_goal)]
    losses = np.array([[s * r.trial.metrics[m] for s, m in zip(signs, (xm, ym), strict=True)] for r in feasible])
    front = [feasible[i] for i in pareto.front(losses.reshape(-1, 2))]
    line = sorted((r.trial.metrics[xm], r.trial.metrics[ym]) for r in front)
    parts = [frame.grid(xm, ym, summary.currency), polyline([frame.at(*p) for p in line], "line front")]
    rows = sorted(rows, key=lambda r: (r.role != "", r.feasible))
    for row in rows:
        hint = tip(row, (xm, ym), summary.currency)
        radius = 6.0 if row.role else 4.0
        parts.append(dot(frame, row.trial.metrics[xm], row.trial.metrics[ym], hint, style(row), radius))
    points = [frame.at(r.trial.metrics[xm], r.trial.metrics[ym]) for r in rows]
    marked = [r for r in rows if r.role]
    labels = [(r.role, *frame.at(r.trial.metrics[xm], r.trial.metrics[ym]), f"mark {r.role}") for r in marked]
    for limit in limits:
        py = frame.y(limit)
        parts.append(tag("line", x1=left, x2=right, y1=py, y2=py, class_="slo"))
        points += [(float(px), py) for px in np.arange(left, right, 12.0)]
        labels.append((f"limit {exact(ym, limit, summary.currency)}", left - 5, py - 10, "mark limit"))
    parts.append(tagged(labels, points, frame.box))
    about = f"{len(rows)} trials, {len(front)} of them on the front. " + "; ".join(
        f"{r.role}: {tip(r, (xm, ym), summary.currency)}" for r in marked
    )
    return drawing(caption, about, *parts)


def latency_curves(summary: Summary) -> Markup | None:
    """p99 and p50 against the offered rate: winner, defaults and the next best; log y, with the SLO."""
    chosen = [r for r in (summary.winner or summary.closest, summary.defaults) if r is not None]
    numbers = {r.number for r in chosen}
    pool = summary.ranked or [r for r in summary.rows if r.trial.state is State.COMPLETE]
    chosen += [r for r in pool if r.number not in numbers][:_OTHERS]
    curves = [(r, _curve(r, "p99_s")) for r in {r.number: r for r in chosen}.values() if len(_curve(r, "p99_s")) > 1]
    if not curves:
        return None
    medians = [(r, _curve(r, "p50_s")) for r, _ in curves if r.role and len(_curve(r, "p50_s")) > 1]
    limits = {k: v for k, v in _limits(summary).items() if finite(v)}
    every = [p for _, c in (*curves, *medians) for p in c]
    ceiling = max(20 * max(limits.values(), default=math.inf), 10 * float(np.median([y for _, y in every])))
    left, top, _, bottom = BOX
    right = WIDTH - 92.0
    x = fitted([p[0] for p in every], left, right, zero=True)
    frame = Frame(x, fitted([*(min(p[1], ceiling) for p in every), *limits.values()], bottom, top, log=True))
    parts = [frame.grid("rate_rps", "latency_s")]
    for limit_s in limits.values():
        y = frame.y(limit_s)
        parts.append(tag("line", x1=left, x2=right, y1=y, y2=y, class_="slo"))
    ends = [
        (f"SLO {plain(k, limit=12)} {exact('p_s', v)}", right - 3, frame.y(v), "mark limit") for k, v in limits.items()
    ]
    covered: list[tuple[float, float]] = []
    for rows, kind, line in ((medians, "p50", "line dashed"), (curves, "p99", "line")):
        for row, curve in reversed(rows):
            points = [frame.at(rate, min(y, ceiling)) for rate, y in curve]
            covered += _filled(points)
            parts.append(polyline(points, f"{line} {row.role or 'other'}"))
            text = f"{row.role or f'trial {row.number}'} {kind}"
            parts += [_probe_dot(frame, p, ceiling, f"{text}: ", row.role or "other") for p in curve]
            ends.append((text, *points[-1], f"mark {row.role or 'other'}"))
    near = [e for e in ends if e[1] > right - 0.4 * (right - left)]
    parts.append(tagged([e for e in ends if e not in near], covered, frame.box))
    ys = spread([e[2] + 4 for e in near], 14.0, top, bottom)
    for (text, px, py, class_), y in zip(near, ys, strict=True):
        parts.append(tag("line", x1=px + 3, y1=py, x2=right + 6, y2=y - 4, class_="leader"))
        parts.append(words(text, right + 9, y, class_=class_))
    about = f"{len(curves)} configurations; " + ", ".join(f"SLO {k} {exact('p_s', v)}" for k, v in limits.items())
    if any(y > ceiling for _, y in every):
        about += f"; figures above {figure('p_s', ceiling)} are drawn there"
    return drawing("Latency against offered rate", about, *parts)


def _limits(summary: Summary) -> Mapping[str, Any]:
    found = summary.problem.get("slo")
    return found if isinstance(found, Mapping) else {}


def _curve(row: Row, key: str) -> list[tuple[float, float]]:
    return sorted((float(p["rate"]), float(p[key])) for p in row.probes if finite(p.get(key)) and p[key] > 0)


def _filled(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of a line, every few pixels: what a label must not cover."""
    steps = np.linspace(0.0, 1.0, 12)
    return [
        (a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])) for a, b in pairwise(points) for t in map(float, steps)
    ]


def _probe_dot(frame: Frame, point: tuple[float, float], ceiling: float, prefix: str, class_: str) -> Markup:
    tip = f"{prefix}{figure('p_s', point[1])} at {figure('rate_rps', point[0])}"
    return dot(frame, point[0], min(point[1], ceiling), tip, class_, 2.5)


def _has(row: Row, *metrics: str) -> bool:
    return row.trial.state is State.COMPLETE and all(finite(row.trial.metrics.get(m)) for m in metrics)


def style(row: Row) -> str:
    return f"{row.role or 'plain'}{'' if row.feasible else ' hollow'}"


def tip(row: Row, metrics: tuple[str, ...], currency: str) -> str:
    shown = ", ".join(f"{label(m)} {figure(m, row.trial.metrics.get(m), currency)}" for m in metrics)
    notes = [row.role] * bool(row.role) + [*row.marks] + ["infeasible"] * (not row.feasible)
    return f"trial {row.number}{' (' + ', '.join(notes) + ')' if notes else ''}: {shown}"
