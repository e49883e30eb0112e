"""Load generation: open loop (latency from the *scheduled* send time) and closed loop, in one thread.

An event loop of its own on raw sockets: the timers of asyncio and libuv are rounded to whole milliseconds,
which would show in every latency, and cost per request is what decides how far one core can go.
"""

import gc
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from fettle.core.errors import InvalidInput
from fettle.core.serving import Request
from fettle.problems.serve.http import layout
from fettle.problems.serve.load_loop import Loop, Plan
from fettle.problems.serve.samples import Floats, Samples, percentile

Check = Callable[[int, bytes], bool | str]

_FIRST_CHECKS = 8  # the first answers of every probe are checked, then every k-th
_MAX_CHECKS = 512
_LATE_SHARE, _LATE_LEAST_S = 0.2, 0.001
_LATE_FEW = 3  # a hiccup or two are no limit
_CPU_LIMIT = 0.92
_SENT_LEAST = 0.98


def schedule(rate: float, seconds: float, arrivals: str, rng: np.random.Generator) -> Floats:
    """Send times in [0, seconds): a Poisson process, or one every 1 / rate. Raises InvalidInput."""
    if not (math.isfinite(rate) and rate > 0.0):
        raise InvalidInput(f"load: the rate must be positive, got {rate!r}", "requests per second")
    _positive(seconds)
    if arrivals == "constant":
        return np.arange(math.ceil(rate * seconds - 1e-9), dtype=float) / rate
    if arrivals == "poisson":
        times: Floats = np.sort(rng.random(int(rng.poisson(rate * seconds)))) * seconds
        return times
    raise InvalidInput(f"arrivals: expected 'poisson' or 'constant', got {arrivals!r}", "use poisson")


class Generator:
    """Sends prepared requests to one server; connections stay open between probes. Not thread-safe.

    connections: opened at the start, and more (up to 1024) when all are busy in an open loop; beyond that
    requests wait in the client and their latency goes on counting. timeout_s: per request, from its send.
    check(request index, body): True or "" if the answer is right, else False or the kind of error; the first
    answers of a probe and every check_every-th are checked after the probe. No call lasts longer than its
    seconds + drain_s, and a moment, whatever the server does.
    """

    def __init__(
        self,
        host: str,
        port: int,
        requests: Sequence[Request],
        *,
        connections: int = 32,
        timeout_s: float = 10.0,
        check: Check | None = None,
        check_every: int = 50,
        seed: int = 0,
    ) -> None:
        if not requests:
            raise InvalidInput("the load generator got no request to send", "give at least one, better 32")
        if connections < 1 or check_every < 1 or not timeout_s > 0.0:
            raise InvalidInput(
                f"load: expected connections >= 1, check_every >= 1, timeout_s > 0; got {connections}, {check_every}, "
                f"{timeout_s}",
                "use the defaults",
            )
        self._loop = Loop((host, port), [layout(r, host, port) for r in requests], connections, timeout_s)
        self._check = check
        self._check_every = check_every
        self._seed = seed
        self._probes = 0

    def open_loop(
        self,
        rate: float,
        seconds: float,
        *,
        arrivals: str = "poisson",
        drain_s: float = 2.0,
        slo_s: float | None = None,
    ) -> Samples:
        """Offers `rate` requests/s for `seconds`; then waits up to drain_s for the answers.

        slo_s: the latency that matters; sending stops, `oversaturated`, when the backlog has for some time
        been so long that the SLO could not be held any more.
        """
        rng = np.random.default_rng([self._seed, self._probes])
        due = schedule(rate, seconds, arrivals, rng)
        limit = math.inf if slo_s is None else max(64.0, 5.0 * rate * slo_s)
        return self._run(Plan(due.tolist(), seconds, drain_s, backlog_limit=limit), rate, slo_s)

    def closed_loop(self, concurrency: int, seconds: float, *, drain_s: float = 2.0) -> Samples:
        """Keeps `concurrency` requests under way for `seconds`, each sent when the one before it is answered."""
        if concurrency < 1:
            raise InvalidInput(f"load: concurrency must be at least 1, got {concurrency!r}", "try 32")
        _positive(seconds)
        return self._run(Plan([], seconds, drain_s, concurrency=concurrency), math.nan, None)

    def close(self) -> None:
        """Closes all connections; the generator can be used again and then opens new ones."""
        self._loop.close()

    def __enter__(self) -> "Generator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, plan: Plan, rate: float, slo_s: float | None) -> Samples:
        plan.keep_first, plan.keep_every = _FIRST_CHECKS, self._check_every
        plan.keep_most = _MAX_CHECKS if self._check else 0
        plan.first_request = self._probes * 7919
        self._probes += 1
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        begun, cpu = time.perf_counter(), time.thread_time()
        try:
            self._loop.run(plan)
        finally:
            if collecting:
                gc.enable()
        wall_s = time.perf_counter() - begun
        cpu_ratio = (time.thread_time() - cpu) / max(wall_s, 1e-9)
        return self._samples(plan, rate, slo_s, cpu_ratio)

    def _samples(self, plan: Plan, rate: float, slo_s: float | None, cpu_ratio: float) -> Samples:
        scheduled = np.array(plan.due[: plan.sent_n])
        latency = np.array(plan.done[: plan.sent_n]) - scheduled
        late = np.array(plan.late[: plan.sent_n])
        errors = Counter(plan.errors)
        bad = 0
        for ticket, request, body in plan.kept:
            answer = True if self._check is None else self._check(request, body)
            if answer is not True and answer != "":
                errors[answer or "bad_body"] += 1
                latency[ticket] = np.nan
                bad += 1
        if math.isnan(rate):
            rate = float(scheduled.size) / max(plan.window_s, 1e-9)
        return Samples(
            scheduled_s=scheduled,
            latency_s=latency,
            offered_rate=rate,
            seconds=plan.window_s,
            send_late_s=late,
            errors=dict(errors),
            checked=len(plan.kept),
            bad=bad,
            client_cpu_ratio=cpu_ratio,
            received_bytes=plan.received_bytes,
            oversaturated=plan.oversaturated,
            limited=_limited(plan, late, latency, slo_s, cpu_ratio),
        )


def _limited(plan: Plan, late: Floats, latency: Floats, slo_s: float | None, cpu_ratio: float) -> str:
    """Why the client was the limit, or "". Lateness counts against the latency that matters: the SLO, else p99."""
    if cpu_ratio > _CPU_LIMIT:
        return f"the load generator used {cpu_ratio:.0%} of a core"
    if plan.concurrency:  # nothing is due in a closed loop: how late the loop's own ticks were
        late = np.array(plan.tick_late)
    matters_s = slo_s if slo_s is not None else percentile(latency, 0.99)
    allowed_s = max(_LATE_LEAST_S, _LATE_SHARE * (matters_s if math.isfinite(matters_s) else 0.1))
    late_n = int(np.count_nonzero(late > allowed_s))
    if late_n > max(_LATE_FEW, 0.01 * late.size):
        return f"the load generator was over {allowed_s * 1e3:.3g} ms late {late_n} out of {late.size} times"
    overdue = plan.unsent_n / max(1, plan.unsent_n + plan.sent_n)
    if not plan.oversaturated and overdue > 1.0 - _SENT_LEAST:
        return f"{overdue:.0%} of the requests could not be sent in time"
    return ""


def _positive(seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0.0):
        raise InvalidInput(f"load: seconds must be positive, got {seconds!r}", "a probe takes some time")


__all__ = ["Check", "Generator", "Samples", "schedule"]
