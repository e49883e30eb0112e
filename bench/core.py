"""The core's own cost: ask and tell, memory per trial, turns of several proposers, the time to import.

    python bench/core.py [--quick] [--seed 0]

Lands bench/results/core.json: one row per figure, with its bar, the machine and the versions. CPU times are of
this process, children included where there are any. --quick: the same code with a tenth of the trials.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fettle
from fettle.core.trial import TrialLog
from fettle.host.machine import fingerprint
from fettle.study import Study

RESULTS = Path(__file__).parent / "results" / "core.json"
PROPOSERS = 4

_PROPOSE = """
import sys, time
import fettle
from fettle.proposing import Limits
study = fettle.Study(fettle.Space(**{f"x{i}": fettle.Float(0, 1) for i in range(5)}), objectives=["loss"],
                     algorithm="random", storage=sys.argv[1], name="s")
study.ask()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    study.propose(1, Limits(), lease_s=30.0)
"""


def space() -> fettle.Space:
    return fettle.Space({f"x{i}": fettle.Float(0, 1) for i in range(5)})


def study(storage: Any, seed: int) -> Study:
    return Study(space(), objectives=["loss"], algorithm="random", storage=storage, name="s", seed=seed)


def fill(made: Study, trials: int) -> None:
    for _ in range(trials):
        trial = made.ask()
        made.tell(trial, {"loss": trial.params["x0"]})


def cpu_ms(made: Study, trials: int) -> float:
    """CPU milliseconds of this process per ask and tell."""
    gc.collect()
    begun = time.process_time()
    fill(made, trials)
    return (time.process_time() - begun) * 1000 / trials


def traced_bytes(trials: int, seed: int) -> dict[str, float]:
    """Memory per told trial: of the whole study in memory, and of the fold alone (the journal being on disk)."""
    made = study(None, seed)
    made.ask()
    gc.collect()
    tracemalloc.start()
    fill(made, trials)
    gc.collect()
    whole, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with tempfile.TemporaryDirectory() as folder:
        stored = study(Path(folder) / "a.db", seed)
        gc.collect()
        tracemalloc.start()
        fill(stored, trials)
        gc.collect()
        fold, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        stored.close()
    assert isinstance(made.log, TrialLog)
    return {"memory": whole / trials, "sqlite": fold / trials}


def turns_per_s(turns: int) -> float:
    """Turns that four processes take together, by the wall clock; numbers are checked to be without hole or double."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        argv = [sys.executable, "-c", _PROPOSE, str(path), str(turns // PROPOSERS)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        proposers = [subprocess.Popen(argv, **pipes) for _ in range(PROPOSERS)]
        for proposer in proposers:
            assert proposer.stdout is not None
            proposer.stdout.readline()
        begun = time.perf_counter()
        for proposer in proposers:
            assert proposer.stdin is not None
            proposer.stdin.write("\n")
            proposer.stdin.flush()
        failed = [p for p in proposers if p.wait() != 0]
        seconds = time.perf_counter() - begun
        for proposer in proposers:
            proposer.communicate()
        made = study(path, 0)
        events = [e for e in made.journal.read() if e.kind == "started"]
        made.close()
    if failed or [e.number for e in events] != list(range(turns // PROPOSERS * PROPOSERS + PROPOSERS)):
        raise SystemExit("a number was given twice, or left out")
    return turns / seconds


def import_cpu_s(repeats: int) -> float:
    """CPU seconds of `python -c "import fettle"`, interpreter included: the median."""
    seconds = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import fettle"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return sorted(seconds)[repeats // 2]


def rows(trials: int, seed: int) -> list[dict[str, Any]]:
    def on_disk() -> float:
        with tempfile.TemporaryDirectory() as folder:
            made = study(Path(folder) / "a.db", seed)
            value = cpu_ms(made, trials)
            made.close()
            return value

    memory = traced_bytes(trials, seed)
    measured: list[tuple[str, str, float, str, float]] = [
        ("ask+tell in memory", "CPU ms", cpu_ms(study(None, seed), trials), "<", 0.2),
        ("ask+tell on SQLite", "CPU ms", on_disk(), "<", 2.0),
        ("memory per trial, study in memory", "bytes", memory["memory"], "<", 2048.0),
        ("memory per trial, study on SQLite", "bytes", memory["sqlite"], "<", 2048.0),
        (f"turns of {PROPOSERS} processes on SQLite", "1/s", turns_per_s(trials), ">=", 300.0),
        ("import fettle, interpreter included", "CPU s", import_cpu_s(9), "<", 0.25),
    ]
    compare: dict[str, Callable[[float, float], bool]] = {"<": float.__lt__, ">=": float.__ge__}
    return [
        {"figure": name, "unit": unit, "value": value, "bar": f"{sign} {bar:g}", "holds": compare[sign](value, bar)}
        for name, unit, value, sign, bar in measured
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    trials = 1_000 if options.quick else 10_000
    made = rows(trials, options.seed)
    for row in made:
        print(f"{row['figure']:40} {row['value']:10.4g} {row['unit']:6}  bar {row['bar']}: {row['holds']}")
    options.out.parent.mkdir(exist_ok=True)
    document = {
        "schema": 1,
        "quick": options.quick,
        "seed": options.seed,
        "trials": trials,
        "load_average": os.getloadavg()[0],
        "fingerprint": fingerprint(),
        "rows": made,
    }
    options.out.write_text(json.dumps(document, indent=1, default=str) + "\n")
    return 0 if all(row["holds"] for row in made) else 1


if __name__ == "__main__":
    sys.exit(main())
