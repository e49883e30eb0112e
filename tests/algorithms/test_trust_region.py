"""The trust region and its quadratic model."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from fettle.algorithms.trust_region import TrustRegion
from fettle.core.errors import InvalidInput
from fettle.core.space import Categorical, Float, Space
from fettle.core.trial import Objective, State, Trial, outcome
from fettle.problems.synthetic import make
from fettle.surrogates.quadratic import Quadratic
from fettle.testing.search import search

LOSS = (Objective("loss"),)


def told(algorithm, number: int, params, loss: float, note: str = "") -> None:
    state = State.COMPLETE if math.isfinite(loss) else State.FAILED
    trial = Trial(number, params, state, metrics={"loss": loss}, note=note)
    algorithm.tell(trial, outcome(trial, LOSS, ()))


def test_a_quadratic_function_is_found_again() -> None:
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=(4, 4)), rng.normal(size=4)
    S, Z = rng.uniform(-1, 1, (40, 4)), rng.uniform(-1, 1, (20, 4))

    def f(Z: np.ndarray) -> np.ndarray:
        return Z @ b + np.einsum("md,de,me->m", Z, A @ A.T, Z)

    y = f(S)
    model = Quadratic.fit(S, (y - y.mean()) / y.std())
    mean, std = model.predict(Z)
    assert np.abs(mean - (f(Z) - y.mean()) / y.std()).max() < 0.02
    assert (std > 0).all() and std.max() < 0.2


def test_fewer_points_than_coefficients_leave_doubt() -> None:
    rng = np.random.default_rng(1)
    S = rng.uniform(-1, 1, (4, 6))
    model = Quadratic.fit(S, rng.normal(size=4))
    assert model.predict(rng.uniform(-1, 1, (20, 6)))[1].min() > model.predict(S)[1].max()


def test_its_slopes_are_those_of_its_predictions() -> None:
    rng = np.random.default_rng(2)
    model = Quadratic.fit(rng.uniform(-1, 1, (12, 3)), rng.normal(size=12))
    for z in rng.uniform(-1, 1, (5, 3)):
        mean, std, by_mean, by_std = model.slopes(z)
        assert np.allclose((mean, std), np.array(model.predict(z[None]))[:, 0])
        ahead, behind = (model.predict(z + side * 1e-5 * np.eye(3)) for side in (1.0, -1.0))
        assert np.allclose(by_mean, (ahead[0] - behind[0]) / 2e-5, atol=1e-5)
        assert np.allclose(by_std, (ahead[1] - behind[1]) / 2e-5, atol=1e-4)


def test_the_region_grows_with_success_and_shrinks_without() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1))
    region = TrustRegion(radius=0.2).build(space, LOSS, (), 0, None)
    told(region, 0, {"x": 0.5, "y": 0.5}, 1.0)
    assert region.radius(2) == 0.2
    told(region, 1, {"x": 0.6, "y": 0.5}, 0.9, note="trust region: a success")
    assert region.radius(2) == pytest.approx(0.32)
    told(region, 2, {"x": 0.7, "y": 0.5}, 2.0, note="of others: counts for nothing")
    told(region, 3, {"x": 0.61, "y": 0.5}, 2.0, note="trust region: none")
    told(region, 4, {"x": 0.62, "y": 0.5}, math.nan, note="trust region: failed")
    assert region.radius(2) == pytest.approx(0.16)


def test_words_stay_as_they_are_in_the_best_trial() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1), c=Categorical(["a", "b", "c"]))
    region = TrustRegion().build(space, LOSS, (), 0, None)
    for number, params in enumerate(space.sample(12, np.random.default_rng(0))):
        told(region, number, params, params["x"] + 5.0 * (params["c"] != "b"))
    proposals = region.ask(3, 12, [], np.random.default_rng(0))
    assert [p.params["c"] for p in proposals] == ["b"] * 3
    assert len({p.params["x"] for p in proposals}) == 3


@pytest.mark.medium
def test_it_beats_random_search_on_smooth_functions() -> None:
    for name in ("rosenbrock5", "zakharov3_millions"):
        ours = [search("trust_region", make(name, seed), evaluations=30).answers[30] for seed in range(6)]
        theirs = [search("random", make(name, seed), evaluations=30).answers[30] for seed in range(6)]
        assert mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.01


@pytest.mark.parametrize("radius", [0.0, 0.9, math.nan])
def test_impossible_settings_are_refused(radius: float) -> None:
    with pytest.raises(InvalidInput, match="radius"):
        TrustRegion(radius)
