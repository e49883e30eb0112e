import functools
import math

import numpy as np
import pytest

from fettle.core.errors import InvalidInput
from fettle.problems.serve.operating_point import percentile_estimate
from fettle.problems.serve.rate_model import dispersion, waiting_tail, waiting_work
from fettle.problems.serve.rate_search import RateSearch, measure_at, search
from fettle.problems.serve.samples import Samples
from fettle.problems.serve.slo import SLO
from fettle.testing.simulate import KINDS, ServerLaw, SimulatedServer, true_rate


def server(law: ServerLaw, slo: SLO, seed: int) -> SimulatedServer:
    return SimulatedServer(law, np.random.default_rng(seed), slo_s=slo.limit_s, now_s=2.0)


RUNS = 30
CASES = [("queueing", 12, 0.801), ("batching", 5, 0.811), ("drifting", 5, 0.722), ("heavy_tailed", 12, 0.903)]


@functools.cache
def many_runs(kind: str, limit: int, load: float, budget_s: float = 10.0) -> tuple[int, list[float]]:
    """(intervals that held the truth, relative half-widths of those that were given)"""
    law = KINDS[kind](600.0)
    slo = SLO({"p99": limit * law.service_s})
    truth = load * law.capacity  # from simulations of a million requests
    held, widths = 0, []
    for seed in range(RUNS):
        settings = RateSearch(budget_s=budget_s)
        result = search(server(law, slo, seed).probe, slo, settings, start_rate=law.capacity * (0.6 + 0.02 * seed))
        assert result.seconds < budget_s + 4.0
        if result.rate is not None:
            held += result.rate.low <= truth <= result.rate.high
            widths.append((result.rate.high - result.rate.low) / 2.0 / result.rate.value)
    return held, widths


@pytest.mark.medium
@pytest.mark.parametrize(("kind", "limit", "load"), CASES)
def test_the_intervals_that_are_given_hold_the_truth(kind, limit, load):
    held, widths = many_runs(kind, limit, load)
    assert len(widths) >= 20
    assert held >= 0.8 * len(widths)  # under 3 % by chance where 92 % hold


@pytest.mark.medium
@pytest.mark.parametrize(
    ("kind", "limit", "load", "budget_s"),
    [(*c, 10.0) for c in CASES[1:]] + [pytest.param(*CASES[0], 30.0, marks=pytest.mark.slow)],
)
def test_nearly_every_run_gives_a_narrow_interval(kind, limit, load, budget_s):
    """Exponential service times take three times as long: slow requests then come in the longest bursts."""
    _, widths = many_runs(kind, limit, load, budget_s)
    assert len(widths) >= 0.9 * RUNS
    assert np.median(widths) <= 0.10


def test_true_rate_agrees_with_theory():
    # M/D/1, waits over 9 services: Erlang's series
    law = KINDS["deterministic"](100.0)
    rate = true_rate(law, SLO({"p99": 10.0 * law.service_s}), requests=400_000)
    assert float(waiting_tail(np.array([9.0]), rate / 100.0)[0]) == pytest.approx(0.01, rel=0.15)


def test_waiting_tail_against_simulation_and_across_its_seam():
    rng = np.random.default_rng(0)
    for load in (0.3, 0.8):
        work = waiting_work(np.cumsum(rng.exponential(1.0 / load, 400_000)), 1.0)
        for w in (0.0, 0.5, 1.5):
            assert float(waiting_tail(np.array([w]), load)[0]) == pytest.approx(float(np.mean(work > w)), rel=0.05)
    left, right = waiting_tail(np.array([8.0 - 1e-9, 8.0 + 1e-9]), 0.9)
    assert left == pytest.approx(right, rel=1e-3)


def test_dispersion():
    rng = np.random.default_rng(1)
    independent = (rng.random(20_000) < 0.05).astype(float)
    assert dispersion(independent, 50) == pytest.approx(1.0, abs=0.3)
    assert dispersion(np.repeat(independent[:2000], 10), 200) == pytest.approx(10.0, rel=0.5)


def test_percentile_estimate_needs_enough_requests():
    values = np.random.default_rng(2).exponential(1.0, 4000)
    assert percentile_estimate(values[:367], 0.99, 20) is None
    held = 0
    for seed in range(60):
        estimate = percentile_estimate(np.random.default_rng(seed).exponential(1.0, 2000), 0.99, 20)
        assert estimate is not None and estimate.low <= estimate.value <= estimate.high
        held += estimate.low <= math.log(100.0) <= estimate.high
    assert held >= 52
    dependent = percentile_estimate(np.repeat(values[:250], 10), 0.99, 200)  # 2,500, but not independent ones
    assert dependent is not None and dependent.high == math.inf  # known from below only


def test_early_stop_against_the_incumbent():
    law, slo = KINDS["batching"](600.0), SLO({"p99": 0.05})
    free = search(server(law, slo, 3).probe, slo, start_rate=500.0)
    stopped = search(server(law, slo, 3).probe, slo, start_rate=500.0, floor_rate=900.0)
    assert free.feasible and free.rate is not None
    assert stopped.stopped and not stopped.feasible and stopped.rate is None
    assert stopped.seconds < 0.4 * free.seconds
    assert stopped.optimistic_rate is not None and free.rate.value < stopped.optimistic_rate <= 900.0
    beaten = search(server(law, slo, 3).probe, slo, start_rate=500.0, floor_rate=200.0)
    assert beaten.feasible


def test_infeasible_names_the_best_attainable_p99():
    law, slo = KINDS["batching"](600.0), SLO({"p99": 0.004})  # one request alone takes 7.5 ms
    result = search(server(law, slo, 0).probe, slo, start_rate=400.0)
    assert result.ending == "infeasible" and not result.feasible and result.rate is None
    assert result.best_p99_s is not None
    assert 0.007 < result.best_p99_s.low <= result.best_p99_s.value < 0.05


def test_not_enough_requests_gives_no_figure():
    law, slo = ServerLaw(item_s=0.5, noise="deterministic"), SLO({"p99": 5.0})
    result = search(server(law, slo, 0).probe, slo, RateSearch(budget_s=8.0), start_rate=1.5)
    assert result.ending == "not_enough_requests" and result.rate is None
    assert "not enough requests" in result.reason
    fine = SLO({"p99.9": 0.05})
    result = search(
        server(KINDS["deterministic"](200.0), fine, 0).probe, fine, RateSearch(budget_s=5.0), start_rate=180.0
    )
    assert result.rate is None and "3688" in result.reason


def test_the_binding_percentile_decides():
    law = KINDS["deterministic"](600.0)
    loose = search(server(law, SLO({"p99": 0.05}), 1).probe, SLO({"p99": 0.05}), start_rate=500.0)
    both = SLO({"p99": 0.05, "p50": 0.0025})
    tight = search(server(law, both, 1).probe, both, start_rate=500.0)
    assert loose.rate is not None and tight.rate is not None
    assert loose.binding == "latency_p99_s" and tight.binding == "latency_p50_s"
    assert tight.rate.value < 0.85 * loose.rate.value


def test_a_dying_server_is_a_result():
    law, slo = ServerLaw(workers=2, item_s=0.004, death_s=5.0), SLO({"p99": 0.05})
    result = search(server(law, slo, 0).probe, slo, start_rate=300.0)
    assert result.ending == "server_failed" and "reset" in result.reason


def test_a_server_that_fades_within_a_probe_is_marked():
    slo = SLO({"p99": 0.05})
    calm = measure_at(server(ServerLaw(item_s=0.002, noise="deterministic"), slo, 0).probe, 300.0, slo, 3.0)
    fading = ServerLaw(item_s=0.002, noise="deterministic", fade=0.12)
    assert "unsteady" not in calm.record.marks
    assert "unsteady" in measure_at(server(fading, slo, 0).probe, 300.0, slo, 3.0).record.marks


@pytest.mark.medium
def test_a_server_that_fades_through_the_search_gets_no_narrow_interval():
    slo = SLO({"p99": 0.05})
    for seed in range(4):
        fading = ServerLaw(item_s=0.002, noise="deterministic", fade=0.04)
        result = search(server(fading, slo, seed).probe, slo, start_rate=400.0)
        if result.rate is not None:
            assert result.drifting or (result.rate.high - result.rate.low) / 2.0 / result.rate.value > 0.1


def test_errors_bind_where_latency_does_not():
    rng = np.random.default_rng(0)

    def sheds(rate: float, seconds: float) -> Samples:
        n = int(rng.poisson(rate * seconds))
        latency = np.full(n, 0.005)
        refused = rng.random(n) < 1.0 / (1.0 + math.exp(-20.0 * math.log(rate / 500.0)))
        latency[refused] = np.nan
        return Samples(
            np.sort(rng.random(n)) * seconds, latency, rate, seconds, errors={"http_503": int(refused.sum())}
        )

    result = search(sheds, SLO({"p50": 0.05}, 0.02), start_rate=300.0)
    truth = 500.0 * (0.02 / 0.98) ** (1.0 / 20.0)
    assert result.rate is not None and result.binding == "error_ratio"
    assert result.rate.value == pytest.approx(truth, rel=0.1)


def test_operating_point_is_below_the_estimate_and_carries_its_figures():
    law, slo = KINDS["batching"](2000.0), SLO({"p99": 0.03})
    result = search(server(law, slo, 5).probe, slo, start_rate=1500.0)
    assert result.rate is not None and result.operating is not None
    point = result.operating
    assert 0.85 * result.rate.value < point.rate <= result.rate.high
    assert point.latency["latency_p50_s"] is not None and point.latency["latency_p90_s"] is not None
    assert point.throughput_rps.value == pytest.approx(point.rate, rel=0.1)
    assert len(result.probes) >= 6 and all(p.n > 0 for p in result.probes)


def test_measure_at_one_rate():
    law, slo = KINDS["deterministic"](1000.0), SLO({"p99": 0.01})
    point = measure_at(server(law, slo, 0).probe, 300.0, slo, 8.0)
    p99 = point.latency["latency_p99_s"]
    assert p99 is not None and p99.low <= p99.value <= p99.high < 0.01
    assert point.holds and point.latency["latency_p99_9_s"] is None
    assert measure_at(server(law, slo, 0).probe, 1500.0, slo, 2.0).holds is False


def test_same_seed_same_result():
    law, slo = KINDS["queueing"](600.0), SLO({"p99": 0.04})
    first, again = (search(server(law, slo, 9).probe, slo, start_rate=500.0) for _ in range(2))
    assert first == again


def test_bad_arguments():
    slo = SLO({"p99": 0.01})
    with pytest.raises(InvalidInput):
        RateSearch(budget_s=0.0)
    with pytest.raises(InvalidInput, match="start_rate"):
        search(lambda r, s: pytest.fail("probed"), slo, start_rate=0.0)
