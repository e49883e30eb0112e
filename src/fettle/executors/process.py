"""Evaluates in worker processes of this machine, each with its own process tree under a supervisor."""

import itertools
import json
import os
import pickle
import select
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from fettle.core.errors import FettleError, InvalidInput
from fettle.core.protocols import Evaluator, Job
from fettle.core.trial import Event, Report, State
from fettle.executors.worker import Pipe
from fettle.host.supervise import Process, spawn

_GRACE_S = 5.0  # from asking a trial to stop until it is killed
_START_S = 60.0  # for a worker to start and to load what it evaluates; not charged to the trial's limit
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass
class _Worker:
    process: Process
    pipe: Pipe
    evaluate: Evaluator | None = None
    job: Job | None = None
    begun: float = 0.0
    loading: bool = False  # the evaluator has not been called yet
    stop_at: float | None = None  # asked to stop: killed at this time
    last: Mapping[str, float] | None = None
    kept: bool = False  # it holds something between trials


class ProcessExecutor:
    """See `fettle.core.protocols.Executor`. Workers are kept between trials; `threads` are given to each one's
    numerical libraries (default: cores shared among the workers)."""

    def __init__(
        self,
        *,
        workers: int = 1,
        threads: int | None = None,
        on_progress: Callable[[int, Mapping[str, Any]], None] | None = None,
    ) -> None:
        if workers < 1:
            raise InvalidInput(f"expected at least one worker, got {workers!r}", "write workers=1")
        self.capacity = workers
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        self._threads = threads or max(1, cores // workers)
        self._on_progress = on_progress or (lambda number, info: None)
        self._workers: list[_Worker] = []
        self._events: list[Event] = []
        self._numbers = itertools.count()

    def submit(self, job: Job, evaluate: Evaluator) -> None:
        job.workdir.mkdir(parents=True, exist_ok=True)
        for dead in [w for w in self._workers if w.job is None and w.process.poll() is not None]:
            self._end(dead)
        worker = next((w for w in self._workers if w.job is None), None)
        messages = [pickle.dumps(("job", job))]
        if worker is None or worker.evaluate is not evaluate:
            messages.insert(0, pickle.dumps(("evaluate", _pickled(evaluate))))
        if worker is None:
            try:
                worker = self._start(job.workdir.parent)
            except FettleError as error:  # its supervisor was killed while it started: nothing is known of the params
                self._events.append(Event("lost", job.number, {"error": str(error)}, time.time()))
                return
            messages.insert(0, pickle.dumps(list(sys.path)))
        worker.job, worker.begun, worker.loading, worker.stop_at, worker.last = job, time.monotonic(), True, None, None
        try:
            for message in messages:
                worker.pipe.send(message)
            worker.evaluate = evaluate
        except BrokenPipeError:
            self._died(worker)

    def poll(self, timeout_s: float, on_report: Callable[[int, Report], bool]) -> list[Event]:
        give_up = time.monotonic() + timeout_s
        while not self._events:
            busy = {w.pipe.read_fd: w for w in self._workers if w.job is not None}
            left = min(give_up, *(self._due(w) for w in busy.values())) - time.monotonic() if busy else 0.0
            ready, _, _ = select.select(list(busy), [], [], max(0.0, left)) if busy else ([], [], [])
            for fd in ready:
                self._receive(busy[fd], on_report)
            for worker in busy.values():
                if worker.job is not None and time.monotonic() >= self._due(worker):
                    self._overtime(worker)
            if time.monotonic() >= give_up or not busy:
                break
        events, self._events = self._events, []
        return events

    def stop(self, number: int) -> None:
        for worker in self._workers:
            if worker.job is not None and worker.job.number == number and worker.stop_at is None:
                worker.stop_at = time.monotonic() + _GRACE_S

    def close(self) -> None:
        leaving = [w for w in self._workers if w.job is None and w.kept]
        for worker in leaving:  # what they keep is stopped in its own way; all else is killed
            with suppress(BrokenPipeError):
                worker.pipe.send(pickle.dumps(("end", None)))
        give_up = time.monotonic() + _GRACE_S
        for worker in leaving:
            worker.process.wait(max(0.0, give_up - time.monotonic()))
        for worker in list(self._workers):
            self._end(worker)

    def _start(self, folder: Path) -> _Worker:
        to_worker, from_worker = os.pipe(), os.pipe()
        pipe = Pipe(from_worker[0], to_worker[1])
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(self._threads))}
        inherited = (to_worker[0], from_worker[1])
        try:
            process = spawn(
                [sys.executable, "-m", "fettle.executors.worker", *map(str, inherited)],
                cwd=Path.cwd(),
                env={**environment, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                log_path=folder / f"worker-{os.getpid()}-{next(self._numbers)}.log",
                name="worker",
                pass_fds=inherited,
            )
        except BaseException:
            pipe.close()
            raise
        finally:
            for fd in inherited:
                os.close(fd)
        worker = _Worker(process, pipe)
        self._workers.append(worker)
        return worker

    def _receive(self, worker: _Worker, on_report: Callable[[int, Report], bool]) -> None:
        assert worker.job is not None
        number = worker.job.number
        try:
            message = json.loads(worker.pipe.receive())
            value = message["value"]
            if message["kind"] == "began":
                worker.begun, worker.loading = time.monotonic(), False
            elif message["kind"] == "progress":
                self._on_progress(number, value)
            elif message["kind"] == "report":
                worker.last = value["metrics"]
                go_on = on_report(number, Report(value["fidelity"], value["metrics"])) and worker.stop_at is None
                if not go_on and worker.stop_at is None:
                    worker.stop_at = time.monotonic() + _GRACE_S
                worker.pipe.send(pickle.dumps(go_on))
            else:
                worker.job, worker.kept = None, value["kept"]
                self._events.append(Event("told", number, value["payload"], time.time()))
                if not worker.kept and len(worker.process.pids()) > 1:
                    self._end(worker)  # the trial has left processes behind
        except (EOFError, BrokenPipeError):
            self._died(worker)

    def _died(self, worker: _Worker) -> None:
        assert worker.job is not None
        number = worker.job.number
        worker.process.wait(2.0)
        code, oom, log = worker.process.returncode, worker.process.oom_killed(), worker.process.log_tail(40)
        self._end(worker)
        if code == -9 and not oom:  # killed from outside: nothing is known of the params
            self._events.append(Event("lost", number, {"error": "its worker was killed"}, time.time()))
            return
        how = "it closed its pipe" if code is None else f"signal {-code}" if code < 0 else f"exit status {code}"
        self._fail(number, "oom" if oom else "crash", f"its worker process ended: {how}", log)

    def _due(self, worker: _Worker) -> float:
        limit = worker.job.limit_s if worker.job is not None else None
        end = float("inf") if limit is None else worker.begun + limit + (_START_S if worker.loading else 0.0)
        return end if worker.stop_at is None else min(end, worker.stop_at)

    def _overtime(self, worker: _Worker) -> None:
        assert worker.job is not None
        job, asked, last = worker.job, worker.stop_at is not None, worker.last
        log = worker.process.log_tail(40)
        self._end(worker)
        if asked:
            payload = {"state": str(State.STOPPED), "metrics": dict(last or {}), "fidelity": job.fidelity}
            self._events.append(Event("told", job.number, payload, time.time()))
        else:
            self._fail(job.number, "timeout", f"took more than its limit of {job.limit_s:.3g} s", log)

    def _fail(self, number: int, failure: str, error: str, log: str) -> None:
        payload = {"state": str(State.FAILED), "metrics": {}, "failure": failure, "error": error}
        self._events.append(Event("told", number, {**payload, "artifacts": {"log": log}}, time.time()))

    def _end(self, worker: _Worker) -> None:
        worker.job = None
        if worker in self._workers:
            self._workers.remove(worker)
            worker.process.stop()
            worker.pipe.close()


def _pickled(evaluate: Evaluator) -> bytes:
    try:
        return bytes(cloudpickle.dumps(evaluate))
    except Exception as error:  # whatever a user's object raises while it is taken apart
        raise InvalidInput(
            f"the evaluator cannot be sent to a worker process: {type(error).__name__}: {error}",
            "open files, connections and locks inside it, or use executor='inline'",
        ) from error
