"""Axes, labels and the association between knobs and figures."""

import itertools
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.report import charts, history
from fettle.report.document import summarise
from fettle.report.knobs import effects, note
from fettle.report.scales import Scale, axis, fitted, linear_ticks, log_ticks, spread
from fettle.report.summary import Summary

from . import studies

positive = st.floats(min_value=1e-6, max_value=1e6)


@given(positive, positive)
def test_ticks_are_few_round_and_inside(a: float, b: float) -> None:
    low, high = sorted((a, b))
    if high < low * 1.01:
        return
    for ticks in (linear_ticks(low, high), log_ticks(low, high)):
        assert len(ticks) <= 15
        assert all(low - 1e-6 * (high - low) <= t <= high + 1e-6 * (high - low) for t in ticks)
        assert ticks == sorted(ticks)


def test_linear_ticks() -> None:
    assert linear_ticks(0, 471) == [0, 100, 200, 300, 400]
    assert linear_ticks(0.03, 0.26) == [0.05, 0.1, 0.15, 0.2, 0.25]
    assert log_ticks(7, 700) == [10, 20, 50, 100, 200, 500]


def test_an_axis_has_one_unit_and_even_decimals() -> None:
    title, ticks = axis("latency_p99_s", Scale(0.0, 0.1, 0, 100))
    assert title == "p99 latency (ms)"
    assert [text for _, text in ticks] == ["0", "20", "40", "60", "80", "100"]
    _, ticks = axis("loss", Scale(0.04, 0.26, 0, 100))
    assert [text for _, text in ticks] == ["0.05", "0.10", "0.15", "0.20", "0.25"]


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=7))
def test_spread_keeps_labels_apart_and_in_order(wanted: list[float]) -> None:
    placed = spread(wanted, 14.0, 0.0, 100.0)
    inside = sorted(placed)
    assert all(b - a >= 14.0 - 1e-9 for a, b in itertools.pairwise(inside))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert [placed[i] for i in order] == inside
    assert inside[-1] <= 100.0


def test_scales_reach_all_values() -> None:
    for log in (False, True):
        scale = fitted([0.01, 0.5, 3.0], 50.0, 400.0, log=log)
        assert 50 <= scale(0.01) < scale(3.0) <= 400
    assert fitted([5.0, 5.0], 0.0, 10.0)(5.0) == pytest.approx(5.0)
    assert fitted([], 0.0, 10.0)(0.5) == pytest.approx(5.0)


def test_the_knob_that_matters_comes_first(summary_of: Callable[[str], Summary]) -> None:
    found = effects(summary_of("serve"))
    assert found[0].name == "precision"
    assert found[0].share > 0.5
    assert "precision" in note(found)
    assert "not a proof of cause" in note(found)
    batch = next(e for e in found if e.name == "batching.on.max_batch")
    assert batch.groups == ("2", "4", "8")


def test_noise_is_no_association() -> None:
    record = {**studies.serve_experiment(), "constraints": [], "objectives": [{"metric": "loss", "goal": "minimize"}]}
    journal = studies.Journal(record)
    rng = np.random.default_rng(0)
    for i in range(80):
        metrics = {"loss": float(rng.uniform(1, 2))}
        journal.trial({"a": i % 8, "same": 1}, {"state": "complete", "metrics": metrics})
    found = effects(summarise(journal.log, None, (), "", {}))
    assert [e.name for e in found] == ["a"]
    assert found[0].share < 0.1


def test_numbers_of_many_values_are_put_in_groups(summary_of: Callable[[str], Summary]) -> None:
    rate = next(e for e in effects(summary_of("function")) if e.name == "lr")
    assert len(rate.groups) == 4
    assert {group for group, *_ in rate.points} == {0, 1, 2, 3}


def numbers(drawing: str) -> list[float]:
    return [float(x) for x in re.findall(r'(?:cx|x|x1|x2)="(-?[\d.]+)"', drawing)]


def test_charts_stay_inside_their_drawing(summary_of: Callable[[str], Summary]) -> None:
    summary = summary_of("serve")
    curves, progress = charts.latency_curves(summary), history.progress(summary)
    assert curves is not None
    assert progress is not None
    for drawing in (curves, progress, *(d for _, d in charts.tradeoffs(summary))):
        assert all(0 <= x <= 460 for x in numbers(drawing))
    assert curves.count("<polyline") == 7  # p99 of five configurations, p50 of winner and defaults
    assert "SLO p99 50 ms" in curves


def test_charts_of_studies_without_serving(summary_of: Callable[[str], Summary]) -> None:
    summary = summary_of("function")
    assert charts.latency_curves(summary) is None
    assert [caption for caption, _ in charts.tradeoffs(summary)] == ["Accuracy against loss"]
    assert charts.tradeoffs(summary_of("empty")) == []
    assert history.progress(summary_of("all_failed")) is None
