"""Where a worth is largest in a part of the unit cube: good candidates, then steps uphill in numbers and in words."""

from typing import TYPE_CHECKING

import numpy as np

from fettle.algorithms.cube import Cube, Held
from fettle.algorithms.worth import VolumeWorth, Worth

if TYPE_CHECKING:
    from numpy.random import Generator

Floats = np.ndarray
DRAWN, AROUND = 128, 120  # candidates: all over the part, and near good points
_STARTS = 2  # candidates that are climbed from
_APART = 0.08  # in some column, between two starts
_STEPS = 15
_TURNS = 2  # of steps in numbers, then in words
_ROUNDS, _SHOTS = 3, 40  # without slopes: rounds of random steps, ever smaller


def candidates(cube: Cube, good: Floats, rng: "Generator", held: Held) -> Floats:
    """Allowed points of the part: (m, d), m >= 1 unless known constraints refuse them all."""
    if cube.space.only is not None:  # too many to be enumerated
        listed = cube.space.listed_cube
        some: Floats = listed[rng.integers(len(listed), size=20 * (DRAWN + AROUND))]
        return some[cube.within(some, held)]
    parts = [cube.drawn(DRAWN, rng, held)]
    if len(good):
        parts.append(cube.around(good, AROUND, rng, held))
    U: Floats = np.concatenate(parts)
    return U[cube.allowed(U)]


def climbed(worth: Worth | VolumeWorth, cube: Cube, U: Floats, rng: "Generator", held: Held) -> Floats:
    """The candidates U (m, d) and the tops that were reached from the best of them, by falling worth."""
    values = worth(U)
    order = np.argsort(-values, kind="stable")
    starts, left = [U[order[0]]], U[order[1:200]]
    while len(starts) < _STARTS and len(left := left[_gaps(left, starts[-1]) > _APART]):
        starts.append(left[0])
    tops = [_uphill(worth, cube, u, rng, held) for u in starts] if cube.space.only is None else []
    points = np.concatenate([np.array(tops).reshape(-1, cube.d), U[order]])
    heights = np.concatenate([worth(points[: len(tops)]) if tops else np.empty(0), values[order]])
    result: Floats = points[np.argsort(-heights, kind="stable")]
    return result


def _gaps(U: Floats, u: Floats) -> Floats:
    """(m,): how far the rows of U are from u in some column; inactive is far from all that is active."""
    gap: Floats = np.abs(np.where(np.isnan(U), 2.0, U) - np.where(np.isnan(u), 2.0, u))
    return gap.max(axis=1, initial=0.0)


def _uphill(worth: Worth | VolumeWorth, cube: Cube, u: Floats, rng: "Generator", held: Held) -> Floats:
    height = float(worth(u[None])[0])
    for _ in range(_TURNS):
        before = height
        for step in (_along_slopes if isinstance(worth, Worth) else _by_chance, _by_neighbours):
            v = step(worth, cube, u, rng, held)
            if v is not None and (there := float(worth(v[None])[0])) > height:
                u, height = v, there
        if height == before or cube.smooth.all():
            break
    return u


def _along_slopes(worth: Worth | VolumeWorth, cube: Cube, u: Floats, rng: "Generator", held: Held) -> Floats | None:
    """The numbers by quasi-Newton steps, the rest as it is."""
    from scipy.optimize import minimize

    assert isinstance(worth, Worth)
    free = np.flatnonzero(cube.smooth & ~np.isnan(u))
    if not len(free):
        return None

    def down(x: Floats) -> tuple[float, Floats]:
        v = u.copy()
        v[free] = x
        value, gradient = worth.slopes(v)
        return -value, -gradient[free]

    bounds = [(0.0, 1.0)] * len(free)
    found = minimize(
        down, u[free], jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS, "maxfun": 2 * _STEPS}
    )
    v = u.copy()
    v[free] = np.clip(found.x, 0.0, 1.0)
    return v if cube.allowed(v[None])[0] else None


def _by_chance(worth: Worth | VolumeWorth, cube: Cube, u: Floats, rng: "Generator", held: Held) -> Floats | None:
    free = cube.smooth & ~np.isnan(u)
    if not free.any():
        return None
    best, height = u, float(worth(u[None])[0])
    for turn in range(_ROUNDS):
        size = 0.1 * 0.3**turn
        V = np.clip(best + size * free * rng.standard_normal((_SHOTS, cube.d)), 0.0, 1.0)
        V = V[cube.allowed(V)]
        if len(V) and (values := worth(V)).max() > height:
            best, height = V[int(np.argmax(values))], float(values.max())
    return best


def _by_neighbours(worth: Worth | VolumeWorth, cube: Cube, u: Floats, rng: "Generator", held: Held) -> Floats | None:
    V = cube.neighbours(u, rng, held)
    V = V[cube.allowed(V)]
    return V[int(np.argmax(worth(V)))] if len(V) else None
