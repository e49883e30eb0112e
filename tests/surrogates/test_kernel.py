"""Covariances of many listed points, which are made from tables, against the same ones made a few at a time."""

import numpy as np
import pytest

from fettle.surrogates import kernel
from fettle.surrogates.kernel import Listed, Points, cross


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_list_of_points_has_the_covariances_of_each_point(missing: float) -> None:
    rng = np.random.default_rng(0)
    words = np.array([False, True, False])
    A = rng.integers(0, [7, 3, 12], (4 * kernel._MANY, 3)) / [6.0, 2.0, 11.0]
    A[rng.random(A.shape) < missing] = np.nan
    B = np.concatenate([A[:20], rng.random((5, 3))])
    theta = rng.normal(-0.5, 0.5, 3 + 4)
    assert Listed.of(Points(A)) is not None
    few = [cross(theta, Points(A[i : i + 10]), Points(B), words) for i in range(0, len(A), 10)]
    np.testing.assert_allclose(cross(theta, Points(A), Points(B), words), np.concatenate(few), rtol=1e-12)


def test_points_anywhere_and_points_without_columns_are_no_list() -> None:
    assert Listed.of(Points(np.random.default_rng(0).random((1000, 2)))) is None
    assert Listed.of(Points(np.empty((1000, 0)))) is None
    assert cross(np.zeros(4), Points(np.empty((1000, 0))), Points(np.empty((2, 0))), np.empty(0, bool)).shape == (
        1000,
        2,
    )
