"""Few-shot cases of the project's own measurements: one fully measured model left out, two objectives, three SLOs.

The SLO is a limit on p99 at 1.5, 3 or 8 times the model's least p99 (tight, middle, loose). A search is told one
measurement of a point, and what it found is judged by the mean of the point's repeats, so that the optimum is not the
luckiest row: of the repeats without the first measurement, which is why they were made. All else comes from first
measurements alone.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import meta_figures
import numpy as np
from fewshot_cases import Case

from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective
from fettle.problems.serve.collect import rows
from fettle.problems.serve.collect.plan import used_cores
from fettle.problems.serve.cost import Prices
from fettle.surrogates.meta import Task

SHIPPED = Path(__file__).parents[1] / "src" / "fettle" / "data" / "meta" / "onnxruntime-cpu.jsonl.gz"
SLOS = {"tight": 1.5, "middle": 3.0, "loose": 8.0}
OBJECTIVES = ("throughput_rps", "throughput_per_cost")  # the latter: requests per unit of money
LIMITED = "latency_p99_s"
SECONDS = "trial_s"  # what a measurement took, loading included
Line = Mapping[str, Any]


@dataclass(frozen=True)
class Own:
    """told: model -> its measurements as a search sees them. means: one row per point. sizes: points; of the fully
    measured models, those that differ: neighbours whose throughput and p50 are within 3 % count once."""

    space: Space
    told: Mapping[str, Task]
    means: Mapping[str, Task]
    sizes: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> "Own":
        found = rows.read(path)
        space, prices = Space.from_json(found.header["space"]), Prices.load()
        cores, loading = int(found.header["probe"]["cores"]), overheads(found.lines)
        of: dict[str, list[Line]] = defaultdict(list)
        for line in found.lines:
            of[line["model"]].append(line)
        told, means = {}, {}
        for name, lines in of.items():
            figures = found.models[name]["features"]
            made = []
            for line in sorted(lines, key=lambda line: line["repeat"]):
                metrics = figures_of(line, prices, cores) | {SECONDS: line["seconds"] + loading[_kind(line)]}
                made.append((line["params"], metrics, line.get("failure", "")))
            told[name] = Task(name, made, space=space, features=figures)
            means[name] = Task(name, averaged(made, space), space=space, features=figures)
        sizes = {name: len(task.rows) for name, task in means.items()}
        return cls(space, told, means, sizes | meta_figures.distinct(meta_figures.Table.of(found)))

    def full(self) -> list[str]:
        """Models of which every point was measured, the cheapest to run first."""
        whole = [name for name, task in self.means.items() if len(task.rows) == self.space.size]
        return sorted(whole, key=lambda name: (self.means[name].features or {})["flops"])


def figures_of(line: Line, prices: Prices, cores: int) -> dict[str, float]:
    """What a search may ask for; nothing of a failure. Cores are paid for as far as they are used."""
    got = line["metrics"]
    if line.get("failure"):
        return {}
    cost = prices.per_hour(cores=used_cores(line["params"], cores), memory_bytes=got["rss_bytes"])
    per_cost = 3600.0 * got["throughput_rps"] / cost
    return {"throughput_rps": got["throughput_rps"], "throughput_per_cost": per_cost, LIMITED: got[LIMITED]}


def _kind(line: Line) -> tuple[Any, ...]:
    """What the time outside of the measured runs depends on."""
    return line["model"], line["params"]["precision"], line["params"]["workers"], bool(line.get("failure"))


def overheads(lines: list[Line]) -> dict[tuple[Any, ...], float]:
    """Seconds that a measurement takes beside its runs: fork, load, warm-up, end; from the times between successive
    lines. Medians, as a line now and then waited for strangers to be quiet; those that were tried twice are left out.
    """
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for before, line in pairwise(lines):
        if line["tries"] == 1:
            found[_kind(line)].append(max(0.0, line["at"] - before["at"] - line["seconds"]))
    whole = float(np.median([s for one in found.values() for s in one])) if found else 0.0
    return {_kind(line): float(np.median(found.get(_kind(line), [whole]))) for line in lines}


def averaged(told: list[tuple[Params, dict[str, float], str]], space: Space) -> list[Any]:
    """One row per point: the mean of its repeats; where there are repeats of a first measurement, without that."""
    points: dict[Any, list[tuple[Params, dict[str, float], str]]] = defaultdict(list)
    for row in told:
        points[space.key(row[0])].append(row)
    made: list[Any] = []
    for first, *again in points.values():
        if first[2]:
            made.append((first[0], first[2]))
            continue
        good = [row[1] for row in again if not row[2]] or [first[1]]
        names = (*OBJECTIVES, LIMITED)
        made.append((first[0], {name: float(np.mean([one[name] for one in good])) for name in names}))
    return made


def own(path: Path = SHIPPED) -> Iterator[Case]:
    found = Own.read(path)
    for name in found.full():
        judged = found.means[name]
        least = min(row.metrics[LIMITED] for row in judged.rows if not row.failure)
        others = tuple(task for other, task in found.means.items() if other != name)
        for metric in OBJECTIVES:
            for label, factor in SLOS.items():
                bound = Constraint(LIMITED, upper=factor * least * (1 + 1e-9))
                held = [
                    row.metrics[metric] for row in judged.rows
                    if not row.failure and bound.violation(row.metrics[LIMITED]) <= 0
                ]  # fmt: skip
                goal = Objective(metric, "maximize")
                yield Case(
                    "own", found.told[name], found.space, name, goal, (bound,), label, max(held), 0.0, others,
                    judged=judged, factor=factor, size=found.sizes[name],
                )  # fmt: skip


def within(size: int, percent: float) -> int:
    """Samples that are so much of a space."""
    return max(1, math.ceil(size * percent / 100.0))
