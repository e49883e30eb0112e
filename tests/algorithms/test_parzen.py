"""Parzen estimators: densities against SciPy and by exact sums, draws against densities."""

import math

import numpy as np
import pytest
from scipy.stats import truncnorm

from fettle.algorithms.parzen import Axes, Kernels, bandwidths, bins, log_density, sample
from fettle.core.space import Categorical, Choice, Float, Int, Ordinal, Params, Space

OP = Choice(conv=Space(k=Categorical([1, 3, 5]), w=Float(0, 1)), pool=Space(s=Float(0, 1)), skip=Space())
TREE = Space(lr=Float(1e-4, 1, log=True), a=OP, b=OP)


def mixture(space: Space, n: int, seed: int = 0) -> tuple[Axes, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Axes, points, bandwidths, coefficients and weights of n random kernels."""
    axes = Axes(space)
    X = space.encode(space.sample(n, np.random.default_rng(seed)))
    C = axes.coefficients(X)
    h = bandwidths(axes, C.sum(axis=0))
    axes.normalise(C, h[axes.numbers], np.arange(axes.m))
    return axes, X, h, C, np.linspace(0.2, 1.8, n)


FINITE = Space(
    n=Int(1, 40, log=True),
    kind=Choice(a=Space(o=Ordinal([1, 2, 4]), c=Choice(p=Space(i=Int(0, 3)), q=Space())), b=Space()),
    c=Categorical(["x", "y", "z"]),
)


def chance(space: Space, params: Params) -> float:
    """Of a uniform draw: the widths of its bins."""
    total = 1.0
    for column in space.columns:
        if column.name in params:
            _, left, right = bins(column, np.array([column.domain.encode(params[column.name])]))
            total *= float(right[0] - left[0])
    return total


@pytest.mark.parametrize("n", [0, 1, 7, 60])
def test_densities_of_a_finite_tree_sum_to_one(n: int) -> None:
    axes, _, h, C, w = mixture(FINITE, n)
    points = list(FINITE.enumerate())
    p = np.exp(log_density(axes, FINITE.encode(points), h, [(C, w)]))
    chances = np.array([chance(FINITE, params) for params in points])
    assert chances.sum() == pytest.approx(1) and (p * chances).sum() == pytest.approx(1)


@pytest.mark.parametrize("domain", [Float(0, 1), Float(1e-5, 1, log=True), Int(0, 999), Int(1, 4000, log=True)])
def test_densities_of_one_number_integrate_to_one(domain) -> None:
    axes, _, h, C, w = mixture(Space(x=domain), 12)
    p = np.exp(log_density(axes, (np.arange(20_000)[:, None] + 0.5) / 20_000, h, [(C, w)]))
    exact = domain.size is None
    assert p.mean() == pytest.approx(1, rel=1e-6 if exact else 0.01)  # the bins of fine grids by moment matching


def test_densities_of_the_tree_integrate_to_one() -> None:
    axes, _, h, C, w = mixture(TREE, 20)
    Z = np.random.default_rng(5).random((40_000, len(TREE)))
    Z[~TREE.active(Z)] = np.nan
    p = np.exp(log_density(axes, Z, h, [(C[:8], w[:8]), (C[8:], w[8:])]))
    assert abs(p.mean() - 1) < 5 * p.std() / 200


def test_densities_agree_with_products_of_truncated_normals() -> None:
    space = Space(x=Float(0, 1), y=Float(0, 1), c=Categorical(["u", "v", "w"]))
    axes, X, h, C, w = mixture(space, 6)
    Z = space.encode(space.sample(9, np.random.default_rng(3)))
    wanted = np.ones(9)
    for x, weight in zip(X, w, strict=True):
        k = np.full(9, weight)
        for j in (0, 1):
            k *= truncnorm((0 - x[j]) / h[j], (1 - x[j]) / h[j], loc=x[j], scale=h[j]).pdf(Z[:, j])
        wanted += k * np.where(np.abs(Z[:, 2] - x[2]) < 0.1, 3 * (1 - h[2]) + h[2], h[2])
    assert np.exp(log_density(axes, Z, h, [(C, w)])) == pytest.approx(wanted / (1 + w.sum()))


def test_draws_follow_the_density() -> None:
    axes, X, h, C, w = mixture(FINITE, 5)
    n = 20_000
    drawn = FINITE.decode(sample(axes, n, X, h, w, np.random.default_rng(1)))
    points = list(FINITE.enumerate())
    p = np.exp(log_density(axes, FINITE.encode(points), h, [(C, w)]))
    expected = n * p * np.array([chance(FINITE, params) for params in points])
    counts = {FINITE.key(params): 0 for params in points}
    for params in drawn:
        counts[FINITE.key(params)] += 1
    seen = np.array(list(counts.values()))
    assert ((seen - expected) ** 2 / expected).sum() < len(points) + 5 * math.sqrt(2 * len(points))


@pytest.mark.parametrize(
    "domain", [Int(1, 50, log=True), Int(3, 9), Float(0.5, 8, step=0.5, log=True), Int(2, 9, log=True, step=3)]
)
def test_bins_are_those_of_decode(domain) -> None:
    column = Space(x=domain).columns[0]
    u = np.sort(np.random.default_rng(0).random(400))
    index, left, right = bins(column, u)
    values = list(domain.values())
    assert [values[i] for i in index] == domain.decode_many(u)
    assert np.all((left <= u) & (u <= right)) and left[0] == 0 and right[-1] == pytest.approx(1)
    assert (left + right) / 2 == pytest.approx(domain.encode_many([values[i] for i in index]))


def test_kernels_at_new_bandwidths_are_as_if_made_for_them() -> None:
    axes = Axes(TREE)
    kernels = Kernels(axes)
    X = TREE.encode(TREE.sample(150, np.random.default_rng(0)))  # beyond the first block of rows
    for i, x in enumerate(X):
        kernels.put(x)
        if i % 40 == 0:
            kernels.at(np.full(len(TREE), 0.1 + i / 1000))
    h = np.linspace(0.1, 0.3, len(TREE))
    wanted = axes.coefficients(X)
    axes.normalise(wanted, h[axes.numbers], np.arange(axes.m))
    assert np.array_equal(kernels.at(h), wanted) and np.array_equal(kernels.points, X, equal_nan=True)


def test_bandwidths_shrink_with_trials_and_follow_their_spread() -> None:
    axes = Axes(Space(x=Float(0, 1), c=Categorical(["u", "v"])))
    rng = np.random.default_rng(0)

    def h(n: int, width: float) -> list[float]:
        X = np.column_stack([0.5 + width * (rng.random(n) - 0.5), np.full(n, 0.25)])
        return bandwidths(axes, axes.coefficients(X).sum(axis=0)).tolist()

    (few, b_few), (many, b_many), (narrow, _), (none, b_none) = h(5, 1), h(500, 1), h(500, 0.1), h(0, 1)
    assert 0.02 <= narrow < many < few < 0.3 and none < 0.3
    assert b_none == 1 and b_few == pytest.approx(2 / 7, rel=0.05) and b_many == pytest.approx(2 / 502, rel=0.05)
