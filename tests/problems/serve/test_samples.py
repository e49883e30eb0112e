import json

import numpy as np
import pytest

from fettle.problems.serve.samples import Samples, percentile, required_n


def made(latency: list[float] | np.ndarray, **more) -> Samples:
    values = np.asarray(latency, dtype=float)
    return Samples(np.linspace(0.0, 1.0, values.size, endpoint=False), values, float(values.size), 1.0, **more)


def test_required_n_of_the_literature():
    assert required_n(0.99) == 368
    assert required_n(0.999) == 3688
    assert required_n(0.5) == 6
    assert required_n(0.01) == 368


def test_percentiles_are_order_statistics_and_failures_are_infinite():
    values = np.arange(1.0, 101.0)
    assert percentile(values, 0.5) == 50.0 and percentile(values, 0.99) == 99.0 and percentile(values, 1.0) == 100.0
    values[:2] = np.nan
    assert percentile(values, 0.98) == 100.0
    assert percentile(values, 0.99) == np.inf
    assert np.isnan(percentile(np.zeros(0), 0.5))


def test_throughput_counts_completions_inside_the_window():
    samples = Samples(np.array([0.1, 0.5, 0.9, 0.95]), np.array([0.1, np.nan, 0.05, 0.2]), 4.0, 1.0)
    assert samples.throughput_rps == 2.0
    assert samples.completed == 3 and samples.error_ratio == 0.25


def test_what_the_checks_found_holds_for_the_unchecked():
    latency = np.full(100, 0.01)
    latency[:5] = np.nan  # five of the ten checked bodies were wrong
    assert made(latency, checked=10, bad=5).error_ratio == pytest.approx(0.5)
    assert made(np.full(100, 0.01), checked=10).error_ratio == 0.0


def test_histogram_has_three_digits():
    values = np.geomspace(1e-4, 10.0, 500)
    histogram = made(values).histogram()
    assert sum(histogram["count"]) == 500
    centres = np.repeat(10.0 ** (np.array(histogram["bucket"]) / 2400), histogram["count"])
    assert np.max(np.abs(centres / values - 1.0)) < 5e-4


def test_summary_is_json_and_silent_about_what_it_cannot_know():
    few, many = made(np.full(100, 0.01)).summary(), made(np.full(400, 0.01)).summary()
    assert json.loads(json.dumps(few))["latency_p99_s"] is None and few["latency_p50_s"] == 0.01
    assert many["latency_p99_s"] == 0.01 and many["latency_p99_9_s"] is None
