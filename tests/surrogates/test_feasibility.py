"""Where trials fail: what one or two failures say of their surroundings, by class, and of the rest."""

import numpy as np
import pytest
from scipy.stats import norm

from fettle.core.space import Categorical, Float, Space
from fettle.surrogates.feasibility import classes, labels, log_spared, log_within
from fettle.surrogates.gp import GP

SPACE = Space(x=Float(0, 1), y=Float(0, 1))


def chance(X: np.ndarray, failure: list[str], kind: str, Z: list[list[float]], space: Space = SPACE) -> np.ndarray:
    """Of no failure of that kind, at Z."""
    process = GP().fit(X, labels(failure, kind), columns=space.columns)
    return np.exp(log_spared(*process.predict(np.array(Z)))[0])


def test_classes_that_params_can_be_blamed_for() -> None:
    assert classes(["", "oom", "lost", "crash", "oom"]) == ["crash", "oom"] and classes(["", "lost"]) == []
    assert labels(["", "oom", "crash"], "oom").tolist() == [-1.0, 1.0, -1.0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 2])
def test_failures_in_a_corner_stay_there(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = np.concatenate([0.75 * rng.random((10, 2)), 1.0 - 0.08 * rng.random((count, 2))])
    inside, between, across = chance(X, [""] * 10 + ["oom"] * count, "oom", [[0.97, 0.97], [0.4, 0.4], [0.05, 0.05]])
    assert inside < 0.3 and between > 0.8 and across > 0.8


def test_more_failures_make_it_surer() -> None:
    good = np.random.default_rng(0).random((8, 2)) * 0.6
    bad = 1.0 - 0.1 * np.random.default_rng(1).random((4, 2))
    at = [[0.95, 0.95]]
    one, four = (chance(np.r_[good, bad[:n]], [""] * 8 + ["oom"] * n, "oom", at)[0] for n in (1, 4))
    assert four < one


def test_each_class_has_a_place_of_its_own() -> None:
    X = np.r_[0.3 + 0.4 * np.random.default_rng(0).random((10, 2)), [[0.02, 0.02], [0.05, 0.03], [0.97, 0.97]]]
    failure = [""] * 10 + ["crash", "crash", "oom"]
    corners = [[0.03, 0.03], [0.97, 0.97]]
    crash, oom = (chance(X, failure, kind, corners) for kind in ("crash", "oom"))
    assert crash[0] < 0.3 < 0.8 < crash[1] and oom[1] < 0.3 < 0.8 < oom[0]


def test_a_word_that_always_fails_is_told_from_others() -> None:
    space = Space(x=Float(0, 1), word=Categorical(["p", "q", "r"]))
    rng = np.random.default_rng(0)
    X = np.c_[rng.random(18), np.tile([1 / 6, 0.5, 5 / 6], 6)]
    failure = ["crash" if word == 0.5 else "" for word in X[:, 1]]
    p, q, r = chance(X, failure, "crash", [[0.4, 1 / 6], [0.4, 0.5], [0.4, 5 / 6]], space)
    assert q < 0.2 and min(p, r) > 0.8


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_the_whole_space_is_never_given_up(share: float) -> None:
    """Logarithms stay finite, and the places furthest from all failures stay the likelier ones."""
    X = np.random.default_rng(2).random((20, 2)) * [0.5, 1.0]
    failure = ["oom" if i < share * 20 else "" for i in range(20)]
    process = GP().fit(X, labels(failure, "oom"), columns=SPACE.columns)
    Z = np.random.default_rng(3).random((200, 2))
    log_chance = log_spared(*process.predict(Z))[0]
    far, near = log_chance[Z[:, 0] > 0.9], log_chance[Z[:, 0] < 0.5]
    assert np.isfinite(log_chance).all() and far.mean() > near.mean()
    assert share == 1.0 or log_chance.max() > np.log(0.2)  # all failed: nothing says where it might go well


MEAN, STD = np.array([-1.0, 0.2, 2.0, 8.0]), np.array([0.5, 1.0, 0.3, 0.1])


def test_the_chance_to_keep_a_bound() -> None:
    assert np.allclose(log_within(MEAN, STD, 0.4)[0], norm.logcdf((0.4 - MEAN) / STD))


@pytest.mark.parametrize("value", [log_spared, lambda m, s: log_within(m, s, 0.4)], ids=["spared", "within"])
def test_derivatives_agree_with_differences(value) -> None:
    step = 1e-6
    mean, std = MEAN[:3], STD[:3]
    _, by_mean, by_std = value(mean, std)
    numeric_mean = (value(mean + step, std)[0] - value(mean - step, std)[0]) / (2 * step)
    numeric_std = (value(mean, std + step)[0] - value(mean, std - step)[0]) / (2 * step)
    assert np.allclose(by_mean, numeric_mean, rtol=1e-4, atol=1e-7)
    assert np.allclose(by_std, numeric_std, rtol=1e-4, atol=1e-7)
    assert all(np.isfinite(part).all() for part in value(MEAN, STD))
