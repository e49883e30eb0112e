"""One call from a model to an answer. The command line and the experiment files call these functions."""

import itertools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fettle import registry
from fettle.core.answer import effective
from fettle.core.errors import InvalidInput
from fettle.core.protocols import Executor, Job, Problem
from fettle.core.trial import Event, State, Trial
from fettle.loop import Watch
from fettle.proposing import Limits
from fettle.storage import open_storage
from fettle.study import Study
from fettle.surrogates.gain import price

CONFIRM_RATIO = 0.25  # of the budget, kept for measuring the best again
TRIAL_RATIO = 0.2  # of the budget, at most, for one trial
_ALONE_S = 900.0  # at most so long a measurement waits for those of another study
_SECOND_TRY = 0.5  # of the search is done when the defaults are tried again
_HOPELESS = 8  # failed trials and none completed: something is wrong with all of them
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


@dataclass(frozen=True, slots=True)
class Result:
    """What a search came to."""

    study: Study
    problem: Problem | None
    artifacts: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> Trial | None:
        """The recommended feasible trial with its confirmed figures, or None."""
        return self.study.best

    @property
    def document(self) -> dict[str, Any]:
        """The answer as JSON: what `fettle best --json` prints."""
        from fettle.report.document import answer

        found = self.study.answer
        return answer(self.study.log, found.best, found.front, found.reason, self.artifacts)

    @property
    def summary(self) -> Any:
        """Everything that is shown of the study, for the terminal and the page."""
        from fettle.report.document import summarise

        found = self.study.answer
        return summarise(self.study.log, found.best, found.front, found.reason, self.artifacts)

    def export(self, folder: str | Path) -> dict[str, str]:
        """Writes a folder that starts the winner without Fettle. Raises InvalidInput where there is no winner."""
        best = self.best
        if best is None:
            raise InvalidInput(f"study {self.study.name!r} has no feasible answer to export", self.study.answer.reason)
        return needed(self).export(best, Path(folder))

    def report(self, path: str | Path | None = None) -> Path:
        """Writes the HTML report; returns its path."""
        from fettle.report.explanation import explanation
        from fettle.report.html import render

        path = Path(path) if path is not None else self.study.storage.folder(self.study.name) / "report.html"
        page = render(self.summary, explanation(self.study.log, best=self.study.answer.best))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"cannot write the report to {path}: {error.strerror}", "choose another -o") from error
        return path


def serve(
    model: str | Path | Mapping[str, str | Path],
    *,
    slo: str | Mapping[str, Any],
    objective: str | Sequence[str] = "cost",
    budget: str | float = "5m",
    trials: int | None = None,
    stop_regret: float | None = None,
    target: str | Mapping[str, Any] = "mosec",
    storage: Any = None,
    name: str | None = None,
    seed: int = 0,
    algorithm: Any = None,
    watch: Watch | None = None,
    **options: Any,
) -> Result:
    """Finds how to serve a model on this machine: the best configuration that holds the SLO, confirmed.

    model: an ONNX file, or precision -> file, the first being the reference. slo: "p99=50ms,errors=1%".
    objective: cost, throughput, latency, or several. budget: "5m" or seconds, confirmation included.
    stop_regret: the search ends where at most so much of the (first) objective could still be gained.
    algorithm: None searches from what was measured of other models, where that knows the target's knobs, else "auto".
    options: see `fettle.problems.serve.problem.make` (rate, requests, fix, params, inputs, input_shapes, prices,
    cores, memory_bytes, arrivals). Raises InvalidInput for whatever cannot be; an SLO that no configuration
    holds is no error: then `best` is None and the document says the best attainable figure.
    """
    from fettle.problems.serve.problem import make

    budget_s = seconds(budget)
    Limits(trials=trials, stop_regret=stop_regret)  # raises on what cannot be
    limits = {"seconds": budget_s, "trials": trials}
    if stop_regret is not None:
        limits["stop_regret"] = stop_regret
    problem = make(model, slo=slo, objective=objective, target=target, seed=seed, **options)
    if problem.gain_per_s is not None:
        limits["gain_per_s"] = problem.gain_per_s
    chosen, known = _algorithm(problem, algorithm, storage, name, watch)
    study = Study(
        problem.space,
        objectives=problem.objectives,
        constraints=problem.constraints,
        algorithm=chosen,
        seed=seed,
        storage=storage,
        name=name if name is not None else _free_name(storage, problem.label),
        experiment={
            **problem.record(),
            **known,
            "budget": limits,
            "created_s": time.time(),
        },
    )
    if watch is not None:
        watch.on_event(study.log, Event("created", -1, study.log.experiment, time.time()))
    return carry_out(study, problem, watch=watch)


def _algorithm(
    problem: Problem, given: Any, storage: Any, name: str | None, watch: Watch | None
) -> tuple[Any, dict[str, Any]]:
    """Settings of the algorithm, and what the study's record says of them."""
    from fettle.prior import prior  # here, as commands that only read a study need no learners
    from fettle.surrogates.meta.store import Store

    if given is not None:
        return given, {}
    if name is not None and storage is not None:
        stored = open_storage(storage)
        first = next(iter(stored.open(name).read()), None) if name in stored.studies() else None
        if first is not None:  # else it was killed before its first event: it begins now
            return first.payload["algorithm"], {}
    if watch is not None:
        watch.on_progress(0, {"phase": "reading earlier tasks"})
    found = prior(problem, Store.default())
    return found.algorithm or "auto", {"prior": found.record}


def open_study(name: str, storage: Any) -> Result:
    """A stored study and the problem it was made for. Raises StudyNotFound, or InvalidInput where its evaluate
    is a Python function that only its own script has."""
    study = Study.open(name, storage)
    spec = study.log.experiment.get("problem")
    if not spec:
        raise InvalidInput(
            f"study {name!r} searches a Python function", "run its own script again: the same name resumes it"
        )
    return Result(study, registry.load("problems", spec["name"]).from_spec(spec), stored_artifacts(study))


def carry_out(study: Study, problem: Problem, *, watch: Watch | None = None) -> Result:
    """Runs what is left of the study's budget: search, then confirmation. Also what `fettle resume` does."""
    budget = study.log.experiment.get("budget") or {}
    budget_s, trials = budget.get("seconds"), budget.get("trials")
    executor = _executor(watch)
    try:
        if not any(t.confirmed for t in study.trials):
            _search(study, problem, executor, budget_s, trials, watch)
            _confirm(study, problem, executor, budget_s, watch)
    finally:
        executor.close()
    result = Result(study, problem, stored_artifacts(study))
    if result.best is not None:
        folder = study.storage.folder(study.name) / "winner"
        result.artifacts.update(result.export(folder))
    result.artifacts["report"] = str(result.report())
    return result


def measure(
    result: Result,
    params: Mapping[str, Any] | None = None,
    *,
    trial: int | None = None,
    repeat: int = 1,
    watch: Watch | None = None,
) -> list[dict[str, Any]]:
    """Measures a configuration again, each time on a fresh server; never changes the study's answer."""
    study, problem = result.study, needed(result)
    if (params is None) == (trial is None):
        raise InvalidInput("expected either a trial's number or params", "write --trial N or --params '{...}'")
    if trial is not None and not 0 <= trial < len(study.trials):
        raise InvalidInput(f"study {study.name!r} has no trial {trial}", f"its trials are 0 to {len(study.trials) - 1}")
    known = effective(study.log.trials[trial]) if trial is not None else None
    chosen = dict(known.params) if known is not None else study.space.validate(params or {})
    rate = known.metrics.get("throughput_rps") if known is not None else None
    executor = _executor(watch)
    try:
        payloads = []
        for nth in range(repeat):
            with _alone(problem, study, watch):
                settings = {"mode": "search", "rate": rate}
                payload = _measure_once(study, problem, executor, (trial or 0, nth), chosen, settings)
            payloads.append(payload)
            if trial is not None:
                again = {"source": "measure", "wall_s": 0.0, **payload}
                study.record([Event("remeasured", trial, again, time.time())])
        return payloads
    finally:
        executor.close()


def needed(result: Result) -> Problem:
    """The result's problem. Raises InvalidInput where the study was opened for reading only."""
    if result.problem is None:
        raise InvalidInput(f"study {result.study.name!r} was opened for reading only", "use fettle.open_study")
    return result.problem


def seconds(text: str | float) -> float:
    """'5m', '90s', '1h30m' or a number of seconds. Raises InvalidInput unless it is above 0."""
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        raise InvalidInput(f"expected a time such as 5m, got {text!r}", "write 90s, 5m or 1h30m")
    if isinstance(text, str):
        match = _DURATION.fullmatch(text.strip())
        if match is None or not any(match.groups()):
            raise InvalidInput(f"expected a time such as 5m, got {text!r}", "write 90s, 5m or 1h30m")
        hours, minutes, rest = (float(g or 0) for g in match.groups())
        text = 3600 * hours + 60 * minutes + rest
    if not 0 < text < float("inf"):
        raise InvalidInput(f"expected a time above 0, got {text:g} s", "write 90s, 5m or 1h30m")
    return float(text)


def _executor(watch: Watch | None) -> Executor:
    on_progress = None if watch is None else watch.on_progress
    made: Executor = registry.load("executors", "process")(workers=1, on_progress=on_progress)
    return made


def _search(
    study: Study,
    problem: Problem,
    executor: Executor,
    budget_s: float | None,
    trials: int | None,
    watch: Watch | None,
) -> None:
    if not study.trials and (baseline := problem.defaults()) is not None:
        study.enqueue(baseline, note="the server's defaults", baseline=True)
    limit = None if budget_s is None else TRIAL_RATIO * budget_s
    started = -1
    while study.log.started > started or _others_run(study):
        started = study.log.started  # one at a time: what the first ones show may complete the problem
        left = None if budget_s is None else (1 - CONFIRM_RATIO) * budget_s - study.log.seconds
        if left is not None and left <= 0:
            return
        shares = [1.0 - left / ((1 - CONFIRM_RATIO) * budget_s)] if left is not None and budget_s else []
        shares += [started / trials] if trials else []
        if max(shares, default=0.0) >= _SECOND_TRY:
            _try_baseline_again(study)
        problem = problem.completed(study.trials)
        with _alone(problem, study, watch):
            study.run(
                problem.evaluate,
                stop_regret=(study.log.experiment.get("budget") or {}).get("stop_regret"),
                stop_gain=price(study.log),
                trials=started + 1 if trials is None else min(trials, started + 1),
                timeout_s=left,
                executor=executor,
                trial_limit_s=limit,
                failures=_HOPELESS,
                watch=watch,
            )


def _try_baseline_again(study: Study) -> None:
    """Once more, where the defaults gave no figure for want of calm and not by their own fault: the answer stands
    beside them."""
    first = study.log.baseline
    if first is not None and first.number == 0 and first.failure == "other":
        study.enqueue(first.params, note="the server's defaults, second try", baseline=True, parent=0)


@contextmanager
def _alone(problem: Problem, study: Study, watch: Watch | None) -> Iterator[None]:
    """Waits, outside any trial's time and the budget, until nobody else measures on this machine."""
    if watch is not None:
        watch.on_progress(len(study.log.trials), {"phase": "waiting for the machine"})
    with problem.alone(_ALONE_S):
        yield


def _others_run(study: Study) -> bool:
    """Waits for trials of other processes: they end, or their leases run out and they are lost. True if there were
    any. Whoever has died a moment ago, and was resumed, is such a process, too."""
    waited = False
    while study.log.running:
        waited = True
        time.sleep(0.2)
        study.propose(0, Limits(), lease_s=None)
    return waited


def _confirm(study: Study, problem: Problem, executor: Executor, budget_s: float | None, watch: Watch | None) -> None:
    problem = problem.completed(study.trials)
    log = study.log
    ranked = sorted(
        (log.outcome(t).order, t.number)
        for t in log.trials
        if t.state is State.COMPLETE and t.source != "outside" and log.outcome(t).feasible
    )
    if not ranked:
        return
    candidates = [log.trials[number] for _, number in ranked]
    # What the search left over belongs to the confirmation, too: certainty is what is missing now.
    left = 120.0 if budget_s is None else max(CONFIRM_RATIO * budget_s, budget_s - log.seconds)

    measured = itertools.count()

    def again(params: Any, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        number = next((t.number for t in log.trials if t.params == params), 0)
        payload = _measure_once(study, problem, executor, (number, next(measured)), params, settings)
        if watch is not None:
            watch.on_event(log, Event("remeasured", number, {"settings": dict(settings), **payload}, time.time()))
            watch.tick(left - (time.monotonic() - begun))
        return payload

    with _alone(problem, study, watch):
        begun = time.monotonic()
        found = list(problem.confirm(candidates, log.baseline, again, budget_s=left))
    # All at once: a study that was killed here has either no confirmed figures or all of them.
    study.record([Event("remeasured", c.number, c.payload, time.time()) for c in found])


def _measure_once(
    study: Study, problem: Problem, executor: Executor, which: tuple[int, int], params: Any, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """One measurement in the executor; returns the payload of its `told` event. which: (trial, how many before it),
    so that each has arrivals of its own, which the study's seed and journal determine."""
    number, nth = which
    seed = int(np.random.SeedSequence([study.seed, study.log.seen, nth]).generate_state(1)[0])
    budget_s = (study.log.experiment.get("budget") or {}).get("seconds")
    limit = max(15.0, TRIAL_RATIO * budget_s) if budget_s else 120.0
    folder = study.storage.folder(study.name) / "again"
    job = Job(number, dict(params), seed=seed, workdir=folder, limit_s=limit)
    executor.submit(job, partial(problem.measure, settings))
    give_up = time.monotonic() + limit + 30
    while time.monotonic() < give_up:
        for event in executor.poll(0.5, lambda number, report: True):
            if event.kind == "told":
                return dict(event.payload)
            return {"state": "failed", "metrics": {}, "failure": "lost", "error": event.payload.get("error", "")}
    executor.stop(number)
    return {"state": "failed", "metrics": {}, "failure": "timeout", "error": f"no end within {limit:.0f} s"}


def stored_artifacts(study: Study) -> dict[str, str]:
    """What was written for the study before, by the names that `Result.export` gives it."""
    folder = study.storage.folder(study.name)
    winner = folder / "winner"
    found = {"report": folder / "report.html", "folder": winner, "run": winner / "run.sh"}
    return {key: str(path) for key, path in found.items() if path.exists()}


def _free_name(storage: Any, label: str) -> str:
    taken = set(open_storage(storage).studies()) if storage is not None else set()
    return next(n for i in range(1, len(taken) + 2) if (n := label if i == 1 else f"{label}-{i}") not in taken)
