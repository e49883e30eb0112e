"""Figures are written the same way everywhere."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.report.figures import duration, exact, figure, label, number, setting, with_interval


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("latency_p99_s", 0.0412, "41.2 ms"),
        ("latency_p99_s", 0.000123, "123 us"),
        ("latency_p99_s", 1.234, "1.23 s"),
        ("latency_p99_s", 0.00099999, "1.00 ms"),
        ("throughput_rps", 412.4, "412 req/s"),
        ("throughput_rps", 12345.0, "12,300 req/s"),
        ("error_ratio", 0.0012, "0.120 %"),
        ("rss_bytes", 180 << 20, "180 MiB"),
        ("rss_bytes", 16 << 30, "16.0 GiB"),
        ("cost_per_million", 0.1524, "0.152 EUR"),
        ("cost_per_hour", 0.0815, "0.0815 EUR/h"),
        ("loss", 0.0, "0"),
        ("loss", math.nan, "-"),
        ("loss", None, "-"),
        ("loss", 1e-9, "1.00e-09"),
    ],
)
def test_units_come_from_names(metric: str, value: float | None, text: str) -> None:
    assert figure(metric, value, "EUR") == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((398.0, 430.0, 5), "412 [398, 430] req/s"),
        ((398.0, math.inf, 5), ">= 412 req/s"),
        ((-math.inf, 430.0, 5), "<= 412 req/s"),
        ((None, 430.0), "<= 412 req/s"),
        ((None, None), "412 req/s"),
        (None, "412 req/s"),
    ],
)
def test_intervals_and_bounds(ends: tuple[float, ...] | None, text: str) -> None:
    assert with_interval("throughput_rps", 412.0, ends) == text


def test_interval_ends_have_the_decimals_of_the_figure() -> None:
    assert with_interval("latency_p99_s", 0.0412, (0.04, 0.1016, 9)) == "41.2 [40.0, 101.6] ms"


def test_settings_claim_no_precision() -> None:
    assert exact("latency_p99_s", 0.05) == "50 ms"
    assert exact("error_ratio", 0.01) == "1 %"
    assert setting("batching.on.max_wait_s", 0.002) == "2 ms"
    assert [setting("x", v) for v in (True, None, 0.5, 8, "int8")] == ["on", "none", "0.5", "8", "int8"]


@pytest.mark.parametrize(
    ("metric", "text"),
    [("latency_p99_9_s", "p99.9 latency"), ("rss_bytes", "peak memory"), ("my_score", "my score"), ("wait_s", "wait")],
)
def test_labels(metric: str, text: str) -> None:
    assert label(metric) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.25, "4.2 s"), (42, "42 s"), (200, "3 min 20 s"), (300, "5 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(min_value=1e-4, max_value=9.9e6))
def test_three_significant_digits(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)
