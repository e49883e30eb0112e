"""CPU per ask and tell against the number of trials, in 10 dimensions; and what the first model-based ask loads.

    .venv-peers/bin/python bench/search_cost.py [--methods fettle:gp_bo fettle:tpe optuna_tpe] [--sizes 100 300 1000]

A history of n random points of levy in 10 dimensions is told; then 50 asks and tells in a row are timed, refits
included: mean and slowest. A method stops at the first n whose mean is over a second. Lands one row per (method, n) in
bench/results/search_cost.json, with its bar, and draws bench/results/search_cost.svg. Resumes:
rows that stand are kept (--again runs them anew).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before NumPy is loaded
    os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
import scipy.optimize  # noqa: F401  what loading it costs is another row
import search_rows

from fettle import registry
from fettle.core.space import Float, Params, Space
from fettle.core.trial import Objective, State, Trial, outcome
from fettle.host.machine import fingerprint
from fettle.problems.synthetic.functions import levy
from fettle.report.scales import Scale, fitted, spread
from fettle.report.svg import Frame, drawing, tag, words

RESULTS = Path(__file__).parent / "results"
SIZES = (50, 100, 300, 1000, 3000, 10_000)
BARS = {("fettle:gp_bo", 100): 10.0, ("fettle:gp_bo", 300): 50.0, ("fettle:gp_bo", 1000): 100.0,
        ("fettle:tpe", 1000): 1.0, ("fettle:evolution", 1000): 0.1}  # fmt: skip
SPACE = Space({f"x{i}": Float(-8.3, 11.9) for i in range(10)})
LOSS = (Objective("loss"),)
TIMED, TOO_SLOW_MS = 50, 1000.0
COLOURS = ("#1f5fa8", "#b5482a", "#2e7d4f", "#7a4fa3", "#8a6d1a", "#4a4a4a", "#c2185b", "#0f7c86")
Step = Callable[[int, bool], float]  # (trial number, told only) -> CPU ms of its ask and tell


def loss(params: Params) -> float:
    return levy(np.array(list(params.values())))


def ours(name: str, points: Sequence[Params]) -> Step:
    algorithm = registry.settings("algorithms", name).build(SPACE, LOSS, (), 0, None)

    def step(number: int, told_only: bool) -> float:
        begun = time.process_time()
        if told_only:
            params = points[number]
        else:
            (proposal,) = algorithm.ask(1, number, (), np.random.default_rng([0, number]))
            params = proposal.params
        asked = time.process_time() - begun
        trial = Trial(number, params, State.COMPLETE, metrics={"loss": loss(params)})
        begun = time.process_time()
        algorithm.tell(trial, outcome(trial, LOSS, ()))
        return 1e3 * (asked + time.process_time() - begun)

    return step


def optunas(name: str, points: Sequence[Params]) -> Step:
    import optuna
    from peers import ENTRIES, optuna_samplers

    from fettle.problems.synthetic import Synthetic

    problem = Synthetic("levy", "smooth", 0, SPACE, lambda p: {"loss": loss(p)}, points[0], 0.0)
    peer = getattr(optuna_samplers, ENTRIES[name].where.partition(":")[2])(problem, 0)
    ranges = {n: optuna.distributions.FloatDistribution(d.low, d.high) for n, d in SPACE.domains.items()}  # type: ignore[union-attr]

    def step(number: int, told_only: bool) -> float:
        from peers import Told

        if told_only:
            made = optuna.trial.create_trial(params=points[number], distributions=ranges, value=loss(points[number]))
            peer.study.add_trial(made)
            return 0.0
        begun = time.process_time()
        params = peer.ask()
        asked = time.process_time() - begun
        told = Told((loss(params),))
        begun = time.process_time()
        peer.tell(told)
        return 1e3 * (asked + time.process_time() - begun)

    return step


def measured(method: str, n: int) -> dict[str, Any]:
    points = SPACE.sample(n, np.random.default_rng(n))
    step = ours(method.removeprefix("fettle:"), points) if method.startswith("fettle:") else optunas(method, points)
    for number in range(n):
        step(number, True)
    times = [step(n + i, False) for i in range(TIMED)]
    bar = BARS.get((method, n))
    row = {
        "row": "cost",
        "method": method,
        "n": n,
        "mean_ms": float(np.mean(times)),
        "worst_ms": max(times),
        "bar_ms": bar,
    }
    return row | ({} if bar is None else {"holds": row["mean_ms"] <= bar})


_FIRST = """
import time, sys
import scipy.optimize
begun = time.process_time()
import fettle
space = fettle.Space(x=fettle.Float(0, 1), y=fettle.Float(0, 1))
study = fettle.Study(space, objectives=["loss"], algorithm=sys.argv[1])
for i in range(12):
    trial = study.ask()
    study.tell(trial, {"loss": (trial.params["x"] - 0.3) ** 2 + trial.params["y"]})
study.ask()
print(time.process_time() - begun, int("scipy.stats" in sys.modules))
"""


def first_ask(algorithm: str) -> dict[str, Any]:
    """CPU seconds above `import scipy.optimize` for `import fettle` and 13 asks, of which the last ones use a model."""
    seen = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", _FIRST, algorithm], capture_output=True, text=True, check=True)
        seen.append(tuple(map(float, done.stdout.split())))
    seconds = float(np.median([s for s, _ in seen]))
    row = {"row": "first_ask", "method": f"fettle:{algorithm}", "cpu_s": seconds, "bar_s": 0.3}
    return row | {"holds": seconds <= 0.3, "scipy_stats": bool(seen[0][1])}


def picture(rows: Sequence[dict[str, Any]]) -> str:
    costs = [row for row in rows if row["row"] == "cost"]
    x = fitted([row["n"] for row in costs], 70.0, 430.0, log=True)
    y: Scale = fitted([max(1e-2, row["mean_ms"]) for row in costs], 330.0, 40.0, log=True)
    frame, parts = Frame(x, y), []
    lines = {
        method: [frame.at(r["n"], max(1e-2, r["mean_ms"])) for r in costs if r["method"] == method]
        for method in dict.fromkeys(row["method"] for row in costs)
    }
    names = sorted(lines, key=lambda method: lines[method][-1][1])
    heights = dict(zip(names, spread([lines[m][-1][1] + 4 for m in names], 14.0, 40.0, 340.0), strict=True))
    for i, (method, line) in enumerate(lines.items()):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in line)
        colour = COLOURS[i % len(COLOURS)]
        parts.append(tag("polyline", points=path, fill="none", stroke=colour, stroke_width="2"))
        parts.append(tag("text", method, x=line[-1][0] + 6, y=heights[method], fill=colour, font_size="12"))
    style = tag("style", "text{font:12px sans-serif}.grid{stroke:#ddd}.axis{stroke:#555}")
    title = words("CPU ms per ask and tell against told trials, 10 dimensions", 70.0, 18.0)
    about = "; ".join(f"{r['method']} at {r['n']}: {r['mean_ms']:.3g} ms" for r in costs)
    whole = drawing(
        "Cost of a suggestion", about, style, title, frame.grid("trials", "ms"), *parts, width=560, height=380
    )
    return str(whole).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["fettle:auto", "fettle:evolution", "optuna_tpe", "optuna_gp"])
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--quick", action="store_true", help="up to 300 trials")
    options = parser.parse_args()
    path = RESULTS / "search_cost.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    sizes = [n for n in options.sizes if n <= 300] if options.quick else options.sizes
    for method in options.methods:
        code = search_rows.code_hash() if method.startswith("fettle:") else ""
        wanted: list[tuple[str, int]] = [("cost", n) for n in sizes]
        wanted += [("first_ask", 0)] if code else []
        for what, n in wanted:
            old = [r for r in rows if (r["row"], r["method"], r.get("n", 0), r["code"]) == (what, method, n, code)]
            if options.again or not old:
                made = measured(method, n) if what == "cost" else first_ask(method.removeprefix("fettle:"))
                rows = [r for r in rows if (r["row"], r["method"], r.get("n", 0)) != (what, method, n)]
                rows.append(made | {"code": code})
                print(json.dumps(made), flush=True)
                rows.sort(key=lambda r: (r["row"], r["method"], r.get("n", 0)))
                machine = fingerprint(("fettle", "numpy", "scipy", "optuna"))
                path.write_text(json.dumps({"schema": 1, "machine": machine, "rows": rows}, indent=1) + "\n")
                old = [made]
            if what == "cost" and old[0]["mean_ms"] > TOO_SLOW_MS:
                break
    path.with_suffix(".svg").write_text(picture(rows))


if __name__ == "__main__":
    main()
