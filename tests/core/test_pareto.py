"""Fronts and hypervolume against brute force and known figures."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.core import pareto

POINTS = st.integers(1, 4).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 5), min_size=k, max_size=k), min_size=1, max_size=12)
)


def test_dominance() -> None:
    assert pareto.dominates([1, 2], [1, 3])
    assert not pareto.dominates([1, 2], [1, 2])
    assert not pareto.dominates([1, 3], [2, 2])
    with pytest.raises(ValueError, match="zip"):
        pareto.dominates([1], [1, 2])


@given(POINTS)
def test_front_is_what_nothing_dominates(points: list[list[int]]) -> None:
    expected = [i for i, p in enumerate(points) if not any(pareto.dominates(q, p) for q in points)]
    assert pareto.front(np.array(points)).tolist() == expected


def test_an_empty_front() -> None:
    assert pareto.front(np.empty((0, 2))).tolist() == []


@given(POINTS)
def test_hypervolume_counts_unit_cells(points: list[list[int]]) -> None:
    """On a grid of whole numbers the volume is the number of cells that some point dominates."""
    k = len(points[0])
    cells = sum(
        any(all(x <= c for x, c in zip(p, cell, strict=True)) for p in points)
        for cell in itertools.product(range(6), repeat=k)
    )
    assert pareto.hypervolume(np.array(points), [6.0] * k) == pytest.approx(cells)


def test_known_volumes() -> None:
    assert pareto.hypervolume(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]), [4.0, 4.0]) == 6.0
    assert pareto.hypervolume(np.empty((0, 2)), [1.0, 1.0]) == 0.0
    assert pareto.hypervolume(np.array([[1.0, 0.5]]), [1.0, 1.0]) == 0.0, "on the reference is not below it"
    assert pareto.hypervolume(np.array([[0.25]]), [1.0]) == 0.75
    # a quarter of a sphere's shell: the front x^2 + y^2 = 1 below (1, 1) dominates 1 - pi / 4
    angle = np.linspace(0, np.pi / 2, 4001)
    assert pareto.hypervolume(np.c_[1 - np.sin(angle), 1 - np.cos(angle)], [1.0, 1.0]) == pytest.approx(
        np.pi / 4, abs=1e-3
    )


def test_order_and_duplicates_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    Y = rng.random((30, 3))
    volume = pareto.hypervolume(Y, [1.0, 1.0, 1.0])
    assert pareto.hypervolume(rng.permutation(np.r_[Y, Y]), [1.0, 1.0, 1.0]) == pytest.approx(volume)
    assert 0.0 < volume < 1.0
