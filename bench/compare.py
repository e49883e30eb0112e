"""Tables from the rows of bench/search.py: what the search algorithms must hold, decided.

    python bench/compare.py [--ours fettle:auto] [--list tuned holdout tables] [--medians] [--land]

Scores are true regrets (1: the median random point), floored at 1e-4, 10 where nothing feasible was found; for
several objectives the share of the true front's hypervolume that is missing. Under noise the optimiser's own answer is
scored. A peer is better on a kind where a one-sided Wilcoxon signed-rank test over (problem, seed) pairs of log
scores at 60 evaluations says so with p < 0.05, Holm-corrected over the peers of that kind. Ranks are of each
(problem, seed), averaged. --land writes bench/results/search.json, from which make_results.py makes its section.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import measured
import numpy as np
import search_rows as rows
from problems import KINDS, kind_of, names
from scipy.stats import rankdata
from search_scores import Scores, column, common, geometric, holm, milliseconds, one_sided

from fettle.testing.search import CHECKPOINTS

LEVEL = 0.05
SLOW = ("ax", "hebo", "smac")
Table = dict[str, Any]


def table(title: str, head: Sequence[str], body: Sequence[Sequence[Any]]) -> Table:
    return {"title": title, "head": list(head), "body": [[shown(cell) for cell in line] for line in body]}


def shown(cell: Any) -> str:
    if isinstance(cell, float):
        return "-" if math.isnan(cell) else f"{cell:.3g}"
    return str(cell)


def markdown(made: Table) -> Iterator[str]:
    yield f"**{made['title']}**"
    yield ""
    yield "| " + " | ".join(made["head"]) + " |"
    yield "|" + " --- |" * len(made["head"])
    yield from ("| " + " | ".join(line) + " |" for line in made["body"])
    yield ""


Wanted = Callable[[str], list[str]]
Lost = list[list[Any]]


def duels(ours: Scores, others: Sequence[Scores], wanted: Wanted, n: int = 60) -> Iterator[Table]:
    """Each kind against each peer; a ratio below 1: ours is better."""
    lost = lost_duels(ours, others, wanted, n)
    body = []
    for kind in KINDS:
        line = [kind]
        for m in others:
            pairs = common([ours, m], wanted(kind), n)
            ratio = geometric(column(ours, pairs, n)) / geometric(column(m, pairs, n))
            worse = any(found[:2] == [kind, m.name] for found in lost)
            line.append(f"{ratio:.2g}{' LOST' if worse else ''}" if pairs else "-")
        if set(line[1:]) != {"-"}:
            body.append(line)
    title = f"{ours.name} / peer: ratio of geometric means at {n} evaluations (below 1: ours is better)"
    yield table(title, ["kind", *(m.name for m in others)], body)
    head = ["kind", "peer", "pairs", "ours", "peer's", "p (Holm)"]
    yield table(f"Significant losses: {len(lost)}", head, lost or [["none", "", "", "", "", ""]])


def lost_duels(ours: Scores, others: Sequence[Scores], wanted: Wanted, n: int = 60) -> Lost:
    """Kind, peer, pairs, both geometric means and the adjusted p where the peer is significantly better."""
    lost: Lost = []
    for kind in KINDS:
        both = {}
        for m in others:
            if pairs := common([ours, m], wanted(kind), n):
                both[m.name] = column(ours, pairs, n), column(m, pairs, n)
        adjusted = holm({name: one_sided(*scores) for name, scores in both.items()})
        for name, (mine, theirs) in both.items():
            if adjusted[name] < LEVEL:
                lost.append([kind, name, len(mine), geometric(mine), geometric(theirs), adjusted[name]])
    return lost


def standings(methods: Sequence[Scores], wanted: Sequence[str], what: str) -> Iterator[Table]:
    """Mean ranks and geometric means over what all of the methods have."""
    lines: dict[str, list[Any]] = {m.name: [m.name] for m in methods}
    count = 0
    for n in CHECKPOINTS:
        pairs = common(methods, wanted, n)
        count = max(count, len(pairs))
        if not pairs:
            return
        scores = np.array([column(m, pairs, n) for m in methods])
        ranks = rankdata(scores, axis=0).mean(axis=1)
        for m, rank, own in zip(methods, ranks.tolist(), scores, strict=True):
            lines[m.name] += [round(rank, 2), geometric(own)]
    body = sorted(lines.values(), key=lambda line: line[3])
    head = ["method", *(text for n in CHECKPOINTS for text in (f"rank {n}", f"score {n}"))]
    functions = len({pair[0] for pair in pairs})
    yield table(f"{what}: mean rank and geometric mean score, {functions} functions, {count} runs each", head, body)


def by_kind(methods: Sequence[Scores], wanted: Wanted, n: int = 60) -> Table:
    """Geometric mean score and mean rank among the methods that do the kind."""
    body = []
    for kind in KINDS:
        able = [m for m in methods if common([m], wanted(kind), n)]
        if not able:
            continue
        pairs = common(able, wanted(kind), n)
        scores = np.array([column(m, pairs, n) for m in able])
        ranks = rankdata(scores, axis=0).mean(axis=1) if pairs else np.full(len(able), math.nan)
        cells = {m.name: f"{geometric(s):.2g} ({r:.1f})" for m, s, r in zip(able, scores, ranks, strict=True)}
        body.append([f"{kind} ({len(pairs)} runs)", *(cells.get(m.name, "-") for m in methods)])
    return table(f"Geometric mean score (mean rank) at {n} evaluations", ["kind", *(m.name for m in methods)], body)


def conditional(methods: Sequence[Scores], wanted: Sequence[str], n: int = 60) -> Table:
    """The share of runs under one hundredth of a median random point, and the mean regret."""
    body = []
    for m in methods:
        line: list[Any] = [m.name]
        for some in (wanted, wanted[:1]):
            regrets = column(m, common([m], some, n), n)
            if len(regrets):
                line += [f"{np.mean(regrets < 0.01):.0%}", 100 * float(np.mean(regrets))]
            else:
                line += ["-", "-"]
        body.append(line)
    head = ["method", "all: under 1", "mean x 100", f"{wanted[0]}: under 1", "mean x 100"]
    return table(f"Conditional spaces at {n} evaluations: share of runs with regret x 100 under 1", head, body)


def fronts(methods: Sequence[Scores], wanted: Sequence[str]) -> Table:
    body = []
    for name in wanted:
        line: list[Any] = [name]
        for m in methods:
            means = [1 - column(m, common([m], [name], n), n) for n in CHECKPOINTS]
            line.append(" / ".join(f"{100 * x.mean():.1f}" if len(x) else "-" for x in means))
        body.append(line)
    evaluations = " / ".join(map(str, CHECKPOINTS))
    return table(
        f"Hypervolume, % of the true front's, mean at {evaluations}", ["problem", *(m.name for m in methods)], body
    )


def costs(methods: Sequence[Scores], wanted: Sequence[str]) -> Table:
    body = [
        [m.name, float(np.mean(ms)), float(np.max(ms)), m.errors, versions(m.head)]
        for m in methods
        if len(ms := milliseconds(m, wanted))
    ]
    head = ["method", "mean ms", "worst run's ms", "runs that broke", "versions"]
    return table("CPU per ask and tell over trials 81 to 100", head, sorted(body, key=lambda line: line[1]))


def versions(head: rows.Row) -> str:
    packages = head.get("machine", {}).get("packages", {})
    return ", ".join(f"{name} {of}" for name, of in sorted(packages.items()) if name not in ("numpy", "scipy"))


def medians(methods: Sequence[Scores], wanted: Sequence[str], n: int = 60) -> Table:
    body = []
    for name in wanted:
        line: list[Any] = [kind_of(name), name]
        for m in methods:
            regrets = column(m, common([m], [name], n), n)
            line.append(100 * float(np.median(regrets)) if len(regrets) else math.nan)
        body.append(line)
    return table(f"Median score x 100 at {n} evaluations", ["kind", "problem", *(m.name for m in methods)], body)


def bars(ours: Scores, peers: Sequence[Scores], which: str) -> Table:
    """What must hold, over all kinds with one objective."""

    def wanted(kind: str) -> list[str]:
        return names(kind, which)

    every = [name for kind in KINDS for name in wanted(kind)]
    single = [name for kind in KINDS if kind != "multi_objective" for name in wanted(kind)]
    lost = len(lost_duels(ours, peers, wanted))
    body: list[list[Any]] = [["significant losses, all kinds, 60 evaluations", lost, "0", lost == 0]]
    complete = [m for m in peers if {pair[0] for pair in m.at} >= {*single}]
    for n in CHECKPOINTS:
        pairs = common([ours, *complete], single, n)
        if not pairs or not complete:
            continue
        scores = np.array([column(m, pairs, n) for m in (ours, *complete)])
        ranks = rankdata(scores, axis=0).mean(axis=1)
        rival = complete[int(np.argmin(ranks[1:]))].name
        figure = f"{ranks[0]:.2f}, {rival} {ranks[1:].min():.2f} ({len(pairs)} runs)"
        body.append([f"mean rank at {n}", figure, "first", bool(ranks[0] < ranks[1:].min())])
        if n == 60:
            means = [geometric(s) for s in scores]
            best = complete[int(np.argmin(means[1:]))].name
            ratio = means[0] / min(means[1:])
            body.append([f"geometric mean / best peer's ({best}) at 60", ratio, "0.5", ratio <= 0.5])
    regrets = column(ours, common([ours], ["two_level"], 60), 60)
    if len(regrets) and which == "tuned":
        share, mean = float(np.mean(regrets < 0.01)), 100 * float(np.mean(regrets))
        body.append(["two_level: share of seeds with regret x 100 under 1", f"{share:.0%}", "75 %", share >= 0.75])
        body.append(["two_level: mean regret x 100", mean, "4", mean <= 4.0])
    if len(spent := milliseconds(ours, every)):
        ms = float(np.mean(spent))
        body.append(["CPU ms per ask and tell, trials 81 to 100", ms, "15", ms <= 15.0])
    for line in body:
        line[-1] = "holds" if line[-1] else "MISSED"
    return table(f"The bars for {ours.name}", ["what", "figure", "bar", ""], body)


def noise() -> Table:
    """Measured tables that nobody can search."""
    body = [[name, measured.signal(name)] for name in measured.names() if not measured.signal(name) >= 0.1]
    return table("Measured tables that are noise (rank correlation of a neighbour's guess)", ["table", "signal"], body)


def tables(methods: Sequence[Scores], ours: str, which: str, every_problem: bool) -> Iterator[Table]:
    fast = [m for m in methods if m.name not in SLOW]
    mine = next((m for m in fast if m.name == ours), None)

    def wanted(kind: str) -> list[str]:
        return names(kind, which)

    every = [name for kind in KINDS for name in wanted(kind)]
    single = [name for kind in KINDS if kind != "multi_objective" for name in wanted(kind)]
    if mine is not None:
        rivals = [m for m in fast if m is not mine and not m.name.startswith("fettle:")]
        yield bars(mine, rivals, which)
        yield from duels(mine, rivals, wanted)
    full = [m for m in fast if {pair[0] for pair in m.at} >= {*single}]
    yield from standings(full, single, "One objective")
    yield by_kind(fast, wanted)
    for kind, make in (("conditional", conditional), ("multi_objective", fronts)):
        if some := [m for m in fast if common([m], wanted(kind), 60)]:
            yield make(some, wanted(kind))
    if which == "tables":
        yield noise()
    yield costs(methods, every)
    slow = [m for m in methods if m.name in SLOW and common([m], single, 60)]
    if slow:
        few = sorted({pair[0] for m in slow for pair in m.at})
        yield medians([*slow, *fast], few)
        if mine is not None:
            yield from duels(mine, slow, lambda kind: [name for name in wanted(kind) if name in few])
    if every_problem:
        yield medians(fast, every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default="fettle:auto")
    parser.add_argument("--list", nargs="+", choices=("tuned", "holdout", "tables"), default=["tuned", "holdout"])
    parser.add_argument("--methods", nargs="+", default=[], help="only these beside ours (default: all peers)")
    parser.add_argument("--medians", action="store_true", help="a line for each problem, too")
    parser.add_argument("--land", action="store_true")
    parser.add_argument("--folder", type=Path, default=rows.RESULTS)
    options = parser.parse_args()
    methods = [Scores.read(path) for path in sorted(options.folder.glob("*.jsonl"))]
    shown = options.methods or [m.name for m in methods if not m.name.startswith("fettle:")]
    methods = [m for m in methods if m.at and m.name in (*shown, options.ours)]
    landed = []
    for which in options.list:
        made = list(tables(methods, options.ours, which, options.medians))
        landed.append({"row": which, "tables": made})
        print(f"# {which}\n")
        print("\n".join(line for one in made for line in markdown(one)))
    if options.land:
        machine = next((m.head["machine"] for m in methods if m.name == options.ours), methods[0].head["machine"])
        record = {"schema": 1, "machine": machine, "ours": options.ours, "rows": landed}
        (rows.RESULTS.parent / "search.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
