"""Quasi-random search: shifted Sobol points, more even than random ones (Niederreiter 1992)."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from fettle.algorithms.sobol import Sobol
from fettle.algorithms.unused import Unused
from fettle.core.protocols import Proposal
from fettle.core.space import Space
from fettle.core.trial import Constraint, Objective, Outcome, Params, Trial

_STRIDE = 1 << 16  # from a trial's point to its next one, where the first is not allowed or used
_TRIES = 256


@dataclass(frozen=True, slots=True)
class QMC:
    """Trial i takes the i-th point, so workers that ask at once never take the same one."""

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "QuasiRandom":
        return QuasiRandom(space, seed)


class QuasiRandom:
    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._unused = Unused(space)
        self._sobol = Sobol(max(1, len(space.columns)), seed)

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: Generator) -> list[Proposal]:
        picked = self._unused.pick(n, pending, lambda i, attempt: self._point(number + i, attempt, rng))
        return [Proposal(params) for params in picked]

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self._unused.add(trial.params)

    def _point(self, number: int, attempt: int, rng: Generator) -> Params:
        space = self._space
        if space.only is not None:
            u = self._sobol.point(number + attempt * _STRIDE)[0]
            return dict(space.only[int(u * len(space.only))])
        for k in range(attempt * _TRIES, (attempt + 1) * _TRIES):
            params = space.decode(self._sobol.point(number + k * _STRIDE)[None])[0]
            if not space.conditions or space.allows(params):
                return params
            if k - attempt * _TRIES >= 16 and attempt:
                break
        return space.sample(1, rng)[0]
