"""One trial of the serve problem: start the server, load it, find what it holds, price it."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fettle.core.errors import TrialFailure, TrialStopped
from fettle.core.protocols import Context
from fettle.core.trial import Estimate, Params
from fettle.host.observe import ForeignLoad, TreeObserver, TreeUsage
from fettle.host.redact import redact
from fettle.problems.serve import figures
from fettle.problems.serve.cost import per_million, rate_for
from fettle.problems.serve.figures import Figures
from fettle.problems.serve.load import Generator
from fettle.problems.serve.operating_point import OperatingPoint, measure_at
from fettle.problems.serve.priority import as_generator, place
from fettle.problems.serve.rate_search import RateResult, RateSearch, search
from fettle.problems.serve.samples import Samples, percentile
from fettle.problems.serve.session import NOTICE_S, Server, checker, retuned, start, verify

if TYPE_CHECKING:
    from fettle.problems.serve.problem import ServeProblem

FOREIGN_RATIO = 0.10  # of the machine: more than that taken by others marks a measurement
MEMORY_MARGIN = 1.3  # allotted memory over the peak
_CALM_WAIT_S = 10.0
_CHANGE_S = 30.0  # for hot knobs to be set: a server may load its model again
_NO_END = {"timeout", "stalled", "unfinished"}  # kinds of error of answers that did not come in time
_SEARCH_S = 20.0  # of probing at most; most servers take much less to reach the half-width
_AGAIN_S = 6.0
_HALF_WIDTH = 0.08  # of the rate's interval
_SURE = 2.0  # times the low end of an expected rate is the high one, at most, for a search to start there
_LIMIT_S = 60.0  # for a trial that nobody has given a limit
_OPERATING, _AT_RATE = 2.4, 4.0  # times the requests that the percentile takes, as slow ones come in bursts


@dataclass
class _Run:
    """What the parts of one trial share."""

    problem: "ServeProblem"
    params: Params
    ctx: Context
    server: Server
    generator: Generator
    end: float  # monotonic time at which the trial has to be over
    shared: bool  # the generator may meet the server on a core
    client: list[Samples] = field(default_factory=list)
    foreign_ratio: float = 0.0  # of the machine's CPU, taken by others during the last search

    def left_s(self) -> float:
        return self.end - time.monotonic()

    def probe(self, rate: float, seconds: float) -> Samples:
        self.ctx.progress({"phase": "probe", "rate": rate, "seconds": seconds})
        slo_s = self.problem.slo.limit_s
        samples = self.generator.open_loop(
            rate, seconds, arrivals=self.problem.arrivals, slo_s=slo_s, drain_s=max(0.5, 4 * slo_s)
        )
        self.client.append(samples)
        self.check(samples)
        p99 = samples.percentile(0.99)
        ok = p99 <= slo_s and not samples.oversaturated
        self.ctx.progress({"phase": "probed", "rate": rate, "p99_s": p99 if math.isfinite(p99) else None, "ok": ok})
        return samples

    def check(self, samples: Samples) -> None:
        """What a dying server answers is no figure. Raises TrialFailure where it has ended, or lost part of its tree
        to memory."""
        process = self.server.process
        broken = any(samples.errors.get(kind) for kind in ("connect", "reset", "closed"))
        if process.poll() is not None or (broken and (process.oom_killed() or process.wait(NOTICE_S) is not None)):
            raise self.server.failure("the server ended under load")


def evaluate(
    problem: "ServeProblem",
    params: Params,
    ctx: Context,
    *,
    mode: str = "search",
    rate: float | None = None,
    warm: bool = False,
) -> Figures:
    """Metrics of one configuration. mode 'search': the highest rate that holds the SLO, from `rate` on where it is
    known; 'rate': the figures at that rate. warm: the last trial's server may be used where only hot knobs differ;
    otherwise the server is a fresh one.

    Raises TrialFailure with its class, or TrialStopped where the incumbent cannot be beaten any more.
    """
    limit_s = min(ctx.deadline_s, 2 * _LIMIT_S) if ctx.deadline_s else _LIMIT_S
    end = time.monotonic() + 0.92 * limit_s - 1.0  # what is left of the limit is for ending the server
    placement = place(problem.machine)
    with ExitStack() as stack:
        nice = stack.enter_context(as_generator(placement))
        ctx.progress({"phase": "starting"})
        memory = problem.memory_bytes or int(0.8 * problem.machine.memory_bytes)

        def started() -> Server:
            return start(
                lambda port: problem.target.launch(problem.model, params, port),
                folder=ctx.workdir / "server",
                machine=placement.server,
                memory_bytes=memory,
                nice=nice,
                start_limit_s=min(0.5 * limit_s, 60.0),
            )

        server = stack.enter_context(_served(problem, params, ctx, started, warm=warm))
        generator = stack.enter_context(_generator(problem, params, server, ctx.seed))
        shared = placement.shared and bool(set(server.cores) & set(placement.generator_cores))
        run = _Run(problem, params, ctx, server, generator, end, shared)
        observer = TreeObserver(server.process)
        observer.start()
        observed = time.monotonic()
        try:
            metrics = _figures(run, mode, rate, observer)
        except TrialFailure as failure:
            if not failure.log:
                failure.log = server.log()
            raise
        finally:
            usage = observer.stop()
            _describe(run, usage, time.monotonic() - observed)
        return metrics


@contextmanager
def _served(
    problem: "ServeProblem", params: Params, ctx: Context, started: Callable[[], Server], *, warm: bool
) -> Iterator[Server]:
    """A server for one trial. One with hot knobs goes on running for the next trial, unless this one fails."""
    hot = problem.target.hot
    if not (warm and hot):
        ctx.drop()
        server = started()
        try:
            yield server
        finally:
            server.process.stop()
        return
    fresh: list[Server] = []

    def first() -> Server:
        fresh.append(started())
        return fresh[0]

    cold = {name: value for name, value in params.items() if name not in hot}
    server = ctx.keep(json.dumps(cold, sort_keys=True), first, lambda kept: kept.process.stop())
    good = False
    try:
        change = problem.target.apply(params)
        if not fresh and change is not None:
            server = retuned(server, problem.target.launch(problem.model, params, server.port), change, _CHANGE_S)
        yield server
        good = True
    except TrialStopped:  # it is not the server's fault
        good = True
        raise
    finally:
        if not good:
            ctx.drop()


def _generator(problem: "ServeProblem", params: Params, server: Server, seed: int) -> Generator:
    requests = [server.launch.encode(item) for item in problem.items]
    references = problem.references(problem.precision(params)) if server.launch.decode is not None else None
    check = checker(server.launch, references)
    timeout_s = min(max(10 * problem.slo.limit_s, 1.0), 10.0)
    verify(server, requests, check, timeout_s)
    return Generator(
        "127.0.0.1",
        server.port,
        requests=requests,
        connections=max(32, 2 * server.launch.concurrency),
        timeout_s=timeout_s,
        check=check,
        seed=seed,
    )


def _figures(run: _Run, mode: str, rate: float | None, observer: TreeObserver) -> Figures:
    run.ctx.progress({"phase": "warm-up"})
    concurrency = max(2, 2 * run.server.launch.concurrency)
    warm = run.generator.closed_loop(concurrency, min(1.0, 0.1 * run.left_s()))
    run.check(warm)
    if not warm.completed:
        kinds = ", ".join(f"{kind} x {count}" for kind, count in warm.errors.items())
        otherwise = "timeout" if set(warm.errors) <= _NO_END else "bad_request"
        raise run.server.failure(f"no good answer under load ({kinds or 'none at all'})", otherwise=otherwise)
    if mode == "rate" and rate is not None:
        return _priced(run, _at_rate(run, rate), observer)
    capacity = max(warm.throughput_rps, 1.0)
    # A guess from elsewhere is checked against what the warm-up has shown.
    guess = rate or _foreseen(run, observer)
    start = min(max(guess, 0.1 * capacity), 1.1 * capacity) if guess else 0.85 * capacity
    result = _calm(run, lambda: _search(run, start, observer, known=bool(rate)))
    return _priced(run, _answered(run, result, observer), observer)


def _search(run: _Run, start: float, observer: TreeObserver, *, known: bool) -> RateResult:
    """known: the rate has been found before, and is looked at again: many short looks tell more than a long one."""
    left, slo = run.left_s(), run.problem.slo
    usual = min(_AGAIN_S if known else _SEARCH_S, max(4.0, 0.4 * left))
    # A slow server takes longer to get through the requests that a percentile needs.
    wanted = min(max(usual, 4.0 * figures.needed_n(slo) / start), max(usual, 0.6 * left))
    budget = min(wanted, max(1.0, left - _rest_s(run, start)))
    return search(
        run.probe,
        slo,
        RateSearch(budget_s=budget, half_width=_HALF_WIDTH, operating_share=0.0),
        start_rate=start,
        floor_rate=_floor(run, observer),
        clock=time.monotonic,
    )


def _rest_s(run: _Run, rate: float) -> float:
    """What has to be left after the search: the operating point, and latency at a rate where that is an objective."""
    n = figures.needed_n(run.problem.slo)
    seconds = 1.0 + figures.least_s(n, rate)
    if "latency" in run.problem.objective:
        seconds += figures.least_s(figures.P99_N, run.problem.rate or 0.5 * rate)
    return seconds


def _floor(run: _Run, observer: TreeObserver) -> float | None:
    """The rate under which the incumbent cannot be beaten: with one objective, which depends on the rate."""
    best, objective = run.ctx.incumbent, run.problem.objective
    if best is None or len(objective) > 1 or objective[0] == "latency":
        return None
    if objective[0] == "throughput":
        return best.get("throughput_rps")
    cost = best.get("cost_per_million")
    return None if not cost else rate_for(_cost_per_hour(run, observer), cost)


def _foreseen(run: _Run, observer: TreeObserver) -> float | None:
    """The rate that the algorithm expected, where it was sure enough."""
    expected = run.ctx.predicted or {}
    value, low, high = expected.get("throughput_rps") or (0.0, 0.0, 0.0)
    if not value and "cost_per_million" in expected:
        hourly = _cost_per_hour(run, observer)
        value, high, low = (rate_for(hourly, cost) for cost in expected["cost_per_million"])
    return value if 0.0 < high <= _SURE * low else None


def _calm(run: _Run, work: Callable[[], RateResult]) -> RateResult:
    """Measures under little foreign load: waits a bounded time, repeats once, and marks what remains noisy."""
    watch = ForeignLoad(lambda: [*run.server.process.pids()])
    for attempt in range(2):
        watch.start()
        result = work()
        noise = watch.stop()
        marked = noise.foreign_ratio > FOREIGN_RATIO
        run.ctx.artifact("noise", {**asdict(noise), "marked": marked, "repeats": attempt})
        run.foreign_ratio = noise.foreign_ratio
        rate = result.rate.value if result.rate else 1.0
        room = run.left_s() - 1.3 * result.seconds - _rest_s(run, rate)
        if not marked or attempt or room <= 0:
            break
        _wait_for_calm(run, watch, min(_CALM_WAIT_S, room))
    return result


def _wait_for_calm(run: _Run, watch: ForeignLoad, seconds: float) -> None:
    give_up = time.monotonic() + seconds
    run.ctx.progress({"phase": "waiting for foreign load to end"})
    while time.monotonic() < give_up:
        watch.start()
        time.sleep(0.5)
        if watch.stop().foreign_ratio <= FOREIGN_RATIO:
            return


def _answered(run: _Run, result: RateResult, observer: TreeObserver) -> Figures:
    """Metrics of a rate search, however it ended."""
    slo, reason = run.problem.slo, result.reason
    by_latency = "latency" in run.problem.objective
    found: Figures = {}
    if result.ending == "infeasible":
        found = figures.infeasible(run.client[-1], slo, at_rate=by_latency)
        reason += figures.best_attainable(found)
    run.ctx.artifact("probes", [_probe(record) for record in result.probes])
    run.ctx.artifact("feasible", result.feasible)
    run.ctx.artifact("reason", reason)
    if result.ending == "server_failed":
        raise run.server.failure(reason, otherwise="timeout")
    if result.ending == "not_enough_requests":
        raise TrialFailure(f"{reason}; {figures.MORE}", failure="other")
    if result.stopped and result.optimistic_rate is not None:
        raise TrialStopped(reason, _optimistic(run, result.optimistic_rate, observer))
    if result.rate is None:
        return found
    rate = replace(result.rate, high=math.inf) if result.client_limited else result.rate
    found = {"throughput_rps": rate, **figures.latencies(_operating(run, rate.value))}
    if by_latency:
        compared = run.problem.rate or 0.5 * rate.value
        run.ctx.artifact("rate", compared)
        found["latency_p99_at_rate_s"] = _latency_at(run, compared)
    return found


def _disturbed(run: _Run) -> str:
    """What a failure has to say where others took the machine meanwhile."""
    taken = run.foreign_ratio
    return f", while other programs took {taken:.0%} of the CPU" if taken > FOREIGN_RATIO else ""


def _operating(run: _Run, boundary: float) -> OperatingPoint:
    """The point that is reported lies a little below the boundary and holds the SLO; else a lower one is taken."""
    slo, rate = run.problem.slo, boundary
    n = figures.needed_n(slo)
    point = None
    for step in (0.96, 0.95, 0.93, 0.8):
        if point is not None and run.left_s() < 2.5:
            break
        rate *= step
        left = run.left_s() + 0.5 + figures.least_s(n, boundary) - _rest_s(run, boundary)
        most = max(1.5, min(6.0, 0.5 * left))
        seconds = figures.window_s(n, rate, times=_OPERATING, least_s=1.5, most_s=most, left_s=left)
        point = measure_at(run.probe, rate, slo, seconds)
        if point.holds:
            break
    assert point is not None
    return figures.judged(point, slo)


def _at_rate(run: _Run, rate: float) -> Figures:
    """Whether one rate holds, for confirmation: as long as the percentile needs under correlated latencies."""
    slo = run.problem.slo
    later = figures.least_s(figures.P99_N, run.problem.rate) if run.problem.rate else 0.0
    left = run.left_s() - 0.5 - later
    n = figures.needed_n(slo)
    seconds = figures.window_s(n, rate, times=_AT_RATE, least_s=3.0, most_s=8.0, left_s=left)
    watch = ForeignLoad(lambda: [*run.server.process.pids()])
    watch.start()
    point = measure_at(run.probe, rate, slo, seconds)
    noise = watch.stop()
    run.ctx.artifact("noise", {**asdict(noise), "marked": noise.foreign_ratio > FOREIGN_RATIO, "repeats": 0})
    run.ctx.artifact("feasible", point.holds is True)
    run.ctx.artifact("probes", [_probe(point.record)])
    found: Figures = {"throughput_rps": rate, **figures.latencies(figures.judged(point, slo))}
    if "latency" in run.problem.objective and run.problem.rate:
        found["latency_p99_at_rate_s"] = _latency_at(run, run.problem.rate)
    return found


def _latency_at(run: _Run, rate: float) -> Estimate:
    left = run.left_s() - 0.5
    seconds = figures.window_s(figures.P99_N, rate, times=_AT_RATE, least_s=3.0, most_s=8.0, left_s=left)
    return figures.p99_at(run.probe(rate, seconds), run.problem.slo)


def _optimistic(run: _Run, rate: float, observer: TreeObserver) -> Figures:
    hourly = _cost_per_hour(run, observer)
    return {"throughput_rps": rate, "cost_per_hour": hourly, "cost_per_million": per_million(hourly, rate)}


def _cost_per_hour(run: _Run, observer: TreeObserver) -> float:
    allotted = run.problem.memory_bytes or MEMORY_MARGIN * observer.peak_bytes
    return run.problem.prices.per_hour(cores=len(run.server.cores), memory_bytes=allotted)


def _priced(run: _Run, found: Figures, observer: TreeObserver) -> Figures:
    hourly = _cost_per_hour(run, observer)
    return figures.priced(found, cost_per_hour=hourly, peak_bytes=observer.peak_bytes)


def _probe(record: Any) -> dict[str, Any]:
    row = {f: getattr(record, f) for f in ("rate", "seconds", "n", "p50_s", "p99_s", "error_ratio", "throughput_rps")}
    over: Mapping[str, float] = record.over
    return {**row, "exceed_ratio": max(over.values(), default=0.0), "marks": list(record.marks)}


def _client(run: _Run) -> dict[str, Any]:
    """What the load generator says of itself."""
    late = [percentile(s.send_late_s, 0.99) for s in run.client if s.send_late_s.size]
    limits = [s.limited for s in run.client if s.limited]
    return {
        "cpu_ratio": max((s.client_cpu_ratio for s in run.client), default=0.0),
        "late_p99_s": max(late, default=None),
        "limited": bool(limits),
        "reasons": limits[:3],
        "shares_core": run.shared,
    }


def _describe(run: _Run, usage: TreeUsage, seconds: float) -> None:
    server, ctx = run.server, run.ctx
    allotted = run.problem.memory_bytes or MEMORY_MARGIN * usage.peak_rss_bytes
    ctx.artifact(
        "usage",
        {
            **asdict(usage),
            "cores": len(server.cores),
            "memory_bytes": allotted,
            "cores_used": usage.cpu_s / max(seconds, 1e-9),
        },
    )
    ctx.artifact("client", _client(run))
    argv = [redact(word) for word in server.launch.argv]
    ctx.artifact(
        "server", {"argv": argv, "record": dict(server.launch.record), "start_s": server.start_s, "warm": server.warm}
    )
    ctx.artifact("log", server.log())
    ctx.artifact("timings", {"server_cpu_s": usage.cpu_s, "start_s": server.start_s})
