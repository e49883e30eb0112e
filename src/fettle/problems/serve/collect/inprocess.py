"""Measures one configuration of ONNX Runtime in process: sessions side by side in a closed loop, all of them busy.

Each measurement forks a child, so that nothing of one is left for the next, and so that a crash is only its own. The
process that forks has imported ONNX Runtime, but never made a session: forking is safe, and costs 20 ms instead of 500.
"""

import functools
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.errors import FettleError, TrialFailure
from fettle.core.protocols import Context
from fettle.core.space import Params
from fettle.core.trial import Estimate
from fettle.problems.runtimes.onnxruntime import Session, failures, load
from fettle.problems.serve.samples import percentile, required_n

WARM_S = 0.05
_LOOK_S = 0.02
_LEAST_RUNS = 3  # of each worker
_BLOCKS = 10
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # 97.5 % of t with 1 to 9 degrees of freedom
_MEMORY = ("bad_alloc", "failed to allocate", "out of memory")


@dataclass(frozen=True, slots=True)
class Item:
    """One input: the shape that one request adds to a batch, without the batch, and NumPy's name of the type."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A model to measure: precision -> file, or the reason why there is none."""

    files: Mapping[str, Path]
    missing: Mapping[str, str]
    inputs: Mapping[str, Item]


@dataclass(frozen=True, slots=True)
class InProcess:
    """Evaluator of params with a further entry `model`, a key of `models`.

    Measures for min_s seconds, and on until the 95 % interval of the throughput is within `tight` of it, up to max_s;
    longer only where three runs of each worker take longer. Metrics: throughput_rps in items, latency_p50_s and
    latency_p99_s of whole batches, rss_bytes at the highest, with Python and ONNX Runtime in it.
    """

    models: Mapping[str, Measured]
    min_s: float = 0.25
    max_s: float = 0.7
    tight: float = 0.03

    def __call__(self, params: Params, ctx: Context) -> dict[str, float | Estimate]:
        import onnxruntime  # noqa: F401 - before the fork, so that it is imported once

        model, precision = self.models[str(params["model"])], str(params["precision"])
        if precision not in model.files:
            raise TrialFailure(model.missing.get(precision, f"there is no {precision} version"), failure="other")
        found = _forked(lambda: self._measure(model, params, ctx.seed))
        if "failure" in found:
            raise TrialFailure(found["error"], failure=found["failure"])
        ctx.artifact("runs", found.pop("runs"))
        ctx.artifact("seconds", found.pop("seconds"))
        return {
            name: value if isinstance(value, float) else Estimate(value[0], value[1], value[2] or np.inf, value[3])
            for name, value in found.items()
        }

    def _measure(self, model: Measured, params: Params, seed: int) -> dict[str, Any]:
        """In the child. Lists are value, low, high (None: open), n."""
        workers, batch = int(params["workers"]), int(params["max_batch"])
        make = functools.partial(
            load,
            model.files[str(params["precision"])],
            threads=int(params.get("threads", 1)),
            spinning=bool(params.get("spinning", False)),
            graph_optimization=str(params["graph_optimization"]),
        )
        tensors = _tensors(model.inputs, batch, np.random.default_rng(seed))
        with ThreadPoolExecutor(workers) as pool:
            sessions = list(pool.map(lambda _: make(), range(workers)))
        times, answer = self._loop(sessions, tensors)
        if not all(np.isfinite(array).all() for array in answer.values() if array.dtype.kind == "f"):
            return {"failure": "nan", "error": "an output is not finite"}
        rate, half = (batch * figure for figure in _rate(times))
        latency = np.concatenate([np.diff(ends) for ends in times])
        return {
            "throughput_rps": [rate, max(0.0, rate - half), rate + half, latency.size],
            "latency_p50_s": _quantile(latency, 0.5),
            "latency_p99_s": _quantile(latency, 0.99),
            "rss_bytes": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024),
            "runs": int(latency.size),
            "seconds": float(min(ends[-1] for ends in times) - max(ends[0] for ends in times)),
        }

    def _loop(
        self, sessions: Sequence[Session], tensors: Mapping[str, np.ndarray]
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Per worker, the times at which its runs ended, (runs + 1,): the first one is the end of the warm-up. And
        what a run gave."""
        ends: list[list[float]] = [[] for _ in sessions]
        stop = threading.Event()

        def work(session: Session, mine: list[float]) -> dict[str, np.ndarray]:
            answer: dict[str, np.ndarray] = {}
            while not stop.is_set():
                answer = session(tensors)
                mine.append(time.perf_counter())
            return answer

        with ThreadPoolExecutor(len(sessions)) as pool:
            begun = time.perf_counter()
            jobs = [pool.submit(work, session, mine) for session, mine in zip(sessions, ends, strict=True)]
            try:
                times = _warm(ends, begun)
                while not any(job.done() for job in jobs) and not self._enough(times):
                    time.sleep(_LOOK_S)
                    times = _warm(ends, begun)
            finally:
                stop.set()
            answers = [job.result() for job in jobs]
        return times, answers[0]  # the times as they were then: runs that outlast it had less company

    def _enough(self, times: Sequence[np.ndarray]) -> bool:
        if min(ends.size for ends in times) <= _LEAST_RUNS:
            return False
        seconds = min(ends[-1] for ends in times) - max(ends[0] for ends in times)
        if seconds < self.min_s:
            return False
        rate, half = _rate(times)
        return bool(seconds >= self.max_s or half <= self.tight * rate)


def _warm(ends: Sequence[Sequence[float]], begun: float) -> list[np.ndarray]:
    """From the first run of each worker that ended after the warm-up."""
    arrays = [np.array(mine[:]) for mine in ends]
    return [array[int(np.searchsorted(array, begun + WARM_S)) :] for array in arrays]


def _rate(times: Sequence[np.ndarray]) -> tuple[float, float]:
    """Runs per second of all workers together, and half of the 95 % interval, by the rates in up to ten blocks of time.

    What a worker has done between two ends of runs grows evenly, so that few and long runs need no luck with the
    blocks' ends. The sum over workers makes the blocks: one that waits for a core gives it to another.
    """
    n_blocks = min(_BLOCKS, *(ends.size - 1 for ends in times))
    edges = np.linspace(max(ends[0] for ends in times), min(ends[-1] for ends in times), n_blocks + 1)
    work = sum(np.interp(edges, ends, np.arange(ends.size)) for ends in times)
    rates = np.diff(work) / np.diff(edges)
    rate = float(rates.mean())
    if n_blocks < 2:
        return rate, rate
    return rate, min(rate, _STUDENT[n_blocks - 2] * float(rates.std(ddof=1)) / float(np.sqrt(n_blocks)))


def _quantile(latency_s: np.ndarray, q: float) -> list[float | int | None]:
    """With its 95 % interval by order statistics, as if runs were independent; open upwards where they are too few."""
    n = latency_s.size
    spread = 1.96 * float(np.sqrt(q * (1.0 - q) / n))
    high = percentile(latency_s, min(1.0, q + spread)) if n >= required_n(q) else None
    return [percentile(latency_s, q), percentile(latency_s, max(0.0, q - spread)), high, n]


def _tensors(inputs: Mapping[str, Item], batch: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Floats are standard normal; integers 0 or 1, which any table of two rows holds."""
    made = {}
    for name, item in inputs.items():
        shape = (batch, *item.shape)
        floating = np.dtype(item.dtype).kind == "f"
        made[name] = (rng.standard_normal(shape) if floating else rng.integers(0, 2, shape)).astype(item.dtype)
    return made


def _forked(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns in a child process; how the child ended if it returned nothing."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # nothing of the parent's must run here: no handlers at exit, no buffers to flush
        os.close(reading)
        with os.fdopen(writing, "w") as answer:
            json.dump(_caught(work), answer)
        os._exit(0)
    os.close(writing)
    try:
        with os.fdopen(reading) as answer:
            text = answer.read()
    finally:
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        failure = "oom" if number == signal.SIGKILL else "crash"  # nobody else kills it: memory ran out
        return {"failure": failure, "error": f"killed by {signal.Signals(number).name}"}
    if not text:
        return {"failure": "crash", "error": f"ended with status {os.WEXITSTATUS(status)} and said nothing"}
    found: dict[str, Any] = json.loads(text)
    return found


def _caught(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except MemoryError as error:
        return {"failure": "oom", "error": str(error)}
    except _raised() as error:
        text = str(error)
        return {"failure": "oom" if any(word in text.lower() for word in _MEMORY) else "other", "error": text[:500]}


def _raised() -> tuple[type[Exception], ...]:
    return (FettleError, *failures())
