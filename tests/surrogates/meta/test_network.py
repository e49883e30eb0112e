"""The perceptron's derivatives, and what meta-learning does to it."""

import numpy as np
import pytest

from fettle.surrogates.meta.maml import _INNER, _RATE, Networks
from fettle.surrogates.meta.network import Network


def problem(n: int = 12) -> tuple[Network, np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(0)
    network = Network(3, width=7)
    return network, network.start(rng), rng.standard_normal((n, 3)), rng.standard_normal(n), rng


def test_gradient_against_differences() -> None:
    network, theta, X, y, rng = problem()
    _, slope = network.gradient(theta, X, y)
    for _ in range(5):
        v = rng.standard_normal(len(theta))
        ahead, behind = (network.gradient(theta + side * 1e-6 * v, X, y)[0] for side in (1.0, -1.0))
        assert slope @ v == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-7)


def test_hessian_products_are_symmetric() -> None:
    network, theta, X, y, rng = problem()
    u, v = rng.standard_normal((2, len(theta)))
    left, right = u @ network.hessian_product(theta, X, y, v), v @ network.hessian_product(theta, X, y, u)
    assert left == pytest.approx(right, rel=1e-4)


def test_second_order_gradient_is_that_of_the_loss_after_adaptation() -> None:
    """And the first-order one is not."""
    network, theta, X, y, rng = problem()
    Q, z = rng.standard_normal((8, 3)), rng.standard_normal(8)

    def after(weights: np.ndarray) -> float:
        return network.gradient(network.adapted(weights, X, y, _RATE, _INNER)[-1], Q, z)[0]

    v = rng.standard_normal(len(theta))
    wanted = (after(theta + 1e-5 * v) - after(theta - 1e-5 * v)) / 2e-5
    exact, _ = Networks(order=2)._slope(network, theta, X, y, Q, z)
    first, _ = Networks(order=1)._slope(network, theta, X, y, Q, z)
    assert exact @ v == pytest.approx(wanted, rel=1e-3)
    assert abs(first @ v - wanted) > 1e-2 * abs(wanted)
