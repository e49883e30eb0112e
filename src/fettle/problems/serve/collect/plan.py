"""What is measured next: a good design of every model in turn, then full grids of some, then their best points again.

Everything follows from the models, the settings and the rows so far, so that an interrupted collection goes on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.core.errors import InvalidInput
from fettle.core.space import Params
from fettle.problems.serve.collect.rows import key

_LOOSE = (float("inf"), 3.0, 1.5)  # latency limits, in multiples of the model's least p99, that the top is taken under


@dataclass(frozen=True, slots=True)
class Settings:
    """points: of every model; full: models that get the whole grid; top: their best points, measured `repeats` times
    more."""

    points: int = 60
    full: int = 12
    top: int = 40
    repeats: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("points", 1), ("full", 0), ("top", 0), ("repeats", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise InvalidInput(f"{name}: expected at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One measurement to make; repeat 0 is the first one."""

    model: str
    params: Params
    repeat: int

    @property
    def key(self) -> str:
        return key(self.model, self.params, self.repeat)


def wanted(
    models: Sequence[str],
    full: Sequence[str],
    points: Sequence[Params],
    settings: Settings,
    lines: Sequence[Mapping[str, Any]],
    cores: int,
) -> Iterator[Wanted]:
    """Everything, in order, what is done already included. `lines` may grow while this is iterated over: the best
    points of the full grids are looked up when all of these have been measured. cores: of the machine."""
    n = min(settings.points, len(points))
    for params in points[:n]:
        for model in models:
            yield Wanted(model, params, 0)
    for params in points[n:]:
        for model in full:
            yield Wanted(model, params, 0)
    tops = {model: top(lines, model, settings.top, cores) for model in full}
    for repeat in range(1, settings.repeats + 1):
        for i in range(settings.top):
            for model in full:
                if i < len(tops[model]):
                    yield Wanted(model, tops[model][i], repeat)


def top(lines: Sequence[Mapping[str, Any]], model: str, n: int, cores: int) -> list[Params]:
    """The n points of the highest throughput, and of the highest throughput per core in use, by their first
    measurement: in turn without a limit, and under a loose and a tight limit on p99."""
    first = [line for line in lines if line["model"] == model and not line["repeat"] and not line.get("failure")]
    if not first:
        return []
    least = min(line["metrics"]["latency_p99_s"] for line in first)
    first.sort(key=lambda line: (-line["metrics"]["throughput_rps"], key(model, line["params"], 0)))
    per_core = sorted(first, key=lambda line: -line["metrics"]["throughput_rps"] / used_cores(line["params"], cores))
    queues = [
        [line for line in ranked if line["metrics"]["latency_p99_s"] <= limit * least]
        for ranked in (first, per_core)
        for limit in _LOOSE
    ]
    chosen: dict[str, Params] = {}
    for i in range(len(first)):
        for queue in queues:
            if i < len(queue) and len(chosen) < n:
                chosen.setdefault(key(model, queue[i]["params"], 0), queue[i]["params"])
    return list(chosen.values())


def used_cores(params: Params, cores: int) -> int:
    """Of so many, those that the workers' threads can keep busy."""
    workers, threads = int(params.get("workers", 1)), int(params.get("threads", 1))
    return min(cores, workers * threads)


def total(n_models: int, n_full: int, n_points: int, settings: Settings) -> int:
    """How many measurements there are in all."""
    n = min(settings.points, n_points)
    return n_models * n + n_full * (n_points - n + settings.repeats * min(settings.top, n_points))
