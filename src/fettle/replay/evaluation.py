"""Leaves out each task in turn, learns from the others, and replays the search on it: does learning help here?"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fettle import registry
from fettle.core.errors import InvalidInput
from fettle.core.trial import Objective
from fettle.replay.cases import LEAST_OTHERS, Case, others
from fettle.replay.runs import STATIC, Run, built, geometric, replay, static
from fettle.surrogates.meta import Task, train
from fettle.surrogates.meta.methods import METHODS

SCRATCH = "gp_bo"
LEARNERS = tuple(name for name in METHODS if name != STATIC)
DEFAULT_METHODS = ("prior_gp", SCRATCH, "random")
_CLOSE = 0.98  # share of the optimum from which there is hardly anything left to gain
_NEED_SETTINGS = ("boxed", "fewshot")


@dataclass(frozen=True, slots=True)
class Mean:
    """Geometric means of the samples over seeds (and tasks, where `task` is empty), and the mean regret."""

    task: str
    method: str
    runs: int
    to90: float
    to95: float
    regret: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """Samples until 95 % by a method over those from scratch: the geometric mean over n tasks, and its 95 % interval,
    which is (0, infinity) for a single task."""

    method: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """left_out: task -> why it was not replayed. complete: False where time ran out before all seeds of all tasks."""

    objective: Objective
    methods: tuple[str, ...]
    runs: tuple[Run, ...]
    left_out: dict[str, str]
    complete: bool
    seconds: float

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(run.task for run in self.runs))

    def by_task(self) -> list[Mean]:
        """Of each task and method, over seeds."""
        return [m for task in self.tasks for method in self.methods if (m := self._mean(method, task)) is not None]

    def means(self) -> list[Mean]:
        """Of each method, over seeds and tasks."""
        return [m for method in self.methods if (m := self._mean(method)) is not None]

    def ratios(self) -> list[Ratio]:
        """Of each learner against `gp_bo`, where that was replayed."""
        learners = [method for method in self.methods if method in LEARNERS]
        return [self._ratio(method) for method in learners] if SCRATCH in self.methods else []

    @property
    def hardly_pays(self) -> bool:
        """Whether the configuration that is best for the other tasks is within 2 % of the best of every task."""
        firsts = {run.task: run.first for run in self.runs if run.method == STATIC}
        return len(firsts) == len(self.tasks) and all(first >= _CLOSE for first in firsts.values())

    def verdict(self) -> list[str]:
        """Sentences that claim no more than was replayed."""
        said = [_said(ratio) for ratio in self.ratios()]
        if self.hardly_pays:
            said.append("tuning hardly pays here: the best static configuration is within 2 % of the best on all tasks")
        return said or [f"nothing to compare: replay {SCRATCH} and one of {', '.join(LEARNERS)}"]

    def _mean(self, method: str, task: str = "") -> Mean | None:
        runs = [run for run in self.runs if run.method == method and task in ("", run.task)]
        if not runs:
            return None
        to90, to95 = (geometric([getattr(run, name) for run in runs]) for name in ("to90", "to95"))
        return Mean(task, method, len(runs), to90, to95, float(np.mean([run.regret for run in runs])))

    def _ratio(self, method: str) -> Ratio:
        """Tasks are the sample: seeds of one task are averaged first."""
        from scipy.special import stdtrit

        to95 = {(mean.task, mean.method): mean.to95 for mean in self.by_task()}
        logs = [np.log(to95[task, method] / to95[task, SCRATCH]) for task in self.tasks]
        n, middle = len(logs), float(np.mean(logs))
        reach = float(stdtrit(n - 1, 0.975)) * float(np.std(logs, ddof=1)) / n**0.5 if n > 1 else math.inf
        return Ratio(method, math.exp(middle), math.exp(middle - reach), float(np.exp(middle + reach)), n)


def _said(ratio: Ratio) -> str:
    times = f"{ratio.method} needs {ratio.value:.2f} times the samples of {SCRATCH} until 95 % of the best"
    if ratio.n < 2:
        return f"one task tells nothing certain: here {times}"
    over = f"({times}; 95 % interval {ratio.low:.2f} to {ratio.high:.2f} over {ratio.n} tasks)"
    if ratio.high < 1.0:
        return f"earlier tasks help here {over}"
    if ratio.low > 1.0:
        return f"earlier tasks do not help here: search from scratch is faster {over}"
    return f"these tasks do not show whether earlier ones help {over}"


def evaluate(
    tasks: Sequence[Task],
    objective: Objective,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    seeds: int = 3,
    seconds: float | None = None,
    watch: Callable[[str], None] | None = None,
) -> Evaluation:
    """Replays every task that has at least 16 rows and two others to learn from. methods: learners of `fettle.meta` and
    algorithms; the best static configuration of the others is always among them. seeds: replays of each. seconds: no
    further task is begun after them. watch: is told what was replayed.

    Raises InvalidInput where a method is not known, or no task can be replayed, or none was in time.
    """
    begun = time.monotonic()
    known = [*LEARNERS, *(n for n in registry.names("algorithms") if n not in _NEED_SETTINGS)]
    if unknown := [method for method in methods if method not in known and method != STATIC]:
        raise InvalidInput(f"unknown method {unknown[0]!r}", f"known: {', '.join(known)}")
    methods = (STATIC, *dict.fromkeys(method for method in methods if method != STATIC))
    cases, left_out = _cases(tasks, objective)
    if not cases:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) or "there is no task"
        raise InvalidInput(f"no task can be replayed: {why}", "add more studies with `fettle meta add`")
    runs, complete = list[Run](), True
    for seed in range(seeds):
        for case, rest in cases:
            if seconds is not None and time.monotonic() - begun > seconds:
                complete = False
                break
            runs += _replayed(case, rest, [c for c, _ in cases], methods, seed)
            if watch is not None:
                watch(f"{case.task.name}, seed {seed}")
    if not runs:
        raise InvalidInput("no task was replayed in time", "give more --minutes")
    return Evaluation(objective, methods, tuple(runs), left_out, complete, time.monotonic() - begun)


def _cases(tasks: Sequence[Task], objective: Objective) -> tuple[list[tuple[Case, list[Task]]], dict[str, str]]:
    """Cases with the tasks that each may learn from, and why there is none of the others."""
    found, left_out = list[tuple[Case, list[Task]]](), dict[str, str]()
    for task in tasks:
        try:
            case = Case.of(task, objective)
        except InvalidInput as error:
            left_out[task.name] = str(error)
            continue
        rest = others(case, tasks)
        if len(rest) < LEAST_OTHERS:
            left_out[task.name] = f"{len(rest)} other tasks share a knob and the metric, expected {LEAST_OTHERS}"
        else:
            found.append((case, rest))
    return found, left_out


def _replayed(case: Case, rest: Sequence[Task], cases: Sequence[Case], methods: Sequence[str], seed: int) -> list[Run]:
    """All methods on one case: what is compared has seen the same."""
    runs = []
    for method in methods:
        if method == STATIC:
            names = {task.name for task in rest}
            fixed = static(case, [c for c in cases if c.task.name in names]) if seed == 0 else None
            runs += [] if fixed is None else [fixed]
        elif method in METHODS:
            model = train(rest, case.space, method=method, seed=seed)
            spec = {"name": "fewshot", "model": model, "features": case.task.features}
            runs.append(replay(case, built(case, spec, seed), method=method, seed=seed))
        else:
            runs.append(replay(case, built(case, method, seed), method=method, seed=seed))
    return runs
