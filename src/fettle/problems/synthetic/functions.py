"""Numeric test functions with known minima, as formulas on the whole of R^d.

Formulas and minima: Surjanovic & Bingham, Virtual Library of Simulation Experiments (2013); Jamil & Yang 2013
(arXiv:1308.4008); Hansen et al. 2009 (BBOB) for the ellipsoid. Each holds outside its standard box, too, with the
same global minimum, so that the box can be moved.
"""

from collections.abc import Callable

import numpy as np

Function = Callable[[np.ndarray], float]
_A3 = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]], float)
_P3 = np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]) / 1e4
_A6 = np.array([[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8],
                [17, 8, 0.05, 10, 0.1, 14]])  # fmt: skip
_P6 = np.array([[1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
                [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381]]) / 1e4  # fmt: skip
_HEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_SHEKEL = np.array([[4, 4, 4, 4], [1, 1, 1, 1], [8, 8, 8, 8], [6, 6, 6, 6], [3, 7, 3, 7], [2, 9, 2, 9], [5, 5, 3, 3]],
                   float)  # fmt: skip
_SHEKEL_C = np.array([0.1, 0.2, 0.2, 0.4, 0.4, 0.6, 0.3])


def _bumps(A: np.ndarray, P: np.ndarray) -> Function:
    return lambda x: float(-_HEIGHTS @ np.exp(-(A * (x - P) ** 2).sum(1)))


hartmann3 = _bumps(_A3, _P3)
hartmann4 = _bumps(_A6[:, :4], _P6[:, :4])
hartmann6 = _bumps(_A6, _P6)


def levy(x: np.ndarray) -> float:
    w = 1 + (x - 1) / 4
    inner = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)
    ends = np.sin(np.pi * w[0]) ** 2 + (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
    return float(ends + inner.sum())


def rosenbrock(x: np.ndarray) -> float:
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def branin(x: np.ndarray) -> float:
    bend = x[1] - 5.1 / (4 * np.pi**2) * x[0] ** 2 + 5 / np.pi * x[0] - 6
    return float(bend**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x[0]) + 10)


def styblinski_tang(x: np.ndarray) -> float:
    return float((x**4 - 16 * x**2 + 5 * x).sum() / 2)


def powell(x: np.ndarray) -> float:
    a, b, c, d = x[0::4], x[1::4], x[2::4], x[3::4]
    return float(((a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4).sum())


def ackley(x: np.ndarray) -> float:
    hole = -20 * np.exp(-0.2 * np.sqrt((x**2).mean()))
    return float(hole - np.exp(np.cos(2 * np.pi * x).mean()) + 20 + np.e)


def rastrigin(x: np.ndarray) -> float:
    return float((x**2 - 10 * np.cos(2 * np.pi * x) + 10).sum())


def griewank(x: np.ndarray) -> float:
    return float((x**2).sum() / 4000 - np.cos(x / np.sqrt(np.arange(1, len(x) + 1))).prod() + 1)


def michalewicz(x: np.ndarray) -> float:
    """Between -pi and 2 pi its minimum is that of [0, pi]: sin is negative outside."""
    return float(-(np.sin(x) * np.sin(np.arange(1, len(x) + 1) * x**2 / np.pi) ** 20).sum())


def zakharov(x: np.ndarray) -> float:
    slope = (0.5 * np.arange(1, len(x) + 1) * x).sum()
    return float((x**2).sum() + slope**2 + slope**4)


def trid(x: np.ndarray) -> float:
    return float(((x - 1) ** 2).sum() - (x[1:] * x[:-1]).sum())


def dixon_price(x: np.ndarray) -> float:
    return float((x[0] - 1) ** 2 + (np.arange(2, len(x) + 1) * (2 * x[1:] ** 2 - x[:-1]) ** 2).sum())


def shekel7(x: np.ndarray) -> float:
    return float(-(1 / (((x - _SHEKEL) ** 2).sum(1) + _SHEKEL_C)).sum())


def goldstein_price(x: np.ndarray) -> float:
    """Ranges over six decades in its box."""
    a, b = x
    left = 1 + (a + b + 1) ** 2 * (19 - 14 * a + 3 * a**2 - 14 * b + 6 * a * b + 3 * b**2)
    right = 30 + (2 * a - 3 * b) ** 2 * (18 - 32 * a + 12 * a**2 + 48 * b - 36 * a * b + 27 * b**2)
    return float(left * right)


def six_hump_camel(x: np.ndarray) -> float:
    a, b = x
    return float((4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + (4 * b**2 - 4) * b**2)


def beale(x: np.ndarray) -> float:
    """Huge at the corners of its box, flat in the middle."""
    a, b = x
    return float((1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2)


def rotation(d: int, seed: int) -> np.ndarray:
    """A fixed rotation (d, d), uniform among all."""
    Q, R = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    return np.asarray(Q * np.sign(np.diag(R)))


def ellipsoid(d: int, condition: float, seed: int) -> Function:
    """A rotated quadratic of that condition number (BBOB f10)."""
    Q = rotation(d, seed)
    weights = condition ** (np.arange(d) / (d - 1))
    return lambda x: float(weights @ (Q @ x) ** 2)


def rotated(f: Function, d: int, seed: int) -> Function:
    """f whose minimum is at 0, turned about it."""
    Q = rotation(d, seed)
    return lambda x: f(Q @ x)
