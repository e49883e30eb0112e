"""The statistics behind the rate search: how the share of too slow requests grows with the offered rate.

Close to the boundary the log-odds of "slower than the limit" are taken as linear in the logarithm of the
rate: logit p(rate) = logit p_limit + slope * log(rate / boundary). All probes are put together in one
likelihood, boundary and slope are integrated over a grid, so nothing has to converge. Requests of one busy
period are slow together and probes differ, so counts are over-dispersed: the binomial deviance of whole
blocks gets an unknown factor with a scaled inverse chi-squared prior, which integrates to a Student-like
likelihood (Gelman et al., Bayesian Data Analysis, 3rd ed., section 3.2; McCullagh & Nelder, section 4.5).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.core.trial import Estimate
from fettle.problems.serve.samples import Floats

_SLOPES = np.exp(np.linspace(math.log(1.0), math.log(60.0), 40))
_SLOPE_MEDIAN, _SLOPE_SPREAD = 8.0, 0.8  # log-normal; queues between light load and the cliff have 2 to 30
_DISPERSION_N, _DISPERSION = 4.0, 2.0  # prior on the over-dispersion of blocks: worth so many blocks, around this
_GRID = 240
_REACH = 1.2  # of the first grid, in the logarithm of the rate, to both sides


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of one probe: of n requests at this rate, k were over the limit."""

    rate: float
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where p(rate) meets the limit: posterior of the boundary rate and the mean slope of the log-odds."""

    rate: Estimate
    slope: float
    sd_log: float

    @property
    def half_width_ratio(self) -> float:
        return (self.rate.high - self.rate.low) / 2.0 / self.rate.value

    def rate_at(self, odds_factor: float) -> float:
        """The rate at which the odds are so many times those at the boundary."""
        return self.rate.value * math.exp(math.log(odds_factor) / self.slope)


def fit_boundary(blocks: Sequence[Block], share: float, *, around: float, cap: float = math.inf) -> Boundary:
    """Posterior of the rate at which the share of requests over the limit is `share`.

    around: a rate near it, the middle of the first grid. cap: a rate that over-saturated the server; the
    boundary lies under it.
    """
    rate = np.array([b.rate for b in blocks])
    n = np.array([b.n for b in blocks], dtype=float)
    k = np.array([b.k for b in blocks], dtype=float)
    centre, reach = math.log(around), _REACH
    for _ in range(2):  # the second grid is centred and scaled on the first one's posterior
        grid = centre + np.linspace(-reach, reach, _GRID)
        posterior = _posterior(grid, np.log(rate), n, k, share)
        posterior[grid > math.log(cap)] = 0.0
        posterior /= posterior.sum()
        marginal = posterior.sum(axis=1)
        mean = float(marginal @ grid)
        sd = float(np.sqrt(max(marginal @ (grid - mean) ** 2, 1e-12)))
        centre, reach = mean, min(reach, max(6.0 * sd, 0.02))
    cumulative = np.cumsum(marginal)
    low, middle, high = (math.exp(float(np.interp(q, cumulative, grid))) for q in (0.025, 0.5, 0.975))
    slope = float(np.exp(posterior.sum(axis=0) @ np.log(_SLOPES)))
    return Boundary(Estimate(middle, low, high, int(n.sum())), slope, sd)


def _posterior(grid: Floats, log_rate: Floats, n: Floats, k: Floats, share: float) -> Floats:
    """Normalised posterior (boundaries, slopes) on the grid of log boundary rates."""
    offset = math.log(share / (1.0 - share))
    deviance = np.zeros((grid.size, _SLOPES.size))
    for x, total, over in zip(log_rate, n, k, strict=True):
        eta = np.clip(offset + _SLOPES[None, :] * (x - grid[:, None]), -30.0, 30.0)
        # -log likelihood of the block, less that of its own best fit
        deviance += 2.0 * (total * np.logaddexp(0.0, eta) - over * eta - _saturated(total, over))
    prior_n = _DISPERSION_N
    log_likelihood = -0.5 * (prior_n + n.size) * np.log(prior_n * _DISPERSION + deviance)
    log_prior = -0.5 * ((np.log(_SLOPES) - math.log(_SLOPE_MEDIAN)) / _SLOPE_SPREAD) ** 2
    log_posterior = log_likelihood + log_prior[None, :]
    weight = np.exp(log_posterior - log_posterior.max())
    result: Floats = weight / weight.sum()
    return result


def _saturated(n: float, k: float) -> float:
    """n log n - k log k - (n - k) log(n - k), with 0 log 0 = 0: minus the log likelihood at p = k / n."""
    return sum(sign * v * math.log(v) if v > 0 else 0.0 for sign, v in ((1.0, n), (-1.0, k), (-1.0, n - k)))


def dispersion(over: Floats, length: int) -> float:
    """Variance inflation of the mean of a 0/1 series by its autocorrelation, at least 1, by batch means.

    length: requests per batch; batches must be long against the correlation (Law & Kelton, section 9.5).
    """
    batches = over.size // max(1, length)
    if batches < 4:
        return 1.0
    means = over[: batches * length].reshape(batches, length).mean(axis=1)
    p = float(over.mean())
    if p in (0.0, 1.0):
        return 1.0
    return max(1.0, float(means.var(ddof=1)) * length / (p * (1.0 - p)))
