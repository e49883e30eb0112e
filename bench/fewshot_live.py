"""Few-shot search in wall-clock time: three fully measured models replayed with the seconds that each trial took.

    python bench/fewshot_live.py --minutes 30        # goes on where it was
    python bench/fewshot_live.py --quick             # two seeds, under 10 minutes; rows in build/

Three models of the project's own measurements, the smallest, the middle and the largest by FLOPs, each under two
objectives and three SLOs (see fewshot_own.py), 20 seeds. A trial costs the seconds of its measured runs and the median
of what load, warm-up and end took for that model, precision and number of workers, so that the machinery is the same
for all methods; the algorithm's own CPU for ask and tell is added. The clock stops at 95 % of the best option. Learning
from the other models is done before (`train_s`). Rows land in bench/results/fewshot_live.jsonl, what they say in
bench/results/fewshot_live.json: geometric means over a model's cases, a Mann-Whitney test over the seeds.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before NumPy is loaded
    os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import fewshot
import fewshot_own
import numpy as np
from fewshot_cases import Case

from fettle.core.trial import outcome
from fettle.host.machine import fingerprint
from fettle.surrogates.meta import MetaModel, train

OURS = "prior_gp"
METHODS = (OURS, "tpe", "random", "gp_bo", "auto")
AGAINST = ("tpe", "random")
SHARE, BAR, LEVEL = 0.95, 3.0, 0.05
Row = dict[str, Any]


def chosen(cases: Sequence[Case]) -> list[str]:
    """Least, middle and most FLOPs; cases come in that order."""
    models = list(dict.fromkeys(case.group for case in cases))
    return list(dict.fromkeys(models[i] for i in (0, len(models) // 2, -1)))


def run(case: Case, method: str, seed: int, model: MetaModel | None) -> Row:
    """Until 95 % of the best option; measured seconds and the algorithm's CPU seconds."""
    replay = fewshot.Replay.of(case, seed)
    begun, measured, best, n = time.process_time(), 0.0, 0.0, 0
    algorithm = fewshot.algorithm_of(case, method, seed, model)
    while best < SHARE - 1e-9:
        (proposal,) = algorithm.ask(1, n, [], np.random.default_rng([seed, n]))
        trial = replay.trial(n, proposal.params)
        algorithm.tell(trial, outcome(trial, (case.objective,), case.constraints))
        measured += trial.metrics[fewshot_own.SECONDS]
        best, n = max(best, replay.share(proposal.params)), n + 1
    return {
        "case": case.name, "model": case.group, "method": method, "seed": seed, "n": n,
        "measured_s": round(measured, 3), "cpu_s": round(time.process_time() - begun, 4),
    }  # fmt: skip


def measure(options: argparse.Namespace, path: Path) -> None:
    fewshot.mend(path)
    cases = list(fewshot_own.own(options.rows))
    wanted = [case for case in cases if case.group in chosen(cases)]
    done, models, until = (
        fewshot.load(path),
        dict[str, tuple[MetaModel, float]](),
        time.monotonic() + 60 * options.minutes,
    )
    for seed in range(options.seeds):
        for case in wanted:
            for method in METHODS:
                if (case.name, method, seed) in done:
                    continue
                if time.monotonic() > until:
                    print("time is up; the same command goes on", flush=True)
                    return
                row = _one(case, method, seed, models)
                with path.open("a") as out:
                    out.write(json.dumps(row, separators=(",", ":")) + "\n")


def _one(case: Case, method: str, seed: int, models: dict[str, tuple[MetaModel, float]]) -> Row:
    if method != OURS:
        return run(case, method, seed, None)
    if case.group not in models:
        begun = time.process_time()
        models[case.group] = train(case.others, case.space, method=OURS), time.process_time() - begun
    model, train_s = models[case.group]
    fresh = MetaModel(model.head, model.arrays)  # nothing worked out in an earlier run
    return run(case, method, seed, fresh) | {"train_s": round(train_s, 2)}


def table(rows: Sequence[Row]) -> list[Row]:
    """One row per model, and one of all; the seeds that every case and method has."""
    from scipy.stats import mannwhitneyu

    made: list[Row] = []
    models = list(dict.fromkeys(row["model"] for row in rows))
    keys = {(row["case"], row["method"]) for row in rows}
    of: dict[int, set[tuple[str, str]]] = {}
    for row in rows:
        of.setdefault(row["seed"], set()).add((row["case"], row["method"]))
    seeds = sorted(seed for seed, had in of.items() if had == keys)
    for name in (*models, "all"):
        mine = [row for row in rows if name in (row["model"], "all") and row["seed"] in seeds]
        clock = {method: _clock(mine, method, seeds) for method in METHODS}
        samples = {m: float(np.exp(np.mean([np.log(r["n"]) for r in mine if r["method"] == m]))) for m in METHODS}
        entry: Row = {
            "model": name, "seeds": len(seeds), "cases": len({row["case"] for row in mine}),
            "wall_s": {m: float(np.exp(c.mean())) for m, c in clock.items()}, "samples": samples,
            "cpu_s": {m: float(np.mean([r["cpu_s"] for r in mine if r["method"] == m])) for m in METHODS},
            "trial_s": float(sum(r["measured_s"] for r in mine) / sum(r["n"] for r in mine)),
            "train_s": max(r["train_s"] for r in mine if r["method"] == OURS), "against": {},
        }  # fmt: skip
        for method in METHODS[1:]:
            ratio = float(np.exp((clock[method] - clock[OURS]).mean()))
            p = float(mannwhitneyu(clock[OURS], clock[method], alternative="less").pvalue)
            entry["against"][method] = {"ratio": ratio, "p": p}
        entry["holds"] = all(
            entry["against"][m]["ratio"] >= BAR and entry["against"][m]["p"] < LEVEL for m in AGAINST
        )  # fmt: skip
        made.append(entry)
    return made


def _clock(rows: Sequence[Row], method: str, seeds: Sequence[int]) -> np.ndarray:
    """(seeds,): mean over the cases of the logarithm of the seconds."""
    mine = [row for row in rows if row["method"] == method]
    logs = [[np.log(row["measured_s"] + row["cpu_s"]) for row in mine if row["seed"] == seed] for seed in seeds]
    return np.array([np.mean(one) for one in logs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=fewshot_own.SHIPPED, help="the project's own measurements")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true", help="two seeds")
    parser.add_argument("--folder", type=Path, default=fewshot.HERE)
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.minutes, options.folder = 2, 9.0, Path("build") / "fewshot_live_quick"
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "fewshot_live.jsonl"
    measure(options, path)
    made = table(list(fewshot.load(path).values()))
    head = {"schema": 1, "machine": fingerprint(("fettle", "numpy", "scipy")), "seed": 0}
    path.with_suffix(".json").write_text(json.dumps(head | {"rows": made}, indent=1) + "\n")
    for row in made:
        ratios = ", ".join(f"{m} {a['ratio']:.1f} x (p {a['p']:.1g})" for m, a in row["against"].items())
        print(f"{row['model']:20s} {row['wall_s'][OURS]:.1f} s; {ratios}; {row['seeds']} seeds")


if __name__ == "__main__":
    main()
