"""What an evaluator sees of its trial, and how an evaluation becomes the payload of a `told` event."""

import json
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fettle.core.errors import FettleError
from fettle.core.protocols import Evaluator, Job
from fettle.core.result import from_error, reported, result
from fettle.core.trial import Report, State

T = TypeVar("T")


class Kept:
    """Holds something dear between trials of one worker, such as a warm server, until its key changes."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._value: Any = None
        self._stop: Callable[[Any], None] = lambda value: None

    @property
    def empty(self) -> bool:
        return self._key is None

    def keep(self, key: str, start: Callable[[], T], stop: Callable[[T], None]) -> T:
        if key != self._key:
            self.drop()
            self._value, self._stop = start(), stop
            self._key = key
        value: T = self._value
        return value

    def drop(self) -> None:
        if self._key is not None:
            value, self._value, self._key = self._value, None, None
            self._stop(value)


@dataclass
class TrialContext:
    """See `fettle.core.protocols.Context`."""

    job: Job
    on_report: Callable[[Report], bool]
    on_progress: Callable[[Mapping[str, Any]], None]
    kept: Kept
    devices: Sequence[str] = ()
    stopped: bool = False
    artifacts: dict[str, Any] = field(default_factory=dict)
    _reporting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def number(self) -> int:
        return self.job.number

    @property
    def seed(self) -> int:
        return self.job.seed

    @property
    def fidelity(self) -> float | None:
        return self.job.fidelity

    @property
    def workdir(self) -> Path:
        return self.job.workdir

    @property
    def checkpoint(self) -> Path | None:
        return self.job.checkpoint

    @property
    def incumbent(self) -> Mapping[str, float] | None:
        return self.job.incumbent

    @property
    def predicted(self) -> Mapping[str, Any] | None:
        return self.job.predicted

    @property
    def deadline_s(self) -> float | None:
        return self.job.limit_s

    def report(self, fidelity: float, metrics: Mapping[str, float]) -> bool:
        report = Report(**reported(fidelity, metrics))
        with self._reporting:  # one question at a time, whichever thread asks
            self.stopped = not self.on_report(report) or self.stopped
        return not self.stopped

    def keep(self, key: str, start: Callable[[], T], stop: Callable[[T], None]) -> T:
        return self.kept.keep(key, start, stop)

    def drop(self) -> None:
        self.kept.drop()

    def artifact(self, name: str, value: Any) -> None:
        self.artifacts[name] = plain(value)

    def progress(self, info: Mapping[str, Any]) -> None:
        self.on_progress(info)


def plain(value: Any) -> Any:
    """A copy that is strict JSON: figures that are not finite become None, what JSON does not know its text."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda name: None)


def evaluate_job(evaluate: Evaluator, ctx: TrialContext) -> dict[str, Any]:
    """Runs one evaluation; whatever it raises becomes a payload. Only KeyboardInterrupt and exits pass."""
    begun, cpu = time.perf_counter(), time.process_time()
    ctx.workdir.mkdir(parents=True, exist_ok=True)
    try:
        payload = result(evaluate(dict(ctx.job.params), ctx), state=State.STOPPED if ctx.stopped else State.COMPLETE)
    except Exception as error:  # an evaluator's exception never ends a study
        payload = _failed(error)
        if not isinstance(error, FettleError) and payload.get("failure") == "other":  # a fault of its own
            payload["artifacts"] = {"log": traceback.format_exc(limit=-8)[-4000:]}
    payload["fidelity"] = ctx.fidelity
    own = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
    extra = ctx.artifacts.pop("timings", {})
    payload["timings"] = {**own, **extra}
    if ctx.artifacts:
        payload["artifacts"] = {**ctx.artifacts, **payload.get("artifacts", {})}
    return payload


def _failed(error: Exception) -> dict[str, Any]:
    try:
        return from_error(error)
    except Exception as broken:  # what it carries cannot be recorded: hostile text, figures that are none
        return result({}, error=f"{type(error).__name__}, and what it carries is unusable: {type(broken).__name__}")
