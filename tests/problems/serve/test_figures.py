import math

import numpy as np
import pytest

from fettle.core.errors import TrialFailure
from fettle.core.trial import Constraint, Estimate, Objective, State, Trial, outcome
from fettle.problems.serve import figures
from fettle.problems.serve.operating_point import operating_point
from fettle.problems.serve.samples import Samples, required_n
from fettle.problems.serve.slo import SLO

P99 = SLO({"p99": 0.05})


def samples(
    n: int, latency_s: float, *, seconds: float = 10.0, failed: float = 0.0, oversaturated: bool = False
) -> Samples:
    rng = np.random.default_rng(1)
    latency = latency_s * rng.uniform(0.9, 1.1, n)
    bad = int(failed * n)
    latency[rng.permutation(n)[:bad]] = np.nan
    return Samples(
        scheduled_s=np.linspace(0.0, seconds, n, endpoint=False),
        latency_s=latency,
        offered_rate=n / seconds,
        seconds=seconds,
        send_late_s=np.zeros(n),
        errors={"http_503": bad} if bad else {},
        oversaturated=oversaturated,
    )


@pytest.mark.parametrize(("slo", "n"), [("p50=1ms", 6), ("p99=1ms", 368), ("p50=1ms,p99.9=9ms", 3688)])
def test_how_many_requests_an_slo_takes(slo: str, n: int) -> None:
    assert figures.needed_n(SLO.parse(slo)) == n == max(required_n(0.5), n)


def test_windows_are_as_long_as_the_percentile_needs() -> None:
    def window(rate: float, left_s: float = 100.0) -> float:
        return figures.window_s(368, rate, times=4.0, least_s=3.0, most_s=8.0, left_s=left_s)

    assert window(10_000.0) == 3.0
    assert window(300.0) == pytest.approx(4.0 * 368 / 300)
    assert window(50.0) == pytest.approx(2.0 * 368 / 50), "a slow server is given longer than the usual most"
    assert window(50.0, left_s=5.0) == 5.0
    assert window(50.0, left_s=-3.0) == 1.0


def test_too_few_requests_give_no_figure() -> None:
    point = operating_point(samples(200, 0.01), P99)
    with pytest.raises(TrialFailure, match=r"not enough requests for p99 at 20 requests/s.*--budget") as caught:
        figures.judged(point, P99)
    assert caught.value.failure == "other"
    assert figures.judged(operating_point(samples(2000, 0.01), P99), P99).holds is True


def test_p999_is_judged_where_the_requests_suffice() -> None:
    slo = SLO.parse("p99.9=50ms")
    with pytest.raises(TrialFailure, match=r"p99\.9"):
        figures.judged(operating_point(samples(2000, 0.01), slo), slo)
    found = figures.latencies(figures.judged(operating_point(samples(12_000, 0.01), slo), slo))
    assert isinstance(found["latency_p99_9_s"], Estimate)


def test_latency_at_a_rate_that_holds() -> None:
    found = figures.p99_at(samples(2000, 0.01), P99)
    assert found.low <= found.value <= found.high < 0.02


@pytest.mark.parametrize("given", [samples(2000, 0.8, oversaturated=True), samples(200, 0.01, oversaturated=True)])
def test_latency_at_a_rate_beyond_the_server_is_a_lower_bound(given: Samples) -> None:
    found = figures.p99_at(given, P99)
    assert found.high == math.inf
    assert found.value == found.low >= 0.05


def test_latency_of_too_few_requests_is_unknown() -> None:
    with pytest.raises(TrialFailure, match="not enough requests"):
        figures.p99_at(samples(100, 0.01), P99)


def test_the_best_attainable_p99() -> None:
    found = figures.infeasible(samples(2000, 0.2), P99, at_rate=True)
    p99 = found["latency_p99_s"]
    assert isinstance(p99, Estimate)
    assert 0.2 < p99.value < 0.22
    assert figures.best_attainable(found) == f"; the best attainable p99 is {p99.value * 1e3:.4g} ms"
    at_rate = found["latency_p99_at_rate_s"]
    assert isinstance(at_rate, Estimate)
    assert (at_rate.value, at_rate.high) == (p99.low, math.inf)


def test_with_few_requests_it_is_a_bound() -> None:
    found = figures.infeasible(samples(60, 0.2), P99, at_rate=False)
    p99 = found["latency_p99_s"]
    assert isinstance(p99, Estimate)
    assert p99.high == math.inf
    assert 0.18 < p99.value < 0.22
    assert "at least" in figures.best_attainable(found)


def test_an_infeasible_trial_never_passes_for_feasible() -> None:
    """Neither where only errors are over their limit, nor where a percentile could not be judged."""
    slo = SLO.parse("p99=50ms,errors=1%")
    for given in (samples(2000, 0.01, failed=0.3), samples(60, 0.2), samples(60, 0.01, failed=0.5)):
        found = figures.infeasible(given, slo, at_rate=False)
        values = {k: v.value if isinstance(v, Estimate) else v for k, v in found.items()}
        constraints = [Constraint(metric, upper=limit) for metric, limit in slo.constraints().items()]
        trial = Trial(0, {}, State.COMPLETE, metrics=values)
        assert not outcome(trial, [Objective("throughput_rps", "maximize")], constraints).feasible


def test_an_slo_that_held_after_all_gives_no_verdict() -> None:
    with pytest.raises(TrialFailure, match="then held"):
        figures.infeasible(samples(2000, 0.01), P99, at_rate=False)


def test_prices_of_a_bound() -> None:
    """Where the load generator was the limit, throughput is a lower bound, and cost an upper one."""
    rate = Estimate(100.0, 95.0, math.inf, 900)
    found = figures.priced({"throughput_rps": rate}, cost_per_hour=0.36, peak_bytes=5)
    cost = found["cost_per_million"]
    assert isinstance(cost, Estimate)
    assert cost.value == pytest.approx(1.0)
    assert cost.low == -math.inf
    assert cost.high == pytest.approx(100 / 95)
    trial = Trial(
        0,
        {},
        State.COMPLETE,
        metrics={"throughput_rps": 100.0, "cost_per_million": 1.0},
        intervals={"throughput_rps": (95.0, math.inf, 900), "cost_per_million": (cost.low, cost.high, 900)},
    )
    objectives = [Objective("throughput_rps", "maximize"), Objective("cost_per_million")]
    assert outcome(trial, objectives, []).censored == (-1, -1), "the losses are at most that"


def test_no_answer_has_no_price() -> None:
    with pytest.raises(TrialFailure, match="no request was answered") as caught:
        figures.priced({"throughput_rps": 0.0}, cost_per_hour=1.0, peak_bytes=5)
    assert caught.value.failure == "timeout"
