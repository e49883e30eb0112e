"""What `fettle serve` finds on this machine, whether its prediction holds, and what early stopping saves.

    python bench/serve.py [--quick] [--repeat 10] [--folder DIR]

Runs the demo's search, measures its winner again on fresh servers, then measures again, without an incumbent
to beat, the trials that were stopped early. Lands bench/results/serve.json. Resumes from what DIR holds.
"""

import argparse
import json
import statistics
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import fettle
from fettle import api

RESULTS = Path(__file__).parent / "results" / "serve.json"
SLO, BUDGET_S, TRIALS = "p99=50ms", 220.0, 24


def study(folder: Path, budget_s: float, seed: int) -> api.Result:
    data = Path(str(files("fettle.data")))
    storage = folder / f"serve-{seed}.db"
    if storage.exists():
        opened = api.open_study("digits", storage)
        return api.carry_out(opened.study, api.needed(opened))
    return fettle.serve(
        {"fp32": data / "digits-fp32.onnx", "int8": data / "digits-int8.onnx"},
        slo=SLO,
        objective="cost",
        budget=budget_s,
        trials=TRIALS,
        inputs=data / "digits-samples.npz",
        storage=storage,
        name="digits",
        seed=seed,
    )


def winner_row(result: api.Result) -> dict[str, Any]:
    document = result.document
    keep = ("feasible", "trial", "baseline", "gain", "gain_at_equal_precision", "cost")
    return {"row": "demo", **{key: document.get(key) for key in keep}}


def repeats_row(result: api.Result, repeat: int) -> dict[str, Any]:
    """How many fresh measurements of the winner lie in the reported 95 % prediction interval."""
    best = result.best
    assert best is not None and best.confirmed is not None
    low, high = best.confirmed["prediction"]["throughput_rps"]
    payloads = api.measure(result, trial=best.number, repeat=repeat)
    done = [p for p in payloads if p["state"] == "complete"]
    values = [p["metrics"]["throughput_rps"] for p in done]
    foreign = [p["artifacts"]["noise"]["foreign_ratio"] for p in done]
    calm = [v for v, f in zip(values, foreign, strict=True) if f < 0.1]
    return {
        "row": "repeat",
        "prediction": [low, high],
        "half_width_ratio": (high - low) / (high + low),
        "throughput_rps": values,
        "foreign_ratio": foreign,
        "inside": sum(low <= v <= high for v in calm),
        "of": len(calm),
        "failed": len(payloads) - len(done),
    }


def early_stop_row(result: api.Result, most: int) -> dict[str, Any]:
    """Seconds of trials that were stopped early, against the same configurations measured to the end."""
    stopped = [t for t in result.study.trials if t.state == "stopped"][:most]
    pairs = []
    for trial in stopped:
        whole = api.measure(result, trial.params)[0]
        pairs.append([trial.timings["wall_s"], whole["timings"]["wall_s"]])
    saved = [1 - short / long for short, long in pairs]
    return {"row": "early_stop", "pairs_s": pairs, "saved_ratio_median": statistics.median(saved) if saved else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("bench-serve"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    result = study(args.folder, 100.0 if args.quick else BUDGET_S, args.seed)
    rows = [winner_row(result)]
    if result.best is not None:
        rows.append(repeats_row(result, 3 if args.quick else args.repeat))
        rows.append(early_stop_row(result, 2 if args.quick else 4))
    machine = dict(result.study.log.experiment["fingerprint"])
    landed = {"schema": 1, "machine": machine, "seed": args.seed, "begun_s": begun, "rows": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(landed, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
