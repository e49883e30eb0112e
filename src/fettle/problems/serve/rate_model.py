"""The statistics behind the rate search: how the share of too slow requests grows with the offered rate.

When every request was sent is known, so most of the chance in a probe (bursts of arrivals) need not count as
noise. The work that waits before each request is worked out for a fluid server of some capacity (Lindley's
recursion, 1952), its capacity chosen so that this work explains the latencies best (least squares, all
probes together). The log-odds that a request is over the limit are linear in it and in the log rate:

    logit P(over) = b0 + b1 * work / limit + b2 * log(rate / around)

The share at any rate is the mean of that probability over the steady state of the work (M/D/1, known in
closed form), and the boundary is the rate where it meets the share allowed: a short probe is thus corrected
for the bursts it happened to get and for the time its queue took to fill. The fluid server only has to
explain much of the noise; what it gets wrong near the boundary, the fitted probability takes up.

Slow requests come in bursts, so the likelihood counts each of them too often: the prior is weighed against
bursts, not requests. Requests near each other, and those of one probe, err together: the errors are
cluster-robust (Liang & Zeger 1986), the largest of those by blocks, by probes, and by leaving out one stretch
of time after the other, with a Student quantile.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.core.trial import Estimate
from fettle.problems.serve.samples import Floats

_PRIOR_MEAN = np.array([0.0, 8.0, 6.0])  # b0, b1, b2: weak, against separation
_PRIOR_SD = np.array([20.0, 8.0, 10.0])
_VISIBLE = 0.005  # share of the latencies' variance
_CAPACITIES = np.linspace(-0.3, 1.5, 30)  # tried, relative to the rate looked around
_BLOCK = 6.0  # limits: requests that are further apart err on their own
_GRID = 1600
_SERIES = 8.0  # services
_CLIP = 4.0  # work beyond so many limits changes nothing any more
_REACH = 1.5
_PARTS = 14
_WIDEST = 3.0  # half an interval in the logarithm of the rate: a factor of 20 says nothing known
_MODEL_SD = 0.02  # what the model itself may be off by, in the logarithm of the rate


@dataclass(frozen=True, slots=True)
class Counted:
    """One probe's requests. start_s: the warm-up cut. over (n,): 1.0 where over the limit."""

    rate: float
    scheduled_s: Floats
    over: Floats
    latency_s: Floats
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

    def __init__(
        self,
        probes: Sequence[Counted],
        limit_s: float,
        around: float,
        *,
        without: tuple[int, float, float] = (-1, 0.0, 0.0),
    ) -> None:
        self.probes, self.limit_s, self.around = probes, limit_s, around
        number, begin, end = without
        masks = [p.scheduled_s >= p.start_s for p in probes]
        if number >= 0:
            scheduled = probes[number].scheduled_s
            masks[number] = masks[number] & ((scheduled < begin) | (scheduled >= end))
        self.use = np.concatenate(masks)
        latency = np.concatenate([p.latency_s for p in probes])[self.use] / limit_s
        self.latency = np.minimum(np.where(np.isnan(latency), _CLIP, latency), _CLIP)
        self.over = np.concatenate([p.over for p in probes])[self.use]
        log_rates = [np.full(p.over.size, math.log(p.rate / around)) for p in probes]
        self.log_rate = np.concatenate(log_rates)[self.use]
        self.precision = self.burst() / _PRIOR_SD**2

    def burst(self) -> float:
        """How many slow requests come together: by so much does the likelihood count each of them too often."""
        blocks, _ = self.clusters(_BLOCK * self.limit_s)
        slow = np.bincount(blocks, self.over)
        return max(1.0, float((slow**2).sum()) / max(float(slow.sum()), 1.0))

    def work(self, capacity: float) -> Floats:
        waits = [waiting_work(p.scheduled_s, capacity) for p in self.probes]
        result: Floats = np.minimum(np.concatenate(waits)[self.use] / self.limit_s, _CLIP)
        return result

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


def waiting_tail(work: Floats, load: float) -> Floats:
    """P(waiting work > work) in the steady state of M/D/1, in units of one service, at load < 1.

    Erlang's series (1909) for short waits, where its alternating terms are harmless, and beyond them the
    exponential tail that it turns into (Tijms, A First Course in Stochastic Models, 2003, section 9.6).
    """
    series = np.zeros_like(work)
    near = work <= _SERIES
    w = work[near]
    for j in range(int(_SERIES) + 1):
        gap = np.minimum(load * (j - w), 0.0)
        series[near] += np.where(w >= j, gap**j / math.factorial(j) * np.exp(-gap), 0.0)
    low, high = 0.0, 1.0
    while load * math.expm1(high) < high:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if load * math.expm1(middle) < middle else (low, middle)
    scale = (1.0 - load) / (load * math.exp(high) - 1.0)
    tail = np.where(near, 1.0 - (1.0 - load) * series, scale * np.exp(-high * work))
    result: Floats = np.clip(tail, 0.0, 1.0)
    return result


def fit_boundary(
    probes: Sequence[Counted], share: float, *, limit_s: float, around: float, thorough: bool = False
) -> Boundary:
    """The rate at which the long-run share of requests over the limit is `share`, with its 95 % interval.

    thorough: the interval also covers how far the boundary moves when one stretch of time is left out (jackknife).
    """
    data = _Data(probes, limit_s, around)
    theta = _fit(data, share)
    root, slope = _root(data, theta, share)
    variance, freedom = _variance(data, theta, _gradient(data, theta, root, share))
    sd = math.hypot(math.sqrt(variance) / slope, _MODEL_SD)
    parts = _parts(probes, limit_s) if thorough else []
    if len(parts) >= 4:
        roots = []
        for part in parts:
            rest = _Data(probes, limit_s, around, without=part)
            roots.append(_root(rest, _fit(rest, share, theta), share)[0])
        m = len(roots)
        jackknife = math.hypot(math.sqrt((m - 1.0) * float(np.var(roots))), _MODEL_SD)
        if jackknife > sd:
            sd, freedom = jackknife, m - 1.0
    half, value = min(_student(freedom) * sd, _WIDEST), around * math.exp(root)
    rate = Estimate(value, value * math.exp(-half), value * math.exp(half), int(data.over.size))
    return Boundary(rate, slope, sd)


def _parts(probes: Sequence[Counted], limit_s: float) -> list[tuple[int, float, float]]:
    """(probe, from, to) in seconds: about _PARTS stretches of like length, long against the queue's memory."""
    spans = [float(p.scheduled_s[-1]) - p.start_s for p in probes]
    length = max(sum(spans) / _PARTS, 5.0 * limit_s)
    parts = []
    for number, (p, span) in enumerate(zip(probes, spans, strict=True)):
        edges = np.linspace(p.start_s, p.start_s + span + 1e-9, max(1, round(span / length)) + 1).tolist()
        parts += [(number, begin, end) for begin, end in itertools.pairwise(edges)]
    return parts


def _fit(data: _Data, share: float, near: Floats | None = None) -> Floats:
    """b0, b1, b2, log(capacity / around); near: a fit of nearly the same requests to begin from."""
    log_capacity = _capacity(data) if near is None else _finer(data, float(near[3]))
    start = near[:3] if near is not None else np.array([math.log(share / (1.0 - share)) - 2.0, 8.0, 8.0])
    return np.append(_logistic(data, data.around * math.exp(log_capacity), start), log_capacity)


def _capacity(data: _Data) -> float:
    """log(capacity / around) of the fluid server whose waiting work explains the latencies best (least squares)."""
    errors = [_residual(data, g)[1] for g in _CAPACITIES]
    if min(errors) > (1.0 - _VISIBLE) * float(np.var(data.latency)) * data.over.size:
        return float(_CAPACITIES[-1])  # no queue to be seen: the work explains nothing
    return _finer(data, float(_CAPACITIES[int(np.argmin(errors))]))


def _finer(data: _Data, best: float) -> float:
    if best >= _CAPACITIES[-1]:
        return best
    for width in (0.07, 0.018):
        grid = np.linspace(best - width, best + width, 9)
        best = float(grid[int(np.argmin([_residual(data, g)[1] for g in grid]))])
    return best


def _residual(data: _Data, log_capacity: float) -> tuple[Floats, float, float]:
    """(residuals of the latency on the work, their weighted sum of squares, the factor of the work)."""
    work = data.work(data.around * math.exp(log_capacity))
    dw, dy = work - work.mean(), data.latency - data.latency.mean()
    factor = max(0.0, float(dw @ dy) / max(float(dw @ dw), 1e-12))
    residual = dy - factor * dw
    return residual, float(residual @ residual), factor


def _logistic(data: _Data, capacity: float, start: Floats) -> Floats:
    """Penalised maximum likelihood of b0, b1, b2 at this capacity, by Newton steps."""
    X = np.column_stack([np.ones(data.over.size), data.work(capacity), data.log_rate])
    precision = data.precision
    b = start.copy()
    for _ in range(8):
        p = _expit(X @ b)
        gradient = X.T @ (data.over - p) - precision * (b - _PRIOR_MEAN)
        hessian = _gram(X, X * (p * (1.0 - p))[:, None]) + np.diag(precision)
        step = np.linalg.solve(hessian, gradient)
        b = b + step * min(1.0, 4.0 / max(1e-9, float(np.abs(step).max())))
        b[1], b[2] = max(b[1], 0.3), max(b[2], 1.0)
        if float(np.abs(step).max()) < 1e-4:
            break
    return b


def _log_odds(data: _Data, theta: Floats, log_rate: float) -> float:
    """Log-odds of the long-run share over the limit at around * exp(log_rate)."""
    rate, capacity = math.exp(log_rate), math.exp(theta[3])  # both relative to `around`
    if rate >= capacity * 0.999:
        return 20.0 + rate / capacity
    services = data.limit_s * data.around * capacity  # of work, per limit
    work = np.linspace(0.0, _CLIP, _GRID)
    over = _expit(theta[0] + theta[1] * work + theta[2] * log_rate)
    longer = waiting_tail(work * services, rate / capacity)
    p = float(over[0] + np.diff(over) @ (longer[1:] + longer[:-1]) / 2.0)
    return math.log(max(p, 1e-12) / max(1.0 - p, 1e-12))


def _root(data: _Data, theta: Floats, share: float) -> tuple[float, float]:
    """(log(boundary / around), slope of the log-odds there)"""
    target = math.log(share / (1.0 - share))
    low, high = -_REACH, min(_REACH, float(theta[3]))
    for _ in range(18):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _log_odds(data, theta, middle) < target else (low, middle)
    root, step = 0.5 * (low + high), 0.01
    above = min(_log_odds(data, theta, root + step), target + 4.0)
    return root, max((above - _log_odds(data, theta, root - step)) / (2.0 * step), 0.5)


def _gradient(data: _Data, theta: Floats, root: float, share: float) -> Floats:
    """Derivative of the log-odds at the boundary by the parameters."""
    at_root, ceiling = _log_odds(data, theta, root), math.log(share / (1.0 - share)) + 6.0
    gradient = np.zeros(4)
    for i, h in enumerate((0.05, 0.2, 0.05, 0.005)):
        moved = theta.copy()
        moved[i] += h
        gradient[i] = (min(_log_odds(data, moved, root), ceiling) - at_root) / h
    return gradient


def _variance(data: _Data, theta: Floats, gradient: Floats) -> tuple[float, float]:
    """(variance of gradient . theta, degrees of freedom) by the sandwich over blocks and over probes."""
    capacity, h = data.around * math.exp(theta[3]), 0.01
    work = data.work(capacity)
    by_capacity = (data.work(capacity * math.exp(h)) - data.work(capacity * math.exp(-h))) / (2.0 * h)
    X = np.column_stack([np.ones(data.over.size), work, data.log_rate])
    p = _expit(X @ theta[:3])
    precision = np.diag(data.precision)
    weighted = X * (p * (1.0 - p))[:, None]
    information = _gram(weighted, X)
    lever = np.linalg.solve(information + precision, gradient[:3])
    residual, _, factor = _residual(data, theta[3])
    plane = X[:, :2]
    direction = factor * (
        by_capacity - plane @ np.linalg.solve(_gram(plane, plane) + 1e-9 * np.eye(2), by_capacity @ plane)
    )
    through = float(gradient[3] - lever @ (weighted.T @ (theta[1] * by_capacity)))
    by_latency = through * residual * direction / max(float(direction @ direction), 1e-12)
    influence = (X @ lever) * (data.over - p) + by_latency
    model = float(lever @ (information + precision) @ lever)
    worst, freedom = model, 30.0
    for cluster in data.clusters(_BLOCK * data.limit_s):
        sums = np.bincount(cluster, influence)
        count = np.unique(cluster).size
        if count < 4:
            continue
        prior = float((_PRIOR_SD * data.precision * lever) @ (_PRIOR_SD * data.precision * lever))
        value = float((sums**2).sum()) * count / (count - 1.0) + prior
        effective = float((sums**2).sum()) ** 2 / max(float((sums**4).sum()), 1e-300)
        if value > worst:
            worst, freedom = value, max(2.5, min(count - 1.0, 2.0 * effective))
    return worst, freedom


def _gram(left: Floats, right: Floats) -> Floats:
    """left' right for tall thin matrices, without the threads that a BLAS would start for them."""
    result: Floats = np.einsum("ni,nj->ij", left, right)
    return result


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
    length = max(1, length)
    batches = over.size // length
    if batches < 4:
        return 1.0
    means = over[: batches * length].reshape(batches, length).mean(axis=1)
    p = float(over.mean())
    if p in (0.0, 1.0):
        return 1.0
    return max(1.0, float(means.var(ddof=1)) * length / (p * (1.0 - p)))
