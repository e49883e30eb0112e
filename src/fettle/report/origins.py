"""Who proposed the trials of a study, and what models of earlier tasks contributed to it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fettle.core.trial import State, Trial, TrialLog
from fettle.report.figures import figure, label
from fettle.report.summary import finite
from fettle.report.text import joined, plain

PRIOR, DEFAULTS, SEARCH, GIVEN = "earlier tasks", "defaults", "search", "given"
_LISTED = 4  # trials by their numbers
_NOTE = re.compile(r"(?P<method>\S+) of (?P<tasks>\d+) tasks?, credit (?P<credit>\d+) ?%")


def origins(log: TrialLog, best: Trial | None) -> dict[str, Any]:
    """{"source", "tasks", "method", "reason", "counts", "credits", "best", "findings"}.

    source, tasks (names), method, reason: of the prior, as the study recorded them; null where it did not. counts:
    origin (earlier tasks, search, defaults, given) -> trials. credits: [trial, credit of the earlier tasks in 0 to 1]
    for each trial that they proposed. best: the origin of the best trial, null without one.
    """
    record = log.experiment.get("prior")
    record = record if isinstance(record, Mapping) else {}
    tasks = record.get("tasks")
    notes = {t.number: match for t in log.trials if (match := _NOTE.match(t.note))}
    kinds = {t.number: _origin(log, t, notes) for t in log.trials}
    found = {
        "source": _text(record.get("source")),
        "tasks": [plain(t, limit=80) for t in tasks] if isinstance(tasks, list | tuple) else None,
        "method": _text(record.get("method")),
        "reason": _text(record.get("reason")),
        "counts": dict(Counter(kinds.values())),
        "credits": [[n, int(m["credit"]) / 100.0] for n, m in notes.items()],
        "best": None if best is None else kinds[best.number],
    }
    said = [*_prior(found, notes), *_first(log, kinds), *_best(log, best, kinds)]
    return {**found, "findings": said}


def has_prior(log: TrialLog) -> bool:
    """Whether earlier tasks took part in a study, or could have."""
    return "prior" in log.experiment or any(_NOTE.match(t.note) for t in log.trials)


def _origin(log: TrialLog, trial: Trial, notes: Mapping[int, Any]) -> str:
    base = log.baseline
    if base is not None and (trial.number in (0, base.number) or trial.parent == 0) and trial.params == base.params:
        return DEFAULTS
    if trial.source != "algorithm":
        return GIVEN
    return PRIOR if trial.number in notes else SEARCH


def _text(value: Any) -> str | None:
    return plain(value, limit=200) if value else None


def _prior(found: Mapping[str, Any], notes: Mapping[int, Any]) -> list[str]:
    tasks, reason = found["tasks"], found["reason"]
    if not notes:
        why = f": {reason.rstrip('.')}" if reason else ""
        if tasks:
            return [f"Earlier models proposed no trial, although {_of(tasks, found['source'])} were at hand{why}."]
        return [f"No earlier model took part{why}."]
    n = {int(m["tasks"]) for m in notes.values()}
    known = _of(tasks, found["source"]) if tasks else f"{max(n)} earlier tasks"
    given = [credit for _, credit in found["credits"]]
    numbers = [str(number) for number, _ in found["credits"]]
    listed = f"trials {joined(numbers)}" if len(numbers) > 1 else f"trial {numbers[0]}"
    if len(numbers) > _LISTED:
        listed = f"{len(numbers)} trials, of {numbers[0]} to {numbers[-1]}"
    span = f"{100 * given[0]:.0f} % at first"
    if len(given) > 1:
        span += f", {100 * given[-1]:.0f} % at last"
    others = found["counts"].get(SEARCH, 0)
    return [
        f"A model of {known} proposed {listed}; the plain search proposed {others or 'none'}"
        f"{' more' * bool(others)}. Its credit was {span}."
    ]


def _of(tasks: Sequence[str], source: str | None) -> str:
    shown = ", ".join(tasks[:3]) + (" ..." if len(tasks) > 3 else "")
    where = {"shipped": "that ship with Fettle", "store": "of earlier studies here"}.get(source or "", "")
    return f"{len(tasks)} task{'s' * (len(tasks) != 1)} {where} ({shown})".replace("  ", " ")


def _first(log: TrialLog, kinds: Mapping[int, str]) -> list[str]:
    """What the first proposal from earlier tasks was worth beside the best of all."""
    if PRIOR not in kinds.values() or not log.objectives:
        return []
    first, goal = log.trials[next(n for n, kind in kinds.items() if kind == PRIOR)], log.objectives[0]
    got, best = first.metrics.get(goal.metric), log.incumbent
    if first.state is not State.COMPLETE:
        how = {State.FAILED: "failed", State.STOPPED: "was stopped early: it could not beat the best"}.get(first.state)
        return [f"Its first proposal, trial {first.number}, {how}."] if how else []
    if best is None or not finite(got) or got is None or not log.outcome(first).feasible:
        return [f"Its first proposal, trial {first.number}, was not feasible."]
    if best.number == first.number:
        return [f"Its first proposal, trial {first.number}, was already the best of the search."]
    off = abs(got / best.metrics[goal.metric] - 1.0) if best.metrics[goal.metric] else 0.0
    shown = f"{label(goal.metric)} {figure(goal.metric, got)}"
    return [f"Its first proposal, trial {first.number}, lay {100 * off:.0f} % behind the best trial ({shown})."]


def _best(log: TrialLog, best: Trial | None, kinds: Mapping[int, str]) -> list[str]:
    if best is None:
        return []
    at, kind = best.number, kinds[best.number]
    if kind in (DEFAULTS, GIVEN):
        return [f"The best trial, {at}, {'is the defaults' if kind == DEFAULTS else 'was not proposed but given'}."]
    who = "the model of earlier tasks" if kind == PRIOR else "the search"
    nth = sum(k == kind for n, k in kinds.items() if n <= at)
    note = f" ({plain(best.note, limit=120)})" if kind == SEARCH and best.note else ""
    return [f"The best trial, {at}, was proposal {nth} of {who}{note}."]
