"""What limits a server, on constructed logs: one for each limit."""

from typing import Any

import pytest

from fettle.report.limits import limits
from fettle.report.unused import unused

from . import studies

PARAMS = {"workers": 2, "threads": 1, "cores": 2, "precision": "fp32"}
RATE = 400.0


def log_of(
    used: float = 1.9,
    *,
    params: dict[str, Any] | None = None,
    alone_s: float = 0.005,
    p99_s: float = 0.048,
    **more: Any,
) -> Any:
    """One trial of 400 requests per second under an SLO of p99=50ms; more: entries of the record and of artifacts."""
    given = {key: more.pop(key) for key in ("features", "probe") if key in more}
    journal = studies.Journal(studies.serve_experiment("limit", **given))
    journal.log.experiment["problem"]["memory_bytes"] = more.pop("memory_bytes", None)  # type: ignore[index]
    told = studies.measured(RATE, [studies.probe(0.3, RATE, alone_s)])
    told["metrics"]["latency_p99_s"] = p99_s
    probes = [{"rate": 120.0, "p50_s": alone_s, "p99_s": 2 * alone_s}, {"rate": 400.0, "p50_s": 0.02, "p99_s": p99_s}]
    artifacts = studies.artifacts(probes, limited=more.pop("limited", False))
    artifacts["usage"] |= {"cores_used": used, "wall_s": 10.0, "memory_bytes": 400 << 20, **more.pop("usage", {})}
    assert not more
    journal.trial(params or PARAMS, {"state": "complete", **told, "artifacts": artifacts})
    return journal


def verdict(journal: Any) -> tuple[str, str]:
    found = limits(journal.log, journal.log.trials[0])
    return found["limit"], " ".join(found["findings"])


def features(flops: float, moved: float) -> dict[str, float]:
    return {"flops": flops, "weight_bytes": moved, "activation_bytes": 0.1 * moved}


@pytest.mark.parametrize(
    ("model", "limit", "words"),
    [
        (features(6e8, 1e6), "compute", "arithmetic is 50 %"),  # 240 of 480 GFLOP/s
        (features(1e7, 2e7), "bandwidth", "memory traffic 44 %"),  # 8.8 of 20 GB/s
        (features(1e6, 1e5), "dispatch", "4.75 ms of CPU per request"),
        (features(2e8, 1e6), "processor", "arithmetic is 17 %"),
    ],
)
def test_the_roofline_tells_what_a_busy_processor_does(model: dict[str, float], limit: str, words: str) -> None:
    found, said = verdict(log_of(features=model, probe=studies.PROBE))
    assert found == limit
    assert words in said and "1.90 of the 2 cores" in said


def test_int8_is_held_against_int8() -> None:
    made = limits(
        (j := log_of(params=PARAMS | {"precision": "int8"}, features=features(6e8, 1e6), probe=studies.PROBE)).log,
        j.log.trials[0],
    )
    assert made["figures"]["compute_ratio"] == pytest.approx(6e8 * RATE / studies.PROBE["ops_int8_all"])
    assert made["figures"]["bandwidth_ratio"] == pytest.approx(0.25 * 1.1e6 * RATE / studies.PROBE["bandwidth_all"])


def test_without_a_probe_only_little_arithmetic_is_told() -> None:
    with_avx2 = {**studies.FINGERPRINT, "isa": ["avx2", "fma"]}
    small, large = (log_of(features=features(flops, 1e6)) for flops in (1e6, 6e8))
    for journal in (small, large):
        journal.log.experiment["fingerprint"] = with_avx2
    assert verdict(small)[0] == "dispatch" and "at most 0.67 %" in verdict(small)[1]
    found, said = verdict(large)
    assert found == "processor" and "fettle doctor --probe" in said
    assert verdict(log_of())[0] == "processor"
    coded = log_of()
    coded.log.experiment["coding_cost_s"] = 0.003
    assert verdict(coded)[0] == "dispatch" and "encoding and decoding take 63 %" in verdict(coded)[1]


def test_idle_cores_at_the_slo_are_queueing() -> None:
    found, said = verdict(log_of(1.0))
    assert found == "queueing"
    assert "p99 latency is 48.0 ms of the 50 ms allowed, 9.6 times the median at 120 req/s (5.00 ms)" in said


def test_memory() -> None:
    found, said = verdict(log_of(1.0, memory_bytes=190 << 20))
    assert found == "memory" and "95 % of the 190 MiB" in said
    journal = log_of(1.0)
    journal.trial(PARAMS | {"workers": 3}, {"state": "failed", "failure": "oom"})
    assert verdict(journal)[0] == "memory" and "differs in workers, ran out of it" in verdict(journal)[1]
    busy = log_of(memory_bytes=190 << 20)
    assert verdict(busy)[0] == "processor" and "Memory is short, too" in verdict(busy)[1]
    far = log_of(1.0)
    far.trial({"workers": 4, "threads": 2, "cores": 1, "precision": "int8"}, {"state": "failed", "failure": "oom"})
    assert verdict(far)[0] == "queueing"


def test_the_load_generator_and_the_models_own_latency() -> None:
    assert verdict(log_of(limited=True))[0] == "load generator"
    found, said = verdict(log_of(alone_s=0.022))
    assert found == "latency" and "half of the requests take 22.0 ms" in said and "88 % of the limit" in said


def test_what_was_not_recorded_is_unknown() -> None:
    journal = log_of()
    journal.trial(PARAMS, {"state": "complete", "metrics": {}})
    found = limits(journal.log, journal.log.trials[1])
    assert found["limit"] == "unknown" and set(found["figures"].values()) == {None}


def test_remarks() -> None:
    spun = log_of(params=PARAMS | {"workers": 1, "threads": 2, "spinning": True})
    assert "spin while they wait" in verdict(spun)[1]
    one = log_of(0.98, params=PARAMS | {"workers": 1})
    found, said = verdict(one)
    assert found == "processor" and "(1 x 1) can keep 1 of 2 allotted cores busy" in said
    assert "held it back for 20 %" in verdict(log_of(usage={"throttled_s": 2.0}))[1]


def test_what_is_left_unused() -> None:
    log = log_of(0.8, usage={"cores": 4}).log
    (row,) = unused(log, {"winner": log.trials[0]})
    assert row["cores_unused_ratio"] == pytest.approx(0.8)
    assert row["memory_unused_ratio"] == pytest.approx(0.55)
    assert row["saving"] == {"cores": 3, "per_hour": pytest.approx(0.12), "ratio": 1.0}
    assert "left 80 % of 4 allotted cores unused, and 55 % of 400 MiB" in row["text"]
    assert "3 cores less would save 0.120 USD/h" in row["text"]
    busy = log_of(1.9, memory_bytes=400 << 20).log
    (row,) = unused(busy, {"defaults": busy.trials[0]})
    assert row["saving"] is None and row["memory_given"] and row["text"].startswith("The defaults left 5 % of 2")
    bare = studies.Journal(studies.serve_experiment())
    bare.trial(PARAMS, {"state": "complete"})
    assert unused(bare.log, {"winner": bare.log.trials[0]}) == []
