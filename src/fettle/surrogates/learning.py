"""Learning a process of losses: the transform of its outputs and its hyper-parameters, from some of many points."""

from collections.abc import Sequence

import numpy as np

from fettle.core.domains import Column
from fettle.surrogates.gp import GP
from fettle.surrogates.outputs import PRESSURES, Outputs

Floats = np.ndarray


def telling(losses: Floats, most: int) -> Floats:
    """Indices (at most `most`, rising): half of them of the lowest losses, the others at equal steps."""
    if len(losses) <= most:
        return np.arange(len(losses))
    order, n_best = np.argsort(losses, kind="stable"), most // 2
    best, rest = order[:n_best], order[n_best:]
    return np.sort(np.concatenate([best, rest[:: -(-len(rest) // (most - n_best))]]))


def learned(
    gp: GP, X: Floats, losses: Floats, columns: Sequence[Column], errors: Floats
) -> tuple[float, Outputs, Floats]:
    """X (n, d); losses, standard errors (n,) -> the highest log-density of the losses, and the transform and theta that
    give it."""
    best: tuple[float, Outputs, Floats] | None = None
    for pressure in PRESSURES:
        outputs = Outputs.of(losses, pressure)
        known = (outputs.slope(losses) * errors) ** 2
        theta, score = gp.learn(X, outputs(losses), columns, known, None if best is None else best[2])
        score += outputs.log_jacobian(losses)
        if best is None or score > best[0]:
            best = score, outputs, theta
    assert best is not None
    return best
