"""Rows of the search benchmark: one JSON line per run in bench/results/search/<method>.jsonl, after a head line.

A row: p problem, k kind, s seed, b budget that the optimiser was told, n evaluations, t [[evaluations, score], ...]
whenever the best true score so far got better, a {checkpoint: score of the optimiser's own answer} (noisy kinds),
f failed trials, cpu seconds of asking and telling, ms CPU per ask and tell over the last 20 trials, h hash of the
problem (rows of another version of it do not count), c hash of Fettle's search code (only for its own algorithms),
e the error that ended it early. A score is the regret (null: nothing feasible) or, for several objectives, the
hypervolume's share of the true front's.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from problems import make

from fettle.core.errors import TrialFailure
from fettle.problems.synthetic import Synthetic

RESULTS = Path(__file__).parent / "results" / "search"
SOURCE = Path(__file__).parents[1] / "src" / "fettle"
APART = ("fewshot", "task_feasibility", "protocols", "serving")  # need earlier tasks, or only declare
Row = dict[str, Any]
Key = tuple[str, int, int]


def rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def path_of(method: str, folder: Path) -> Path:
    return folder / (re.sub(r"[^A-Za-z0-9_@.-]+", "_", method).strip("_") + ".jsonl")


def problem_hash(name: str, seed: int) -> str:
    """Changes with the problem's space, its optimum, and its losses at 64 points. A table has no seeds."""
    return _problem_hash(name, 0 if "#" in name else seed)


@lru_cache(maxsize=4096)
def _problem_hash(name: str, seed: int) -> str:
    return hash_of(make(name, seed))


def hash_of(problem: Synthetic) -> str:
    shown: list[Any] = [problem.space.to_json(), f"{problem.optimum:.9g}"]
    for params in problem.space.sample(64, np.random.default_rng(0)):
        try:
            shown.append({metric: f"{value:.9g}" for metric, value in problem.law(params).items()})
        except TrialFailure as failure:
            shown.append(failure.failure)
    return hashlib.sha1(json.dumps(shown).encode()).hexdigest()[:8]


@lru_cache
def code_hash() -> str:
    """Of what decides what Fettle's algorithms propose where there are no earlier tasks."""
    digest = hashlib.sha1()
    for layer in ("algorithms", "surrogates", "core"):
        for path in sorted((SOURCE / layer).rglob("*.py")):
            if path.parent.name != "meta" and path.stem not in APART:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def key(row: Row) -> Key:
    return row["p"], row["s"], row["b"]


def lines(path: Path) -> Iterator[Row]:
    """All lines but one that was cut off when its run was killed."""
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def load(path: Path) -> tuple[Row, dict[Key, Row]]:
    """The head line, and the latest row of each (problem, seed, budget)."""
    head, rows = {}, {}
    for row in lines(path):
        if "method" in row:
            head = row
        else:
            rows[key(row)] = row
    return head, rows


class File:
    """The rows of one method. Rows of another version of a problem, or of Fettle's code, are dropped and run again,
    and so are those of runs that broke."""

    def __init__(self, method: str, folder: Path, head: Row, code: str) -> None:
        self.path, self.code = path_of(method, folder), code
        folder.mkdir(parents=True, exist_ok=True)
        _, old = load(self.path)
        self.rows = {k: r for k, r in old.items() if r.get("c", "") == code and "e" not in r}
        text = [json.dumps(row, separators=(",", ":")) for row in ({"method": method, **head}, *self.rows.values())]
        fresh = self.path.with_suffix(".tmp")
        fresh.write_text("\n".join(text) + "\n")
        fresh.replace(self.path)

    def has(self, name: str, seed: int, budget: int, evaluations: int) -> bool:
        row = self.rows.get((name, seed, budget))
        done = row is not None and ("e" in row or row["n"] >= min(budget, evaluations))
        return done and row["h"] == problem_hash(name, seed)

    def add(self, row: Row) -> None:
        row |= {"c": self.code} if self.code else {}
        self.rows[key(row)] = row
        with self.path.open("a") as out:
            out.write(json.dumps(row, separators=(",", ":")) + "\n")
