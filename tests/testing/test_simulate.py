"""The simulated servers against queueing theory: what the rate search is judged by has to be right itself."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fettle.problems.serve.slo import SLO
from fettle.testing.simulate import KINDS, ServerLaw, SimulatedServer, true_rate

SINGLE = ServerLaw(item_s=0.01, noise="exponential")


def probe(law: ServerLaw, rate: float, seconds: float, seed: int = 0) -> np.ndarray:
    return SimulatedServer(law, np.random.default_rng(seed), drain_s=math.inf).probe(rate, seconds).latency_s


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_m_m_1(load: float) -> None:
    """Sojourn times of M/M/1 are exponential with rate mu - lambda."""
    latency = probe(SINGLE, 100 * load, 2000)
    mean = 0.01 / (1 - load)
    assert latency.mean() == pytest.approx(mean, rel=0.08)
    assert np.quantile(latency, 0.99) == pytest.approx(mean * math.log(100), rel=0.12)


def test_m_d_1() -> None:
    """Pollaczek-Khinchine: mean wait of M/D/1 is rho / (2 (1 - rho)) services."""
    latency = probe(replace(SINGLE, noise="deterministic"), 70, 2000)
    assert latency.mean() == pytest.approx(0.01 * (1 + 0.7 / 0.6), rel=0.05)
    assert latency.min() == pytest.approx(0.01)


def test_m_m_2() -> None:
    """Erlang C for two servers at rho = 0.6: P(wait) = 2 rho^2 / (1 + rho)."""
    latency = probe(ServerLaw(workers=2, item_s=0.01), 120, 1500)
    wait = 2 * 0.36 / 1.6 / (200 - 120)
    assert latency.mean() == pytest.approx(0.01 + wait, rel=0.05)


def test_a_lone_request_waits_for_its_batch() -> None:
    law = ServerLaw(fixed_s=0.01, item_s=0.001, noise="deterministic", max_batch=8, max_wait_s=0.005)
    latency = probe(law, 1, 50)
    assert np.median(latency) == pytest.approx(0.005 + 0.011)
    assert law.capacity == pytest.approx(8 / 0.018)


def test_true_rate_of_m_m_1_is_known() -> None:
    """P(sojourn > limit) = exp(-(mu - lambda) limit): p99 = limit where mu - lambda = ln(100) / limit."""
    slo = SLO({"p99": 0.1})
    rate = true_rate(SINGLE, slo, requests=150_000, rounds=6)
    assert rate == pytest.approx(100 - math.log(100) / 0.1, rel=0.03)
    assert true_rate(SINGLE, SLO({"p99": 0.02}), requests=20_000) == 0.0


def test_overload_is_cut_short_and_the_rest_unfinished() -> None:
    server = SimulatedServer(SINGLE, np.random.default_rng(0), slo_s=0.05, drain_s=0.5)
    samples = server.probe(400, 5.0)
    assert samples.oversaturated and samples.seconds < 1.0
    assert samples.errors["unfinished"] == samples.n - samples.completed > 0
    assert server.now_s <= samples.seconds + 0.5 + 1e-9


def test_a_dead_server_answers_nothing() -> None:
    server = SimulatedServer(replace(SINGLE, death_s=1.0), np.random.default_rng(0))
    first, second = server.probe(50, 2.0), server.probe(50, 0.5)
    assert 0 < first.completed < first.n and second.completed == 0
    assert set(second.errors) == {"reset"}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_kinds_keep_up_below_capacity(kind: str) -> None:
    server = SimulatedServer(KINDS[kind](500.0), np.random.default_rng(1))
    assert server.law.capacity == pytest.approx(500, rel=0.15)
    samples = server.probe(250, 4.0)
    assert samples.error_ratio < 0.01 and samples.throughput_rps == pytest.approx(250, rel=0.15)
    again = SimulatedServer(KINDS[kind](500.0), np.random.default_rng(1)).probe(250, 4.0)
    assert np.array_equal(again.latency_s, samples.latency_s)
