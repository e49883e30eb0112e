"""Makes bench/RESULTS.md from the rows that the benchmarks have landed in bench/results/.

python bench/make_results.py
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Rows = list[dict[str, Any]]


def load(name: str) -> dict[str, Any] | None:
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def core(rows: Rows) -> Iterator[str]:
    yield "| what | figure | bar |"
    yield "| --- | --- | --- |"
    for row in rows:
        verdict = "holds" if row["holds"] else "MISSED"
        yield f"| {row['figure']} | {row['value']:,.4g} {row['unit']} | {row['bar']}: {verdict} |"


def kills(rows: Rows) -> Iterator[str]:
    yield "| what | figure | bar |"
    yield "| --- | --- | --- |"
    row = rows[0]  # the sum of the others
    by = ", ".join(f"{what} {n}" for what, n in row["by_what"].items())
    yield f"| SIGKILLs | {row['kills']} ({by}) | at least 200 |"
    yield f"| told results lost | {row['told_lost']} | 0 |"
    yield f"| processes left running | {row['left_running']} | 0 |"
    yield f"| ports still answering | {row['ports_answering']} | 0 |"
    longest, median = row["dead_after_longest_s"], row["dead_after_median_s"]
    yield f"| everything dead after | {median:.2f} s in the median, {longest:.2f} s at the longest | 5 s |"
    ends = f"{row['studies_ended']}, {row['bad_exits']} with a bad exit"
    yield f"| studies carried to their end by `fettle resume` | {ends} | 0 bad |"


def generator(rows: Rows) -> Iterator[str]:
    yield "| what | figure | bar |"
    yield "| --- | --- | --- |"
    for row in rows:
        if row["row"] == "open_loop_cpu":
            what = f"open loop, {row['rate']:,.0f} requests/s offered to a trivial server"
            did = f"{row['throughput_rps']:,.0f} /s at {row['client_cpu_ratio']:.0%} of a core"
            yield f"| {what} | {did} | under 50 % |"
        elif row["row"] == "against_wrk":
            what = f"ours / wrk, {row['pairs']} interleaved pairs, {row['connections']} connections, 3 ms server"
            yield f"| {what}: throughput | {row['throughput_ratio']:.4f} | within 3 % |"
            yield f"| the same: p50 | {row['p50_ratio']:.4f} | within 5 % |"
            ours, wrk = (1e3 * row[key][2] for key in ("ours", "wrk"))
            yield f"| the same: p99, median of the pairs | ours {ours:.1f} ms, wrk {wrk:.1f} ms | shown |"
        else:
            yield f"| {row['row']} | {json.dumps({k: v for k, v in row.items() if k != 'row'})} | |"


def rate_search(rows: Rows) -> Iterator[str]:
    yield "| server | runs | answered | interval held the truth | median half-width | virtual seconds | bar |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        held, width = f"{row['coverage']:.1%}", f"{row['median_half_width']:.1%}"
        bar = "90 %, 10 %: " + ("holds" if row["holds"] else "MISSED")
        seconds = f"{row['seconds_per_trial']:.1f}"
        yield f"| {row['kind']} | {row['runs']} | {row['answered']} | {held} | {width} | {seconds} | {bar} |"


def serve(rows: Rows) -> Iterator[str]:
    for row in rows:
        if row["row"] == "demo" and row["feasible"]:
            yield from _demo(row)
        elif row["row"] == "repeat":
            low, high = row["prediction"]
            values = ", ".join(f"{v:.0f}" for v in row["throughput_rps"])
            yield ""
            yield f"The winner on {len(row['throughput_rps'])} more fresh servers: {values} requests/s. "
            yield f"Inside the 95 % prediction interval of {low:.0f} to {high:.0f} (half-width "
            held = f"**{row['inside']} of {row['of']}** with under 10 % foreign CPU (bar 8 of 10)"
            yield f"{row['half_width_ratio']:.1%}, bar 15 %): {held}."
        elif row["row"] == "early_stop" and row["pairs_s"]:
            pairs = ", ".join(f"{a:.1f} / {b:.1f}" for a, b in row["pairs_s"])
            yield ""
            yield "Trials that were stopped early, against the same configuration measured to the end, in seconds: "
            yield f"{pairs}. Median share of the time saved: {row['saved_ratio_median']:.0%}."


def _demo(row: dict[str, Any]) -> Iterator[str]:
    yield "| | winner | defaults |"
    yield "| --- | --- | --- |"
    winner, baseline = row["trial"], row["baseline"] or {"metrics": {}, "intervals": {}, "params": {}}
    for metric in ("cost_per_million", "throughput_rps", "latency_p99_s", "latency_p50_s"):
        yield f"| {metric} | {_figure(winner, metric)} | {_figure(baseline, metric)} |"
    yield f"| params | {_params(winner)} | {_params(baseline)} |"
    yield ""
    for key in ("gain", "gain_at_equal_precision"):
        if row.get(key):
            yield f"{row[key]['text'].capitalize()}.  "


def _figure(trial: dict[str, Any], metric: str) -> str:
    value, ends = trial["metrics"].get(metric), trial["intervals"].get(metric)
    if value is None:
        return "-"
    shown = "" if not ends else f" [{', '.join('unbounded' if e is None else f'{e:.4g}' for e in ends)}]"
    return f"{value:.4g}{shown}"


def _params(trial: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in trial["params"].items())


def search(rows: Rows) -> Iterator[str]:
    """The tables of bench/compare.py, as it landed them."""
    for row in rows:
        yield f"### The {row['row']} list"
        yield ""
        for table in row["tables"]:
            yield f"**{table['title']}**"
            yield ""
            yield "| " + " | ".join(table["head"]) + " |"
            yield "|" + " --- |" * len(table["head"])
            yield from ("| " + " | ".join(line) + " |" for line in table["body"])
            yield ""


def search_cost(rows: Rows) -> Iterator[str]:
    yield "| method | trials told | mean ms | slowest of 50, ms | bar |"
    yield "| --- | --- | --- | --- | --- |"
    for row in rows:
        verdict = "" if "holds" not in row else ": holds" if row["holds"] else ": MISSED"
        if row["row"] == "cost":
            bar = "" if row["bar_ms"] is None else f"{row['bar_ms']:g}"
            yield f"| {row['method']} | {row['n']} | {row['mean_ms']:.3g} | {row['worst_ms']:.3g} | {bar}{verdict} |"
        else:
            bar = f"{row['bar_s']:g} s{verdict}"
            yield f"| {row['method']}: import and first model-based asks | | {row['cpu_s']:.3g} s | | {bar} |"
    yield ""
    yield "![CPU per ask and tell against told trials](results/search_cost.svg)"


def serve_replay(rows: Rows) -> Iterator[str]:
    yield "Area: mean regret over trials 2 to the last one."
    yield ""
    yield "| trials | algorithm | mean regret | median | area | is auto worse? (Wilcoxon p) |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        p = f"{row['p_auto_is_worse']:.2g}" if "p_auto_is_worse" in row else ""
        area = f"{row['area_ratio']:.1%}" if "area_ratio" in row else ""
        figures = f"{row['mean_regret_ratio']:.1%} | {row['median_regret_ratio']:.1%} | {area}"
        yield f"| {row['trials']} | {row['algorithm']} | {figures} | {p} |"


def fewshot(rows: Rows) -> Iterator[str]:
    """Geometric mean of samples to 90 and 95 % of the best option; regret: mean of samples 1 to 20."""
    yield "One model left out at a time; a bound: latency or time per token under several limits."
    yield ""
    yield "| table | bound | method | to 90 / 95 % | most to 90 | mean regret | after 5 / 10 / 20 | ms / ask | runs |"
    yield "|" + " --- |" * 9
    for row in rows:
        cost, after = f"{row['to90']:.2f} / {row['to95']:.2f}", " / ".join(f"{r:.1%}" for r in row["at"].values())
        what = f"| {row['set']} | {row['bound']} | {row['method']} | {cost} | {row['most90']} | {row['regret']:.1%} "
        yield f"{what}| {after} | {row['ms']:.1f} | {row['runs']} |"


def fewshot_tables(rows: Rows) -> Iterator[str]:
    total, *sets = rows
    methods = list(total["at"]["5"])
    yield f"{total['cases']} tasks of {total['sets']} sets (HPO, NAS, systems), each left out in turn; normalised "
    yield "regret: 0 is the best option, 1 the median one. p: Wilcoxon over tasks, that prior_gp is no better than "
    yield "from scratch."
    yield ""
    yield "| samples | " + " | ".join(methods) + " | p against " + ", ".join(total["p"]["5"]) + " |"
    yield "|" + " --- |" * (len(methods) + 2)
    for n, figures in total["at"].items():
        p = ", ".join(f"{value:.1g}" for value in total["p"][n].values())
        yield f"| {n} | " + " | ".join(f"{figures[m]:.3f}" for m in methods) + f" | {p} |"
    worse = [row["set"] for row in sets if row["worse"]]
    yield ""
    named = ", ".join(worse) or "no set"
    yield f"Area (mean regret of samples 1 to 20) more than 5 % above that from scratch: {named}."
    yield ""
    yield "| set | tasks | " + " | ".join(methods) + " |"
    yield "|" + " --- |" * (len(methods) + 2)
    for row in sets:
        yield f"| {row['set']} | {row['cases']} | " + " | ".join(f"{row['area'][m]:.3f}" for m in methods) + " |"


def fewshot_own(rows: Rows) -> Iterator[str]:
    """Samples to 90 and 95 % on the project's own measurements, and the cases that need more than a static policy."""
    methods, hard = ([r for r in rows if r["row"] == kind] for kind in ("method", "hard"))
    space = next(r for r in rows if r["row"] == "space")
    yield "One fully measured model left out at a time, all others learned from; throughput and throughput per cost, "
    yield "each with p99 within 1.5, 3 and 8 times the model's least. Samples: median; 90th percentile over runs; "
    yield "geometric mean over models. Median regret after 1, 2 and 5 % of the space, whose points that differ number "
    yield f"{space['least']} to {space['most']}."
    yield ""
    yield "| method | to 90 % | to 95 % | regret at 1 / 2 / 5 % | ms / ask | cases | models | seeds |"
    yield "|" + " --- |" * 8
    for row in methods:
        cost = [f"{c['median']:g}; {c['q90']:g}; {c['geometric']:.2f}" for c in (row["to90"], row["to95"])]
        regret = " / ".join(f"{r[0]:.1%}" for r in row["regret_at_percent"].values())
        what = f"| {row['method']} | {cost[0]} | {cost[1]} | {regret} | {row['ms']:.1f} "
        yield f"{what}| {row['cases']} | {row['models']} | {row['seeds']} |"
    yield ""
    for row in (r for r in rows if r["row"] == "bars"):
        yield f"| {row['method']} | figure | bar |"
        yield "|" + " --- |" * 3
        for what, figure, bar, holds in row["bars"]:
            verdict = "static suffices" if holds is None else "holds" if holds else "MISSED"
            side = "at least" if "times" in what else "at most"
            yield f"| {what} | {figure:.3g} | {side} {bar:g}: {verdict} |"
    for row in hard:
        yield ""
        suffices = ": on such machines static suffices." if row["static_suffices"] else "."
        yield f"**To {row['share']} %** the static policy needs more than 3 samples in {row['cases']} of {row['of']} "
        yield f"cases, of {row['models']} models{suffices}"
        if row["against"]:
            ratios = [f"{name} {a['ratio']:.1f} times (p {a['p']:.2g})" for name, a in row["against"].items()]
            yield f"There the others need, of what prior_gp needs: {', '.join(ratios)} (Wilcoxon over models)."
    for row in (r for r in rows if r["row"] == "static"):
        yield ""
        yield f"In {row['within_2_percent']:.0%} of the {row['cases']} cases the best static configuration is within "
        yield "2 % of the optimum: there nothing is left to search for."
    yield ""
    yield "![Share of the best option against samples](results/fewshot_own.svg)"


def fewshot_live(rows: Rows) -> Iterator[str]:
    yield "Seconds until 95 % of the best option (geometric mean over six cases a model): measured seconds of each "
    yield "trial and the algorithm's CPU; in brackets how many times longer than prior_gp, and p (Mann-Whitney)."
    yield ""
    methods = list(rows[0]["wall_s"])
    yield "| model | s / trial | " + " | ".join(methods) + " | bar: tpe and random 3 times, p < 0.05 |"
    yield "|" + " --- |" * (len(methods) + 3)
    for row in rows:
        cells = [f"{row['wall_s'][methods[0]]:.1f}"]
        for method in methods[1:]:
            than = row["against"][method]
            cells.append(f"{row['wall_s'][method]:.1f} ({than['ratio']:.1f}, {than['p']:.1g})")
        verdict = "holds" if row["holds"] else "MISSED"
        yield f"| {row['model']} | {row['trial_s']:.2f} | " + " | ".join(cells) + f" | {verdict} |"
    train = max(row["train_s"] for row in rows)
    yield ""
    yield f"{rows[-1]['seeds']} seeds. Learning from the other models took at most {train:.1f} s of CPU, once, before."


SECTIONS: tuple[tuple[str, str, str, Callable[[Rows], Iterator[str]]], ...] = (
    ("core", "The core", "python bench/core.py", core),
    ("kills", "SIGKILLs at random", "python bench/kills.py", kills),
    ("generator", "The load generator", "python bench/generator.py", generator),
    ("rate_search", "The rate search on simulated servers", "python bench/rate_search.py", rate_search),
    ("serve", "What `fettle serve` finds, and whether its prediction holds", "python bench/serve.py", serve),
    ("search", "Search algorithms and their peers", "python bench/search.py, then bench/compare.py --land", search),
    (
        "serve_replay",
        "Searches replayed on a table of all servings of the demo's model",
        "python bench/serve_table.py",
        serve_replay,
    ),
    (
        "serve_replay_1_core",
        "The same on one core, unlike the machine of the measurements that ship",
        "python bench/serve_table.py --cores 1",
        serve_replay,
    ),
    ("fewshot", "Few-shot search", "python bench/fewshot.py", fewshot),
    (
        "fewshot_own",
        "Few-shot search on the project's own measurements",
        "python bench/fewshot.py --list own",
        fewshot_own,
    ),
    (
        "fewshot_tables",
        "Few-shot search on other people's tables",
        "python bench/fewshot.py --list tables",
        fewshot_tables,
    ),
    ("fewshot_live", "Few-shot search in wall-clock time", "python bench/fewshot_live.py", fewshot_live),
    ("search_cost", "What a suggestion costs", "python bench/search_cost.py", search_cost),
)


def main() -> None:
    lines = [
        "# Results",
        "",
        "Made by `python bench/make_results.py` from the rows in `bench/results/`; each section names the command that",
        "lands its rows. Machines are small, shared and noisy: read ratios before absolute figures.",
    ]
    for name, title, command, write in SECTIONS:
        landed = load(name)
        if landed is None:
            continue
        machine = landed.get("machine") or landed.get("fingerprint") or {"cores": "?", "python": "?"}
        where = f"{machine.get('cpu_model', 'unknown CPU')}, {machine['cores']} cores, Python {machine['python']}"
        lines += ["", f"## {title}", "", f"`{command}` on {where}; seed {landed.get('seed', 0)}.", ""]
        lines += list(write(landed["rows"] if isinstance(landed["rows"], list) else [landed["rows"]]))
    notes = HERE / "notes.md"
    if notes.exists():
        lines += ["", notes.read_text().strip()]
    (HERE / "RESULTS.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
