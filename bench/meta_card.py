"""The data card of a meta-dataset, made from its rows: python bench/meta_card.py ROWS [--card FILE.md] [--pack FILE.gz]

ROWS is what `fettle meta collect` wrote. --pack lands it compressed, as the file that ships.
"""

import argparse
import json
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import meta_figures as figures
from meta_figures import Table

from fettle.problems.serve.collect import rows

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "src" / "fettle" / "data" / "meta" / "onnxruntime-cpu.jsonl.gz"
CARD = ROOT / "docs" / "meta_dataset.md"
HEAD = """# The meta-dataset

Made by `python bench/meta_card.py`; do not edit it by hand.

Real architectures with random weights, each measured in ONNX Runtime on the CPU over one shared space of
configurations: what a search on a further model learns from. Licence: Apache-2.0, as the project; the models are built
in code (`bench/zoo`), so that no weights of others are in it.
"""


def card(path: Path) -> str:
    found = rows.read(path)
    table = Table.of(found)
    parts = [HEAD, *_measured(found, table), *_noise(table), *_knobs(table), *_alike(table), *_models(found, table)]
    return "\n".join(parts)


def _measured(found: rows.RowFile, table: Table) -> list[str]:
    header, lines = found.header, found.lines
    machine, probe = header["fingerprint"], header["probe"]
    full = table.full()
    times = [line["at"] for line in lines]
    failures: dict[str, int] = defaultdict(int)
    for line in lines:
        if line.get("failure"):
            failures[line["failure"]] += 1
    seconds = np.array([line["seconds"] for line in lines if not line.get("failure")])
    disturbed = sum(line["foreign"] > 0.1 for line in lines)
    domains = [(name, form) for name, form in header["space"].items() if name != "where"]
    knobs = "; ".join(f"`{name}` {', '.join(str(v) for v in next(iter(form.values())))}" for name, form in domains)
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    first, last = (datetime.fromtimestamp(at, UTC) for at in (min(times), max(times)))
    when = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    return [
        "## How it was measured\n",
        f"- {len(table.models)} models, {len(lines)} rows, {when}; {len(full)} models with the full grid of "
        f"{table.size} points, the others at {header['settings']['points']} points that lie far from each other and "
        "are the same for all.",
        f"- Knobs: {knobs}. Spinning only with more than one thread.",
        "- One forked process per row; `workers` sessions of `threads` threads each, all busy in a closed loop, no "
        "queue. `throughput_rps` counts items; `latency_p50_s` and `latency_p99_s` are of whole batches; `rss_bytes` "
        "is the peak of the process, with Python and ONNX Runtime in it.",
        f"- A row lasts until its throughput is known within 3 % (95 %), between 0.25 and 0.7 s where runs are short: "
        f"median {np.median(seconds):.2f} s, {np.mean(seconds):.2f} s on average. Where a row has fewer than 368 runs, "
        "the 99th percentile is known from below only (its interval is open), and it is close to the maximum.",
        f"- Rows during which strangers took more than 10 % of the machine were measured again, up to three times; "
        f"{disturbed} rows remain above that (`foreign`).",
        f"- Failures: {', '.join(f'{n} {name}' for name, n in sorted(failures.items())) or 'none'}.",
        f"- Machine: {machine['cpu_model']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"kernel {machine['kernel']}; {versions}. Probe: {probe['flops_fp32_1'] / 1e9:.0f} Gflop/s in fp32 and "
        f"{probe['ops_int8_1'] / 1e9:.0f} Gop/s in int8 on one core, {probe['bandwidth_all'] / 1e9:.0f} GB/s on all.\n",
    ]


def _noise(table: Table) -> list[str]:
    found = figures.repeats(table)
    if found is None:
        return ["## Noise\n", "No point was measured more than once.\n"]
    lines = ["## Noise\n", f"{found.points} points were measured {found.least} times or more, apart in time.\n"]
    lines += ["| metric | spread (median) | 90th percentile |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {100 * a:.1f} % | {100 * b:.1f} % |" for name, (a, b) in found.spread.items()]
    lines += [
        "",
        f"Spread is the standard deviation over the mean. The best row of a model lies {100 * found.curse:.1f} % above "
        "the mean of its own repeats (median over models): the optimum is to be taken from such means. "
        f"{100 * found.covered:.0f} % of further throughputs lie within 1.96 sqrt(2) median spreads of the first.\n",
    ]
    return lines


def _knobs(table: Table) -> list[str]:
    effects = figures.knobs(table)
    lines = ["## Which knobs matter\n"]
    if not effects:
        return [*lines, "No model has the full grid.\n"]
    lines += [
        "Over the fully measured models; points that differ in one knob only. Share: of the variance of log throughput "
        "that the knob's own mean effect explains.",
        "Ratios are of the best to the worst value of the knob, all else equal: median; 90th percentile. Idle: pairs "
        "that differ by less than 3 % in throughput and in p50.\n",
        "| knob | throughput | latency p50 | share | idle |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{e.name}` | {e.throughput[0]:.2f}; {e.throughput[1]:.2f} | {e.latency[0]:.2f}; {e.latency[1]:.2f} "
        f"| {100 * e.share:.0f} % | {100 * e.idle:.0f} % |"
        for e in effects
    ]
    distinct = figures.distinct(table)
    counts = sorted(distinct.values())
    lines += [
        "",
        "Points that really differ, when neighbours within 3 % in both are counted once: "
        f"{counts[0]} to {counts[-1]} of {table.size}, {int(np.median(counts))} in the median model.\n",
    ]
    return lines


def _alike(table: Table) -> list[str]:
    ranks = figures.correlations(table)
    lines = ["## Do models show a similar tendency?\n"]
    if ranks is None:
        return [*lines, "Fewer than two models share ten points.\n"]
    low, middle, high = np.quantile(ranks.values, [0.1, 0.5, 0.9])
    lines += [
        "Spearman's rank correlation of throughput over the points that two models share, all pairs: median "
        f"{middle:.2f}, 10th and 90th percentile {low:.2f} and {high:.2f}. Most alike: {ranks.most}; "
        f"least: {ranks.least}.\n",
        "The static policy takes the point that is best on average (mean of logs) over the other models. Its regret:\n",
        "| limit on p99 | median | 90th percentile | worst | models within 2 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, regrets in figures.static(table).items():
        a, b = np.quantile(regrets, [0.5, 0.9])
        shares = (a, b, float(regrets.max()), float(np.mean(regrets <= 0.02)))
        lines.append(f"| {name} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")
    lines += [
        "",
        "Limits are multiples of the model's least p99. Where the policy's point misses it, the regret is 100 %.\n",
    ]
    return lines


def _models(found: rows.RowFile, table: Table) -> list[str]:
    prior = figures.roofline_correlations(found, table)
    lines = [
        "## The models\n",
        f"The roofline's rank correlation with the measured throughput is {np.median(list(prior.values())):.2f} in the "
        "median.\n",
        "| model | MB | Gflop | points | worst to best, items/s | best configuration | roofline |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in table.models:
        feature = found.models[name]["features"]
        throughput = table.throughput[name]
        best = max(throughput, key=lambda k: throughput[k])
        said = ", ".join(f"{k} {v}" for k, v in json.loads(best).items())
        lines.append(
            f"| {name} | {feature['weight_bytes'] / 1e6:.0f} | {feature['flops'] / 1e9:.2f} | {len(throughput)} "
            f"| {min(throughput.values()):.0f} to {throughput[best]:.0f} | {said} | {prior[name]:.2f} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--card", type=Path, default=CARD)
    parser.add_argument("--pack", type=Path, nargs="?", const=SHIPPED, help=f"default: {SHIPPED.relative_to(ROOT)}")
    chosen = parser.parse_args()
    chosen.card.write_text(card(chosen.rows), encoding="utf-8")
    print(chosen.card)
    if chosen.pack is not None:
        print(f"{chosen.pack}: {rows.pack(chosen.rows, chosen.pack) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
