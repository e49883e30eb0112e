"""The meta-learners by name. Each learns one metric from the tasks, and is then given the points of a new task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fettle.core.domains import Column
from fettle.surrogates.meta.anchors import Anchors, Sample
from fettle.surrogates.meta.prior_gp import Hyper, PriorGP, left_out

Floats = np.ndarray
Arrays = dict[str, Floats]


class Fitted(Protocol):
    """credit: how far the tasks are trusted after the points given, in [0, 1]."""

    credit: float

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        """Z (m, D) -> mean (m,), standard deviation (m,) on the metric's scale."""
        ...


class Learned(Protocol):
    """One metric of earlier tasks."""

    def fit(self, X: Floats, y: Floats, *, columns: Sequence[Column]) -> Fitted:
        """X (n, D) over the knobs that the tasks know, then others; y (n,) on the metric's scale; n may be 0."""
        ...


class Method(Protocol):
    """How a learner comes from samples, and from stored arrays."""

    def learn(
        self, samples: Sequence[Sample], anchors: Anchors, columns: Sequence[Column], rng: np.random.Generator
    ) -> Arrays: ...
    def restore(self, arrays: Mapping[str, Floats], columns: Sequence[Column]) -> Learned: ...


@dataclass(frozen=True, slots=True)
class OnAnchors:
    """Methods that work on the tasks' mean and deviations at common points."""

    make: Callable[[Anchors, Hyper, Sequence[Column]], Learned]

    def learn(
        self, samples: Sequence[Sample], anchors: Anchors, columns: Sequence[Column], rng: np.random.Generator
    ) -> Arrays:
        hyper = left_out(anchors, columns, rng)
        return {
            "A": anchors.A, "mean": anchors.mean, "R": anchors.R, "levels": anchors.levels, "units": anchors.units,
            "theta": anchors.theta, "known": anchors.known, "weights": hyper.weights,
            "hyper": np.array([hyper.noise, hyper.unit, hyper.unit_sd]),
        }  # fmt: skip

    def restore(self, arrays: Mapping[str, Floats], columns: Sequence[Column]) -> Learned:
        names = ("A", "mean", "R", "levels", "units", "theta", "known")
        noise, unit, unit_sd = arrays["hyper"].tolist()
        anchors = Anchors(*(arrays[name] for name in names))
        return self.make(anchors, Hyper(arrays["weights"], noise, unit, unit_sd), columns)


METHODS: Mapping[str, Any] = {
    "prior_gp": OnAnchors(PriorGP),
}
