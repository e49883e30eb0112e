"""Acquisition functions: against integration, far out in the tail, and their derivatives against differences."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from fettle.core.errors import InvalidInput
from fettle.surrogates.acquisition import NAMES, by_name, ei, log_ei, log_h, pi

SINGLE = [name for name in NAMES if name != "thompson"]
MEAN, STD = np.array([-1.5, -0.2, 0.3, 1.0, 2.5, 6.0]), np.array([0.3, 1.0, 0.5, 0.2, 1.5, 1.0])
BEST = 0.25


def test_expected_improvement_agrees_with_integration() -> None:
    value, logarithm = ei(MEAN, STD, BEST)[0], log_ei(MEAN, STD, BEST)[0]
    for m, s, v, w in zip(MEAN, STD, value, logarithm, strict=True):
        gain = quad(lambda y, m=m, s=s: (BEST - y) * norm.pdf(y, m, s), m - 12 * s, BEST, epsabs=1e-14)[0]
        assert v == pytest.approx(gain, rel=1e-6, abs=1e-12) and w == pytest.approx(np.log(gain), rel=1e-6)


def test_probability_of_improvement() -> None:
    assert np.allclose(pi(MEAN, STD, BEST)[0], norm.logcdf((BEST - MEAN) / STD))


def test_confidence_bound_is_one_under_two_names() -> None:
    for name in ("ucb", "lcb"):
        assert np.allclose(by_name(name, 2.5)(MEAN, STD, BEST)[0], 2.5 * STD - MEAN)


def test_the_tail_is_finite_smooth_and_rising() -> None:
    z = np.linspace(-1e5, 5, 20_001)
    assert np.isfinite(log_h(z)).all() and np.all(np.diff(log_h(z)) > 0)
    near = np.linspace(-60, 5, 4001)
    assert np.all(np.diff(log_h(near)) > 0)
    value, by_mean, by_std = log_ei(np.array([40.0]), np.array([1.0]), 0.0)
    # phi(z) / z^2 (1 - 3 / z^2 ...) of z = -40
    assert value[0] == pytest.approx(-800 - 0.5 * np.log(2 * np.pi) - 2 * np.log(40) + np.log1p(-3 / 1600), abs=1e-4)
    assert by_mean[0] == pytest.approx(-40, rel=0.01) and by_std[0] == pytest.approx(1600, rel=0.01)
    for seam in (-1.0, -1000.0):  # where one formula takes over from another
        left, right = log_h(np.array([seam - 1e-9, seam + 1e-9]))
        assert left == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("name", SINGLE)
def test_derivatives_agree_with_differences(name: str) -> None:
    value, step = by_name(name, 2.0), 1e-6
    _, by_mean, by_std = value(MEAN, STD, BEST)
    numeric_mean = (value(MEAN + step, STD, BEST)[0] - value(MEAN - step, STD, BEST)[0]) / (2 * step)
    numeric_std = (value(MEAN, STD + step, BEST)[0] - value(MEAN, STD - step, BEST)[0]) / (2 * step)
    assert np.allclose(by_mean, numeric_mean, rtol=1e-4, atol=1e-7)
    assert np.allclose(by_std, numeric_std, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", SINGLE)
def test_lower_is_better(name: str) -> None:
    mean = np.linspace(-2, 2, 50)
    assert np.all(np.diff(by_name(name, 2.0)(mean, np.ones(50), 0.0)[0]) < 0)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'best_guess'.*log_ei"):
        by_name("best_guess", 2.0)
