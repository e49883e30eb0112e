import json
import math

import numpy as np
import pytest

from fettle.problems.serve.samples import Samples, percentile, required_n


def samples(latency: list[float], **more: object) -> Samples:
    n = len(latency)
    return Samples(np.arange(n) / 10.0, np.array(latency), 10.0, n / 10.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("q", "n"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.999, 3688)])
def test_requests_that_a_percentile_takes(q: float, n: int) -> None:
    """The extremes of n samples bound the quantile from both sides at 95 %, those of n - 1 do not."""
    assert required_n(q) == n
    assert q**n <= 0.025 < q ** (n - 1)


def test_percentile_is_an_observed_value_and_failures_are_slow() -> None:
    values = np.arange(1, 101) / 100.0
    assert percentile(values, 0.99) == 0.99 and percentile(values, 0.5) == 0.5
    assert percentile(values, 0.0) == 0.01 and percentile(values, 1.0) == 1.0
    values[:2] = math.nan
    assert percentile(values, 0.99) == math.inf and percentile(values, 0.98) == 1.0
    assert math.isnan(percentile(np.zeros(0), 0.5))


def test_throughput_leaves_the_drain_out() -> None:
    probe = samples([0.05] * 8 + [5.0, math.nan])
    assert probe.throughput_rps == 8.0
    assert (probe.n, probe.completed, probe.error_ratio) == (10, 9, pytest.approx(0.1))


def test_bad_bodies_of_the_sample_stand_for_the_rest() -> None:
    probe = samples([0.01] * 90 + [math.nan] * 10, errors={"bad_body": 10}, checked=20, bad=10)
    assert probe.error_ratio == pytest.approx(0.5)  # half of what was looked at
    assert samples([0.01] * 10, checked=5, bad=0).error_ratio == 0.0
    assert samples([]).error_ratio == 0.0


def test_histogram_has_three_digits() -> None:
    rng = np.random.default_rng(0)
    latency = rng.lognormal(-4.0, 1.0, 2000)
    histogram = samples(latency.tolist()).histogram()
    again = np.repeat(10.0 ** (np.array(histogram["bucket"]) / 2400), histogram["count"])
    assert np.allclose(again, np.sort(latency), rtol=5e-4)


def test_summary_is_json_and_holds_no_figure_that_it_cannot_carry() -> None:
    record = json.loads(json.dumps(samples([0.02] * 367).summary(), allow_nan=False))
    assert record["latency_p50_s"] == 0.02 and record["latency_p99_s"] is None
    assert samples([0.02] * 368).summary()["latency_p99_s"] == 0.02
    assert samples([0.02] * 360 + [math.nan] * 40).summary()["latency_p99_s"] is None  # failures reach up to it


def test_the_warm_up_is_cut_by_the_schedule() -> None:
    assert samples([0.9, 0.8, 0.1, 0.1]).after(0.2).tolist() == [0.1, 0.1]
