"""Charts of the search itself: its progress, and how each knob goes with the objective."""

import math
from dataclasses import dataclass

from markupsafe import Markup

from fettle.core.trial import State
from fettle.report.charts import BOX, style, tip
from fettle.report.figures import figure, label
from fettle.report.knobs import Effect
from fettle.report.scales import Scale, axis, fitted
from fettle.report.summary import Row, Summary, finite
from fettle.report.svg import CHARACTER, Frame, dot, drawing, polyline, tag, titled, words
from fettle.report.text import plain, sentence, shorten

KNOB = (250.0, 190.0)


@dataclass(frozen=True, slots=True)
class _Course:
    """unit: of the time axis. points: (time, figure, trial); failed: (time, trial); best: (time, figure)."""

    unit: str
    end: float
    points: list[tuple[float, float, Row]]
    failed: list[tuple[float, Row]]
    best: list[tuple[float, float]]


def progress(summary: Summary) -> Markup | None:
    """The first objective of each trial over the time spent, and the best feasible one so far."""
    if not summary.objectives:
        return None
    objective = summary.objectives[0]
    course = _course(summary)
    if len(course.points) < 2:
        return None
    left, top, right, bottom = BOX
    values = [v for _, v, _ in course.points]
    wide = min(values) > 0 and max(values) > 8 * min(values)
    frame = Frame(Scale(0.0, course.end * 1.02, left, right), fitted(values, bottom, top, log=wide))
    path: list[tuple[float, float]] = []
    for t, v in course.best:
        px, py = frame.at(t, v)
        path += [(px, path[-1][1]), (px, py)] if path else [(px, py)]
    if path:
        path.append((frame.x(course.end), path[-1][1]))
    parts = [frame.grid(course.unit, objective.metric, summary.currency), polyline(path, "line winner")]
    parts += [dot(frame, t, v, tip(r, (objective.metric,), summary.currency), style(r)) for t, v, r in course.points]
    for t, row in course.failed:
        cross = f"M{frame.x(t) - 3:.1f},{bottom - 9:.1f}l6,6m0,-6l-6,6"
        parts.append(titled("path", f"trial {row.number} failed: {plain(row.trial.failure)}", d=cross, class_="cross"))
    about = f"{len(values)} trials with a figure, {len(course.failed)} without (crosses); the line is the best so far."
    return drawing(f"{sentence(label(objective.metric))} over the search", about, *parts)


def _course(summary: Summary) -> _Course:
    objective = summary.objectives[0]
    ended = [r for r in summary.rows if r.trial.state.finished]
    took = [r.trial.timings.get("wall_s") for r in ended]
    seconds = [float(t) for t in took if t is not None and finite(t)]
    timed = len(seconds) == len(ended) and sum(seconds) > 0
    per = 60.0 if timed and sum(seconds) > 300 else 1.0
    unit = "trials" if not timed else "time in trials (min)" if per == 60.0 else "time in trials (s)"
    clock, course = 0.0, _Course(unit, (sum(seconds) if timed else len(ended)) / per, [], [], [])
    for i, row in enumerate(ended):
        clock += (seconds[i] if timed else 1.0) / per
        got = row.first.metrics.get(objective.metric)
        if row.trial.state is State.FAILED or got is None or not finite(got):
            course.failed.append((clock, row))
            continue
        course.points.append((clock, got, row))
        held = row.trial.state is State.COMPLETE and _held(summary, row)
        if held and (not course.best or objective.sign * got < objective.sign * course.best[-1][1]):
            course.best.append((clock, got))
    return course


def _held(summary: Summary, row: Row) -> bool:
    """Feasible by what was known then: its first figures."""
    metrics = row.first.metrics
    return all(c.metric in metrics and c.violation(metrics[c.metric]) <= 0 for c in summary.constraints)


def knob(effect: Effect, metric: str, summary: Summary) -> Markup:
    """One small chart: the objective by the knob's value, a dot per trial and a bar at each median."""
    width, height = KNOB
    left, top, right, bottom = 46.0, 30.0, width - 8.0, height - 30.0
    ys = [y for _, y, _, _ in effect.points]
    wide = min(ys) > 0 and max(ys) > 8 * min(ys)
    y = fitted(ys, bottom, top, log=wide)
    step = (right - left) / len(effect.groups)
    frame = Frame(Scale(0.0, 1.0, left, right), y)
    title, ticks = axis(metric, y, summary.currency, 4)
    parts = [tag("line", x1=left, x2=right, y1=y(t), y2=y(t), class_="grid") for t, _ in ticks]
    parts += [words(text, left - 6, y(t) + 4, anchor="end", class_="tick") for t, text in ticks]
    parts.append(words(title, 2.0, 14.0, class_="name"))
    seen: dict[int, int] = {}
    for group, value, number, exactly in effect.points:
        nth = seen[group] = seen.get(group, 0) + 1
        x = left + step * (group + 0.5) + step * 0.3 * (((nth * 0.618) % 1.0) - 0.5)
        row = summary.rows[number]
        hint = f"trial {number}: {'' if exactly else 'a bound, '}{figure(metric, value, summary.currency)}"
        class_ = "dot " + (style(row) if row.role else "plain" if exactly else "hollow")
        parts.append(titled("circle", hint, cx=x, cy=frame.y(value), r=4.0 if row.role else 3.0, class_=class_))
    for group, (name, median) in enumerate(zip(effect.groups, effect.medians, strict=True)):
        x = left + step * (group + 0.5)
        if math.isfinite(median):
            parts.append(tag("line", x1=x - step * 0.3, x2=x + step * 0.3, y1=y(median), y2=y(median), class_="median"))
        text = shorten(name, max(3, int((step - 5.0) / CHARACTER)))
        parts.append(words(text, x, bottom + 18, anchor="middle", class_="tick"))
    share = f"{100 * effect.share:.0f} % of the variance" if math.isfinite(effect.share) else "too few trials"
    return drawing(f"Effect of {effect.name}", f"{share} lies between its values.", *parts, width=width, height=height)
