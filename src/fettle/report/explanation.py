"""What explains the figures of a study: one document that the terminal, the JSON output and the page are made from."""

import math
from collections.abc import Mapping
from typing import Any

from fettle.core.answer import answer
from fettle.core.space import Space
from fettle.core.trial import Objective, State, Trial, TrialLog
from fettle.report.figures import duration, exact, figure, label, setting
from fettle.report.foretold import foretold
from fettle.report.knees import is_number, knees
from fettle.report.limits import limits
from fettle.report.origins import has_prior, origins
from fettle.report.summary import SERVE, finite
from fettle.report.text import joined, plain
from fettle.report.unused import unused
from fettle.surrogates.gain import is_spent, price
from fettle.surrogates.importance import Share, curve, importances
from fettle.surrogates.regret import Regret, is_enough, remaining
from fettle.surrogates.response import LEAST, Figures, Response, trials_in
from fettle.surrogates.whatif import FAILURE, predicted

_CURVES, _PAIRS = 3, 5  # of the strongest numbers, and at most so many interactions
_VISIBLE = 0.01  # share of the variance, below which an interaction is left out
_COUNTED = 10_000  # configurations, of which it is looked at whether all were tried
_NAMED = 0.05  # and below which a parameter is not worth a sentence


def explanation(log: TrialLog, params: Mapping[str, Any] | None = None, *, best: int | None = None) -> dict[str, Any]:
    """What `fettle explain --json` prints (schema 1); strict JSON. params: what is predicted, too. best: the
    recommended trial, where it is another than the log alone would say.

    Raises ParamsError where these do not fit the space, InvalidInput where too little was measured to predict them.
    """
    space = Space.from_json(log.experiment["space"])
    trials = trials_in(log, space)
    figures = [Figures.of(trials, space, o) for o in log.objectives]
    responses = [Response.of(each, space.columns) for each in figures]
    goals = [_objective(*each, space) for each in zip(log.objectives, figures, responses, strict=True)]
    left = remaining(log, space)
    prediction = None
    if params is not None:
        found = {m: _estimate(e.value, e.low, e.high, e.n) for m, e in predicted(log, space, params).items()}
        prediction = {"params": space.validate(params), "metrics": found}
    return {
        "schema": 1,
        "study": str(log.experiment.get("name") or ""),
        "trials": len(trials),
        "objectives": goals,
        "regret": None if left is None else {"metric": left.metric, "value": left.value, "trials": left.trials},
        "ended": ended(log),
        "prediction": prediction,
        **_reasons(log, space, responses, answer(log).best if best is None else best),
        "findings": [s for goal in goals for s in _findings(goal)] + _prospects(log, left) + _expected(prediction),
    }


def _reasons(log: TrialLog, space: Space, responses: list[Response | None], best: int | None) -> dict[str, Any]:
    """What limits the winner (where nothing is feasible, the closest trial), where curves turn, what is left unused,
    what was expected, and who proposed what; null or [] where the study says nothing of it."""
    complete = [t for t in log.trials if t.state is State.COMPLETE]
    closest = min(complete, key=lambda t: (log.outcome(t).order, t.number), default=None)
    trial = closest if best is None else log.trials[best]
    problem, baseline = log.experiment.get("problem"), log.baseline
    serving = isinstance(problem, Mapping) and problem.get("name") == SERVE
    roles: dict[str, Trial] = {} if trial is None else {"closest" if best is None else "winner": trial}
    if baseline is not None and baseline.state is State.COMPLETE and baseline is not trial:
        roles["defaults"] = baseline
    proposed = origins(log, None if best is None else log.trials[best]) if serving or has_prior(log) else None
    return {
        "limits": limits(log, trial) if serving and trial is not None else None,
        "knees": knees(responses[0], space, log.objectives[0], trial.params) if responses and trial else [],
        "unused": unused(log, roles) if serving else [],
        "foretold": foretold(log),
        "origins": proposed,
    }


def _objective(objective: Objective, figures: Figures, response: Response | None, space: Space) -> dict[str, Any]:
    explained = math.nan if response is None else response.explained
    verdict = "too few" if response is None else "constant" if math.isnan(explained) else "unexplained"
    found: dict[str, Any] = {
        "metric": objective.metric,
        "goal": objective.goal,
        "trials": len(figures.losses),
        "r2": None if math.isnan(explained) else explained,
        "verdict": verdict,
        "parameters": [],
        "interactions": [],
        "curves": [],
    }
    if response is None or not response.explains:
        return found
    shares = importances(response, space)
    numbers = [p.name for p in shares.parameters if is_number(space, p.name)][:_CURVES]
    pairs = [p for p in shares.pairs if p.share.value >= _VISIBLE][:_PAIRS]
    return {
        **found,
        "verdict": "explained",
        "parameters": [
            {"name": p.name, "active": p.active, "alone": _of(p.alone), "total": _of(p.total)}
            for p in shares.parameters
        ],
        "interactions": [{"names": list(p.names), **_of(p.share)} for p in pairs],
        "curves": [_curve(response, space, name) for name in numbers],
    }


def _curve(response: Response, space: Space, name: str) -> dict[str, Any]:
    made = curve(response, space, name)
    log_scale = bool(space.columns[space.names.index(name)].domain.to_json().get("log"))
    ends = {"values": made.values, "mean": made.mean, "low": made.low, "high": made.high}
    return {"name": name, "log": log_scale, **{key: list(values) for key, values in ends.items()}}


def _of(share: Share) -> dict[str, float]:
    return {"value": share.value, "low": share.low, "high": share.high}


def _estimate(value: float, low: float, high: float, n: int) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": n}


# -- in words -----------------------------------------------------------------------------------------------------


def _findings(goal: Mapping[str, Any]) -> list[str]:
    name, n, r2 = label(goal["metric"]), goal["trials"], goal["r2"]
    if goal["verdict"] == "too few":
        return [f"Nothing can be said of {name}: {n} trials have a figure, at least {LEAST} exact ones are needed."]
    if goal["verdict"] == "constant":
        return [f"All {n} trials have the same {name}: no parameter matters as far as they show."]
    if goal["verdict"] == "unexplained":
        return [
            f"Nothing explains {name}: a surrogate predicts each of {n} trials from the others no better than noise "
            f"would be (R\u00b2 {r2:.2f})."
        ]
    said = [f"A surrogate predicts {name} of each of {n} trials from the others with R\u00b2 {r2:.2f}."]
    for p in goal["parameters"]:
        if p["total"]["value"] >= _NAMED:
            where = "" if p["active"] == 1.0 else f", although it exists in {_percent(p['active'])} of the space only"
            said.append(
                f"{plain(p['name'], limit=80)} explains {_percent(p['alone']['value'])} of the variance of {name} over "
                f"the space by itself, {_percent(p['total']['value'])} with its interactions (95 % interval "
                f"{_percent(p['total']['low'])} to {_percent(p['total']['high'])}){where}."
            )
    for pair in goal["interactions"][:1]:
        if pair["value"] >= _NAMED:
            names = joined([plain(n, limit=80) for n in pair["names"]])
            said.append(f"{names} explain another {_percent(pair['value'])} only together.")
    return said


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f} %"


def _prospects(log: TrialLog, left: Regret | None) -> list[str]:
    said = []
    if left is not None:
        said.append(
            f"At most {figure(left.metric, left.value)} of {label(left.metric)} could still be gained over the best "
            f"trial (an upper estimate from {left.trials} trials)."
        )
    why = ended(log)
    return [*said, f"The search ended because {why}."] if why else said


def _expected(prediction: Mapping[str, Any] | None) -> list[str]:
    if prediction is None:
        return []
    given = ", ".join(f"{plain(k, limit=60)} {setting(k, v)}" for k, v in prediction["params"].items())
    parts = [
        f"{'chance of failure' if m == FAILURE else label(m)} {figure(m, e['value'])} "
        f"({figure(m, e['low'])} to {figure(m, e['high'])})"
        for m, e in prediction["metrics"].items()
    ]
    return [f"One more measurement at {given} would give {', '.join(parts)}; in brackets the 95 % intervals."]


def ended(log: TrialLog) -> str:
    """Why the search ended, by the limits that were recorded; "" where these do not say."""
    budget, form = log.experiment.get("budget"), log.experiment.get("space")
    if not isinstance(budget, Mapping) or log.running or not log.ended:
        return ""
    space = Space.from_json(form) if form else None
    below, trials, seconds = (_limit(budget.get(key)) for key in ("stop_regret", "trials", "seconds"))
    if below > 0.0 and space is not None and is_enough(log, space, below):
        metric = log.objectives[0].metric
        return f"less than {exact(metric, below)} of {label(metric)} could still be gained"
    if (worth := price(log)) is not None and is_spent(log, worth):
        return "the last trials were expected to save less than they cost"
    if log.started >= trials:
        return f"all {trials:.0f} trials of its budget were started"
    if space is not None and (space.only is not None or (space.raw_size or math.inf) <= _COUNTED):
        tried = {space.key(t.params) for t in log.trials if t.state.finished and space.contains(t.params)}
        if len(tried) == space.size:
            return f"all {space.size} configurations of its space were tried"
    finished = any(t.confirmed for t in log.trials)
    return f"its time of {duration(seconds)} was used up" if seconds > 0.0 and finished else ""


def _limit(given: Any) -> float:
    return float(given) if finite(given) else math.nan
