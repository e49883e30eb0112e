"""The report as one HTML file that asks nothing of any network."""

import base64
import hashlib
import shlex
import time
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fettle.report import tables
from fettle.report.figures import exact, figure, label, setting, with_interval
from fettle.report.knobs import effects, note
from fettle.report.summary import Row, Summary, finite
from fettle.report.text import plain, sentence

_TILES = ("throughput_rps", "latency_p99_s", "cost_per_million", "rss_bytes")


def render(summary: Summary, explained: Mapping[str, Any] | None = None) -> str:
    """The whole page. Everything that came from elsewhere is stripped of control characters and escaped.

    explained: an `explanation`, without which its sections are left out.
    """
    import jinja2
    from markupsafe import Markup

    from fettle.report import charts, history, why

    here = files("fettle.report")
    script, style = (Markup(here.joinpath(name).read_text("utf-8")) for name in ("report.js", "report.css"))
    env = jinja2.Environment(
        autoescape=True,
        finalize=lambda text: plain(text, lines=True) if type(text) is str else text,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = env.from_string(here.joinpath("report.html.j2").read_text("utf-8"))
    found = effects(summary)
    metric = summary.objectives[0].metric if summary.objectives else ""
    return page.render(
        summary=summary,
        study=plain(summary.study, limit=120) or "study",
        subtitle=_subtitle(summary),
        headline=summary.headline.removesuffix(".").split(": ", 1) if summary.winner else [summary.headline],
        gain=summary.answer["gain"],
        gain_alike=summary.answer["gain_at_equal_precision"],
        tiles=_tiles(summary),
        comparison=tables.comparison(summary) if summary.winner or summary.closest else None,
        operating=_operating(summary.winner),
        tradeoffs=charts.tradeoffs(summary),
        curves=charts.latency_curves(summary),
        progress=history.progress(summary),
        knobs=[(plain(e.name, limit=80), e.share, history.knob(e, metric, summary)) for e in found],
        knob_note=note(found),
        why=why.section(explained, summary.currency),
        influence=_influence(explained, summary.currency),
        sentence=sentence,
        objective=label(metric),
        failures=_failures(summary),
        trials=tables.trials(summary),
        facts=[t for t in _facts(summary) if t.rows],
        cost_line=tables.cost_line(summary),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _influence(explained: Mapping[str, Any] | None, currency: str) -> dict[str, Any]:
    """Findings, and for each objective that is explained its bars and curves; {} where nothing was modelled."""
    from fettle.report.influence import bars, dependence

    if explained is None or all(goal["verdict"] == "too few" for goal in explained["objectives"]):
        return {}
    goals = [goal for goal in explained["objectives"] if goal["parameters"]]
    curves = [
        (plain(curve["name"], limit=80), label(goal["metric"]), dependence(curve, goal["metric"], currency))
        for goal in goals
        for curve in goal["curves"]
    ]
    charts = [(label(goal["metric"]), bars(goal)) for goal in goals]
    return {"findings": explained["findings"], "bars": charts, "curves": curves}


def _facts(summary: Summary) -> list[tables.Table]:
    return [f(summary) for f in (tables.cost, tables.measurement, tables.machine, tables.experiment)]


def _subtitle(summary: Summary) -> str:
    problem = summary.problem
    parts = [plain(problem.get(key) or "", limit=60) for key in ("name", "target")]
    made = summary.experiment.get("created_s")
    if finite(made):
        parts.append(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(made)))
    return " \u00b7 ".join(filter(None, parts))


def _tiles(summary: Summary) -> list[dict[str, str]]:
    """The main figures of the winner, each with the defaults' beside it."""
    row, base = summary.winner or summary.closest, summary.defaults
    if row is None:
        return []
    wanted = dict.fromkeys((*(o.metric for o in summary.objectives), *(_TILES if summary.is_serve else ())))
    tiles = []
    for metric in list(wanted)[:4]:
        if not finite(got := row.trial.metrics.get(metric)):
            continue
        ends = row.trial.intervals.get(metric)
        text = with_interval(metric, got, ends, summary.currency)
        value, _, rest = text.partition(" [")
        interval, _, unit = rest.partition("] ")
        tile = {"label": label(metric), "value": f"{value} {unit}".strip(), "interval": "", "defaults": "", "limit": ""}
        if rest:
            tile["interval"] = f"95 % interval {interval.rstrip(']').replace(', ', ' to ')}"
        if base is not None and base.number != row.number and finite(theirs := base.trial.metrics.get(metric)):
            tile["defaults"] = f"defaults {figure(metric, theirs, summary.currency)}"
        if limits := [c.upper for c in summary.constraints if c.metric == metric and c.upper is not None]:
            tile["limit"] = f"limit {exact(metric, limits[0], summary.currency)}"
        tiles.append(tile)
    return tiles


def _operating(row: Row | None) -> dict[str, Any]:
    """How the winner is started and driven; {} where nothing is known."""
    if row is None:
        return {}
    found = {**row.first.artifacts}
    server, usage = (x if isinstance(x := found.get(k), Mapping) else {} for k in ("server", "usage"))
    facts = []
    if finite(rate := row.trial.metrics.get("throughput_rps")):
        facts.append(("Offered rate that held", figure("throughput_rps", rate)))
    ahead = (row.trial.confirmed or {}).get("prediction") or {}
    for metric, ends in ahead.items() if isinstance(ahead, Mapping) else ():
        if isinstance(ends, list | tuple) and len(ends) == 2 and all(map(finite, ends)):
            span = " to ".join(figure(metric, e) for e in ends)
            facts.append((f"One more measurement of {label(metric)} (95 %)", span))
    if finite(usage.get("cores_used")) and finite(usage.get("cores")):
        facts.append(("Cores used", f"{usage['cores_used']:.2f} of {usage['cores']}"))
    if finite(usage.get("peak_rss_bytes")):
        facts.append(("Peak memory", figure("rss_bytes", usage["peak_rss_bytes"])))
    if server.get("warm"):
        facts.append(("Server", "that of the trial before, whose other knobs are the same"))
    elif finite(server.get("start_s")):
        facts.append(("Time to start", figure("start_s", server["start_s"])))
    argv = server.get("argv")
    command = shlex.join(plain(a, limit=2000) for a in argv) if isinstance(argv, list | tuple) else ""
    record = server.get("record")
    for key, given in record.items() if isinstance(record, Mapping) else ():
        facts.append((label(str(key)), setting(str(key), given)))
    return {"command": command, "facts": facts} if command or facts else {}


def _failures(summary: Summary) -> list[tuple[str, list[dict[str, Any]]]]:
    """(class, trials with their errors and last log lines), the most frequent class first."""
    classes: dict[str, list[dict[str, Any]]] = {}
    for row in summary.rows:
        if not row.trial.failure:
            continue
        params = ", ".join(f"{plain(n, limit=60)} {setting(n, v)}" for n, v in row.trial.params.items())
        log = plain(row.first.artifacts.get("log") or "", lines=True, limit=4000)
        error = plain(row.trial.error, limit=1000)
        entry = {"number": row.number, "error": error, "params": params, "log": log}
        classes.setdefault(plain(row.trial.failure, limit=40), []).append(entry)
    return sorted(classes.items(), key=lambda item: (-len(item[1]), item[0]))
