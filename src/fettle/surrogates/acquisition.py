"""Acquisition functions: what an evaluation would be worth, by the mean and standard deviation of the loss there.

Losses are minimised; larger is better for what these functions return. Each takes mean (m,), std (m,) and the best
loss so far, and gives its value and its derivatives by mean and std.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from fettle.core.errors import InvalidInput

Floats = np.ndarray
Valued = tuple[Floats, Floats, Floats]
_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_TURN = -1.0  # above, nothing cancels
_FAR = -1e3  # below, log h is its asymptote to working precision


def log_h(z: Floats) -> Floats:
    """log(phi(z) + z Phi(z)), without cancellation for very negative z (Ament et al. 2023, arXiv:2310.20708, eq. 9)."""
    low = z < _TURN
    if not low.any():
        return _log_h_near(z)
    if low.all():
        return _log_h_far(z)
    return np.where(low, _log_h_far(np.minimum(z, _TURN)), _log_h_near(np.maximum(z, _TURN)))


def _log_h_near(z: Floats) -> Floats:
    from scipy.special import ndtr

    result: Floats = np.log(np.exp(-0.5 * z * z - _LOG_ROOT_2PI) + z * ndtr(z))
    return result


def _log_h_far(z: Floats) -> Floats:
    from scipy.special import erfcx

    tail = 1.0 + z * erfcx(z * -math.sqrt(0.5)) * math.sqrt(math.pi / 2.0)  # erfcx: Phi / phi
    tail = np.where(z < _FAR, 1.0 / (z * z), tail)
    return -0.5 * z * z - _LOG_ROOT_2PI + np.log(np.maximum(tail, 1e-300))


def log_ei(mean: Floats, std: Floats, best: float) -> Valued:
    """Logarithm of the expected improvement."""
    from scipy.special import log_ndtr

    z = (best - mean) / std
    h = log_h(z)
    by_mean = -np.exp(np.minimum(log_ndtr(z) - h, 50.0)) / std
    by_std = np.exp(np.minimum(-0.5 * z * z - _LOG_ROOT_2PI - h, 50.0)) / std
    return np.log(std) + h, by_mean, by_std


def ei(mean: Floats, std: Floats, best: float) -> Valued:
    """Expected improvement (Jones et al. 1998)."""
    value, by_mean, by_std = log_ei(mean, std, best)
    value = np.exp(value)
    return value, value * by_mean, value * by_std


def pi(mean: Floats, std: Floats, best: float) -> Valued:
    """Logarithm of the probability of an improvement."""
    from scipy.special import log_ndtr

    z = (best - mean) / std
    value = log_ndtr(z)
    by_z = np.exp(np.minimum(-0.5 * z * z - _LOG_ROOT_2PI - value, 50.0))
    return value, -by_z / std, -by_z * z / std


def lcb(weight: float) -> Callable[[Floats, Floats, float], Valued]:
    """Minus the lower confidence bound, mean - weight * std (Srinivas et al. 2010, as UCB for maximisation)."""

    def value(mean: Floats, std: Floats, best: float) -> Valued:
        return weight * std - mean, -np.ones_like(mean), np.full_like(mean, weight)

    return value


NAMES = ("log_ei", "ei", "pi", "ucb", "lcb", "thompson")  # the last one draws functions, see the algorithm
_BY_NAME: Mapping[str, Callable[[Floats, Floats, float], Valued]] = {"log_ei": log_ei, "ei": ei, "pi": pi}


def by_name(name: str, weight: float) -> Callable[[Floats, Floats, float], Valued]:
    """weight: that of the standard deviation in "ucb" and "lcb", which are one for losses. Raises InvalidInput."""
    if name in ("ucb", "lcb"):
        return lcb(weight)
    if name not in _BY_NAME:
        known = ", ".join([*_BY_NAME, "ucb", "lcb"])
        raise InvalidInput(f"unknown acquisition function {name!r}: expected one of {known}", "the default is log_ei")
    return _BY_NAME[name]
