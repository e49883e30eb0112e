"""Dominance, fronts and hypervolume; everything is minimised."""

from collections.abc import Sequence

import numpy as np


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """a is nowhere worse than b and somewhere better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def front(losses: np.ndarray) -> np.ndarray:
    """losses (n, k) -> indices of the points that no other dominates, in input order; equal points all stay."""
    Y = np.asarray(losses, dtype=float)
    if len(Y) == 0:
        return np.empty(0, dtype=int)
    left, kept = np.lexsort(Y.T[::-1]), []
    while len(left):  # nothing dominates the lexicographically first of what is left
        y = Y[left[0]]
        kept.append(left[0])
        left = left[1:][~_dominated(Y[left[1:]], y)]
    return np.sort(np.array(kept, dtype=int))


def _dominated(Y: np.ndarray, y: np.ndarray) -> np.ndarray:
    dominated: np.ndarray = np.all(y <= Y, axis=1) & np.any(y < Y, axis=1)
    return dominated


def hypervolume(losses: np.ndarray, reference: Sequence[float]) -> float:
    """Volume that the points (n, k) dominate below `reference` (k,).

    Exact, by slicing along the last objective (HSO; While et al. 2006, doi:10.1109/TEVC.2005.851275).
    """
    r = np.asarray(reference, dtype=float)
    Y = np.asarray(losses, dtype=float).reshape(-1, len(r))
    Y = Y[np.all(r > Y, axis=1)]
    return _volume(Y[front(Y)], r) if len(Y) else 0.0


def _volume(Y: np.ndarray, r: np.ndarray) -> float:
    if Y.shape[1] == 1:
        return float(r[0] - Y.min())
    Y = Y[np.argsort(Y[:, -1], kind="stable")]
    if Y.shape[1] == 2:
        best = np.minimum.accumulate(Y[:, 0])
        return float(np.sum((r[0] - best) * (np.append(Y[1:, 1], r[1]) - Y[:, 1])))
    depths = np.append(Y[1:, -1], r[-1]) - Y[:, -1]
    total = 0.0
    for i, depth in enumerate(depths):
        if depth > 0:
            slab = Y[: i + 1, :-1]
            total += depth * _volume(slab[front(slab)], r[:-1])
    return total
