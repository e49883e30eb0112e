"""Fettle's algorithms and their peers on synthetic problems: one row per (problem, seed, method), resumable.

    python3 -m venv .venv-peers && .venv-peers/bin/pip install -r bench/requirements-peers.txt \
        && .venv-peers/bin/pip install -e . --no-deps
    .venv-peers/bin/python bench/search.py --quick                        # everything, small; under 10 minutes
    .venv-peers/bin/python bench/search.py --methods random optuna_tpe fettle:auto --list all --minutes 60
    .venv-peers/bin/python bench/search.py --methods 'fettle:gp_bo{"acquisition": "ucb"}' --kinds smooth --seeds 5
    .venv-peers/bin/python bench/compare.py                               # tables from all rows so far

Methods: the peers of bench/peers, and fettle:NAME with settings as JSON behind it. @each runs a method once for each
of 30, 60 and 100 evaluations and tells it that budget; all others run once, told the whole number. NGOpt chooses by
the budget and always runs that way. The slow peers live in environments of their own (see requirements-peers-slow.txt
and requirements-peers-hebo.txt) and run with --slow: 10 seeds, 60 evaluations, five problems:

    .venv-peers-slow/bin/python bench/search.py --slow --methods smac ax --minutes 60
    .venv-peers-hebo/bin/python bench/search.py --slow --methods hebo --minutes 60

--list tables are the measured tables of bench/measured.py, three tasks a set; 10 seeds are enough there.

Lands bench/results/search/<method>.jsonl (see search_rows.py). --minutes starts nothing new after that time; the same
command goes on where it was. --quick lands in build/search_quick instead.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before NumPy is loaded
    os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import json

import numpy as np
import peers
import search_rows as rows
from problems import KINDS, kind_of, make, names

from fettle.core.errors import TrialFailure
from fettle.host.machine import fingerprint
from fettle.problems.synthetic import LISTS, Synthetic
from fettle.testing.search import CHECKPOINTS, Judge, search

SLOW_PROBLEMS = ("hartmann6", "levy8", "noisy_hartmann6", "mixed_network", "two_level")
FAST = (
    "random",
    "hyperopt_tpe",
    "cmaes",
    "optuna_tpe",
    "optuna_tpe_mv",
    "optuna_nsga2",
    "nevergrad_ngopt",
    "optuna_gp",
)
QUICK = Path("build") / "search_quick"


@dataclass(frozen=True, slots=True)
class Method:
    """name: as given. algorithm: Fettle's settings, or None for a peer."""

    name: str
    algorithm: dict[str, Any] | None
    each: bool

    @classmethod
    def read(cls, text: str) -> "Method":
        base, at, each = text.partition("@")
        if base.startswith("fettle:"):
            name, brace, more = base.removeprefix("fettle:").partition("{")
            return cls(text, {"name": name, **(json.loads(brace + more) if brace else {})}, bool(at) and each == "each")
        if base not in peers.ENTRIES:
            raise SystemExit(f"unknown method {base!r}; known: {', '.join(peers.ENTRIES)}, fettle:NAME")
        return cls(text, None, base == "nevergrad_ngopt" or bool(at))

    @property
    def base(self) -> str:
        return self.name.partition("@")[0]

    def takes(self, problem: Synthetic) -> bool:
        return self.algorithm is not None or peers.takes(self.base, problem)

    def budgets(self, evaluations: int) -> list[int]:
        return [n for n in CHECKPOINTS if n <= evaluations] if self.each else [evaluations]

    def head(self) -> dict[str, Any]:
        packages = {"fettle", "numpy", "scipy"} | (set() if self.algorithm else set(peers.versions(self.base)))
        machine = fingerprint(tuple(sorted(packages)))
        return {"schema": 1, "each": self.each, "algorithm": self.algorithm, "machine": machine}


def run(method: Method, problem: Synthetic, budget: int) -> rows.Row:
    """One run of `budget` evaluations."""
    row: rows.Row = {"p": problem.name, "k": problem.kind, "s": problem.seed, "b": budget}
    if method.algorithm is not None:
        done = search(method.algorithm, problem, evaluations=budget)
        judge, seconds, answers, error = done.judge, done.seconds, done.answers, ""
    else:
        judge, seconds, answers, error = run_peer(method.base, problem, budget)
    steps = [[n, rows.rounded(score)] for n, score in judge.steps]
    row |= {"n": max(judge.count, budget if not error else 0), "t": steps, "f": judge.failures}
    row |= {"cpu": rows.rounded(sum(seconds)), "ms": rows.rounded(1e3 * float(np.mean(seconds[-20:] or [0.0])))}
    if problem.noise is not None:
        row["a"] = {str(n): rows.rounded(regret) for n, regret in answers.items()}
    return row | {"h": rows.problem_hash(problem.name, problem.seed)} | ({"e": error} if error else {})


def run_peer(name: str, problem: Synthetic, budget: int) -> tuple[Judge, list[float], dict[int, float], str]:
    """Judge, CPU seconds of each ask and tell, regrets of the peer's own answers, and what ended it early."""
    judge, seconds, answers = Judge(problem), list[float](), dict[int, float]()
    try:
        peer = peers.make(name, problem, budget)
        for number in range(1, budget + 1):
            begun = time.process_time()
            params = problem.space.validate(peer.ask())
            asked = time.process_time() - begun
            told = told_of(problem, judge, params)
            begun = time.process_time()
            peer.tell(told)
            seconds.append(asked + time.process_time() - begun)
            if number in CHECKPOINTS and problem.noise is not None:
                answer = peer.answer()
                answers[number] = float("inf") if answer is None else problem.regret(answer)
    except Exception as error:  # noqa: BLE001 - a peer that breaks keeps what it has found, and the row says so
        return judge, seconds, answers, f"{type(error).__name__}: {error}"[:200]
    return judge, seconds, answers, ""


def told_of(problem: Synthetic, judge: Judge, params: dict[str, Any]) -> peers.Told:
    try:
        metrics = judge(params)
    except TrialFailure:
        return peers.Told(None)
    losses = tuple(o.sign * metrics[o.metric] for o in problem.objectives)
    return peers.Told(losses, tuple(peers.excess(c, metrics[c.metric]) for c in problem.constraints))


def plan(options: argparse.Namespace, method: Method) -> Iterator[tuple[str, int]]:
    """Problems and seeds, the first seeds of all problems first."""
    wanted = options.problems or [n for kind in options.kinds for n in names(kind, options.list)]
    wanted = [name for name in wanted if method.takes(make(name))]  # which does not depend on the seed
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        yield from ((name, seed) for name in wanted)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=[*FAST, "fettle:auto"])
    parser.add_argument("--list", choices=(*LISTS, "tables"), default="tuned")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--problems", nargs="+", default=[])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--slow", action="store_true", help="10 seeds, 60 evaluations, five problems")
    parser.add_argument("--quick", action="store_true", help="2 seeds, 60 evaluations, one problem of each kind")
    parser.add_argument("--folder", type=Path, default=rows.RESULTS)
    options = parser.parse_args()
    if options.slow:
        options.problems, options.seeds, options.evaluations = list(SLOW_PROBLEMS), min(options.seeds, 10), 60
    if options.quick:
        options.problems = options.problems or [names(kind, "tuned")[0] for kind in options.kinds if kind != "measured"]
        options.seeds, options.evaluations, options.folder = 2, 60, QUICK
    return options


def main() -> None:
    options = read_options()
    until = time.monotonic() + 60 * options.minutes
    for method in map(Method.read, options.methods):
        file = rows.File(method.name, options.folder, method.head(), rows.code_hash() if method.algorithm else "")
        begun, done = time.monotonic(), 0
        for name, seed in plan(options, method):
            for budget in method.budgets(options.evaluations):
                if file.has(name, seed, budget, options.evaluations):
                    continue
                if time.monotonic() > until:
                    print(f"{method.name}: time is up; the same command goes on", flush=True)
                    return
                row = run(method, make(name, seed), budget)
                file.add(row)
                done += 1
                if "e" in row:
                    print(f"{method.name} on {kind_of(name)}/{name}, seed {seed}: {row['e']}", flush=True)
        print(f"{method.name}: {done} runs in {time.monotonic() - begun:.0f} s, {len(file.rows)} rows", flush=True)


if __name__ == "__main__":
    main()
