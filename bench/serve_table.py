"""Every configuration of a narrowed space of the demo's model, measured here; and searches replayed on that table.

    python bench/serve_table.py measure [--cores 1] [--folder build/serve_table] [--minutes 60]
    python bench/serve_table.py replay [--cores 1] [--seeds 20]

`measure` takes each point of a space of 144 configurations (all that the demo searches, but one graph optimization, no
spinning, and fewer batchings), each on a fresh server with a full search of its rate, in a shuffled order so that slow
changes of the machine hit no region; it resumes, and lands bench/results/serve_table.json. `replay` runs algorithms on
it as `fettle serve` would: the defaults first, then their proposals, trials that cannot beat the best stopped early;
it lands bench/results/serve_replay.json. "prior" is the search that `fettle serve` makes by default: from the
measurements of other models that ship. With --cores 1 the server and the generator share one core, a machine unlike the
one of these measurements, with files of its own (..._1_core.json).
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import fettle
from fettle import api, registry
from fettle.core.space import Space
from fettle.core.trial import Constraint, Objective, State, Trial, outcome
from fettle.host.machine import fingerprint
from fettle.prior import prior
from fettle.problems.serve.problem import make
from fettle.surrogates.meta.store import Store

RESULTS = Path(__file__).parent / "results"
SLO = "p99=50ms"
NARROWED = {"batching": ["off", "on"], "batching.on.max_batch": [2, 4, 8, 16], "batching.on.max_wait_ms": [2, 10]}
FIXED = {"graph_optimization": "all", "spinning": False}
KEPT = ("state", "metrics", "intervals", "failure", "error")
BUDGETS = (6, 12, 24, 36)
ALGORITHMS = ("prior", "auto", "gp_bo", "qmc", "evolution", "tpe", "random")
DATA = Path(str(files("fettle.data")))
MODEL = {"fp32": DATA / "digits-fp32.onnx", "int8": DATA / "digits-int8.onnx"}


def table_of(cores: int | None) -> Path:
    return RESULTS / f"serve_table{_suffix(cores)}.json"


def replay_of(cores: int | None) -> Path:
    return RESULTS / f"serve_replay{_suffix(cores)}.json"


def _suffix(cores: int | None) -> str:
    return "" if cores is None else f"_{cores}_core"


def asked(cores: int | None) -> dict[str, Any]:
    """What is searched for, as arguments of `fettle.serve`."""
    fixed = FIXED if cores != 1 else {name: value for name, value in FIXED.items() if name != "spinning"}
    return {
        "slo": SLO, "objective": "cost", "inputs": DATA / "digits-samples.npz", "params": NARROWED, "fix": fixed,
        "cores": cores,
    }  # fmt: skip


def measure(folder: Path, minutes: float, cores: int | None) -> None:
    """Resumes from the rows in the folder."""
    give_up = time.monotonic() + 60.0 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    storage, rows_path = folder / "table.db", folder / "rows.jsonl"
    if storage.exists():
        result = api.open_study("table", storage)
    else:
        result = fettle.serve(
            MODEL, budget=40.0, trials=1, storage=storage, name="table", algorithm="random", **asked(cores)
        )
    space, study = result.study.space, result.study
    done = [json.loads(line) for line in rows_path.read_text().splitlines()] if rows_path.exists() else []
    known = {space.key(row["params"]) for row in done}
    points = list(space.enumerate())
    for i in np.random.default_rng(0).permutation(len(points)).tolist():
        if space.key(points[i]) in known:
            continue
        if time.monotonic() > give_up:
            break
        (payload,) = api.measure(result, points[i])
        row = {
            "params": points[i],
            **{k: payload.get(k) for k in ("state", "metrics", "intervals", "failure", "error")},
        }
        row["foreign_ratio"] = payload.get("artifacts", {}).get("noise", {}).get("foreign_ratio")
        done.append(row)
        with rows_path.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(f"{len(done)} of {len(points)}: {row['state']} {row['metrics']}", flush=True)
    defaults = study.trials[0]
    head = {
        "schema": 1,
        "machine": fingerprint(("fettle", "mosec", "onnxruntime", "numpy")),
        "slo": SLO,
        "space": study.space.to_json(),
        "objectives": [[o.metric, o.goal] for o in study.objectives],
        "constraints": [[c.metric, c.upper, c.lower] for c in study.constraints],
        "cores": cores,
        "complete": len(done) == len(points),
        "defaults": {
            "params": defaults.params,
            "state": str(defaults.state),
            "metrics": dict(defaults.metrics),
            "intervals": dict(defaults.intervals),
            "failure": defaults.failure,
        },
    }
    table_of(cores).write_text(json.dumps({**head, "rows": done}, indent=1) + "\n")


def replayed(table: Mapping[str, Any], algorithm: Any, seed: int) -> list[float]:
    """Lowest loss after each trial; the defaults are trial 0, and count where they lie in the space."""
    space = Space.from_json(table["space"])
    goals = tuple(Objective(*pair) for pair in table["objectives"])
    bounds = tuple(Constraint(m, upper=upper, lower=lower) for m, upper, lower in table["constraints"])
    rows = {space.key(row["params"]): row for row in table["rows"]}
    search = registry.settings("algorithms", algorithm).build(space, goals, bounds, seed, max(BUDGETS))
    best, curve = math.inf, []
    for number in range(max(BUDGETS)):
        note = ""
        if number == 0:
            params, row = dict(table["defaults"]["params"]), {"state": "complete", **table["defaults"]}
        else:
            (proposal,) = search.ask(1, number, [], np.random.default_rng([seed, number]))
            params, note = proposal.params, proposal.note
            row = _early(rows[space.key(params)], goals[0], best)
        intervals = {m: _interval(*ends) for m, ends in (row["intervals"] or {}).items()}
        trial = Trial(
            number, params, State(row["state"]), metrics=row["metrics"] or {}, intervals=intervals,
            failure=row.get("failure") or "", note=note, source="outside" if number == 0 else "algorithm",
        )  # fmt: skip
        told = outcome(trial, goals, bounds)
        search.tell(trial, told)
        if told.feasible and not any(told.censored) and (number or space.contains(params)):
            best = min(best, told.losses[0])
        curve.append(best)
    return curve


def _early(row: Mapping[str, Any], goal: Objective, best: float) -> Mapping[str, Any]:
    """As `fettle serve` tells it: what cannot beat the best so far is stopped, and all that is known is that."""
    if row["state"] != "complete" or not math.isfinite(best):
        return row
    low, high, _ = _interval(*(row["intervals"] or {}).get(goal.metric, (None, None)))
    hopeful = low if goal.sign > 0 else -high
    if hopeful <= best:
        return row
    return {"state": "stopped", "metrics": {**row["metrics"], goal.metric: goal.sign * best}, "intervals": None}


def _interval(low: float | None, high: float | None, n: int = 0) -> tuple[float, float, int]:
    """None stands for an end that is open."""
    return (-math.inf if low is None else low, math.inf if high is None else high, n)


def settings_of(name: str, cores: int | None, seed: int) -> Any:
    """What `replayed` is given; "prior" is learned anew for each seed, as the rows that it is told are drawn."""
    if name != "prior":
        return name
    with tempfile.TemporaryDirectory() as folder:  # of no tasks of one's own
        found = prior(make(MODEL, seed=seed, **asked(cores)), Store(Path(folder)))
    if found.algorithm is None:
        raise SystemExit(f"no prior: {found.record['reason']}")
    return replace(found.algorithm, cost="")  # a replay has no seconds


def replay(seeds: int, cores: int | None) -> None:
    from scipy.stats import wilcoxon

    table = json.loads(table_of(cores).read_text())
    space = Space.from_json(table["space"])
    goal = Objective(*table["objectives"][0])
    losses = [goal.sign * row["metrics"][goal.metric] for row in table["rows"] if row["state"] == "complete"]
    optimum = min(losses)
    curves = {
        a: np.array([replayed(table, settings_of(a, cores, seed), seed) for seed in range(seeds)]) for a in ALGORITHMS
    }
    found = []
    for n in BUDGETS:
        for name, curve in curves.items():
            gap = curve[:, n - 1] / optimum - 1.0
            row: dict[str, Any] = {"algorithm": name, "trials": n, "mean_regret_ratio": float(gap.mean()),
                                   "median_regret_ratio": float(np.median(gap)),
                                   "area_ratio": _area(curve[:, :n], optimum, losses), "seeds": seeds}  # fmt: skip
            if name != "auto":
                off = curves["auto"][:, n - 1] - curve[:, n - 1]
                row["p_auto_is_worse"] = float(wilcoxon(off, alternative="greater").pvalue) if off.any() else 1.0
            found.append(row)
            print(row, flush=True)
    shape = {"points": len(losses), "optimum": optimum, "median": float(np.median(losses)), "size": space.size}
    replay_of(cores).write_text(
        json.dumps({"schema": 1, "machine": table["machine"], "table": shape, "rows": found}, indent=1) + "\n"
    )


def _area(curve: np.ndarray, optimum: float, losses: list[float]) -> float:
    """Mean regret over trials 2 to n and over seeds; the worst configuration's where nothing was found yet."""
    gaps = np.minimum(curve[:, 1:], max(losses)) / optimum - 1.0
    return float(gaps.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "replay"))
    parser.add_argument("--folder", type=Path, default=Path("build") / "serve_table")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--cores", type=int)
    given = parser.parse_args()
    if given.what == "measure":
        measure(given.folder.with_name(given.folder.name + _suffix(given.cores)), given.minutes, given.cores)
    else:
        replay(given.seeds, given.cores)


if __name__ == "__main__":
    main()
