"""The rate search against simulated servers whose answer is known, in virtual time.

    python bench/rate_search.py [--quick] [--runs 200] [--kinds queueing,batching] [--budget 30]

For each kind of server, nine cases (three capacities, three latency limits in service times) take turns.
Lands bench/results/rate_search.json: how often the 95 % interval held the truth (among the runs that gave
one, and among all), median half-width, virtual seconds per trial. The truth comes from long simulations and
is kept in bench/results/true_rates.json, keyed by the server's law. Resumes: finished kinds are not run again.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np

from fettle.host.machine import fingerprint
from fettle.problems.serve.rate_search import RateSearch, search
from fettle.problems.serve.slo import SLO
from fettle.testing.simulate import KINDS, ServerLaw, SimulatedServer, true_rate

RESULTS = Path(__file__).parent / "results"
CAPACITIES = (150.0, 600.0, 2000.0)
# Limits in mean service times. Where p99 of the service time alone is over 4 of them, 5 cannot be held.
LIMITS = {"queueing": (8, 12, 20), "heavy_tailed": (8, 12, 20), "stalls": (8, 12, 20)}
DEFAULT_LIMITS = (5, 10, 20)
WARM_S = 2.0  # of virtual time before the search, as the warm-up before a real one


def truth(law: ServerLaw, slo: SLO) -> float:
    path = RESULTS / "true_rates.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    key = f"{law} {slo}"
    if key not in known:
        known[key] = true_rate(law, slo, requests=2_000_000)
        path.write_text(json.dumps(known, indent=1) + "\n")
    return float(known[key])


def one_run(kind: str, number: int, seed: int, budget_s: float) -> dict[str, object]:
    begun = time.process_time()
    capacity = CAPACITIES[number % 3]
    limit = LIMITS.get(kind, DEFAULT_LIMITS)[number // 3 % 3]
    law = KINDS[kind](capacity)
    slo = SLO({"p99": limit * law.service_s})
    known = truth(law, slo)
    rng = np.random.default_rng([seed, number])
    server = SimulatedServer(law, rng, slo_s=slo.limit_s, now_s=WARM_S)
    start = law.capacity * float(rng.uniform(0.6, 1.1))
    result = search(server.probe, slo, RateSearch(budget_s=budget_s), start_rate=start)
    row: dict[str, object] = {"capacity": capacity, "limit": limit, "truth": known, "ending": result.ending}
    row |= {"seconds": result.seconds, "probes": len(result.probes), "drifting": result.drifting}
    if result.rate is not None:
        rate = result.rate
        row |= {"rate": rate.value, "low": rate.low, "high": rate.high, "held": rate.low <= known <= rate.high}
        row["half_width"] = (rate.high - rate.low) / 2.0 / rate.value
    return row | {"cpu_s": time.process_time() - begun}


def kind_row(kind: str, runs: int, seed: int, budget_s: float) -> dict[str, object]:
    for number in range(9):  # the nine truths, before the workers would all write them
        one_run(kind, number, seed, 1.0)
    with ProcessPoolExecutor() as workers:  # time is virtual: runs side by side do not disturb each other
        rows = list(workers.map(one_run, repeat(kind), range(runs), repeat(seed), repeat(budget_s)))
    answered = [r for r in rows if "held" in r]
    cases = {}
    for capacity, limit in sorted({(r["capacity"], r["limit"]) for r in rows}, key=str):
        case = [r for r in answered if (r["capacity"], r["limit"]) == (capacity, limit)]
        cases[f"{capacity:g}/s, {limit} services"] = {
            "answered": len(case),
            "held": sum(bool(r["held"]) for r in case),
            "half_width": float(np.median([r["half_width"] for r in case])) if case else None,
        }
    held = sum(bool(r["held"]) for r in answered)
    width = float(np.median([r["half_width"] for r in answered]))
    error = float(np.median([np.log(r["rate"] / r["truth"]) for r in answered]))  # type: ignore[operator]
    return {
        "kind": kind, "runs": runs, "seed": seed, "budget_s": budget_s, "answered": len(answered),
        "coverage": held / max(1, len(answered)), "coverage_of_all": held / runs, "median_half_width": width,
        "median_log_error": error, "seconds_per_trial": float(np.mean([r["seconds"] for r in rows])),  # type: ignore[misc]
        "cpu_s_per_trial": float(np.mean([r["cpu_s"] for r in rows])),  # type: ignore[misc]
        "holds": held >= 0.9 * len(answered) and len(answered) >= 0.9 * runs and width <= 0.10, "cases": cases,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="45 runs of each kind")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kinds", default="queueing,batching,drifting,heavy_tailed,stalls,deterministic")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--budget", type=float, default=30.0)
    parser.add_argument("--again", action="store_true", help="run finished kinds again")
    options = parser.parse_args()
    runs = 45 if options.quick else options.runs
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "rate_search.json"
    landed = json.loads(path.read_text())["rows"] if path.exists() else []
    for kind in options.kinds.split(","):
        same = [
            r for r in landed
            if (r["kind"], r["runs"], r["seed"], r["budget_s"]) == (kind, runs, options.seed, options.budget)
        ]  # fmt: skip
        if same and not options.again:
            row = same[0]
        else:
            row = kind_row(kind, runs, options.seed, options.budget)
            landed = [r for r in landed if r["kind"] != kind] + [row]
            record = {"schema": 1, "machine": fingerprint(("fettle",)), "seed": options.seed, "rows": landed}
            path.write_text(json.dumps(record, indent=1) + "\n")
        print(
            f"{kind:14} held {row['coverage']:.1%} of {row['answered']}/{row['runs']}  half-width "
            f"{row['median_half_width']:.1%}  {row['seconds_per_trial']:.1f} s/trial  "
            f"error {row['median_log_error']:+.1%}  {'ok' if row['holds'] else 'MISSED'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
