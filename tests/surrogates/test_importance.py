"""Importances against Sobol's indices that are known, and what must not be invented."""

import math

import numpy as np
import pytest

from fettle.core.space import Categorical, Choice, Float, Int, Ordinal, Params, Space
from fettle.surrogates.importance import Importances, curve, importances

from .logs import log_of, response_of

WEIGHTS = (4.0, 3.0, 2.0, 1.0, 0.0)
CUBE = Space({f"x{i}": Float(0, 1) for i in range(len(WEIGHTS))})


def additive(params: Params) -> float:
    return sum(w * (2 * params[f"x{i}"] - 1) ** 2 for i, w in enumerate(WEIGHTS))


def ishigami(params: Params) -> float:
    """Ishigami & Homma 1990, a = 7, b = 0.1, from the unit cube."""
    x, y, z = (math.pi * (2 * params[name] - 1) for name in "xyz")
    return math.sin(x) + 7 * math.sin(y) ** 2 + 0.1 * z**4 * math.sin(x)


def found(space: Space, function: object, n: int, **more: float) -> Importances:
    return importances(response_of(log_of(space, function, n, **more), space), space)  # type: ignore[arg-type]


def test_an_additive_function() -> None:
    made = found(CUBE, additive, 80, noise=0.05)
    shares = {p.name: p for p in made.parameters}
    for i, weight in enumerate(WEIGHTS):
        share = weight**2 / sum(w**2 for w in WEIGHTS)
        assert shares[f"x{i}"].alone.value == pytest.approx(share, abs=0.1)
        assert shares[f"x{i}"].total.value == pytest.approx(share, abs=0.1)
        assert shares[f"x{i}"].active == 1.0
    assert [p.name for p in made.parameters[:3]] == ["x0", "x1", "x2"]
    assert max(pair.share.value for pair in made.pairs) < 0.05


def test_interactions() -> None:
    made = found(Space({name: Float(0, 1) for name in "xyz"}), ishigami, 120)
    shares = {p.name: p for p in made.parameters}
    for name, alone, total in (("x", 0.314, 0.558), ("y", 0.442, 0.442), ("z", 0.0, 0.244)):
        assert shares[name].alone.value == pytest.approx(alone, abs=0.1)
        assert shares[name].total.value == pytest.approx(total, abs=0.1)
    assert made.pairs[0].names in (("x", "z"), ("z", "x"))
    assert made.pairs[0].share.value == pytest.approx(0.244, abs=0.1)
    assert made.pairs[1].share.value < 0.05


def test_words_and_steps() -> None:
    space = Space(c=Categorical(["p", "q", "r"]), n=Int(1, 4), o=Ordinal([1, 2, 4]), fixed=Int(3, 3))
    rise = {"p": 0.0, "q": 1.0, "r": 5.0}
    made = found(space, lambda p: rise[p["c"]] + p["n"], 36)
    variances = {"c": float(np.var([0.0, 1.0, 5.0])), "n": float(np.var([1, 2, 3, 4])), "o": 0.0}
    shares = {p.name: p.total.value for p in made.parameters}
    assert set(shares) == set(variances)  # what cannot vary explains nothing
    for name, variance in variances.items():
        assert shares[name] == pytest.approx(variance / sum(variances.values()), abs=0.1)


def test_a_parameter_inside_a_branch_counts_for_its_share_of_the_space() -> None:
    """a: 2 z, of variance 1/3 within the branch; b: 1. So z has all of the variance within a, which is half of it."""
    space = Space(kind=Choice(a=Space(z=Float(0, 1)), b=Space()), y=Float(0, 1))
    made = found(space, lambda p: 2 * p["kind.a.z"] if p["kind"] == "a" else 1.0, 60)
    shares = {p.name: p for p in made.parameters}
    assert shares["kind.a.z"].active == 0.5
    assert shares["kind.a.z"].total.value == pytest.approx(0.5, abs=0.05)
    assert shares["kind"].alone.value < 0.1  # both branches have the same mean
    assert shares["kind"].total.value == pytest.approx(0.5, abs=0.1)  # E[(2 z - 1)^2] / 4 of V = 1/6
    assert shares["y"].total.value < 0.05
    assert not [pair for pair in made.pairs if set(pair.names) == {"kind", "kind.a.z"}]


def test_intervals_hold_what_is_known_of_few_trials() -> None:
    few, many = (found(Space({name: Float(0, 1) for name in "xyz"}), ishigami, n) for n in (40, 150))

    def widths(made: Importances) -> float:
        return sum(p.total.high - p.total.low for p in made.parameters)

    assert widths(many) < widths(few)
    for p in (*few.parameters, *many.parameters):
        for share in (p.alone, p.total):
            assert 0.0 <= share.low <= share.value <= share.high <= 1.0


def test_the_same_trials_give_the_same_figures() -> None:
    assert found(CUBE, additive, 30) == found(CUBE, additive, 30)


@pytest.mark.medium
def test_noise_is_explained_by_nothing() -> None:
    """At most 1 of 50 sets of noise passes for explained, in expectation: with more than 5 of 50 p < 0.01."""
    space = Space({f"x{i}": Float(0, 1) for i in range(4)})
    passed = 0
    for seed in range(50):
        passed += response_of(log_of(space, lambda p: 0.0, 12 + seed, seed=seed, noise=1.0), space).explains
    assert passed <= 4


def test_constant_figures() -> None:
    response = response_of(log_of(CUBE, lambda p: 3.0, 12), CUBE)
    assert math.isnan(response.explained)
    assert not response.explains


def test_a_curve_follows_the_function() -> None:
    space = Space(lr=Float(1e-4, 1.0, log=True), n=Int(1, 6))
    log = log_of(space, lambda p: (math.log10(p["lr"]) + 2) ** 2 + p["n"], 40)
    response = response_of(log, space)
    made = curve(response, space, "lr")
    expected = [(math.log10(v) + 2) ** 2 + 3.5 for v in made.values]
    assert made.values[0] == pytest.approx(1e-4)
    assert made.values[-1] == pytest.approx(1.0)
    np.testing.assert_allclose(made.mean, expected, atol=0.15)
    assert all(a <= b <= c for a, b, c in zip(made.low, made.mean, made.high, strict=True))
    assert curve(response, space, "n").values == (1, 2, 3, 4, 5, 6)
