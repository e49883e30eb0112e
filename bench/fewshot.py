"""Few-shot search on measured tables, one model left out at a time: learners, baselines and searches from scratch.

    python bench/fewshot.py --list a100 llm triton --minutes 60      # serving tables
    python bench/fewshot.py --list tables --minutes 60               # other people's tables (pandas, pyarrow)
    python bench/fewshot.py --quick                                  # a part of everything, under 10 minutes
    python bench/fewshot.py --land                                   # bench/results/fewshot.json from all rows so far

--data names the folder of benchmark tables (default: FETTLE_DATA, or shared/data/benchmarks beside the checkout).
Rows land in bench/results/fewshot/<set>.jsonl, one for each (case, method, seed); the same command goes on where it
was. A row: to90, to95: samples until that share of the best option (no run is cut off before it), regret: mean of
1 - share over samples 1 to 20, at: regret after 5, 10 and 20 samples. Until something is allowed the regret is 1.
"""

import argparse
import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before NumPy is loaded
    os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import measured
import numpy as np
from fewshot_cases import Case, cases, sets

from fettle import registry
from fettle.core.errors import Exhausted
from fettle.core.trial import State, Trial, outcome
from fettle.host.machine import fingerprint
from fettle.surrogates.meta import MetaModel, train

HERE = Path(__file__).parent / "results"
LEARNERS = ("prior_gp", "rgpe", "maml", "maml_first_order", "fine_tuning", "nearest", "parametric")
SCRATCH = ("gp_bo", "tpe", "auto", "random")
METHODS = ("static", *LEARNERS, *SCRATCH)
DETERMINISTIC = ("static", *LEARNERS)
Row = dict[str, Any]
_MOST = 300  # samples of a run that has not found 95 % yet, in tables without a bar on samples


class Static:
    """Best static configuration: by the mean share of each other task's own best, under the same bounds."""

    def __init__(self, case: Case) -> None:
        total: dict[Any, list[float]] = {}
        for task in case.others:
            figures = {}
            for row in task.rows:
                value = row.metrics.get(case.objective.metric, math.nan)
                held = all(c.violation(row.metrics.get(c.metric, math.inf)) <= 0 for c in case.constraints)
                figures[case.space.key(row.params)] = value if not row.failure and held else math.nan
            known = [v for v in figures.values() if v == v]
            if not known:
                continue
            best, worst = (min(known), max(known)) if case.objective.sign > 0 else (max(known), min(known))
            worst = 0.0 if case.zero == 0.0 else worst
            for key, value in figures.items():
                share = 0.0 if value != value or best == worst else (value - worst) / (best - worst)
                total.setdefault(key, []).append(share)
        self.worth = {key: float(np.mean(v)) for key, v in total.items()}

    def order(self, case: Case) -> list[Any]:
        rows = [row.params for row in case.task.rows]
        return sorted(rows, key=lambda p: -self.worth.get(case.space.key(p), -1.0))


def curve(case: Case, method: str, seed: int, model: MetaModel | None) -> tuple[list[float], float]:
    """Best share after each sample, until 95 % and at least 20 samples; mean ms per ask."""
    truth = {case.space.key(row.params): row for row in reversed(case.task.rows)}
    algorithm = None
    if method != "static":
        spec: Any = {"name": "fewshot", "model": model} if model is not None else method
        settings = registry.settings("algorithms", spec)
        algorithm = settings.build(case.space, (case.objective,), case.constraints, seed, None)
    fixed = Static(case).order(case) if method == "static" else []
    best, found, spent = 0.0, list[float](), 0.0
    size = len({case.space.key(row.params) for row in case.task.rows})
    while len(found) < size and (len(found) < 20 or (best < 0.95 and len(found) < max(_MOST, size * (case.zero == 0)))):
        n = len(found)
        if algorithm is None:
            params = fixed[n] if n < len(fixed) else fixed[-1]
        else:
            begun = time.perf_counter()
            try:
                params = algorithm.ask(1, n, [], np.random.default_rng([seed, n]))[0].params
            except Exhausted:
                break
            spent += time.perf_counter() - begun
        row = truth[case.space.key(params)]
        state = State.FAILED if row.failure else State.COMPLETE
        trial = Trial(n, params, state, metrics=row.metrics, failure=row.failure)
        if algorithm is not None:
            algorithm.tell(trial, outcome(trial, (case.objective,), case.constraints))
        allowed = not row.failure and all(c.violation(row.metrics[c.metric]) <= 0 for c in case.constraints)
        if allowed:
            best = max(best, case.share(row.metrics[case.objective.metric]))
        found.append(best)
    return found, 1e3 * spent / max(1, len(found))


def run(case: Case, method: str, seed: int, model: MetaModel | None) -> Row:
    shares, ms = curve(case, method, seed, model)
    padded = np.array([*shares, *[shares[-1]] * max(0, 20 - len(shares))])
    regret = np.maximum(0.0, 1.0 - padded)
    reached = {q: next((n + 1 for n, s in enumerate(shares) if s >= q / 100 - 1e-9), None) for q in (90, 95)}
    return {
        "case": case.name, "group": case.group, "label": case.label, "metric": case.objective.metric,
        "method": method, "seed": seed, "to90": reached[90], "to95": reached[95], "n": len(shares),
        "regret": round(float(regret[:20].mean()), 5), "at": {n: round(float(regret[n - 1]), 5) for n in (5, 10, 20)},
        "ms": round(ms, 2),
    }  # fmt: skip


def path_of(name: str, folder: Path) -> Path:
    return folder / "fewshot" / (re.sub(r"[^A-Za-z0-9_]+", "_", name) + ".jsonl")


def load(path: Path) -> dict[tuple[str, str, int], Row]:
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # cut off when its run was killed
            continue
        rows[row["case"], row["method"], row["seed"]] = row
    return rows


def plan(options: argparse.Namespace, name: str) -> Iterator[tuple[Case, str, int]]:
    chosen = list(cases(name))
    if options.quick:
        chosen = chosen[:: max(1, len(chosen) // 8)]
    for seed in range(options.seeds):
        for case in chosen:
            yield from ((case, m, seed) for m in options.methods if seed == 0 or m not in DETERMINISTIC)


def measure(options: argparse.Namespace, name: str, until: float) -> bool:
    """Runs what is missing of one set; False when time is up."""
    path = path_of(name, options.folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    done, models = load(path), dict[tuple[str, str], MetaModel]()
    for case, method, seed in plan(options, name):
        if (case.name, method, seed) in done:
            continue
        if time.monotonic() > until:
            return False
        model = None
        if method in LEARNERS:
            if (key := (case.group, method)) not in models:
                models[key] = train(case.others, case.space, method=method, seed=seed)
            model = models[key]
        with path.open("a") as out:
            out.write(json.dumps(run(case, method, seed, model), separators=(",", ":")) + "\n")
    return True


def geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if values else math.nan


def land(options: argparse.Namespace) -> None:
    rows = []
    for path in sorted((options.folder / "fewshot").glob("*.jsonl")):
        name, found = path.stem, list(load(path).values())
        for label in sorted({("bound" if r["label"] not in ("", "none") else "none") for r in found}):
            part = [r for r in found if (r["label"] not in ("", "none")) == (label == "bound")]
            for method in METHODS:
                mine = [r for r in part if r["method"] == method]
                if len({r["case"] for r in mine}) < len({r["case"] for r in part}):
                    continue  # not all cases are there yet
                cost = {q: geometric([r[f"to{q}"] or r["n"] + 1 for r in mine]) for q in (90, 95)}
                at = {n: float(np.mean([r["at"][n] for r in mine])) for n in ("5", "10", "20")}
                rows.append({
                    "set": name, "bound": label, "method": method, "runs": len(mine),
                    "cases": len({r["case"] for r in mine}), "to90": cost[90], "to95": cost[95],
                    "regret": float(np.mean([r["regret"] for r in mine])), "at": at,
                    "most90": max(r["to90"] or r["n"] + 1 for r in mine), "ms": float(np.mean([r["ms"] for r in mine])),
                })  # fmt: skip
    landed = {"schema": 1, "machine": fingerprint(("fettle", "numpy", "scipy")), "seed": 0, "rows": rows}
    (options.folder / "fewshot.json").write_text(json.dumps(landed, indent=1) + "\n")
    for row in rows:
        print(f"{row['set']:28s} {row['bound']:6s} {row['method']:17s} {row['to90']:6.2f} {row['to95']:6.2f} "
              f"{100 * row['regret']:6.2f} % most {row['most90']:4d} {row['ms']:6.1f} ms {row['runs']}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=measured.DATA)
    parser.add_argument("--list", nargs="+", default=["a100", "llm", "triton"], help="sets, or `tables` for all others")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=20, help="of methods that draw")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true", help="eight cases a set, two seeds, few methods")
    parser.add_argument("--land", action="store_true", help="make the table from all rows so far")
    parser.add_argument("--folder", type=Path, default=HERE)
    options = parser.parse_args()
    measured.DATA = options.data
    if options.quick:
        options.seeds, options.minutes, options.folder = 2, 9.0, Path("build") / "fewshot_quick"
        options.methods = ["static", "prior_gp", "gp_bo", "random"]
    names = [n for given in options.list for n in (sets()[3:] if given == "tables" else [given])]
    until = time.monotonic() + 60 * options.minutes
    if not options.land:
        for name in names:
            if not measure(options, name, until):
                print("time is up; the same command goes on", flush=True)
                break
    options.folder.mkdir(parents=True, exist_ok=True)
    land(options)


if __name__ == "__main__":
    main()
