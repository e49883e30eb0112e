"""What limits a server: compute, bandwidth, dispatch, queueing or memory, as far as the recorded figures tell."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fettle.core.trial import Constraint, State, Trial, TrialLog
from fettle.report.figures import exact, figure, label, number
from fettle.report.summary import finite
from fettle.report.text import joined, plain

BUSY = 0.8  # of the cores that its threads can use; a mean over the trial, in which pauses between probes count
WORK = 0.25  # of the peak, from which it is the limit: convolutions and products reach a third to most of it
LITTLE = 0.1  # of the peak, below which it is something else
FULL = 0.9  # of the memory that it may have
ALONE = 0.8  # of the SLO's latency
_APART = 0.6  # of the highest rate: at most that for a probe to count as one without a queue
_LEAST_FLOPS = 30e9  # per second and core: what any processor with AVX2 exceeds, where none was measured
_NEAR = 2  # parameters in which a trial that ran out of memory may differ
_SHARES = ("compute_ratio", "bandwidth_ratio", "coding_ratio")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was recorded of one trial; NaN where it was not."""

    trial: Trial
    usage: Mapping[str, Any]
    rate: float  # requests per second
    cores: float
    used: float
    usable: float  # cores that workers times threads can keep busy
    slo: Constraint | None

    @property
    def busy(self) -> float:
        return min(self.used / self.usable, 1.0)


def limits(log: TrialLog, trial: Trial) -> dict[str, Any]:
    """{"trial", "limit", "figures", "probed", "findings"}: limit is compute, bandwidth, dispatch, processor
    (where these three cannot be told apart), queueing, memory, latency (already without a queue), load generator or
    unknown.

    figures: ratios to what is there, null where unknown; compute and bandwidth are those of the cores that the
    server's threads can use, by the model's operations and bytes in the record and a probe of the machine.
    """
    seen, probed = _seen(log, trial), bool(_mapping(log.experiment, "probe"))
    figures = {
        "cores": seen.cores,
        "cores_used": seen.used,
        "cores_usable": seen.usable,
        "busy_ratio": seen.busy,
        **_shares(log.experiment, seen, probed=probed),
        **_alone(seen),
        "memory_ratio": _memory(log, seen),
    }
    limit, findings = _judged(log, seen, figures, probed=probed)
    known = {key: float(value) if finite(value) else None for key, value in figures.items()}
    return {"trial": trial.number, "limit": limit, "figures": known, "probed": probed, "findings": findings}


def _judged(log: TrialLog, seen: _Seen, found: Mapping[str, float], *, probed: bool) -> tuple[str, list[str]]:
    client, who = seen.trial.artifacts.get("client"), f"Trial {seen.trial.number} is limited by"
    if isinstance(client, Mapping) and client.get("limited"):
        return "load generator", [f"{who} the load generator: the server may hold more than was asked of it."]
    if (ratio := found["alone_ratio"]) >= ALONE:
        return "latency", [f"{who} the model's own latency: {_lone(seen, found)}, {_percent(ratio)} of the limit."]
    memory = _memory_text(log, seen, found["memory_ratio"])
    if not finite(found["busy_ratio"]):
        return ("memory", [f"{who} memory: {memory}."]) if memory else ("unknown", [_unknown(seen)])
    if found["busy_ratio"] >= BUSY:
        limit, why = _processor(seen, found, probed=probed)
        more = [f"Memory is short, too: {memory}."] if memory else []
        return limit, [f"{who} {why}.", *_remarks(seen, spins=limit in ("dispatch", "processor")), *more]
    if memory:
        return "memory", [f"{who} memory: {memory}, and {_busy(seen)}.", *_remarks(seen)]
    return "queueing", [f"{who} queueing: {_busy(seen)}{_waiting(seen, found)}.", *_remarks(seen)]


# -- what was recorded --------------------------------------------------------------------------------------------


def _seen(log: TrialLog, trial: Trial) -> _Seen:
    usage = trial.artifacts.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    cores, workers, threads = _float(usage.get("cores")), trial.params.get("workers"), trial.params.get("threads", 1)
    usable = min(cores, float(workers * threads)) if isinstance(workers, int) and isinstance(threads, int) else cores
    slo = next((c for c in log.constraints if c.metric.startswith("latency_p") and c.upper is not None), None)
    rate, used = _float(trial.metrics.get("throughput_rps")), _float(usage.get("cores_used"))
    return _Seen(trial, usage, rate if rate > 0 else math.nan, cores, used, usable if usable > 0 else math.nan, slo)


def _shares(record: Mapping[str, Any], seen: _Seen, *, probed: bool) -> dict[str, float]:
    """Of the peak: operations and bytes per second; of the CPU time used: encoding and decoding. Without a probe
    `compute_ratio` is an upper bound, by the least that such a processor can do."""
    features, probe, facts = (_mapping(record, key) for key in ("features", "probe", "fingerprint"))
    reference = next(iter(_mapping(_mapping(_mapping(record, "problem"), "model"), "variants")), "")
    int8 = seen.trial.params.get("precision", reference) == "int8"
    alone, n = seen.usable <= 1, _float(probe.get("cores"))
    peak = _float(probe.get(f"{'ops_int8' if int8 else 'flops_fp32'}_{'1' if alone else 'all'}"))
    peak = peak if alone else peak / n * min(seen.usable, n)
    if not probed and "avx2" in (facts.get("isa") or ()):
        peak = _LEAST_FLOPS * seen.usable
    batch = next((v for k, v in seen.trial.params.items() if k.endswith("max_batch") and finite(v)), 1)
    width = 0.25 if int8 and reference != "int8" else 1.0  # features are those of the reference
    weights, moved = (_float(features.get(key)) * width for key in ("weight_bytes", "activation_bytes"))
    bandwidth = _float(probe.get("bandwidth_1" if alone else "bandwidth_all"))
    coding = _float(record.get("coding_cost_s")) * seen.rate / seen.used if seen.used > 0 else math.nan
    values = (
        _float(features.get("flops")) * seen.rate / peak,
        (weights / batch + moved) * seen.rate / bandwidth,
        coding,
    )
    return dict(zip(_SHARES, values, strict=True))


def _alone(seen: _Seen) -> dict[str, float]:
    """Latency at the lowest rate that was tried, where no queue is to be expected at it."""
    nothing = {"alone_s": math.nan, "alone_rate_rps": math.nan, "alone_ratio": math.nan}
    found = seen.trial.artifacts.get("probes") or []
    probes = [p for p in found if isinstance(p, Mapping) and finite(p.get("rate")) and finite(p.get("p50_s"))]
    low = min(probes, key=lambda p: float(p["rate"]), default=None)
    held = seen.trial.artifacts.get("feasible", True)
    if low is None or seen.slo is None or seen.slo.upper is None or (held and low["rate"] > _APART * seen.rate):
        return nothing
    tail = low["p99_s"] if seen.slo.metric == "latency_p99_s" and finite(low.get("p99_s")) else low["p50_s"]
    return {"alone_s": low["p50_s"], "alone_rate_rps": low["rate"], "alone_ratio": tail / seen.slo.upper}


def _memory(log: TrialLog, seen: _Seen) -> float:
    """Peak to what the server may have; NaN where no limit was given."""
    given = _float(_mapping(log.experiment, "problem").get("memory_bytes"))
    return _float(seen.usage.get("peak_rss_bytes")) / given


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = record.get(key)
    return found if isinstance(found, Mapping) else {}


def _float(value: Any) -> float:
    return float(value) if finite(value) else math.nan


# -- in words -----------------------------------------------------------------------------------------------------


def _processor(seen: _Seen, found: Mapping[str, float], *, probed: bool) -> tuple[str, str]:
    compute, bandwidth, coding = (found[key] for key in _SHARES)
    busy = _busy(seen)
    told = [
        f"{what} {_percent(share)} of {peak}"
        for what, share, peak in (
            ("its arithmetic is", compute, "what these cores were measured to do"),
            ("its memory traffic", bandwidth, "the measured bandwidth"),
        )
        if probed and finite(share)
    ]
    work = max((x for x in (compute, bandwidth) if probed and finite(x)), default=math.nan)
    if work >= WORK:
        limit, what = ("compute", "compute") if work == compute else ("bandwidth", "memory bandwidth")
        return limit, f"{what}: {busy}; {joined(told)}"
    if coding >= 0.5:
        return "dispatch", f"serving overhead: {busy}, and encoding and decoding take {_percent(coding)} of that"
    if work < LITTLE or (not probed and compute < LITTLE):
        told = told or [f"its arithmetic takes at most {_percent(compute)} of what these cores can do"]
        each = figure("x_s", seen.used / seen.rate)
        return "dispatch", (
            f"dispatch, not by arithmetic: {busy}, {joined(told)}; the rest of the {each} of CPU per request goes to "
            "starting operators, HTTP and waiting threads"
        )
    why = joined(told) or (
        "arithmetic, memory traffic and dispatch cannot be told apart without the machine's speed (`fettle doctor "
        "--probe` measures it for later studies)"
    )
    return "processor", f"the processor: {busy}; {why}"


def _busy(seen: _Seen) -> str:
    plural = "s" if round(seen.usable) != 1 else ""
    return f"{number(seen.used, 2)} of the {number(seen.usable, 0)} core{plural} that it can use were busy"


def _lone(seen: _Seen, found: Mapping[str, float]) -> str:
    limit = "" if seen.slo is None else exact("x_s", seen.slo.upper)
    return (
        f"at {figure('throughput_rps', found['alone_rate_rps'])}, the lowest rate that was tried, half of the requests "
        f"take {figure('x_s', found['alone_s'])}, and the SLO allows {limit}"
    )


def _waiting(seen: _Seen, found: Mapping[str, float]) -> str:
    at = _float(seen.trial.metrics.get(seen.slo.metric)) if seen.slo else math.nan
    if seen.slo is None or not finite(at):
        return ", so requests wait for one another"
    said = f", yet {label(seen.slo.metric)} is {figure('x_s', at)} of the {exact('x_s', seen.slo.upper)} allowed"
    if finite(found["alone_s"]) and found["alone_s"] > 0:
        said += (
            f", {at / found['alone_s']:.1f} times the median at {figure('throughput_rps', found['alone_rate_rps'])} "
            f"({figure('x_s', found['alone_s'])})"
        )
    return said


def _memory_text(log: TrialLog, seen: _Seen, ratio: float) -> str:
    if ratio >= FULL:
        given = _mapping(log.experiment, "problem")["memory_bytes"]
        return f"its peak is {_percent(ratio)} of the {figure('rss_bytes', given)} that it may have"
    for trial in log.trials:
        if trial.state is State.FAILED and trial.failure == "oom":
            names = {*trial.params, *seen.trial.params}
            differs = [n for n in names if trial.params.get(n) != seen.trial.params.get(n)]
            if 0 < len(differs) <= _NEAR:
                names_text = joined([plain(n, limit=80) for n in sorted(differs)])
                return f"trial {trial.number}, which differs in {names_text}, ran out of it"
    return ""


def _remarks(seen: _Seen, *, spins: bool = False) -> Sequence[str]:
    """spins: busy cores are no proof of work."""
    said = []
    if seen.usable < seen.cores:
        workers, threads = seen.trial.params["workers"], seen.trial.params.get("threads", 1)
        share = f"{number(seen.usable, 0)} of {number(seen.cores, 0)} allotted cores"
        said.append(f"Its workers x threads ({workers} x {threads}) can keep {share} busy.")
    if spins and seen.trial.params.get("spinning") is True:
        said.append("Its threads spin while they wait, so that busy cores need not mean work.")
    throttled, wall = _float(seen.usage.get("throttled_s")), _float(seen.usage.get("wall_s"))
    if throttled > 0.05 * wall:
        said.append(f"A CPU quota held it back for {_percent(throttled / wall)} of the time.")
    return said


def _unknown(seen: _Seen) -> str:
    return f"What limits trial {seen.trial.number} is unknown: the CPU time of its server was not recorded."


def _percent(share: float) -> str:
    return f"{100.0 * share:.2g} %" if share < 0.1 else f"{100.0 * share:.0f} %"
