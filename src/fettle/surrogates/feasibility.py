"""Where trials fail: one latent Gaussian process for each failure class, and what earlier tasks tell of it.

The latent function is regressed on -1 (went well) and +1 (failed this way), and squashed (least-squares
classification; Rasmussen & Williams 2006, section 6.5). One or two failures are enough to keep a search away from
their surroundings; how far these reach, and along which columns, is learned as any process is.
"""

import math
from collections.abc import Sequence

import numpy as np

from fettle.surrogates.acquisition import Valued

Floats = np.ndarray
SOFT = 0.3  # standard deviation of a label about the latent function
NO_FAULT = ("lost",)  # failures that say nothing of the params


def classes(failure: Sequence[str]) -> list[str]:
    """The failure classes that params can be blamed for, in order."""
    return sorted({name for name in failure if name and name not in NO_FAULT})


def labels(failure: Sequence[str], kind: str) -> Floats:
    """(n,): +1 where a trial failed that way."""
    return np.array([1.0 if name == kind else -1.0 for name in failure])


def log_spared(mean: Floats, std: Floats) -> Valued:
    """Log-probability that a latent value means no failure, and its derivatives by mean and std."""
    spread = np.sqrt(std * std + SOFT * SOFT)
    return _log_below(mean, spread, 0.0, by_spread=std / spread)


def log_within(mean: Floats, std: Floats, bound: float) -> Valued:
    """Log-probability that a metric is at most `bound`, and its derivatives by mean and std."""
    return _log_below(mean, std, bound, by_spread=np.ones_like(std))


def _log_below(mean: Floats, spread: Floats, bound: float, *, by_spread: Floats) -> Valued:
    from scipy.special import log_ndtr

    z = (bound - mean) / spread
    value = log_ndtr(z)
    by_z = np.exp(np.minimum(-0.5 * z * z - 0.5 * math.log(2.0 * math.pi) - value, 50.0))
    return value, -by_z / spread, -by_z * z / spread * by_spread
