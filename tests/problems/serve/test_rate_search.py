"""The rate search in virtual time, on simulated servers whose answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fettle.core.errors import InvalidInput
from fettle.problems.serve.rate_search import RateResult, RateSearch, measure_at, search
from fettle.problems.serve.samples import Samples
from fettle.problems.serve.slo import SLO
from fettle.testing.simulate import KINDS, ServerLaw, SimulatedServer

SINGLE = ServerLaw(item_s=0.001, noise="exponential")  # M/M/1, 1,000 requests/s
LIMIT = SLO({"p99": 0.02})
TRUE = 1000.0 - math.log(100.0) / 0.02  # P(sojourn > limit) = exp(-(mu - lambda) limit)


def run(
    law: ServerLaw,
    slo: SLO,
    *,
    seed: int = 0,
    start: float = 600.0,
    budget_s: float = 10.0,
    floor_rate: float | None = None,
) -> RateResult:
    server = SimulatedServer(law, np.random.default_rng(seed), slo_s=slo.limit_s, drain_s=0.5)
    settings = RateSearch(budget_s=budget_s)
    return search(server.probe, slo, settings, start_rate=start, floor_rate=floor_rate, clock=lambda: server.now_s)


def test_the_budget_is_kept() -> None:
    for budget_s in (4.0, 10.0):
        result = run(SINGLE, LIMIT, budget_s=budget_s)
        assert result.seconds <= budget_s + 1.0
        assert sum(probe.seconds for probe in result.probes) <= result.seconds + 1e-9


def test_the_operating_point_is_a_little_below() -> None:
    result = run(SINGLE, LIMIT)
    assert result.rate is not None and result.operating is not None
    assert 0.85 * result.rate.value <= result.operating.rate <= result.rate.value
    p50 = result.operating.latency["latency_p50_s"]
    assert p50 is not None and p50.low <= p50.value <= p50.high < 0.02
    assert result.operating.throughput_rps.value == pytest.approx(result.operating.rate, rel=0.15)
    assert result.operating.latency["latency_p99_9_s"] is None or result.operating.n >= 3688


def test_the_same_seed_gives_the_same_answer() -> None:
    assert run(SINGLE, LIMIT, seed=3) == run(SINGLE, LIMIT, seed=3)


def test_the_binding_percentile_decides() -> None:
    """p50 of M/M/1 at 20 ms is met up to 965 requests/s, p99 up to 770: both, and a tight p50 alone."""
    both = run(SINGLE, SLO({"p50": 0.02, "p99": 0.02}))
    assert both.binding == "latency_p99_s" and both.rate is not None
    assert both.rate.value == pytest.approx(TRUE, rel=0.2)
    tight = run(SINGLE, SLO({"p50": 0.003, "p99": 0.5}))
    assert tight.binding == "latency_p50_s" and tight.rate is not None
    assert tight.rate.value == pytest.approx(1000 - math.log(2) / 0.003, rel=0.1)


def test_a_server_that_cannot_beat_the_floor_is_stopped_early() -> None:
    result = run(SINGLE, LIMIT, floor_rate=2000.0)
    assert result.stopped and not result.feasible and result.rate is None
    assert result.optimistic_rate is not None and TRUE <= result.optimistic_rate <= 2000.0
    assert result.seconds < 0.5 * run(SINGLE, LIMIT).seconds
    assert not run(SINGLE, LIMIT, floor_rate=400.0).stopped


def test_not_enough_requests_is_no_figure() -> None:
    result = run(replace(SINGLE, item_s=0.1), SLO({"p99": 2.0}), start=8.0, budget_s=6.0)
    assert result.ending == "not_enough_requests" and result.rate is None
    assert "not enough requests" in result.reason
    rare = run(SINGLE, SLO({"p99.9": 0.03}), budget_s=3.0)
    assert rare.ending == "not_enough_requests" and rare.rate is None


def test_a_server_that_dies_is_a_result() -> None:
    for death_s in (0.0, 3.0):
        result = run(replace(SINGLE, death_s=death_s), LIMIT)
        assert result.ending == "server_failed" and "reset" in result.reason
        assert result.seconds < 10.0


def test_a_limited_client_marks_the_answer() -> None:
    server = SimulatedServer(SINGLE, np.random.default_rng(0), slo_s=0.02)
    result = search(
        lambda rate, seconds: replace(server.probe(rate, seconds), limited="busy"),
        LIMIT,
        start_rate=600.0,
        clock=lambda: server.now_s,
    )
    assert result.client_limited


def test_measure_at_judges_one_rate() -> None:
    def at(rate: float, seconds: float = 8.0) -> "tuple[bool | None, object]":
        server = SimulatedServer(SINGLE, np.random.default_rng(0), slo_s=0.02)
        point = measure_at(server.probe, rate, LIMIT, seconds)
        return point.holds, point.latency["latency_p99_s"]

    assert at(500.0)[0] is True
    assert at(1300.0)[0] is False
    holds, p99 = at(500.0, 0.3)
    assert holds is None and p99 is None  # not enough requests


@pytest.mark.parametrize(("start", "floor"), [(0.0, None), (math.nan, None), (10.0, -1.0)])
def test_bad_input(start: float, floor: float | None) -> None:
    with pytest.raises(InvalidInput):
        search(lambda rate, seconds: pytest.fail("probed"), LIMIT, start_rate=start, floor_rate=floor)
    with pytest.raises(InvalidInput):
        RateSearch(budget_s=0.0)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_gives_an_answer_below_its_capacity(kind: str) -> None:
    law = KINDS[kind](800.0)
    slo = SLO({"p99": 12 * law.service_s})
    for seed in range(3):
        result = run(law, slo, seed=seed)
        assert result.rate is not None and 0.2 * law.capacity < result.rate.value < 1.05 * law.capacity
