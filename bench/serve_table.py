"""Every configuration of a narrowed space of the demo's model, measured here; and searches replayed on that table.

    python bench/serve_table.py measure [--folder build/serve_table] [--minutes 60]
    python bench/serve_table.py replay [--seeds 20]

`measure` takes each point of a space of 144 configurations (all that the demo searches, but one graph optimization, no
spinning, and fewer batchings), each on a fresh server with a full search of its rate, in a shuffled order so that slow
changes of the machine hit no region; it resumes, and lands bench/results/serve_table.json. `replay` runs algorithms on
it as `fettle serve` would: the defaults first, then their proposals, trials that cannot beat the best stopped early;
it lands bench/results/serve_replay.json.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

import fettle
from fettle import api, registry
from fettle.core.space import Space
from fettle.core.trial import Constraint, Objective, State, Trial, outcome
from fettle.host.machine import fingerprint

RESULTS = Path(__file__).parent / "results"
TABLE, REPLAY = RESULTS / "serve_table.json", RESULTS / "serve_replay.json"
SLO = "p99=50ms"
NARROWED = {"batching": ["off", "on"], "batching.on.max_batch": [2, 4, 8, 16], "batching.on.max_wait_ms": [2, 10]}
FIXED = {"graph_optimization": "all", "spinning": False}
KEPT = ("state", "metrics", "intervals", "failure", "error")
BUDGETS = (12, 24, 36)
ALGORITHMS = ("auto", "gp_bo", "qmc", "evolution", "tpe", "random")


def measure(folder: Path, minutes: float) -> None:
    """Resumes from the rows in the folder."""
    give_up = time.monotonic() + 60.0 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    data = Path(str(files("fettle.data")))
    storage, rows_path = folder / "table.db", folder / "rows.jsonl"
    if storage.exists():
        result = api.open_study("table", storage)
    else:
        result = fettle.serve(
            {"fp32": data / "digits-fp32.onnx", "int8": data / "digits-int8.onnx"},
            slo=SLO, objective="cost", budget=40.0, trials=1, inputs=data / "digits-samples.npz",
            params=NARROWED, fix=FIXED, storage=storage, name="table",
        )  # fmt: skip
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
        "complete": len(done) == len(points),
        "defaults": {"params": defaults.params, "metrics": defaults.metrics, "intervals": defaults.intervals},
    }
    TABLE.write_text(json.dumps({**head, "rows": done}, indent=1) + "\n")


def replayed(table: Mapping[str, Any], algorithm: str, seed: int) -> list[float]:
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


def replay(seeds: int) -> None:
    from scipy.stats import wilcoxon

    table = json.loads(TABLE.read_text())
    space = Space.from_json(table["space"])
    goal = Objective(*table["objectives"][0])
    losses = [goal.sign * row["metrics"][goal.metric] for row in table["rows"] if row["state"] == "complete"]
    optimum = min(losses)
    curves = {a: np.array([replayed(table, a, seed) for seed in range(seeds)]) for a in ALGORITHMS}
    found = []
    for n in BUDGETS:
        for name, curve in curves.items():
            gap = curve[:, n - 1] / optimum - 1.0
            row: dict[str, Any] = {"algorithm": name, "trials": n, "mean_regret_ratio": float(gap.mean()),
                                   "median_regret_ratio": float(np.median(gap)), "seeds": seeds}  # fmt: skip
            if name != "auto":
                off = curves["auto"][:, n - 1] - curve[:, n - 1]
                row["p_auto_is_worse"] = float(wilcoxon(off, alternative="greater").pvalue) if off.any() else 1.0
            found.append(row)
            print(row, flush=True)
    shape = {"points": len(losses), "optimum": optimum, "median": float(np.median(losses)), "size": space.size}
    REPLAY.write_text(
        json.dumps({"schema": 1, "machine": table["machine"], "table": shape, "rows": found}, indent=1) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "replay"))
    parser.add_argument("--folder", type=Path, default=Path("build") / "serve_table")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    if given.what == "measure":
        measure(given.folder, given.minutes)
    else:
        replay(given.seeds)


if __name__ == "__main__":
    main()
