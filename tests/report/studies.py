"""Studies as they would be found in a journal, built from events."""

import itertools
import math
from typing import Any

import numpy as np

from fettle.core.answer import Answer
from fettle.core.space import Categorical, Choice, Float, Int, Ordinal, Space
from fettle.core.trial import Constraint, Event, Objective, TrialLog

FINGERPRINT = {
    "cpu_model": "Example CPU 8-Core @ 2.40GHz",
    "cores": 2,
    "isa_flags": ["avx2", "fma", "avx512f"],
    "memory_bytes": 8 << 30,
    "kernel": "6.1.0",
    "isolation": "cgroup v1",
    "python": "3.11.2",
    "packages": {"onnxruntime": "1.31.1", "mosec": "0.9.8", "numpy": "2.3.0"},
}
FEATURES = {"flops": 1.0e9, "weight_bytes": 4.0e6, "activation_bytes": 6.0e6, "operators": 40.0}
PROBE = {
    "cores": 2.0,
    "flops_fp32_1": 2.4e11,
    "flops_fp32_all": 4.8e11,
    "ops_int8_1": 8e11,
    "ops_int8_all": 1.6e12,
    "bandwidth_1": 1.2e10,
    "bandwidth_all": 2.0e10,
}
LOG_LINES = "INFO worker 0 started\nERROR failed to allocate 734003200 bytes\nKilled"


class Journal:
    """Appends events to a log, numbering and dating them."""

    def __init__(self, experiment: dict[str, Any]) -> None:
        self.log = TrialLog(
            [Objective(o["metric"], o["goal"]) for o in experiment["objectives"]],
            [Constraint(**c) for c in experiment["constraints"]],
        )
        self.events: list[Event] = []
        self._now_s = 1_000.0
        self.add("created", -1, experiment)

    def add(self, kind: str, number: int, payload: dict[str, Any]) -> Event:
        event = Event(kind, number, payload, self._now_s, seq=len(self.events) + 1)
        self.events.append(event)
        self.log.append(event)
        return event

    def trial(self, params: dict[str, Any], told: dict[str, Any], wall_s: float = 12.0, **started: Any) -> int:
        number = len(self.log.trials)
        self.add("started", number, {"params": params, **started})
        self._now_s += wall_s
        self.add("told", number, {"metrics": {}, "timings": {"wall_s": wall_s, "cpu_s": 1.6 * wall_s}, **told})
        return number


def capacity(params: dict[str, Any]) -> float:
    """A server with two cores: precision and instances help, too many threads hurt."""
    rate = 120.0 if params["precision"] == "fp32" else 260.0
    busy = params["workers"] * params["threads"]
    rate *= {1: 1.0, 2: 1.85, 4: 1.5}.get(busy, 1.2) * (1.0 if params["workers"] >= params["threads"] else 0.85)
    if params["batching"] == "on":
        rate *= 1.0 + 0.06 * math.log2(params["batching.on.max_batch"])
    return rate


def base_s(params: dict[str, Any]) -> float:
    """Latency of a lone request."""
    batch: int = params.get("batching.on.max_batch", 1)
    return (0.009 if params["precision"] == "fp32" else 0.004) * batch**0.3 / params["threads"] ** 0.5


def probe(load: float, full_rps: float, alone_s: float) -> dict[str, Any]:
    """load: share of the capacity `full_rps`; latency grows as in a queue, and is long where that overflows."""
    queue = load / max(0.02, 1.0 - load)
    figures = {"p50_s": alone_s * (1 + 0.25 * queue), "p99_s": 1.4 * alone_s * (1 + 0.8 * queue)}
    rate = load * full_rps
    more = {"exceed_ratio": 0.0 if figures["p99_s"] < 0.05 else 0.08, "error_ratio": 0.0}
    return {"rate": rate, "seconds": 2.0, "n": int(2 * rate), **figures, **more, "throughput_rps": min(rate, full_rps)}


def measured(rate: float, probes: list[dict[str, Any]], cores: int = 2) -> dict[str, Any]:
    at = max((p for p in probes if p["rate"] <= rate * 1.001), key=lambda p: p["rate"], default=probes[0])
    per_hour = cores * 0.04 + 0.3 * 0.005
    cost = per_hour / rate / 3600 * 1e6
    wide = 0.05
    metrics = {
        "throughput_rps": rate,
        "latency_p50_s": at["p50_s"],
        "latency_p90_s": at["p99_s"] * 0.7,
        "latency_p99_s": at["p99_s"],
        "error_ratio": 0.0004,
        "rss_bytes": 180 * (1 << 20),
        "cost_per_hour": per_hour,
        "cost_per_million": cost,
    }
    intervals = {
        "throughput_rps": [rate * (1 - wide), rate * (1 + wide), 5],
        "latency_p99_s": [at["p99_s"] * 0.88, at["p99_s"] * 1.2, 900],
        "cost_per_million": [cost / (1 + wide), cost / (1 - wide), 5],
    }
    return {"metrics": metrics, "intervals": intervals}


def artifacts(probes: list[dict[str, Any]], *, noisy: bool = False, limited: bool = False) -> dict[str, Any]:
    return {
        "probes": probes,
        "usage": {"cpu_s": 18.0, "peak_rss_bytes": 180 << 20, "throttled_s": 0.0, "cores": 2, "cores_used": 1.84},
        "noise": {"foreign_ratio": 0.16 if noisy else 0.02, "steal_ratio": 0.001, "marked": noisy},
        "client": {"cpu_ratio": 0.21, "late_p99_s": 0.0007, "limited": limited, "shares_core": True},
        "server": {"argv": ["python", "serve.py", "--port", "8000"], "record": {"timeout_s": 10}, "start_s": 1.8},
        "log": LOG_LINES,
    }


def search(full_rps: float, alone_s: float) -> tuple[float, list[dict[str, Any]]]:
    """The highest rate with a p99 of 46 ms, and the probes that lead to it."""
    queue = (0.046 / (1.4 * alone_s) - 1) / 0.8
    best = queue / (1 + queue)
    loads = [0.28, 0.44, 0.68, 1.02, 0.5 * (best + 1), 0.95 * best, best]
    return best * full_rps, [probe(load, full_rps, alone_s) for load in loads]


def serve_experiment(name: str = "digits", slo_s: float = 0.05, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "problem": {
            "name": "serve",
            "model": {
                "name": "digits-cnn",
                "variants": {"fp32": "digits.onnx", "int8": "digits-int8.onnx"},
                "hashes": {"fp32": "ab" * 32, "int8": "cd" * 32},
            },
            "target": "mosec",
            "slo": {"p99": slo_s},
            "slo_text": f"p99={slo_s * 1000:g}ms,errors=1%",
            "objective": ["cost"],
            "rate": None,
        },
        "objectives": [{"metric": "cost_per_million", "goal": "minimize"}],
        "constraints": [{"metric": "latency_p99_s", "upper": slo_s}, {"metric": "error_ratio", "upper": 0.01}],
        "algorithm": {"name": "auto"},
        "seed": 0,
        "budget": {"seconds": 300, "trials": None},
        "prices": {"currency": "USD", "core_hour": 0.04, "gib_hour": 0.005},
        "baseline": True,
        "fingerprint": FINGERPRINT,
        "coding_cost_s": 0.00021,
        "agreement": {"int8": {"kind": "top-1", "value": 0.998}},
        "created_s": 1_000.0,
        **more,
    }


def configurations() -> list[dict[str, Any]]:
    default = {"workers": 1, "threads": 2, "precision": "fp32", "batching": "off", "graph": "all"}
    found = [default]
    for precision, workers, threads in itertools.product(("fp32", "int8"), (1, 2, 4), (1, 2)):
        found.append({**default, "precision": precision, "workers": workers, "threads": threads})
    for workers, batch in itertools.product((1, 2), (2, 4, 8)):
        batched = {"batching": "on", "batching.on.max_batch": batch, "batching.on.max_wait_s": 0.002 * batch}
        found.append({**default, "precision": "int8", "workers": workers, "threads": 1, **batched})
    return found


def failures() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    base = {"workers": 4, "threads": 2, "precision": "fp32", "batching": "off", "graph": "basic"}
    made = []
    for failure, error in (
        ("oom", "the server was killed at its memory limit of 512 MiB"),
        ("start_timeout", "the server was not ready after 30 s"),
        ("crash", "the server ended with exit status -11"),
        ("crash", "the server ended with exit status 1"),
    ):
        told = {"state": "failed", "failure": failure, "error": error, "artifacts": {"log": LOG_LINES}}
        made.append((base | {"workers": 4 + len(made)}, told))
    return made


def serve() -> tuple[Journal, Answer]:
    """Twenty-one trials: complete, stopped early, noisy, client-limited and failed ones; three confirmed."""
    journal = Journal(serve_experiment())
    broken = failures()
    for i, params in enumerate(configurations()):
        top, probes = search(capacity(params) * (1 + 0.02 * math.sin(7 * i)), base_s(params))
        told = {"state": "complete", **measured(top, probes)}
        told["artifacts"] = artifacts(probes, noisy=i == 4, limited=i == 9)
        if i == 9:
            told["intervals"]["throughput_rps"] = [top * 0.95, None, 5]
        if i in (3, 6, 11):
            told = {**told, "state": "stopped", "artifacts": artifacts(probes[:2])}
        if i == 5:
            told["metrics"]["latency_p99_s"] = 0.071
        journal.trial(params, told, wall_s=9.0 + (i * 5) % 7)
        if i in (2, 7, 8, 13):
            journal.trial(*broken.pop(0), wall_s=4.0)
    outcomes = {t.number: log_order(journal.log, t) for t in journal.log.trials if t.state == "complete"}
    best = min(outcomes, key=lambda n: outcomes[n])
    second = sorted(outcomes, key=lambda n: outcomes[n])[1]
    for number, factor in ((best, 0.97), (second, 0.94), (0, 1.01)):
        confirm(journal, number, factor)
    return journal, Answer(best, (best,), "best of 16 complete trials by figures measured again on fresh starts")


def log_order(log: TrialLog, trial: Any) -> Any:
    return log.outcome(trial).order


def confirm(journal: Journal, number: int, factor: float) -> None:
    trial = journal.log.trials[number]
    rate = trial.metrics["throughput_rps"] * factor
    again = measured(rate, list(trial.artifacts["probes"]))
    base = journal.log.trials[0].metrics["cost_per_million"]
    ratio = again["metrics"]["cost_per_million"] / base
    payload = {
        "source": "confirm",
        **again,
        "prediction": {"throughput_rps": [rate * 0.9, rate * 1.1]},
        "rounds": [{"throughput_rps": rate * f} for f in (0.98, 1.0, 1.02)],
        "passed": True,
        "ratio": {"metric": "cost_per_million", "value": ratio, "low": ratio * 0.95, "high": ratio * 1.05},
        "wall_s": 21.0,
    }
    journal.add("remeasured", number, payload)


def infeasible() -> tuple[Journal, Answer]:
    """No configuration holds the SLO."""
    journal = Journal(serve_experiment("tight", 0.002))
    for params in configurations()[:7]:
        _, probes = search(capacity(params), base_s(params))
        told = measured(probes[0]["rate"], probes[:1])
        journal.trial(params, {"state": "complete", **told, "artifacts": artifacts(probes)})
    return journal, Answer(None, (), "no trial met every constraint; the closest, trial 4, has latency_p99_s = 0.0095")


def empty() -> tuple[Journal, Answer]:
    return Journal(serve_experiment("empty")), Answer(None, (), "no trial has been run")


def all_failed() -> tuple[Journal, Answer]:
    journal = Journal(serve_experiment("broken"))
    for params, told in failures():
        journal.trial(params, told, wall_s=3.0)
    return journal, Answer(None, (), "none of 4 trials was completed: those that ended failed (crash, oom)")


def function() -> tuple[Journal, Answer]:
    """Two objectives, no baseline, nothing of serving."""
    journal = Journal(
        {
            "name": "two-goals",
            "problem": {"name": "function"},
            "space": {},
            "objectives": [{"metric": "loss", "goal": "minimize"}, {"metric": "accuracy", "goal": "maximize"}],
            "constraints": [],
            "algorithm": {"name": "random"},
            "seed": 3,
        }
    )
    for i in range(14):
        lr = 10 ** (-4 + 4 * ((i * 0.618) % 1.0))
        loss = 0.2 + (math.log10(lr) + 2) ** 2 / 9 + 0.02 * (i % 3)
        metrics = {"loss": loss, "accuracy": 0.95 - 0.3 * loss + 0.04 * math.cos(i)}
        journal.trial({"lr": lr, "opt": ["sgd", "adam"][i % 2]}, {"state": "complete", "metrics": metrics}, wall_s=1.0)
    order = sorted(range(14), key=lambda n: journal.log.trials[n].metrics["loss"])
    best_accuracy = max(range(14), key=lambda n: journal.log.trials[n].metrics["accuracy"])
    front = tuple(dict.fromkeys((order[0], best_accuracy)))
    return journal, Answer(order[0], front, "best of 14 complete trials by its own trial, not confirmed")


def modelled() -> tuple[Journal, Answer]:
    """Forty trials that a model explains: a log scale, steps, words, and a parameter inside a branch; two failed."""
    space = Space(
        lr=Float(1e-4, 1.0, log=True), layers=Int(1, 12), kind=Choice(plain=Space(), wide=Space(width=Int(8, 64)))
    )
    objectives = [{"metric": "loss", "goal": "minimize"}]
    record = {"name": "modelled", "problem": {"name": "function"}, "space": space.to_json(), "objectives": objectives}
    journal = Journal(
        {**record, "constraints": [], "algorithm": {"name": "random"}, "seed": 0, "budget": {"trials": 42}}
    )
    for i, params in enumerate(space.sample(42, np.random.default_rng(1))):
        if i in (7, 23):
            journal.trial(params, {"state": "failed", "failure": "oom", "error": "out of memory"}, wall_s=1.0)
            continue
        loss = 0.2 + (math.log10(params["lr"]) + 2) ** 2 / 9 + 0.02 * params["layers"] / 12
        loss += 0.1 if params["kind"] == "plain" else 0.2 * (1 - params["kind.wide.width"] / 64)
        journal.trial(params, {"state": "complete", "metrics": {"loss": loss}}, wall_s=1.0)
    best = journal.log.incumbent
    assert best is not None
    return journal, Answer(best.number, (best.number,), "best of 40 complete trials by its own trial, not confirmed")


SERVED = Space(
    workers=Int(1, 4),
    threads=Int(1, 2),
    batching=Choice(off=Space(), on=Space(max_batch=Ordinal((2, 4, 8, 16)))),
    cores=Int(1, 2),
    precision=Categorical(["fp32", "int8"]),
)


def served_rps(params: dict[str, Any]) -> float:
    """A second worker helps, a third does not; batches help up to 8."""
    rate = (
        150.0 * min(params["workers"] * params["threads"], 2) ** 0.9 * (1.6 if params["precision"] == "int8" else 1.0)
    )
    rate *= 1.0 if params["cores"] == 2 else 0.6
    return float(rate * (1.0 + 0.08 * math.log2(min(params.get("batching.on.max_batch", 1), 8))))


def served() -> tuple[Journal, Answer]:
    """Thirty trials in a space: the defaults, ten of a model of earlier tasks, the others of a search; nearly all had
    been predicted, the prior wrongly in one case."""
    more = {"features": FEATURES, "probe": PROBE, "machine": {"cores": 2, "memory_bytes": 8 << 30}}
    prior = {"source": "shipped", "tasks": ["mlp", "resnet", "text"], "method": "prior_gp", "reason": "three alike"}
    journal = Journal(
        serve_experiment("served", space=SERVED.to_json(), prior=prior, **more)
        | {"objectives": [{"metric": "throughput_rps", "goal": "maximize"}]}
    )
    first = {"workers": 1, "threads": 2, "batching": "off", "cores": 2, "precision": "fp32"}
    for i, params in enumerate([first, *SERVED.sample(29, np.random.default_rng(4))]):
        rate = served_rps(params) * (1 + 0.01 * math.sin(5 * i))
        probes = [probe(load, rate / 0.75, 0.008) for load in (0.3, 0.75)]
        told = {"state": "complete", **measured(rate, probes), "artifacts": artifacts(probes)}
        started: dict[str, Any] = {"note": f"prior_gp of 3 tasks, credit {50 + 4 * i}%" if 0 < i < 11 else "log_ei"}
        if i:
            off = 1.5 if i == 3 else 1 + 0.03 * math.cos(i)
            started["predicted"] = {"throughput_rps": [rate * off, rate * off * 0.85, rate * off * 1.15]}
        if i in (8, 17):
            told = {**told, "state": "stopped"}
        journal.trial(params, told, **started)
    best = journal.log.incumbent
    assert best is not None
    return journal, Answer(best.number, (best.number,), "best of 28 complete trials by its own trial, not confirmed")


ALL = {"serve": serve, "infeasible": infeasible, "empty": empty, "all_failed": all_failed, "function": function}
ALL |= {"modelled": modelled, "served": served}
