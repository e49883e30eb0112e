"""Warped inputs: derivatives by differences, processes on them, and when the evidence asks for them."""

from collections.abc import Sequence

import numpy as np
import pytest

from fettle.algorithms.belief import Fits, Part
from fettle.core.domains import Column
from fettle.core.space import Categorical, Choice, Float, Int, Space
from fettle.surrogates.gp import GP
from fettle.surrogates.kernel import NOISE, Points, cross
from fettle.surrogates.warping import Warp, warpable

TREE = Space(
    x=Float(0, 1),
    word=Categorical(["p", "q", "r"]),
    kind=Choice(a=Space(y=Float(0, 1), n=Int(0, 20)), b=Space(), c=Space(z=Float(0, 1))),
)
PLANE = Space(x=Float(0, 1), y=Float(0, 1))
STRENGTHS = np.array([0.0, 1e-9, 0.5e-3, 1.1e-3, 3.0, -3.0, 8.0, -8.0])


def test_its_derivatives_are_those_of_its_values() -> None:
    X = np.random.default_rng(0).uniform(0.01, 0.99, (30, len(STRENGTHS)))
    warp, step = Warp(STRENGTHS), 1e-6
    by_x = (warp(X + step) - warp(X - step)) / (2 * step)
    np.testing.assert_allclose(warp.slope(X), by_x, rtol=1e-4)
    wide = 1e-4  # in s the formula changes at a small strength, by less than its square
    by_s = (Warp(STRENGTHS + wide)(X) - Warp(STRENGTHS - wide)(X)) / (2 * wide)
    np.testing.assert_allclose(warp.by_strength(X), by_s, rtol=0, atol=1e-3)


def test_it_keeps_the_ends_the_order_and_what_is_inactive() -> None:
    warp = Warp(STRENGTHS)
    X = np.linspace(0, 1, 101)[:, None] * np.ones(len(STRENGTHS))
    Z = warp(X)
    np.testing.assert_allclose(Z[[0, -1]], X[[0, -1]], atol=1e-12)
    assert (np.diff(Z, axis=0) > 0).all()
    np.testing.assert_allclose(Z[:, 0], X[:, 0], rtol=1e-11)
    assert Z[10, 4] > 0.1 > Z[10, 5]  # low ends are stretched by positive strengths, high ones by negative
    X[3, 4] = np.nan
    assert np.isnan(warp(X)).sum() == 1 and np.isnan(warp(X)[3, 4])


def steep(X: np.ndarray) -> np.ndarray:
    """Fast at the low end of x, where its logarithm is what matters; smooth in y."""
    return np.sin(2.0 * np.log(1e-3 + X[:, 0])) + np.cos(3.0 * X[:, 1])


def scaled(y: np.ndarray) -> np.ndarray:
    return (y - y.mean()) / y.std()


def tree_data() -> tuple[np.ndarray, np.ndarray, Warp]:
    X = TREE.encode(TREE.sample(40, np.random.default_rng(0)))
    y = scaled(np.log(0.02 + np.nan_to_num(X, nan=0.3)).sum(axis=1))
    return X, y, Warp(np.where(warpable(TREE.columns), 3.0, 0.0))


def test_a_process_takes_points_as_they_are() -> None:
    """Its predictions and updates are those of a plain process on warped points, and its slopes are by the points."""
    X, y, warp = tree_data()
    gp, columns = GP(), TREE.columns
    theta, _ = gp.learn(warp(X), y, columns)
    theta[NOISE] = -4.0  # well conditioned: differences are precise
    ours = gp.posterior(theta, X[:30], y[:30], columns, 0.0, warp)
    plain = gp.posterior(theta, warp(X[:30]), y[:30], columns)
    np.testing.assert_allclose(ours.predict(X), plain.predict(warp(X)))
    more = ours.condition(X[30:], y[30:]), plain.condition(warp(X[30:]), y[30:])
    np.testing.assert_allclose(more[0].predict(X), more[1].predict(warp(X)))
    np.testing.assert_allclose(more[0].left_out(), more[1].left_out())
    np.testing.assert_allclose(ours.revalued(-y[:30]).predict(X)[0], plain.revalued(-y[:30]).predict(warp(X))[0])
    draws = [p.sample(Z, 3, np.random.default_rng(1)) for p, Z in ((ours, X), (plain, warp(X)))]
    np.testing.assert_allclose(*draws)
    for z in X[30:]:
        mean, std, by_mean, by_std = ours.slopes(z)
        np.testing.assert_allclose([[mean], [std]], ours.predict(z[None]), rtol=1e-4)
        for j in np.flatnonzero(warpable(columns) & ~np.isnan(z)):
            step = 1e-5 * np.eye(len(z))[j]
            (high, low), (wide, narrow) = ours.predict(np.array([z + step, z - step]))
            assert by_mean[j] == pytest.approx((high - low) / 2e-5, rel=1e-3, abs=1e-5)
            assert by_std[j] == pytest.approx((wide - narrow) / 2e-5, rel=1e-3, abs=1e-4)


def test_a_warp_is_learned_to_a_stationary_point_and_only_of_numbers() -> None:
    """A wrong gradient would stop the climb elsewhere."""
    X, y, _ = tree_data()
    gp = GP(steps=500)
    start, plain = gp.learn(X, y, TREE.columns)
    theta, warp, score = gp.learn_warp(X, y, TREE.columns, 0.0, start)
    assert score > plain + 1.0
    assert not warp.strengths[~warpable(TREE.columns)].any()

    def density(strengths: np.ndarray) -> float:
        value = GP(steps=0).learn(Warp(strengths)(X), y, TREE.columns, start=theta)[1]
        return value - 0.5 * float(((strengths / gp.bend) ** 2).sum())

    assert density(warp.strengths) == pytest.approx(score, abs=1e-6)
    for j in np.flatnonzero(warpable(TREE.columns)):
        step = 1e-3 * np.eye(len(TREE.columns))[j]
        assert abs(density(warp.strengths + step) - density(warp.strengths - step)) / 2e-3 < 0.05


@pytest.mark.parametrize(("n", "ratio"), [(30, 0.8), (60, 0.6)])
def test_predictions_of_a_function_that_varies_at_one_end_are_much_better(n: int, ratio: float) -> None:
    gp, ratios = GP(), []
    for seed in range(15):
        X = np.random.default_rng(seed).random((n + 300, 2))
        y = scaled(steep(X))
        theta, _ = gp.learn(X[:n], y[:n], PLANE.columns)
        better, warp, _ = gp.learn_warp(X[:n], y[:n], PLANE.columns, 0.0, theta)
        processes = (gp.posterior(theta, X[:n], y[:n], PLANE.columns),
                     gp.posterior(better, X[:n], y[:n], PLANE.columns, 0.0, warp))  # fmt: skip
        plain, warped = (np.sqrt(np.mean((p.predict(X[n:])[0] - y[n:]) ** 2)) for p in processes)
        assert warp.strengths[0] > 1.0
        ratios.append(warped / plain)
    assert np.median(ratios) < ratio


def learned(columns: Sequence[Column], X: np.ndarray, y: np.ndarray, *, warp: bool = True) -> Warp | None:
    part = Part("all", np.arange(len(X)), np.arange(len(columns)))
    return Fits(GP(), columns, warp).loss(part, "y", X, y, np.zeros(len(X))).warp


def stationary(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw of the process itself."""
    theta = np.array([np.log(0.3)] * X.shape[1] + [0.0, 0.0, -3.0, -10.0])
    K = cross(theta, Points(X), Points(X), np.zeros(X.shape[1], bool))
    return np.linalg.cholesky(K + 1e-8 * np.eye(len(X))) @ rng.standard_normal(len(X))


def test_the_evidence_leaves_stationary_functions_alone() -> None:
    kept = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X = rng.random((40, 2))
        kept += learned(PLANE.columns, X, stationary(X, rng)) is None
    assert kept >= 16


def test_the_evidence_finds_the_end_where_a_function_is_steep() -> None:
    for seed in range(5):
        X = np.random.default_rng(seed).random((40, 2))
        low, high = (learned(PLANE.columns, Z, steep(X)) for Z in (X, np.c_[1.0 - X[:, 0], X[:, 1]]))
        assert low is not None and high is not None
        assert low.strengths[0] > 1.0 and high.strengths[0] < -1.0
        assert learned(PLANE.columns, X[:9], steep(X[:9])) is None  # too few
        assert learned(PLANE.columns, X, steep(X), warp=False) is None
