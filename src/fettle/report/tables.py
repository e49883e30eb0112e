"""The tables of a study, as text with a key to sort by; the terminal and the page both print these."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.core.trial import State
from fettle.report.figures import NONE, duration, exact, figure, label, number, setting, with_interval
from fettle.report.headline import bound
from fettle.report.summary import Row, Summary, finite
from fettle.report.text import joined, plain, shorten

_SERVE_METRICS = (
    "throughput_rps",
    "latency_p50_s",
    "latency_p90_s",
    "latency_p95_s",
    "latency_p99_s",
    "latency_p99_9_s",
    "latency_p99_at_rate_s",
    "error_ratio",
    "cost_per_million",
    "cost_per_hour",
    "rss_bytes",
)
_SERVE_SHORT = ("throughput_rps", "latency_p99_s")


@dataclass(frozen=True, slots=True)
class Cell:
    """sort: what a column is ordered by, None where the text itself does. strong: to be emphasised."""

    text: str
    sort: float | None = None
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """columns: (title, whether it holds figures). Every row has one cell per column; the first is its heading.
    split: the row before which a second group begins, 0 where there is one group."""

    caption: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]
    split: int = 0


def metrics_of(summary: Summary) -> list[str]:
    """All metrics that any trial has: objectives first, then in the order of serving, then as they came."""
    names = [o.metric for o in summary.objectives] + [c.metric for c in summary.constraints]
    names += [m for m in _SERVE_METRICS if summary.is_serve] + [m for r in summary.rows for m in r.trial.metrics]
    present = {m for r in summary.rows for m in r.trial.metrics}
    return [m for m in dict.fromkeys(names) if m in present]


def comparison(summary: Summary) -> Table:
    """The winner beside the defaults; where nothing is feasible, the closest trial beside them."""
    shown = [r for r in (summary.winner or summary.closest, summary.defaults) if r is not None]
    if len(shown) == 2 and shown[0].number == shown[1].number:
        shown = shown[:1]
    wanted = {o.metric for o in summary.objectives}
    rows = [
        (Cell(label(m), strong=m in wanted), *(_figure(r, m, summary.currency, strong=m in wanted) for r in shown))
        for m in metrics_of(summary)
        if any(m in r.trial.metrics for r in shown)
    ]
    split = len(rows)
    names = list(dict.fromkeys(n for r in shown for n in r.trial.params))
    for name in names:
        texts = [_param(r.trial.params, name) for r in shown]
        differs = len(set(texts)) > 1
        rows.append((Cell(plain(name, limit=80)), *(Cell(t, strong=differs) for t in texts)))
    titles = [(_title(r), True) for r in shown]
    caption = "Figures with 95 % intervals, then parameters; in bold the objective and what differs"
    return Table(caption, (("", False), *titles), tuple(rows), split)


def _title(row: Row) -> str:
    role = {"winner": "Winner", "defaults": "Defaults"}.get(row.role, "Closest")
    confirmed = ", measured again" if row.trial.confirmed is not None else ""
    return f"{role} (trial {row.number}{confirmed})"


def trials(summary: Summary, *, short: bool = False) -> Table:
    """Every trial, parameters last. short: only the metrics that fit a terminal."""
    names = parameters(summary)
    metrics = metrics_of(summary)
    if short and summary.is_serve:
        goals = {o.metric for o in summary.objectives}
        metrics = [m for m in metrics if m in _SERVE_SHORT or m in goals]
    columns = [("trial", False), ("state", False), ("marks", False), *((label(m), True) for m in metrics)]
    columns += [(title, False) for title in names.values()]
    rows = []
    for row in summary.rows:
        marks = Cell(", ".join([row.role] * bool(row.role) + list(row.marks)))
        cells = [Cell(str(row.number), row.number), Cell(_state(row)), marks]
        cells += [_figure(row, m, summary.currency, plain_figure=True) for m in metrics]
        rows.append((*cells, *(_param_cell(row.trial.params, n) for n in names)))
    return Table(f"All {len(rows)} trials", tuple(columns), tuple(rows))


def parameters(summary: Summary) -> dict[str, str]:
    """Full name -> the name to show: the last part of the path where that is unique."""
    names = list(dict.fromkeys(n for row in summary.rows for n in row.trial.params))
    last = Counter(n.rpartition(".")[2] for n in names)
    return {n: plain(tail if last[tail := n.rpartition(".")[2]] == 1 else n, limit=80) for n in names}


def _state(row: Row) -> str:
    if row.trial.state is State.FAILED:
        return f"failed: {plain(row.trial.failure or 'other', limit=40)}"
    if row.trial.state is State.COMPLETE and not row.feasible:
        return "infeasible"
    return str(row.trial.state)


def _figure(row: Row, metric: str, money: str, *, strong: bool = False, plain_figure: bool = False) -> Cell:
    got = row.trial.metrics.get(metric)
    if not finite(got) or got is None:
        return Cell(NONE)
    ends: Sequence[float] | None = row.trial.intervals.get(metric)
    if plain_figure and ends and all(map(finite, ends[:2])):
        ends = None
    return Cell(with_interval(metric, got, ends, money), float(got), strong)


def _param(params: Mapping[str, Any], name: str) -> str:
    return setting(name, params[name]) if name in params else NONE


def _param_cell(params: Mapping[str, Any], name: str) -> Cell:
    got = params.get(name)
    return Cell(_param(params, name), float(got) if isinstance(got, int | float) else None)


def cost(summary: Summary) -> Table:
    """What the search took."""
    spent = summary.answer["cost"]
    rows = [("Wall clock in trials and confirmation", duration(spent["wall_s"]))]
    if finite(spent["cpu_s"]):
        rows.append(("CPU time", duration(spent["cpu_s"])))
    if finite(spent["money"]):
        rows.append(("Price of the machine for that time", figure("money", spent["money"], summary.currency)))
    rows += [(f"Trials {state}", str(n)) for state, n in spent["trials"].items()]
    return _pairs("Search cost", rows)


def cost_line(summary: Summary) -> str:
    """The same in one line."""
    spent = summary.answer["cost"]
    parts = [f"{duration(spent['wall_s'])} of trials and confirmation"]
    if finite(spent["cpu_s"]):
        parts.append(f"{duration(spent['cpu_s'])} of CPU")
    if finite(spent["money"]):
        parts.append(figure("money", spent["money"], summary.currency))
    states = ", ".join(f"{n} {state}" for state, n in spent["trials"].items())
    return f"{', '.join(parts)}; trials: {states or 'none'}"


def experiment(summary: Summary) -> Table:
    """What was asked for."""
    record, problem = summary.experiment, summary.problem
    rows: list[tuple[str, str]] = []
    model = problem.get("model")
    if isinstance(model, Mapping):
        rows.append(("Model", plain(model.get("name", NONE), limit=120)))
        hashes = model.get("hashes")
        if isinstance(hashes, Mapping):
            rows += [(f"SHA-256 of {plain(k, limit=40)}", shorten(plain(v, limit=80), 24)) for k, v in hashes.items()]
    named = (("target", "Server"), ("slo_text", "SLO"))
    rows += [(title, plain(problem[key], limit=200)) for key, title in named if problem.get(key)]
    if finite(problem.get("rate")):
        rows.append(("Given rate", exact("rate_rps", problem["rate"])))
    rows.append(("Objectives", joined([f"{o.goal} {label(o.metric)}" for o in summary.objectives]) or NONE))
    if summary.constraints:
        rows.append(("Constraints", joined([bound(c, summary.currency) for c in summary.constraints])))
    rows += _settings(record)
    return _pairs("Experiment", rows)


def _settings(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    algorithm, budget, prices = record.get("algorithm"), record.get("budget"), record.get("prices")
    if algorithm:
        rows.append(("Algorithm", _flat(algorithm)))
    if record.get("seed") is not None:
        rows.append(("Seed", plain(record["seed"], limit=40)))
    if isinstance(budget, Mapping):
        limits = [duration(budget["seconds"])] if finite(budget.get("seconds")) else []
        limits += [f"{budget['trials']} trials"] if finite(budget.get("trials")) else []
        rows.append(("Budget", joined(limits) or "none"))
    if isinstance(prices, Mapping):
        rows.append(("Prices", _flat(prices)))
    return rows


def machine(summary: Summary) -> Table:
    """Fingerprint of the hardware and the versions."""
    facts = summary.experiment.get("fingerprint")
    rows = []
    for key, fact in (facts if isinstance(facts, Mapping) else {}).items():
        if finite(fact) and str(key).endswith("_bytes"):
            rows.append((plain(str(key).removesuffix("_bytes").replace("_", " "), limit=60), figure(str(key), fact)))
        elif fact not in (None, "", [], {}):
            rows.append((plain(str(key).replace("_", " "), limit=60), _flat(fact)))
    return _pairs("Machine and versions", rows)


def measurement(summary: Summary) -> Table:
    """What a reader has to know of the measurement itself: coding, agreement of precisions, noise, client."""
    record = summary.experiment
    rows: list[tuple[str, str]] = []
    if finite(record.get("coding_cost_s")):
        rows.append(("Encoding and decoding one request", figure("coding_s", record["coding_cost_s"])))
    agreement = record.get("agreement")
    for name, found in (agreement if isinstance(agreement, Mapping) else {}).items():
        if isinstance(found, Mapping) and finite(found.get("value")):
            kind = plain(found.get("kind") or "output", limit=40)
            shown = f"{100 * found['value']:.4g} %" if 0 <= found["value"] <= 1 else number(found["value"])
            rows.append((f"Agreement of {plain(name, limit=40)} with the reference", f"{shown} ({kind})"))
    return _pairs("Measurement", rows + _noise(summary) + _client(summary))


def _noise(summary: Summary) -> list[tuple[str, str]]:
    seen = [n for r in summary.rows if isinstance(n := r.first.artifacts.get("noise"), Mapping)]
    rows = []
    for key, title in (("foreign_ratio", "CPU taken by others"), ("steal_ratio", "CPU stolen by the host")):
        values = sorted(float(n[key]) for n in seen if finite(n.get(key)))
        if values:
            ends = figure("x_ratio", values[len(values) // 2]), figure("x_ratio", values[-1])
            rows.append((title, f"median {ends[0]}, highest {ends[1]}"))
    marked = sum(bool(n.get("marked")) for n in seen)
    return [*rows, ("Trials marked as noisy", f"{marked} of {len(seen)}")] if seen else rows


def _client(summary: Summary) -> list[tuple[str, str]]:
    seen = [c for r in summary.rows if isinstance(c := r.first.artifacts.get("client"), Mapping)]
    if not seen:
        return []
    rows = []
    if cpu := [float(c["cpu_ratio"]) for c in seen if finite(c.get("cpu_ratio"))]:
        rows.append(("Load generator, most CPU used", f"{figure('x_ratio', max(cpu))} of a core"))
    if late := [float(c["late_p99_s"]) for c in seen if finite(c.get("late_p99_s"))]:
        rows.append(("Send lateness, worst p99", figure("late_s", max(late))))
    if any(c.get("shares_core") for c in seen):
        rows.append(("Load generator's core", "shared with the server: this machine has too few cores"))
    limited = sum(bool(c.get("limited")) for c in seen)
    return [*rows, ("Trials limited by the load generator", f"{limited} of {len(seen)}")]


def studies(found: Sequence[Mapping[str, Any]]) -> Table:
    """What `fettle list` shows; `found` as under "studies" in its JSON."""
    rows = []
    for study in found:
        counts = ", ".join(f"{n} {plain(state, limit=20)}" for state, n in study["trials"].items() if n)
        best = f"trial {study['best']['number']}" if study["best"] else NONE
        texts = [plain(study[key], limit=80) for key in ("name", "problem", "state")]
        rows.append(tuple(Cell(t) for t in (*texts, counts or "none", best)))
    titles = ("study", "problem", "state", "trials", "best")
    return Table(f"{len(rows)} studies", tuple((t, False) for t in titles), tuple(rows))


def _pairs(caption: str, rows: Sequence[tuple[str, str]]) -> Table:
    return Table(caption, (("", False), ("", False)), tuple((Cell(a), Cell(b)) for a, b in rows))


def _flat(found: Any) -> str:
    """A small JSON value in a line of text."""
    if isinstance(found, Mapping):
        return ", ".join(f"{plain(k, limit=60)} {_flat(v)}" for k, v in found.items() if v not in (None, {}, []))
    if isinstance(found, list | tuple):
        return ", ".join(_flat(v) for v in found)
    return setting("", found)
