"""The meta-learners by name. Each learns one metric from the tasks, and is then given the points of a new task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fettle.core.domains import Column
from fettle.surrogates.meta.anchors import Anchors, Sample
from fettle.surrogates.meta.ensembles import RGPE, Nearest, Parametric, Static
from fettle.surrogates.meta.maml import Networks
from fettle.surrogates.meta.prior_gp import Hyper, PriorGP
from fettle.surrogates.meta.similarity import Likeness, tilted

if TYPE_CHECKING:
    from numpy.random import Generator

Floats = np.ndarray
Arrays = dict[str, Floats]


class Fitted(Protocol):
    """credit: how far the tasks are trusted after the points given, in [0, 1]. noise: standard deviation of a
    measurement about the function, where that is not in the predicted one."""

    @property
    def credit(self) -> float: ...
    @property
    def noise(self) -> float: ...

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
        self, samples: Sequence[Sample], anchors: Anchors, hyper: Hyper, columns: Sequence[Column], rng: "Generator"
    ) -> Arrays: ...
    def restore(self, arrays: Mapping[str, Floats], columns: Sequence[Column], likeness: Likeness) -> Learned: ...


@dataclass(frozen=True, slots=True)
class OnAnchors:
    """Methods that work on the tasks' mean and deviations at common points."""

    make: Callable[[Anchors, Hyper, Sequence[Column]], Learned]

    def learn(
        self, samples: Sequence[Sample], anchors: Anchors, hyper: Hyper, columns: Sequence[Column], rng: "Generator"
    ) -> Arrays:
        return {
            "A": anchors.A, "mean": anchors.mean, "R": anchors.R, "levels": anchors.levels, "units": anchors.units,
            "theta": anchors.theta, "known": anchors.known, "weights": hyper.weights,
            "hyper": np.array([hyper.noise, hyper.unit, hyper.unit_sd, hyper.fit, hyper.unlike, hyper.skill]),
        }  # fmt: skip

    def restore(self, arrays: Mapping[str, Floats], columns: Sequence[Column], likeness: Likeness) -> Learned:
        names = ("A", "mean", "R", "levels", "units", "theta", "known")
        noise, *rest = arrays["hyper"].tolist()
        parts: dict[str, Any] = {name: arrays[name] for name in names}
        anchors = tilted(Anchors(**parts), likeness)
        return self.make(anchors, Hyper(arrays["weights"], noise, *rest), columns)


METHODS: Mapping[str, Method] = {
    "prior_gp": OnAnchors(PriorGP),
    "rgpe": OnAnchors(RGPE),
    "static": OnAnchors(Static),
    "nearest": OnAnchors(Nearest),
    "parametric": OnAnchors(Parametric),
    "maml": Networks(order=2),
    "maml_first_order": Networks(order=1),
    "fine_tuning": Networks(order=0),
}
