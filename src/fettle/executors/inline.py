"""Evaluates in the caller's own thread, one trial at a time. Limits cannot be enforced here."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from fettle.core.protocols import Evaluator, Job
from fettle.core.trial import Event, Report
from fettle.executors.context import Kept, TrialContext, evaluate_job


class InlineExecutor:
    """See `fettle.core.protocols.Executor`."""

    capacity = 1

    def __init__(
        self, *, workers: int = 1, on_progress: Callable[[int, Mapping[str, Any]], None] | None = None
    ) -> None:
        self._on_progress = on_progress or (lambda number, info: None)
        self._waiting: list[tuple[Job, Evaluator]] = []
        self._kept = Kept()
        self._stop: set[int] = set()

    def submit(self, job: Job, evaluate: Evaluator) -> None:
        self._waiting.append((job, evaluate))

    def poll(self, timeout_s: float, on_report: Callable[[int, Report], bool]) -> list[Event]:
        if not self._waiting:
            return []
        job, evaluate = self._waiting.pop(0)
        number = job.number
        ctx = TrialContext(
            job,
            on_report=lambda report: on_report(number, report) and number not in self._stop,
            on_progress=lambda info: self._on_progress(number, info),
            kept=self._kept,
        )
        payload = evaluate_job(evaluate, ctx)
        self._stop.discard(number)
        return [Event("told", number, payload, time.time())]

    def stop(self, number: int) -> None:
        self._stop.add(number)

    def close(self) -> None:
        self._waiting.clear()
        self._kept.drop()
