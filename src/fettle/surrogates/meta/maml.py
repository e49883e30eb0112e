"""Model-agnostic meta-learning of a perceptron (Finn et al. 2017, arXiv:1703.03400), as Morphling (Wang et al. 2021,
SoCC) uses it, and the plain alternative: one network for all tasks, fine-tuned on the new one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fettle.core.domains import Column
from fettle.surrogates.kernel import unordered
from fettle.surrogates.meta.anchors import Anchors, Sample
from fettle.surrogates.meta.network import Network
from fettle.surrogates.meta.prior_gp import Hyper
from fettle.surrogates.meta.similarity import Likeness

if TYPE_CHECKING:
    from numpy.random import Generator

Floats = np.ndarray
_SHOTS = 10  # points that a task is adapted on, and as many again that it is judged by
_RATE, _INNER = 0.05, 5  # of gradient descent on the points of one task
_ADAPT = 20  # steps on the points of a new task
_OUTER, _ROUNDS, _TASKS = 1e-3, 1500, 4  # Adam over batches of tasks


@dataclass(frozen=True, slots=True)
class Networks:
    """order: 2, the paper's; 1, without second derivatives; 0, no adaptation in training (fine-tuning).
    bonus: weight of |f - f'| in the acquisition, f and f' being the network after and before its last step."""

    order: int = 2
    bonus: float = 1.0

    def learn(
        self, samples: Sequence[Sample], anchors: Anchors, hyper: Hyper, columns: Sequence[Column], rng: "Generator"
    ) -> dict[str, Floats]:
        words = unordered(columns)
        counts = np.array([1.0 + np.nanmax(anchors.A[:, j]) if word else 0.0 for j, word in enumerate(words)])
        figures = [s.level + s.unit * s.z for s in samples]
        middle = float(np.mean([y.mean() for y in figures]))
        unit = float(np.concatenate([y - middle for y in figures]).std()) or 1.0
        tasks = [(inputs(s.X, counts), (y - middle) / unit) for s, y in zip(samples, figures, strict=True)]
        network = Network(tasks[0][0].shape[1])
        theta, error = self._trained(network, tasks, rng)
        return {"theta": theta, "counts": counts, "scale": np.array([middle, unit, error])}

    def _trained(
        self, network: Network, tasks: Sequence[tuple[Floats, Floats]], rng: "Generator"
    ) -> tuple[Floats, float]:
        """Weights, and the root mean squared error after adaptation in the last tenth of the rounds."""
        theta = network.start(rng)
        first, second, errors = np.zeros_like(theta), np.zeros_like(theta), []
        for round_ in range(1, _ROUNDS + 1):
            total = np.zeros_like(theta)
            chosen = rng.permutation(len(tasks))[:_TASKS].tolist()
            for t in chosen:
                X, y = tasks[t]
                some = rng.permutation(len(y))[: 2 * _SHOTS]
                half = max(1, len(some) // 2)
                slope, error = self._slope(
                    network, theta, X[some[:half]], y[some[:half]], X[some[half:]], y[some[half:]]
                )
                total += slope / len(chosen)
                errors.append(error)
            first = 0.9 * first + 0.1 * total
            second = 0.999 * second + 0.001 * total * total
            corrected = first / (1.0 - 0.9**round_), second / (1.0 - 0.999**round_)
            theta = theta - _OUTER * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        return theta, float(np.sqrt(np.mean(errors[-len(errors) // 10 :])))

    def _slope(
        self, network: Network, theta: Floats, X: Floats, y: Floats, Q: Floats, z: Floats
    ) -> tuple[Floats, float]:
        """Gradient by theta of the loss at (Q, z) after adaptation to (X, y), and that loss."""
        if self.order == 0 or not len(z):
            error, slope = network.gradient(theta, np.vstack([X, Q]), np.concatenate([y, z]))
            return slope, error
        path = network.adapted(theta, X, y, _RATE, _INNER)
        error, slope = network.gradient(path[-1], Q, z)
        if self.order == 2:
            for before in reversed(path[:-1]):
                slope = slope - _RATE * network.hessian_product(before, X, y, slope)
        return slope, error

    def restore(self, arrays: Mapping[str, Floats], columns: Sequence[Column], likeness: Likeness) -> "LearnedNetwork":
        return LearnedNetwork(arrays["theta"], arrays["counts"], arrays["scale"], self.bonus)


def inputs(X: Floats, counts: Floats) -> Floats:
    """X (n, d) for a network: numbers about 0, 0 where absent; words as indicators."""
    parts = [
        (X[:, j : j + 1] == np.arange(int(k))).astype(float) if k else np.nan_to_num(2.0 * X[:, j : j + 1] - 1.0)
        for j, k in enumerate(counts)
    ]
    return np.concatenate([*parts, np.ones((len(X), 1))], axis=1)


@dataclass(frozen=True, slots=True)
class LearnedNetwork:
    theta: Floats
    counts: Floats
    scale: Floats
    bonus: float

    def fit(self, X: Floats, y: Floats, *, columns: Sequence[Column]) -> "AdaptedNetwork":
        middle, unit, _ = self.scale.tolist()
        known = inputs(X[:, : len(self.counts)], self.counts)
        network = Network(known.shape[1])
        path = network.adapted(self.theta, known, (y - middle) / unit, _RATE, _ADAPT)
        return AdaptedNetwork(self, network, path[-1], path[max(0, len(path) - 2)])


@dataclass(frozen=True, slots=True)
class AdaptedNetwork:
    learned: LearnedNetwork
    network: Network
    theta: Floats
    before: Floats

    @property
    def credit(self) -> float:
        return 1.0

    @property
    def noise(self) -> float:
        return 0.0

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        middle, unit, error = self.learned.scale.tolist()
        mean = middle + unit * self.network(self.theta, self._inputs(Z))
        return mean, np.hypot(self.optimism(Z), unit * error)

    def optimism(self, Z: Floats) -> Floats:
        """The paper's confidence bonus (m,), on the metric's scale."""
        rows, weight = self._inputs(Z), self.learned.bonus * self.learned.scale[1]
        result: Floats = weight * np.abs(self.network(self.theta, rows) - self.network(self.before, rows))
        return result

    def _inputs(self, Z: Floats) -> Floats:
        return inputs(Z[:, : len(self.learned.counts)], self.learned.counts)
