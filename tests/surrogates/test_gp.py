"""Gaussian processes: gradients by differences, updates and left-out points against the long way round, odd data."""

import math
import pickle

import numpy as np
import pytest

from fettle.core.space import Categorical, Choice, Float, Space
from fettle.surrogates.gp import GP, imputed

BOX = Space(x=Float(0, 1), y=Float(0, 1), z=Float(0, 1))
TREE = Space(
    lr=Float(0, 1),
    word=Categorical(["p", "q", "r"]),
    kind=Choice(a=Space(s=Float(0, 1), t=Float(0, 1)), b=Space(u=Float(0, 1)), c=Space()),
)
SPACES = {"box": BOX, "tree": TREE}


def points(space: Space, n: int, seed: int = 0) -> np.ndarray:
    return space.encode(space.sample(n, np.random.default_rng(seed)))


def values(X: np.ndarray) -> np.ndarray:
    """Smooth in what is active, and of variance 1."""
    y = np.sin(5.0 * np.nan_to_num(X, nan=0.3)).sum(axis=1)
    return (y - y.mean()) / y.std()


@pytest.fixture(params=SPACES)
def data(request):
    space = SPACES[request.param]
    X = points(space, 24)
    y = values(X)
    theta, _ = GP().learn(X, y, space.columns)
    return space, X, y, theta


def test_what_is_learned_is_a_stationary_point_of_the_posterior_density(data) -> None:
    """A wrong gradient would stop the climb elsewhere."""
    space, X, y, _ = data
    theta, _ = GP(steps=300).learn(X, y, space.columns)
    here = GP(steps=0)

    def density(at: np.ndarray) -> float:
        return here.learn(X, y, space.columns, start=at)[1]

    def slope(at: np.ndarray, j: int) -> float:
        step = 1e-4 * np.eye(len(at))[j]
        return (density(at + step) - density(at - step)) / 2e-4

    assert max(abs(slope(theta, j)) for j in range(len(theta))) < 0.05
    assert max(abs(slope(theta + 0.5, j)) for j in range(len(theta))) > 0.5  # elsewhere it is not flat


def test_learning_forgets_where_it_began() -> None:
    X = points(BOX, 30)
    y = values(X)
    scores = [GP(steps=300).learn(X, y, BOX.columns, start=None if s is None else np.full(7, s))[1] for s in (None, -1)]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


def test_columns_that_do_not_matter_get_long_lengths() -> None:
    X = points(BOX, 40)
    y = np.sin(9.0 * X[:, 1])
    lengths = GP().learn(X, (y - y.mean()) / y.std(), BOX.columns)[0][:3]
    assert lengths[1] < min(lengths[0], lengths[2]) - 0.5


def test_spread_is_a_covariance_that_data_shrinks() -> None:
    X = points(BOX, 60)
    y = values(X)
    wide, narrow = (GP().spread(GP().learn(X[:n], y[:n], BOX.columns)[0], X[:n], y[:n], BOX.columns) for n in (4, 60))
    for covariance in (wide, narrow):
        assert covariance.shape == (7, 7) and np.allclose(covariance, covariance.T)
        assert np.linalg.eigvalsh(covariance).min() > 0
    assert np.trace(narrow[:3, :3]) < np.trace(wide[:3, :3])


def test_slopes_agree_with_differences(data) -> None:
    """Of active numbers; what unordered and inactive columns say is not used."""
    space, X, y, theta = data
    process = GP().posterior(theta, X, y, space.columns)
    numbers = np.array([c.kind == "float" for c in space.columns])
    step = 1e-6
    for z in points(space, 12, seed=1):
        mean, std, by_mean, by_std = process.slopes(z)
        predicted = [float(v[0]) for v in process.predict(z[None])]
        assert [mean, std] == pytest.approx(predicted, abs=1e-9)
        for j in np.flatnonzero(numbers & ~np.isnan(z)):
            Z = np.array([z, z])
            Z[:, j] += [step, -step]
            m, s = process.predict(Z)
            assert by_mean[j] == pytest.approx((m[0] - m[1]) / (2 * step), abs=1e-4)
            assert by_std[j] == pytest.approx((s[0] - s[1]) / (2 * step), abs=1e-4)


def test_slopes_where_a_point_lies() -> None:
    X = points(BOX, 10)
    process = GP().fit(X, values(X), columns=BOX.columns)
    mean, std, by_mean, by_std = process.slopes(X[3])
    assert math.isfinite(mean) and std > 0 and np.isfinite(by_mean).all() and np.isfinite(by_std).all()


def test_without_noise_it_goes_through_the_points(data) -> None:
    space, X, y, theta = data
    theta = theta.copy()
    theta[-1] = -12.0
    process = GP().posterior(theta, X, y, space.columns)
    mean, std = process.predict(X)
    assert np.abs(mean - y).max() < 0.02 and std.max() < 0.05
    far = np.full((1, len(space)), np.nan)  # shares nothing with any point but the middle
    assert process.predict(far)[1][0] > 0.1


def test_known_noise_is_believed() -> None:
    X, y = np.array([[0.2, 0.5, 0.5], [0.8, 0.5, 0.5]]), np.array([1.0, -1.0])
    theta, _ = GP().learn(X, y, BOX.columns)
    mean, std = GP().posterior(theta, X, y, BOX.columns, np.array([0.0, 4.0])).predict(X)
    assert abs(mean[0] - 1.0) < 0.2 and mean[1] > -0.5 and std[1] > 2 * std[0]


def test_condition_is_a_refit_at_the_same_hyper_parameters(data) -> None:
    space, X, y, theta = data
    whole = GP().posterior(theta, X, y, space.columns)
    part = GP().posterior(theta, X[:15], y[:15], space.columns)
    grown = part.condition(X[15:20], y[15:20]).condition(X[20:], y[20:])
    Z = points(space, 30, seed=2)
    for ours, theirs in zip(grown.predict(Z), whole.predict(Z), strict=True):
        assert np.allclose(ours, theirs, atol=1e-6)
    assert [*grown.slopes(Z[0])[:2]] == pytest.approx([*whole.slopes(Z[0])[:2]], abs=1e-6)
    assert np.allclose(part.predict(Z)[0], GP().posterior(theta, X[:15], y[:15], space.columns).predict(Z)[0])


def test_draws_have_the_moments_of_the_prediction(data) -> None:
    space, X, y, theta = data
    process = GP().posterior(theta, X, y, space.columns)
    Z = points(space, 6, seed=3)
    mean, std = process.predict(Z)
    drawn = process.sample(Z, 20_000, np.random.default_rng(0))
    assert drawn.shape == (20_000, 6)
    assert np.abs((drawn.mean(axis=0) - mean) / std).max() < 5 / math.sqrt(20_000)
    assert np.abs(drawn.std(axis=0) / std - 1).max() < 5 / math.sqrt(2 * 20_000)
    assert np.array_equal(
        process.sample(Z, 3, np.random.default_rng(1)), process.sample(Z, 3, np.random.default_rng(1))
    )


def test_draws_at_near_points_go_together() -> None:
    X = points(BOX, 8)
    process = GP().fit(X, values(X), columns=BOX.columns)
    Z = np.array([[0.5, 0.5, 0.5], [0.501, 0.5, 0.5], [0.95, 0.05, 0.9]])
    drawn = process.sample(Z, 4000, np.random.default_rng(0)) - process.predict(Z)[0]
    related = np.corrcoef(drawn.T)
    assert related[0, 1] > 0.99 and abs(related[0, 2]) < 0.9


def test_left_out_is_leaving_one_out(data) -> None:
    space, X, y, theta = data
    process = GP().posterior(theta, X, y, space.columns)
    mean, std = process.left_out()
    for i in range(len(X)):
        rest = np.delete(np.arange(len(X)), i)
        other = GP().posterior(theta, X[rest], y[rest], space.columns)
        m, s = (float(v[0]) for v in other.predict(X[i : i + 1]))
        assert mean[i] == pytest.approx(m, abs=1e-6)
        # (the deviation of the mean's own estimate is in the one and not in the other)
        assert std[i] >= math.sqrt(s * s + math.exp(theta[-1])) - 1e-4


def test_errors_left_out_are_as_large_as_it_says() -> None:
    X = points(BOX, 80)
    y = values(X)
    mean, std = GP().fit(X, y, columns=BOX.columns).left_out()
    z = (y - mean) / std
    assert np.mean(np.abs(z) < 1.96) > 0.85 and np.std(y - mean) < 0.5


# -- odd data -----------------------------------------------------------------------------------------------------


ONE = Space(x=Float(0, 1))
WORDS = Space(a=Categorical(["p", "q", "r"]), b=Categorical(["u", "v"]))
ODD = {
    "one point": (BOX, points(BOX, 1), np.zeros(1)),
    "two points": (BOX, points(BOX, 2), np.array([1.0, -1.0])),
    "three points": (BOX, points(BOX, 3), np.array([1.0, -1.0, 0.0])),
    "one column": (ONE, points(ONE, 9), values(points(ONE, 9))),
    "one column, one point": (ONE, points(ONE, 1), np.zeros(1)),
    "constant": (BOX, points(BOX, 12), np.zeros(12)),
    "duplicates": (BOX, np.repeat(points(BOX, 3), 5, axis=0), np.arange(15) / 5.0 - 1.4),
    "all the same": (BOX, np.full((6, 3), 0.25), np.zeros(6)),
    "nothing active": (BOX, np.full((4, 3), np.nan), np.array([1.0, -1.0, 0.5, -0.5])),
    "words alone": (WORDS, points(WORDS, 10), values(points(WORDS, 10))),
    "no columns": (Space(), np.empty((3, 0)), np.array([1.0, -1.0, 0.0])),
    "far apart in value": (BOX, points(BOX, 10), np.r_[np.zeros(9), 1e6]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_data_are_fitted(name: str) -> None:
    space, X, y = ODD[name]
    process = GP().fit(X, y, columns=space.columns)
    Z = points(space, 5, seed=9) if len(space) else np.empty((5, 0))
    mean, std = process.predict(Z)
    assert mean.shape == std.shape == (5,) and np.isfinite(mean).all() and (std > 0).all() and np.isfinite(std).all()
    for v in process.slopes(Z[0]):
        assert np.isfinite(v).all()
    assert all(np.isfinite(v).all() for v in process.left_out())
    assert np.isfinite(process.sample(Z, 2, np.random.default_rng(0))).all()
    assert np.isfinite(process.condition(Z, mean).predict(Z)[0]).all()


def test_without_columns_all_points_are_the_same_one() -> None:
    process = GP().fit(np.empty((20, 0)), np.tile([1.0, -1.0], 10), columns=())
    mean, std = process.predict(np.empty((2, 0)))
    assert np.abs(mean).max() < 1e-6 and std.max() < 0.7


def test_fitting_is_deterministic() -> None:
    X = points(TREE, 30)
    first, again = (pickle.dumps(GP().fit(X, values(X), columns=TREE.columns).predict(X)) for _ in range(2))
    assert first == again


def test_words_are_all_equally_far_from_one_another() -> None:
    """Their order in the list says nothing."""
    X = np.array([[1 / 6, 0.25], [5 / 6, 0.25]])
    process = GP().posterior(
        GP().learn(X, np.array([1.0, -1.0]), WORDS.columns)[0], X, np.array([1.0, -1.0]), WORDS.columns
    )
    mean, _ = process.predict(np.array([[0.5, 0.25]]))
    assert mean[0] == pytest.approx(process.mean)


# -- bounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, -1])
def test_bounds_are_replaced_by_what_lies_beyond_them(side: int) -> None:
    X = np.linspace(0, 1, 9)[:, None]
    y = np.sin(4 * X[:, 0])
    bounds = np.zeros(9)
    bounds[[2, 5]] = side
    process = GP().fit(X[bounds == 0], y[bounds == 0], columns=ONE.columns)
    filled = imputed(process, X, y, bounds)
    assert np.array_equal(filled[bounds == 0], y[bounds == 0])
    assert np.all(side * (filled - y)[bounds != 0] > 0) and np.abs(filled - y).max() < 0.5
    assert imputed(process, X, y, np.zeros(9)) is y


def test_an_imputed_value_is_the_mean_of_the_truncated_normal() -> None:
    X = np.linspace(0, 1, 5)[:, None]
    process = GP().fit(X, np.array([0.0, 1.0, 0.0, -1.0, 0.0]), columns=ONE.columns)
    z, bound = np.array([[0.4]]), 0.6
    mean, std = (float(v[0]) for v in process.predict(z))
    drawn = mean + std * np.random.default_rng(0).standard_normal(400_000)
    for side in (1.0, -1.0):
        expected = drawn[side * (drawn - bound) > 0].mean()
        assert imputed(process, z, np.array([bound]), np.array([side]))[0] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_bounds_far_from_what_is_expected_stay_finite(side: float) -> None:
    X = np.linspace(0, 1, 5)[:, None]
    process = GP().fit(X, np.array([0.0, 1.0, 0.0, -1.0, 0.0]), columns=ONE.columns)
    for bound in (-1e4, 1e4):
        filled = imputed(process, np.array([[0.3]]), np.array([bound]), np.array([side]))
        assert math.isfinite(filled[0]) and side * (filled[0] - bound) >= 0


def test_a_lower_bound_lifts_the_fit() -> None:
    """A stopped trial is at least as bad as it was; taken as exact it would pull the process down."""
    X = np.linspace(0, 1, 7)[:, None]
    y = np.array([0.0, 0.5, 1.0, 0.2, 1.0, 0.5, 0.0])
    censored = np.array([0, 0, 0, 1, 0, 0, 0])
    knowing = GP().fit(X, y, columns=ONE.columns, censored=censored)
    naive = GP().fit(X, y, columns=ONE.columns)
    assert knowing.predict(X[3:4])[0][0] > naive.predict(X[3:4])[0][0] + 0.2


def test_the_smoothed_values_are_the_means_at_the_points() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.random((30, 3)), rng.normal(size=30)
    columns = Space(a=Float(0, 1), b=Float(0, 1), c=Float(0, 1)).columns
    process = GP().fit(X, y, columns=columns)
    assert np.allclose(process.smoothed(), process.predict(X)[0], atol=1e-8)
