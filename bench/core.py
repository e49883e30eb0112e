"""The core's own cost: ask and tell, memory of a trial, turns of several processes, import.

    python bench/core.py [--quick]

Lands bench/results/core.json.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import fettle
from fettle.host.machine import fingerprint

RESULTS = Path(__file__).parent / "results" / "core.json"
SPACE = {f"x{i}": (0.0, 1.0) for i in range(5)}


def study(storage: Any = None, name: str | None = None) -> "fettle.Study":
    space = fettle.Space({k: fettle.Float(*ends) for k, ends in SPACE.items()})
    return fettle.Study(space, objectives=["loss"], algorithm="random", storage=storage, name=name)


def drive(made: "fettle.Study", n: int) -> None:
    for _ in range(n):
        trial = made.ask()
        made.tell(trial, {"loss": sum(trial.params.values())})


def ask_tell(storage: Any, n: int) -> float:
    """CPU milliseconds of one ask and tell, over n trials."""
    made = study(storage)
    begun = time.process_time()
    drive(made, n)
    return (time.process_time() - begun) / n * 1e3


def traced(n: int) -> float:
    """Traced bytes of one told trial."""
    drive(study(), 10)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = study()
    drive(made, n)
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(made.trials) == n
    return size / n


def propose(path: str, seconds: float, counts: Any) -> None:
    made = study(path, "shared")
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        made.tell(made.ask(), {"loss": 1.0})
        n += 1
    counts.put(n)


def turns(path: str, seconds: float, processes: int = 4) -> dict[str, Any]:
    """Turns per second of several processes, and whether numbers are unique and without a gap."""
    study(path, "shared").close()
    context = multiprocessing.get_context("spawn")
    counts = context.Queue()
    workers = [context.Process(target=propose, args=(path, seconds, counts)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    each = [counts.get(timeout=seconds + 60) for _ in workers]
    for worker in workers:
        worker.join()
    numbers = [t.number for t in study(path, "shared").trials]
    whole = numbers == list(range(sum(each)))
    return {"processes": processes, "turns_per_s": sum(each) / seconds, "each": each, "numbers_whole": whole}


def import_cpu_s(runs: int = 7) -> float:
    """Median CPU seconds of `python -c 'import fettle'`, interpreter included."""
    found = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import fettle"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return sorted(found)[runs // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    n, seconds = (1_000, 2.0) if args.quick else (10_000, 10.0)
    with tempfile.TemporaryDirectory() as folder:
        rows: list[dict[str, Any]] = [
            {"row": "ask_tell", "storage": "memory", "trials": n, "cpu_ms": ask_tell(None, n), "bar_ms": 0.2},
            {
                "row": "ask_tell",
                "storage": "sqlite",
                "trials": n,
                "cpu_ms": ask_tell(f"{folder}/a.db", n),
                "bar_ms": 2.0,
            },
            {"row": "memory", "trials": n, "bytes_per_trial": traced(n), "bar_bytes": 2048},
            {"row": "turns", **turns(f"{folder}/b.db", seconds), "bar_per_s": 300},
            {"row": "import", "cpu_s": import_cpu_s(), "bar_s": 0.25},
        ]
    landed = {"schema": 1, "machine": fingerprint(("fettle",)), "seed": 0, "rows": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(landed, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
