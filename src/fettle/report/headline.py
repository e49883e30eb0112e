"""The answer of a study in one sentence."""

from collections import Counter

from fettle.core.trial import Constraint, State
from fettle.report.figures import exact, label, with_interval
from fettle.report.summary import Row, Summary
from fettle.report.text import joined, plain


def headline(summary: Summary) -> str:
    """What was found and how much it gains, or why there is no answer."""
    if summary.winner is not None:
        return _found(summary, summary.winner)
    if not summary.rows:
        return "No trial has been run."
    if summary.closest is None:
        return _nothing_completed(summary)
    return _infeasible(summary, summary.closest)


def bound(constraint: Constraint, currency: str = "") -> str:
    """'p99 latency at most 50 ms'."""
    limit = constraint.upper if constraint.upper is not None else constraint.lower
    word = "at most" if constraint.upper is not None else "at least"
    return f"{label(constraint.metric)} {word} {exact(constraint.metric, limit, currency)}"


def _found(summary: Summary, winner: Row) -> str:
    metrics, ends = winner.trial.metrics, winner.trial.intervals
    money = summary.currency
    gained = summary.answer.get("gain")
    tail = f": {gained['text']}." if gained else "."
    if summary.is_serve and "throughput_rps" in metrics:
        model = summary.problem.get("model") or {}
        name = plain(model.get("name") or "the model", limit=60)
        text = f"{name} holds {with_interval('throughput_rps', metrics['throughput_rps'], ends.get('throughput_rps'))}"
        first = summary.objectives[0].metric if summary.objectives else ""
        if first != "throughput_rps" and first in metrics:
            shown = with_interval(first, metrics[first], ends.get(first), money)
            per_million = first == "cost_per_million"
            text += f" at {shown} per million requests" if per_million else f" with a {label(first)} of {shown}"
        if slo := plain(summary.problem.get("slo_text") or "", limit=100):
            text += f" under {slo.replace(',', ', ')}"
        return text + tail
    named = [o.metric for o in summary.objectives if o.metric in metrics]
    figures = [f"{label(m)} {with_interval(m, metrics[m], ends.get(m), money)}" for m in named]
    return f"Trial {winner.number} is the best found, with {joined(figures) or 'no figures'}{tail}"


def _nothing_completed(summary: Summary) -> str:
    failures = Counter(r.trial.failure for r in summary.rows if r.trial.failure)
    if not failures:
        return f"No trial has been completed yet, out of {len(summary.rows)}."
    classes = [f"{n} by {plain(name, limit=40)}" for name, n in failures.most_common()]
    return f"No answer: no trial was completed, {sum(failures.values())} failed ({joined(classes)})."


def _infeasible(summary: Summary, closest: Row) -> str:
    trials = [r for r in summary.rows if r.trial.state is State.COMPLETE]
    kind = "SLO infeasible" if summary.is_serve else "No feasible trial"
    for constraint in summary.constraints:
        value = closest.trial.metrics.get(constraint.metric)
        if value is None or constraint.violation(value) <= 0:
            continue
        known = [r for r in trials if constraint.metric in r.trial.metrics]
        best = min(known, key=lambda r: (constraint.violation(r.trial.metrics[constraint.metric]), r is not closest))
        got, ends = best.trial.metrics[constraint.metric], best.trial.intervals.get(constraint.metric)
        shown = with_interval(constraint.metric, got, ends, summary.currency)
        limit = exact(constraint.metric, constraint.upper if constraint.upper is not None else constraint.lower)
        return (
            f"{kind}: the best attainable {label(constraint.metric)} is {shown} (trial {best.number}), "
            f"the limit is {limit}."
        )
    return f"{kind}: {plain(summary.answer['reason'], limit=300)}."
