"""The statistics behind the rate search: how the share of too slow requests grows with the offered rate.

When every request was sent is known, so most of the chance in a probe (bursts of arrivals) need not count as
noise. The work that waits before each request is worked out for a fluid server of some capacity (Lindley's
recursion, 1952); the log-odds that a request is over the limit are linear in it and in the logarithm of the
rate:

    logit P(over) = b0 + b1 * work / limit + b2 * log(rate / around)

Capacity, b0, b1, b2 are fitted to all probes together (penalised maximum likelihood). The share at any rate
is the mean of that probability over a long Poisson stream of that rate, and the boundary is the rate where
it meets the share allowed: a short probe is thus corrected for the bursts it happened to get and for the
time its queue took to fill. Requests near each other, and those of one probe, err together: the errors are
cluster-robust (Liang & Zeger 1986), the larger of those by blocks and by probes, with a Student quantile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.core.trial import Estimate
from fettle.problems.serve.samples import Floats

_PRIOR_MEAN = np.array([0.0, 8.0, 2.0, 0.0])  # b0, b1, b2, log capacity: weak, against separation
_PRIOR_SD = np.array([20.0, 8.0, 3.0, 1.0])
_CAPACITIES = np.exp(np.linspace(-0.25, 1.5, 26))  # tried, relative to the rate looked around
_STREAM_N = 60_000
_DROP_N = 500
_CLIP = 4.0  # work beyond so many limits changes nothing any more
_REACH = 1.5


@dataclass(frozen=True, slots=True)
class Counted:
    """One probe's requests. start_s: the warm-up cut. over (n,): 1.0 where over the limit."""

    rate: float
    scheduled_s: Floats
    over: Floats
    start_s: float


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where the share over the limit meets the share allowed. slope: of the log-odds by log rate, there."""

    rate: Estimate
    slope: float
    sd_log: float

    @property
    def half_width_ratio(self) -> float:
        return (self.rate.high - self.rate.low) / 2.0 / self.rate.value

    def rate_at(self, odds_factor: float) -> float:
        """The rate at which the odds are so many times those at the boundary."""
        return self.rate.value * math.exp(math.log(odds_factor) / self.slope)


class _Data:
    """All requests that count, in one array each; `use` masks the warm-up."""

    def __init__(self, probes: Sequence[Counted], limit_s: float, around: float) -> None:
        self.probes, self.limit_s, self.around = probes, limit_s, around
        self.use = np.concatenate([p.scheduled_s >= p.start_s for p in self.probes])
        self.over = np.concatenate([p.over for p in self.probes])[self.use]
        self.log_rate = np.concatenate([np.full(p.over.size, math.log(p.rate / self.around)) for p in self.probes])[self.use]

    def work(self, capacity: float) -> Floats:
        waits = [waiting_work(p.scheduled_s, capacity) for p in self.probes]
        return np.minimum(np.concatenate(waits)[self.use] / self.limit_s, _CLIP)

    def clusters(self, block_s: float) -> tuple[Floats, Floats]:
        """(block number, probe number) of each request."""
        blocks, probes, first = [], [], 0
        for number, p in enumerate(self.probes):
            block = first + np.floor(p.scheduled_s / block_s).astype(int)
            first = int(block[-1]) + 1 if block.size else first
            blocks.append(block)
            probes.append(np.full(block.size, number))
        return np.concatenate(blocks)[self.use], np.concatenate(probes)[self.use]


def waiting_work(scheduled_s: Floats, capacity: float) -> Floats:
    """Seconds of work that a server of this capacity, empty at 0, has before it when each request comes."""
    excess = np.arange(scheduled_s.size) / capacity - scheduled_s
    result: Floats = excess - np.minimum.accumulate(np.minimum(excess, 0.0))
    return result


def fit_boundary(probes: Sequence[Counted], share: float, *, limit_s: float, around: float) -> Boundary:
    """The rate at which the long-run share of requests over the limit is `share`, with its 95 % interval."""
    data = _Data(probes, limit_s, around)
    best, best_value = _PRIOR_MEAN.copy(), -math.inf
    start = np.array([math.log(share / (1.0 - share)) - 2.0, 8.0, 2.0])
    for ratio in _CAPACITIES:
        coefficients, value = _logistic(data, around * ratio, start)
        value -= 0.5 * (math.log(ratio) / _PRIOR_SD[3]) ** 2
        if value > best_value:
            best, best_value = np.append(coefficients, math.log(ratio)), value
    return _solve(data, best, share)


def _logistic(data: _Data, capacity: float, start: Floats) -> tuple[Floats, float]:
    """Penalised maximum likelihood of b0, b1, b2 at this capacity, by Newton steps."""
    X = np.column_stack([np.ones(data.over.size), data.work(capacity), data.log_rate])
    precision = 1.0 / _PRIOR_SD[:3] ** 2
    b = start.copy()
    for _ in range(8):
        p = _expit(X @ b)
        gradient = X.T @ (data.over - p) - precision * (b - _PRIOR_MEAN[:3])
        hessian = (X * (p * (1.0 - p))[:, None]).T @ X + np.diag(precision)
        step = np.linalg.solve(hessian, gradient)
        b = b + step * min(1.0, 4.0 / max(1e-9, float(np.abs(step).max())))
        b[1], b[2] = max(b[1], 0.3), max(b[2], 0.0)
        if float(np.abs(step).max()) < 1e-4:
            break
    eta = X @ b
    value = float((data.over * eta - np.logaddexp(0.0, eta)).sum())
    return b, value - 0.5 * float((precision * (b - _PRIOR_MEAN[:3]) ** 2).sum())


def _solve(data: _Data, theta: Floats, share: float) -> Boundary:
    stream = np.cumsum(np.random.default_rng(20_260).exponential(1.0, _STREAM_N))
    target = math.log(share / (1.0 - share))

    def log_odds(log_rate: float, at: Floats) -> float:
        rate, capacity = math.exp(log_rate), math.exp(at[3])  # both relative to `around`
        if rate >= capacity * 0.998:
            return 20.0 + rate / capacity
        work = np.minimum(waiting_work(stream / (rate * data.around), capacity * data.around)[_DROP_N:] / data.limit_s, _CLIP)
        p = float(np.mean(_expit(at[0] + at[1] * work + at[2] * log_rate)))
        return math.log(max(p, 1e-12) / max(1.0 - p, 1e-12))

    low, high = -_REACH, min(_REACH, float(theta[3]))
    for _ in range(16):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if log_odds(middle, theta) < target else (low, middle)
    root = 0.5 * (low + high)
    step = 0.02
    below, above = log_odds(root - step, theta), min(log_odds(root + step, theta), target + 4.0)
    slope = max((above - below) / (2.0 * step), 0.5)
    at_root = log_odds(root, theta)
    gradient = np.zeros(4)
    for i, h in enumerate((0.05, 0.2, 0.05, 0.01)):
        moved = theta.copy()
        moved[i] += h
        gradient[i] = (min(log_odds(root, moved), target + 6.0) - at_root) / h
    variance, freedom = _variance(data, theta, gradient)
    sd = math.sqrt(variance) / slope
    half = _student(freedom) * sd
    value = data.around * math.exp(root)
    n = int(data.over.size)
    return Boundary(Estimate(value, value * math.exp(-half), value * math.exp(half), n), slope, sd)


def _variance(data: _Data, theta: Floats, gradient: Floats) -> tuple[float, float]:
    """(variance of gradient . theta, degrees of freedom) by the sandwich over blocks and over probes."""
    capacity = data.around * math.exp(theta[3])
    work = data.work(capacity)
    by_capacity = theta[1] * (data.work(capacity * 1.02) - work) / math.log(1.02)
    X = np.column_stack([np.ones(data.over.size), work, data.log_rate, by_capacity])
    p = _expit(X[:, :3] @ theta[:3])
    precision = np.diag(1.0 / _PRIOR_SD**2)
    information = (X * (p * (1.0 - p))[:, None]).T @ X
    bread = np.linalg.inv(information + precision)
    lever = bread @ gradient
    influence = (X @ lever) * (data.over - p)
    model = float(lever @ (information + precision) @ lever)
    worst, freedom = model, 30.0
    for cluster in data.clusters(6.0 * data.limit_s):
        sums = np.bincount(cluster, influence)
        count = np.unique(cluster).size
        if count < 4:
            continue
        prior = float(lever @ precision @ lever)
        value = float((sums**2).sum()) * count / (count - 1.0) + prior
        effective = float((sums**2).sum()) ** 2 / max(float((sums**4).sum()), 1e-300)
        if value > worst:
            worst, freedom = value, max(2.5, min(count - 1.0, 2.0 * effective))
    return worst, freedom


def _student(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def _expit(x: Floats) -> Floats:
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


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
