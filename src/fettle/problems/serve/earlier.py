"""What measurements of other models say of serving a new one: their rows, told in the params and metrics of a study.

A collection (see `collect`) times sessions in process. Each of its models is taken as a stand-in for the new one: made
as fast or slow as the new one is with the defaults, put behind the server's own cost of a request, and asked what it
could hold of the SLO. Where nothing was measured, the roofline tells how far to go from what was. All of this is a
prior: it has to have the right shape, and live trials decide.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle.core.errors import InvalidInput
from fettle.core.protocols import Earlier, InSessions
from fettle.core.serving import Machine
from fettle.core.space import Params
from fettle.problems.runtimes.onnxruntime import benchmark, load
from fettle.problems.runtimes.probe import machine_features, remember, remembered
from fettle.problems.serve import codec
from fettle.problems.serve.collect.rows import Measurements
from fettle.problems.serve.cost import Prices, per_million
from fettle.problems.serve.onnxfile import read
from fettle.problems.serve.priority import place
from fettle.problems.serve.roofline import roofline
from fettle.problems.serve.slo import METRICS, SLO

if TYPE_CHECKING:
    from fettle.problems.serve.problem import ServeProblem

Sessions = Mapping[str, Any]
"""What a server runs: workers, threads, spinning, max_batch, max_wait_s, graph_optimization, precision, cores."""

_PROCESS_BYTES = 60e6  # of a worker without a model: Python, NumPy and ONNX Runtime
_WEIGHTS = 1.6  # memory of a loaded model, in units of its weights
_BATCH_S = 3e-4  # between a worker and the server's front, per batch
_FRONT_S = 1.5e-4  # of the server's front and the network, per request
_TAIL = 0.5 * math.log(100.0)  # p99 of the wait in a queue with regular service, in units of its mean
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_DISTANCE = {"workers": 1.0, "threads": 1.0, "max_batch": 1.0}  # per doubling
_OTHER_WORD = 0.5
_LISTED = 50_000  # params of a space that are enumerated
_PACE_RUNS, _PACE_S = 20, 0.5
_REPORTED = 0.9  # of a latency limit, at the operating point of whatever holds it


@dataclass(frozen=True, slots=True)
class Served:
    """The new model and its server. pace_s: of one item with the defaults, in process; sessions_of: of params;
    request_s: CPU time for coding one request and its answer; rate: at which latency is an objective, if known."""

    features: Mapping[str, float]
    pace_s: float
    default: Sessions
    speeds: Mapping[str, float]
    slo: SLO
    prices: Prices
    sessions_of: Callable[[Params], Sessions]
    request_s: float
    memory_bytes: int | None = None
    rate: float | None = None

    def metrics(self, other: "StandIn", params: Params) -> dict[str, float]:
        """What a trial would report if the model scaled as the other one does."""
        sessions = self.sessions_of(params)
        scale = self.pace_s * other.at(self.default)
        wait_s, workers = float(sessions.get("max_wait_s", 0.0)), int(sessions["workers"])
        limit_s, most = self.slo.limit_s, int(sessions["max_batch"])
        best, alone_s = 0.0, math.inf
        for batch in [b for b in _BATCHES if b < most] + [most]:
            service_s = self._service_s(other, {**sessions, "max_batch": batch}, scale)
            gathering_s = 0.0 if most == 1 else wait_s if batch < most else min(wait_s, service_s / workers)
            alone_s = min(alone_s, service_s + gathering_s)
            slack_s = limit_s - service_s - gathering_s
            if slack_s > 0.0:
                load = 1.0 / (1.0 + _TAIL * service_s / workers / slack_s)
                best = max(best, load * workers * batch / service_s)
        return self._told(sessions, best, alone_s)

    def _service_s(self, other: "StandIn", sessions: Sessions, scale: float) -> float:
        """Of one batch in one worker, all of them busy, and the server's own work on the same cores."""
        batch, workers = int(sessions["max_batch"]), int(sessions["workers"])
        work_s = scale * workers * batch / other.at(sessions)
        cores = float(sessions["cores"])
        own_s = batch * (self.request_s + _FRONT_S) + _BATCH_S
        return work_s + own_s * max(1.0, workers / cores)

    def _told(self, sessions: Sessions, rate: float, alone_s: float) -> dict[str, float]:
        if not rate:  # no rate holds the SLO: the best attainable is reported
            return {METRICS[name]: max(alone_s, 1.05 * limit) for name, limit in self.slo.latency_s.items()}
        workers = int(sessions["workers"])
        loaded = _WEIGHTS * self.features["weight_bytes"] * (0.3 if sessions["precision"] == "int8" else 1.0)
        used = self.features["activation_bytes"] * int(sessions["max_batch"])
        memory = self.memory_bytes or _PROCESS_BYTES + workers * (_PROCESS_BYTES + loaded + used)
        hourly = self.prices.per_hour(cores=float(sessions["cores"]), memory_bytes=memory)
        found = {METRICS[name]: _REPORTED * limit for name, limit in self.slo.latency_s.items()}
        found |= {"throughput_rps": rate, "cost_per_million": per_million(hourly, rate), "rss_bytes": memory}
        load = min(0.95, (self.rate or 0.5 * rate) / rate)
        return found | {"latency_p99_at_rate_s": alone_s * (1.0 + load / (1.0 - load) / max(1, workers))}


class StandIn:
    """One measured model: throughput of any sessions, on the machine of the study."""

    def __init__(self, measured: Measurements, speeds: Mapping[str, float]) -> None:
        """speeds: of the study's machine, as `runtimes.probe` gives them."""
        self._known: dict[str, list[tuple[Sessions, float]]] = {}
        for sessions, rps in _means(measured):
            self._known.setdefault(str(sessions["precision"]), []).append((sessions, rps))
        self._here = roofline(measured.features, speeds)
        self._there = roofline(measured.features, measured.context["probe"])
        self._seen: dict[tuple[Any, ...], float] = {}

    def at(self, sessions: Sessions) -> float:
        """Items per second with all workers busy."""
        key = tuple(sessions.get(name) for name in ("precision", "cores", *_COMPARED))
        if key not in self._seen:
            self._seen[key] = self._scaled(sessions)
        return self._seen[key]

    def _scaled(self, sessions: Sessions) -> float:
        rows = self._known.get(str(sessions["precision"])) or next(iter(self._known.values()))
        near, rps = min(rows, key=lambda row: _distance(sessions, row[0]))
        return rps * self._here(dict(sessions))["throughput_rps"] / self._there(dict(near))["throughput_rps"]


_COMPARED = ("workers", "threads", "spinning", "max_batch", "graph_optimization")


def _means(measured: Measurements) -> list[tuple[Sessions, float]]:
    """Per params: mean throughput of their repeats."""
    found: dict[tuple[Any, ...], tuple[Sessions, list[float]]] = {}
    for params, metrics, *failure in measured.rows:
        if failure:
            continue
        key = tuple(sorted(params.items()))
        sessions = {"threads": 1, "spinning": False, **params}
        found.setdefault(key, (sessions, []))[1].append(metrics["throughput_rps"])
    return [(s, float(np.mean(rps))) for s, rps in found.values()]


def _distance(a: Sessions, b: Sessions) -> float:
    gap = sum(weight * abs(math.log2(a[name] / b[name])) for name, weight in _DISTANCE.items())
    return gap + sum(_OTHER_WORD * (a[name] != b[name]) for name in ("spinning", "graph_optimization"))


def nearest(features: Mapping[str, float], measured: Sequence[Measurements], n: int) -> list[Measurements]:
    """The n models that are most like a new one by their features, sizes by their logarithm."""
    names = sorted(set(features).intersection(*(m.features for m in measured)))
    table = np.array([[float(f[name]) for name in names] for f in (features, *(m.features for m in measured))])
    positive = table.min(axis=0) > 0.0
    table = np.where(positive, np.log(np.where(positive, table, 1.0)), table)
    spread = table[1:].std(axis=0)
    gaps = (((table[1:] - table[0]) / np.where(spread > 0.0, spread, 1.0)) ** 2).sum(axis=1)
    return [measured[i] for i in np.argsort(gaps, kind="stable")[:n].tolist()]


# -- of a study ----------------------------------------------------------------------------------------------------


def stand_ins(problem: "ServeProblem", measured: Sequence[Measurements], *, n: int, points: int) -> list[Earlier]:
    """The n measured models that are most like the problem's own, each at so many params of its space.

    Empty where the target does not say what its params amount to. Takes a second: the model is timed in process, and
    so is the machine, for two more, where its processor is not that of the measurements.
    """
    target = problem.target
    measured = [one for one in measured if any(len(row) == 2 for row in one.rows)]  # not of what only failed
    if not isinstance(target, InSessions) or not measured:
        return []
    server = place(problem.machine).server
    precisions = {name: read(path).precision for name, path in problem.model.variants.items()}

    def sessions_of(params: Params) -> Sessions:
        named = precisions[problem.precision(params)]
        return {**target.sessions(params, server), "precision": "int8" if named == "int8" else "fp32"}

    features = problem.features
    here = _speeds(server, measured[0].context)
    default = {**sessions_of(problem.defaults()), "spinning": False}
    served = Served(
        features=features,
        pace_s=_pace_s(problem, int(default["threads"])),
        default=default,
        speeds=here,
        slo=problem.slo,
        prices=problem.prices,
        sessions_of=sessions_of,
        request_s=codec.coding_cost_s(problem.items[:4], problem.references(problem.precision(problem.defaults()))[:4]),
        memory_bytes=problem.memory_bytes,
        rate=problem.rate,
    )
    wanted = {o.metric for o in problem.objectives} | {c.metric for c in problem.constraints}
    listed = _spread(problem, points)
    found = []
    for one in nearest(features, measured, n):
        other = StandIn(one, here)
        rows = [(params, served.metrics(other, params)) for params in listed]
        kept = [(params, {name: v for name, v in metrics.items() if name in wanted}) for params, metrics in rows]
        found.append(Earlier(one.name, kept, one.features))
    return found


def _spread(problem: "ServeProblem", points: int) -> list[Params]:
    """The defaults, and params that are drawn evenly from the space, each once."""
    space, rng = problem.space, np.random.default_rng(problem.seed)
    size = space.raw_size
    if size is not None and size <= _LISTED:
        every = list(space.enumerate())
        drawn = [every[i] for i in rng.permutation(len(every))[:points].tolist()]
    else:
        drawn = list({space.key(params): params for params in space.sample(points, rng)}.values())
    return drawn


def _pace_s(problem: "ServeProblem", threads: int) -> float:
    """Median seconds of one item in process with the defaults."""
    path = problem.model.variants[problem.precision(problem.defaults())]
    session, item = load(path, threads=threads), problem.items[0]
    begun, runs = time.perf_counter(), list[float]()
    while len(runs) < _PACE_RUNS and time.perf_counter() - begun < _PACE_S:
        runs.append(float(benchmark(session, item, runs=1, warmup=0 if runs else 1)[0]))
    return float(np.median(runs))


def _probed(server: Machine) -> dict[str, float]:
    found = machine_features(server)
    with contextlib.suppress(InvalidInput):  # a folder that cannot be written costs two seconds each time
        remember(server, found)
    return found


def _speeds(server: Machine, context: Mapping[str, Any]) -> dict[str, float]:
    """What a probe of this machine gives; that of the measurements, for as many cores, where the processor is alike."""
    then, probe = context["fingerprint"], dict(context["probe"])
    alike = set(then.get("isa", ())) == set(server.facts.get("isa", ())) and len(server.cores) <= probe["cores"]
    if not alike:
        return remembered(server) or _probed(server)
    share = len(server.cores) / probe["cores"]
    crowded = {name: share * probe[name] for name in ("flops_fp32_all", "ops_int8_all", "bandwidth_all")}
    return {**probe, **crowded, "cores": float(len(server.cores))}
