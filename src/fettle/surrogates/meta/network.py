"""A multilayer perceptron of two hidden layers, its gradient, and its products with the Hessian; NumPy alone."""

from dataclasses import dataclass

import numpy as np

Floats = np.ndarray
_STEP = 1e-4  # of the central difference in a product with the Hessian


@dataclass(frozen=True, slots=True)
class Network:
    """Tanh layers of `width`; weights are one flat vector. Loss: mean squared error."""

    inputs: int
    width: int = 128

    @property
    def size(self) -> int:
        return self.width * (self.inputs + self.width + 3) + 1

    def start(self, rng: np.random.Generator) -> Floats:
        """Glorot & Bengio 2010."""
        d, w = self.inputs, self.width
        parts = [
            rng.standard_normal((d, w)) * np.sqrt(2.0 / (d + w)), np.zeros(w),
            rng.standard_normal((w, w)) * np.sqrt(1.0 / w), np.zeros(w),
            rng.standard_normal(w) * np.sqrt(1.0 / w), np.zeros(1),
        ]  # fmt: skip
        return np.concatenate([part.ravel() for part in parts])

    def _split(self, theta: Floats) -> tuple[Floats, ...]:
        d, w = self.inputs, self.width
        at = np.cumsum([d * w, w, w * w, w, w])
        A, a, B, b, c, e = np.split(theta, at)
        return A.reshape(d, w), a, B.reshape(w, w), b, c, e

    def __call__(self, theta: Floats, X: Floats) -> Floats:
        """X (n, inputs) -> (n,)."""
        A, a, B, b, c, e = self._split(theta)
        result: Floats = np.tanh(np.tanh(X @ A + a) @ B + b) @ c + e[0]
        return result

    def gradient(self, theta: Floats, X: Floats, y: Floats) -> tuple[float, Floats]:
        """Mean squared error at X (n, inputs), y (n,), and its gradient by theta."""
        A, a, B, b, c, e = self._split(theta)
        first = np.tanh(X @ A + a)
        second = np.tanh(first @ B + b)
        off = second @ c + e[0] - y
        by_out = 2.0 * off / len(y)
        by_second = np.outer(by_out, c) * (1.0 - second * second)
        by_first = (by_second @ B.T) * (1.0 - first * first)
        parts = (
            X.T @ by_first,
            by_first.sum(0),
            first.T @ by_second,
            by_second.sum(0),
            second.T @ by_out,
            by_out.sum(),
        )
        return float(np.mean(off * off)), np.concatenate([np.ravel(part) for part in parts])

    def hessian_product(self, theta: Floats, X: Floats, y: Floats, v: Floats) -> Floats:
        """H v by a central difference of gradients."""
        length = float(np.linalg.norm(v))
        if length == 0.0:
            return v
        step = _STEP / length * max(1.0, float(np.linalg.norm(theta))) ** 0.5
        ahead, behind = (self.gradient(theta + side * step * v, X, y)[1] for side in (1.0, -1.0))
        result: Floats = (ahead - behind) / (2.0 * step)
        return result

    def adapted(self, theta: Floats, X: Floats, y: Floats, rate: float, steps: int) -> list[Floats]:
        """theta, and what it becomes in each of the steps of gradient descent."""
        path = [theta]
        for _ in range(steps if len(y) else 0):
            path.append(path[-1] - rate * self.gradient(path[-1], X, y)[1])
        return path
