"""What is believed of a part of a space after some trials: Gaussian processes of losses, bounds, failures and cost."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fettle.algorithms.history import Arrays
from fettle.core.domains import Column
from fettle.surrogates.acquisition import Valued
from fettle.surrogates.feasibility import classes, labels, log_spared, log_within
from fettle.surrogates.gp import GP, GPPosterior, imputed
from fettle.surrogates.learning import learned, telling
from fettle.surrogates.outputs import Outputs
from fettle.surrogates.warping import Warp

Floats = np.ndarray
_REFINED = 8  # steps
_LEARNED_FROM = 100  # points: of more, hyper-parameters are learned from a part
_WARPED_FROM = 10  # points: of fewer, inputs stay as they are
_WARP_GAINS = 2.0  # of log-evidence, by which a warp has to be better than none
_MOST, _BEST, _LATEST = 500, 150, 100  # of more points, a process is given the best, the latest and the nearest


def schedule(n: int) -> int:
    """How many of n trials the hyper-parameters are learned from: ever rarer refits, at fixed counts."""
    if n <= 20:
        return n
    if n <= 40:
        return n // 2 * 2
    step = 40
    while int(step * 1.1) <= n:
        step = int(step * 1.1)
    return max(step, anew(n))


def anew(n: int) -> int:
    """At how many of n trials they were last learned from scratch: later ones start there."""
    return n if n <= 20 else 20 * 2 ** int(math.log2(n / 20))


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of the history, and the columns that vary among them, as indices. key: its name in caches."""

    key: Hashable
    rows: Floats
    columns: Floats

    @classmethod
    def whole(cls, arrays: Arrays) -> "Part":
        n, d = arrays.U.shape
        return cls("all", np.arange(n), np.arange(d))


@dataclass(frozen=True, slots=True)
class Learned:
    """theta (d + 4,): hyper-parameters of the process. pressure: of its outputs. warp: of its inputs."""

    theta: Floats
    pressure: float = 0.0
    warp: Warp | None = None


@dataclass(slots=True)
class Fits:
    """Hyper-parameters, by what they are of. Forgotten when an earlier tell was replaced. warp: whether inputs are."""

    gp: GP
    columns: Sequence[Column]
    warp: bool = False
    _version: int = 0
    _known: dict[Hashable, tuple[int, Learned]] = field(default_factory=dict)
    _factored: dict[Hashable, tuple[int, Learned, GPPosterior]] = field(default_factory=dict)

    def at(self, version: int) -> None:
        if version != self._version:
            self._version = version
            self._known.clear()
            self._factored.clear()

    def of(self, part: Part) -> list[Column]:
        return [self.columns[j] for j in part.columns]

    def loss(self, part: Part, what: Hashable, X: Floats, y: Floats, noise: Floats) -> Learned:
        """Of losses y, by their evidence; noise: standard errors."""

        columns = self.of(part)

        def seen(count: int) -> tuple[Floats, Floats, Floats]:
            some = telling(y[:count], _LEARNED_FROM)
            return X[some], y[some], noise[some]

        def chosen(count: int) -> Learned:
            Z, losses, errors = seen(count)
            score, outputs, theta = learned(self.gp, Z, losses, columns, errors)
            if self.warp and count >= _WARPED_FROM:
                known = (outputs.slope(losses) * errors) ** 2
                new, warp, warped = self.gp.learn_warp(Z, outputs(losses), columns, known, theta)
                if warped + outputs.log_jacobian(losses) > score + _WARP_GAINS:
                    return Learned(new, outputs.pressure, warp)
            return Learned(theta, outputs.pressure)

        def refined(count: int, old: Learned) -> Learned:
            Z, losses, errors = seen(count)
            outputs = Outputs.of(losses, old.pressure)
            known = (outputs.slope(losses) * errors) ** 2
            Z = Z if old.warp is None else old.warp(Z)
            theta, _ = self.gp.learn(Z, outputs(losses), columns, known, old.theta, _REFINED)
            return Learned(theta, old.pressure, old.warp)

        return self._cached(part, what, len(y), chosen, refined)

    def plain(self, part: Part, what: Hashable, X: Floats, y: Floats) -> Learned:
        """Of values that are used as they are."""

        def made(count: int, start: Floats | None = None, steps: int | None = None) -> Learned:
            some = telling(y[:count], _LEARNED_FROM)
            return Learned(self.gp.learn(X[some], y[some], self.of(part), 0.0, start, steps)[0])

        return self._cached(part, what, len(y), made, lambda n, old: made(n, old.theta, _REFINED))

    def _cached(
        self,
        part: Part,
        what: Hashable,
        n: int,
        learned: Callable[[int], Learned],
        refined: Callable[[int, Learned], Learned],
    ) -> Learned:
        """Learned from scratch at a few counts of trials, refined from there at more: a function of the data alone."""
        base = self._at((part.key, what, False), anew(n), learned)
        if schedule(n) == anew(n):
            return base
        return self._at((part.key, what, True), schedule(n), lambda count: refined(count, base))

    def process(self, part: Part, what: Hashable, learned: Learned, X: Floats, y: Floats) -> GPPosterior:
        """The process given X (n, d) and y (n,), in the order of their tells. Factored where hyper-parameters are
        learned, and extended from there by a block update: so it costs O(n^2), and depends on the data alone."""
        begin = schedule(len(y))
        old = self._factored.get((part.key, what))
        if old is None or old[0] != begin or old[1] is not learned:
            made = self.gp.posterior(learned.theta, X[:begin], y[:begin], self.of(part), 0.0, learned.warp)
            old = (begin, learned, made)
            self._factored[part.key, what] = old
        base = old[2].revalued(y[:begin])
        return base.condition(X[begin:], y[begin:]) if begin < len(y) else base

    def _at(self, key: Hashable, count: int, make: Callable[[int], Learned]) -> Learned:
        old = self._known.get(key)
        if old is None or old[0] != count:
            old = self._known[key] = (count, make(count))
        return old[1]


@dataclass(frozen=True, slots=True)
class Loss:
    """One objective. values (n,): its losses as the process sees them, of which `feasible` (n,) count. best: the lowest
    of those; under noise half-way from the luckiest to the lowest mean, which explores more than the mean does (on
    seven noisy functions the regret was halved); inf where none is feasible."""

    process: GPPosterior
    outputs: Outputs
    values: Floats
    feasible: Floats
    best: float
    noisy: bool


@dataclass(frozen=True, slots=True)
class Chance:
    """A process that says where something holds."""

    process: GPPosterior
    value: Callable[[Floats, Floats], Valued]


_MOST_CAREFUL = 6
_NOISY = 0.01  # variance of the noise, as a share of the losses', from which the mean and not the luckiest counts


@dataclass(frozen=True, slots=True)
class Belief:
    """caution: how many times the chances count; more after failures in a row, lest the search stays where it fails."""

    part: Part
    losses: tuple[Loss, ...]
    chances: tuple[Chance, ...]
    caution: float = 1.0

    def view(self, U: Floats) -> Floats:
        result: Floats = U[..., self.part.columns]
        return result

    def log_chance(self, U: Floats) -> Floats:
        """(m,): log-probability that nothing fails and all constraints hold."""
        total, Z = np.zeros(len(U)), self.view(U)
        for chance in self.chances:
            total += self.caution * chance.value(*chance.process.predict(Z))[0]
        return total


def believe(fits: Fits, part: Part, arrays: Arrays) -> Belief:
    """Processes for all that the rows of a part can tell. No losses are known: `losses` is empty."""
    U = arrays.U[part.rows][:, part.columns]
    failure = [arrays.failure[i] for i in part.rows]
    chances = [_spared(fits, part, U, failure, kind) for kind in classes(failure)]
    caution = 1.0 + min(_in_a_row(arrays.failure), _MOST_CAREFUL)
    excess = arrays.excess[part.rows]
    for c in range(excess.shape[1]):
        known = np.isfinite(excess[:, c])
        if known.sum() >= 2:
            chances.append(_within(fits, part, U[known], excess[known, c], c))
    known = arrays.known[part.rows]
    exact = known & ~(arrays.censored[part.rows] != 0).any(axis=1)
    if exact.sum() < 2:
        return Belief(part, (), tuple(chances), caution)
    feasible = arrays.feasible[part.rows]
    losses = tuple(
        _loss(fits, part, k, U, arrays.losses[part.rows, k], arrays.noise[part.rows, k],
              arrays.censored[part.rows, k], known, feasible)
        for k in range(arrays.losses.shape[1])
    )  # fmt: skip
    return Belief(part, losses, tuple(chances), caution)


def _in_a_row(failure: Sequence[str]) -> int:
    """How many of the last trials failed, back to the last that did not."""
    return next((i for i, kind in enumerate(reversed(failure)) if not kind), len(failure))


def _loss(
    fits: Fits,
    part: Part,
    k: int,
    U: Floats,
    y: Floats,
    noise: Floats,
    censored: Floats,
    known: Floats,
    feasible: Floats,
) -> Loss:
    columns = fits.of(part)
    X, losses, errors, bounds = U[known], y[known], np.nan_to_num(noise[known]), censored[known]
    exact = bounds == 0
    learned = fits.loss(part, ("loss", k), X[exact], losses[exact], errors[exact])
    outputs = Outputs.of(losses[exact], learned.pressure)
    values, variances = outputs(losses), (outputs.slope(losses) * errors) ** 2
    if not exact.all():
        process = fits.gp.posterior(learned.theta, X[exact], values[exact], columns, variances[exact], learned.warp)
        values = imputed(process, X, values, bounds)
    held = feasible[known]
    best = float(values[held].min()) if held.any() else math.inf
    whole = len(values) <= _MOST and not variances.any()
    if whole:
        process = fits.process(part, ("loss", k), learned, X, values)
    else:  # what the process is given may differ between objectives; values and held do not
        kept = _nearest(X, values, held) if len(values) > _MOST else np.arange(len(values))
        process = fits.gp.posterior(learned.theta, X[kept], values[kept], columns, variances[kept], learned.warp)
    noisy = process.noise > _NOISY or bool(np.median(variances) > _NOISY)
    if noisy and held.any():
        means = process.smoothed()[held] if whole else process.predict(X[held])[0]
        best = 0.5 * (best + float(means.min()))
    return Loss(process, outputs, values, held, best, noisy)


def _nearest(X: Floats, values: Floats, feasible: Floats) -> Floats:
    """Indices of the points that matter for the next proposal: the best, the latest, those nearest to the best."""
    order = np.argsort(np.where(feasible, values, np.inf), kind="stable")
    gap = np.nan_to_num(np.abs(X - X[order[0]]), nan=0.5)
    near = np.argsort((gap**2).sum(axis=1), kind="stable")
    kept = dict.fromkeys([*order[:_BEST].tolist(), *range(len(X) - _LATEST, len(X))])
    for i in near.tolist():
        if len(kept) >= _MOST:
            break
        kept[i] = None
    return np.array(sorted(kept))


def _spared(fits: Fits, part: Part, X: Floats, failure: Sequence[str], kind: str) -> Chance:
    y = labels(failure, kind)
    return Chance(_latest(fits, part, ("failure", kind), X, y), log_spared)


def _latest(fits: Fits, part: Part, what: Hashable, X: Floats, y: Floats) -> GPPosterior:
    learned = fits.plain(part, what, X, y)
    if len(y) <= _MOST:
        return fits.process(part, what, learned, X, y)
    return fits.gp.posterior(learned.theta, X[-_MOST:], y[-_MOST:], fits.of(part))


def _within(fits: Fits, part: Part, X: Floats, excess: Floats, c: int) -> Chance:
    """The metric of one constraint, its distance from the bound pressed together on both sides."""
    unit = float(np.median(np.abs(excess))) or 1.0
    pressed = np.arcsinh(excess / unit)
    std = float(pressed.std()) or 1.0
    y, bound = (pressed - pressed.mean()) / std, -float(pressed.mean()) / std
    return Chance(_latest(fits, part, ("bound", c), X, y), lambda mean, std: log_within(mean, std, bound))


def log_cost(fits: Fits, part: Part, arrays: Arrays) -> GPPosterior | None:
    """The logarithm of what a trial costs, where that is known of two trials at least."""
    rows = part.rows[np.isfinite(arrays.cost[part.rows]) & (arrays.cost[part.rows] > 0.0)][-_MOST:]
    if len(rows) < 2:
        return None
    X, y = arrays.U[rows][:, part.columns], np.log(arrays.cost[rows])
    return fits.gp.posterior(fits.plain(part, "cost", X, y).theta, X, y, fits.of(part))
