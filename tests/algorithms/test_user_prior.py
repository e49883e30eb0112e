"""What users believe: densities by parameter, how they wear off, and what is refused."""

import numpy as np
import pytest

from fettle.algorithms.user_prior import UserPrior
from fettle.core.errors import InvalidInput
from fettle.core.space import Categorical, Choice, Float, Int, Params, Space

TREE = Choice(a=Space(x=Float(0, 1)), b=Space())


def density(space: Space, *points: Params) -> np.ndarray:
    return UserPrior(space).log_density(space.encode(points))


def test_numbers_lie_about_their_centre_on_their_own_scale() -> None:
    space = Space(lr=Float(1e-4, 1, log=True), n=Int(1, 9), prior={"lr": {"at": 1e-2, "spread": 0.1}})
    at, left, right, far = density(space, *({"lr": lr, "n": 5} for lr in (1e-2, 1e-3, 1e-1, 1.0)))
    assert at == 0 and left == pytest.approx(right) and left == pytest.approx(-0.5 * 2.5**2) and far < left
    one, other = density(space, {"lr": 1e-2, "n": 1}, {"lr": 1e-2, "n": 9})
    assert one == other == 0


def test_words_and_branches_have_weights() -> None:
    space = Space(c=Categorical(["p", "q", 3]), kind=TREE, prior={"c": {"p": 4, "3": 0}, "kind": {"b": 2}})
    p, q, three, b = density(
        space,
        {"c": "p", "kind": "b"}, {"c": "q", "kind": "b"}, {"c": 3, "kind": "b"},
        {"c": "p", "kind": "a", "kind.a.x": 0.1},
    )  # fmt: skip
    assert p == 0 and q == pytest.approx(-np.log(4)) and np.isfinite(three) and three < -5
    assert b == pytest.approx(-np.log(2))


def test_it_wears_off_in_proportion_to_the_trials() -> None:
    space = Space(x=Float(0, 1), prior={"x": {"at": 0.8}})
    prior = UserPrior(space)
    U = np.array([[0.5], [0.8]])
    early, late = (np.diff(prior.worth(n)(U))[0] for n in (1, 100))
    assert early == pytest.approx(100 * late) and late > 0
    assert np.isfinite(prior.worth(0)(U)).all()


def test_users_err_and_nothing_is_ruled_out() -> None:
    space = Space(x=Float(0, 1), prior={"x": {"at": 0.0, "spread": 0.01}})
    assert density(space, {"x": 1.0})[0] == pytest.approx(np.log(1e-4))


def test_without_a_prior_it_is_false_and_flat() -> None:
    space = Space(x=Float(0, 1))
    assert not UserPrior(space) and density(space, {"x": 0.3}).tolist() == [0.0]


@pytest.mark.parametrize(
    "data",
    [{"at": 7.0}, {"at": 0.5, "spread": 0}, {"at": 0.5, "spread": "wide"}, {"spread": 0.1}, 0.5, {"p": 1}, {}],
)
def test_what_cannot_be_meant_is_refused(data) -> None:
    with pytest.raises(InvalidInput, match="prior of 'x'"):
        UserPrior(Space(x=Float(0, 1), prior={"x": data}))


@pytest.mark.parametrize("data", [{"s": 1}, {"p": -1}, {"p": 0, "q": 0}, {"p": "high"}])
def test_weights_that_cannot_be_meant_are_refused(data) -> None:
    with pytest.raises(InvalidInput, match="prior of 'c'"):
        UserPrior(Space(c=Categorical(["p", "q"]), prior={"c": data}))
