"""Few-shot search on measured tables, one model left out at a time: learners, baselines and searches from scratch.

    python bench/fewshot.py --list a100 llm triton --minutes 60      # serving tables
    python bench/fewshot.py --list tables --minutes 60               # other people's tables (pandas, pyarrow)
    python bench/fewshot.py --list own --minutes 60                  # the project's own measurements, which ship
    python bench/fewshot.py --quick                                  # a part of everything, under 10 minutes
    python bench/fewshot.py --land                                   # bench/results/fewshot.json from all rows so far

--data names the folder of benchmark tables (default: FETTLE_DATA, or shared/data/benchmarks beside the checkout).
Rows land in bench/results/fewshot/<set>.jsonl, one for each (case, method, seed); the same command goes on where it
was. A row: to90, to95: samples until that share of the best option (no run is cut off before it), regret: mean of
1 - share over samples 1 to 20, at: regret after 5, 10 and 20 samples. Until something is allowed the regret is 1.
Rows of the own set have [samples, share] whenever the best share got better (t) and the points of the space that differ
(size), and --land makes bench/results/fewshot_own.json of them, with the figure.
"""

import argparse
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before NumPy is loaded
    os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import fewshot_figures
import fewshot_own
import fewshot_tables
import measured
import numpy as np
from fewshot_cases import Case, cases, sets

from fettle import registry
from fettle.core.errors import Exhausted
from fettle.core.protocols import Algorithm
from fettle.core.space import Params
from fettle.core.trial import State, Trial, outcome
from fettle.host.machine import fingerprint
from fettle.surrogates.meta import MetaModel, train
from fettle.surrogates.meta import Row as MetaRow

HERE = Path(__file__).parent / "results"
LEARNERS = ("prior_gp", "rgpe", "maml", "maml_first_order", "fine_tuning", "nearest", "parametric")
NETWORKS, TRAINED = ("maml", "maml_first_order", "fine_tuning"), 3  # starts of a network, which the seeds share out
SCRATCH = ("gp_bo", "tpe", "auto", "random")
SERVING = ("a100", "llm", "triton", "own")  # sets with a table of their own
METHODS = ("static", *LEARNERS, *SCRATCH)
DETERMINISTIC = ("static", *LEARNERS)
Row = dict[str, Any]
_MOST = 300  # samples of a run that has not found 95 % yet, in tables without a bar on samples


class Static:
    """Best static configuration: by the mean share of each other task's own best, under the same bounds."""

    def __init__(self, case: Case) -> None:
        total: dict[Any, list[float]] = {}
        for task in case.others:
            figures, bounds = {}, case.bounds(task)
            for row in task.rows:
                value = row.metrics.get(case.objective.metric, math.nan)
                held = all(c.violation(row.metrics.get(c.metric, math.inf)) <= 0 for c in bounds)
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
        rows = [row.params for row in (case.judged or case.task).rows]
        return sorted(rows, key=lambda p: -self.worth.get(case.space.key(p), -1.0))


@dataclass(frozen=True)
class Replay:
    """The task's table. Where points were measured several times, a search is told one of their measurements, the
    first for seed 0, and judged by the mean."""

    case: Case
    told: Mapping[Any, Sequence[MetaRow]]
    judged: Mapping[Any, MetaRow]
    seed: int

    @classmethod
    def of(cls, case: Case, seed: int) -> "Replay":
        told: dict[Any, list[MetaRow]] = {}
        for row in case.task.rows:
            told.setdefault(case.space.key(row.params), []).append(row)
        first = {key: rows[0] for key, rows in told.items()}
        means = {case.space.key(row.params): row for row in case.judged.rows} if case.judged else first
        return cls(case, told, means, seed if case.judged else 0)

    def trial(self, number: int, params: Params) -> Trial:
        rows = self.told[self.case.space.key(params)]
        i = int(np.random.default_rng([self.seed, number]).integers(len(rows))) if self.seed else 0
        state = State.FAILED if rows[i].failure else State.COMPLETE
        return Trial(number, params, state, metrics=dict(rows[i].metrics), failure=rows[i].failure)

    def share(self, params: Params) -> float:
        """Of the best option; 0 for what fails or is over a bound."""
        row, case = self.judged[self.case.space.key(params)], self.case
        allowed = not row.failure and all(c.violation(row.metrics[c.metric]) <= 0 for c in case.constraints)
        return case.share(row.metrics[case.objective.metric]) if allowed else 0.0


def algorithm_of(case: Case, method: str, seed: int, model: MetaModel | None) -> Algorithm:
    spec: Any = method
    if model is not None:
        spec = {"name": "fewshot", "model": model, "features": case.task.features}
    settings = registry.settings("algorithms", spec)
    made: Algorithm = settings.build(case.space, (case.objective,), case.constraints, seed, None)
    return made


def curve(case: Case, method: str, seed: int, model: MetaModel | None) -> tuple[list[float], float]:
    """Best share after each sample, until 95 % and at least 20 samples; mean ms per ask."""
    replay = Replay.of(case, seed)
    algorithm = None if method == "static" else algorithm_of(case, method, seed, model)
    fixed = Static(case).order(case) if method == "static" else []
    best, found, spent = 0.0, list[float](), 0.0
    size = len(replay.told)
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
            trial = replay.trial(n, params)
            algorithm.tell(trial, outcome(trial, (case.objective,), case.constraints))
        best = max(best, replay.share(params))
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
    } | ({"t": steps(shares), "size": case.size} if case.size else {})  # fmt: skip


def steps(shares: Sequence[float]) -> list[tuple[int, float]]:
    """(samples, share) whenever the best share got better."""
    better = [n for n in range(len(shares)) if shares[n] > (shares[n - 1] if n else 0.0)]
    return [(n + 1, round(float(shares[n]), 4)) for n in better]


def path_of(name: str, folder: Path) -> Path:
    return folder / "fewshot" / (re.sub(r"[^A-Za-z0-9_]+", "_", name) + ".jsonl")


def mend(path: Path) -> None:
    """Takes away a last line that was cut off, so that the next one begins where it did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        data = path.read_bytes()
        os.truncate(path, data.rfind(b"\n") + 1)


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
    chosen = list(fewshot_own.own(options.rows) if name == "own" else cases(name))
    steady = ("static",) if name == "own" else DETERMINISTIC  # repeats of a point differ, and so do networks' starts
    if options.quick:
        chosen = chosen[:: max(1, len(chosen) // 8)]
    for seed in range(options.seeds):
        for case in chosen:
            yield from ((case, m, seed) for m in options.methods if seed == 0 or m not in steady)


def measure(options: argparse.Namespace, name: str, until: float) -> bool:
    """Runs what is missing of one set; False when time is up."""
    path = path_of(name, options.folder)
    mend(path)
    done, models = load(path), dict[tuple[str, str, int], MetaModel]()
    for case, method, seed in plan(options, name):
        if (case.name, method, seed) in done:
            continue
        if time.monotonic() > until:
            return False
        model = None
        if method in LEARNERS:
            start = seed % TRAINED if method in NETWORKS else 0
            if (key := (case.group, method, start)) not in models:
                models[key] = train(case.others, case.space, method=method, seed=start)
            model = models[key]
        with path.open("a") as out:
            out.write(json.dumps(run(case, method, seed, model), separators=(",", ":")) + "\n")
    return True


def geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if values else math.nan


def land(options: argparse.Namespace) -> None:
    rows = []
    stored = {path.stem: list(load(path).values()) for path in sorted((options.folder / "fewshot").glob("*.jsonl"))}
    for name in [n for n in stored if n in SERVING]:
        found = stored[name]
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
    head = {"schema": 1, "machine": fingerprint(("fettle", "numpy", "scipy")), "seed": 0}
    (options.folder / "fewshot.json").write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")
    others = fewshot_tables.rows({name: found for name, found in stored.items() if name not in SERVING})
    if others:
        (options.folder / "fewshot_tables.json").write_text(json.dumps(head | {"rows": others}, indent=1) + "\n")
    if stored.get("own"):
        made = fewshot_figures.table(stored["own"])
        (options.folder / "fewshot_own.json").write_text(json.dumps(head | {"rows": made}, indent=1) + "\n")
        (options.folder / "fewshot_own.svg").write_text(fewshot_figures.picture(made))
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
    parser.add_argument("--rows", type=Path, default=fewshot_own.SHIPPED, help="measurements that are the set `own`")
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
