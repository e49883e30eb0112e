"""The unit cube of a space as model-based search walks it: real values only, parts of it, and neighbours of points."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fettle.core.space import Params, Space

if TYPE_CHECKING:
    from numpy.random import Generator

Floats = np.ndarray
Held = Mapping[int, float]  # column -> encoded value that it is held at
ENUMERATED = 50_000  # finite spaces up to this size are scored whole
_LISTED = 4096  # values of one parameter that are laid out
_WIDEST, _NARROWEST = -0.5, -2.5  # powers of ten: steps around good points
_REDRAWN = 0.3  # share of unordered values that a step draws anew


class Cube:
    """levels: by column, the places of its values in [0, 1]; None where there are (nearly) infinitely many."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.d = len(space)
        self.words = np.array([c.kind in ("categorical", "choice") for c in space.columns], bool)
        self.levels: list[Floats | None] = [
            None if c.size is None or c.size > _LISTED else c.domain.encode_many(list(c.domain.values()))
            for c in space.columns
        ]
        self.smooth = np.array([column.size is None for column in space.columns], bool)
        rows = space.listed_cube if space.only is not None else ()
        self._listed = {row.tobytes(): i for i, row in enumerate(rows)}
        self.grid: Floats | None = None
        if space.size is not None and space.size <= ENUMERATED:
            self.points = list(space.enumerate())
            self.grid = space.encode(self.points)
            self.places = {space.key(params): i for i, params in enumerate(self.points)}

    def values(self, j: int) -> Floats:
        """The places of a column's values; none where there are (nearly) infinitely many."""
        places = self.levels[j]
        return np.empty(0) if places is None else places

    def snapped(self, U: Floats) -> Floats:
        """U (m, d), without NaN, with every entry at a value of its column; NaN where that is inactive."""
        U = U.copy()
        for j, places in enumerate(self.levels):
            column = self.space.columns[j]
            if places is not None:
                i = np.clip(np.searchsorted(places, U[:, j]), 1, max(len(places) - 1, 1))
                left, right = places[i - 1], places[np.minimum(i, len(places) - 1)]
                U[:, j] = np.where(U[:, j] - left <= right - U[:, j], left, right)
            elif column.size is not None:
                U[:, j] = column.domain.encode_many(column.domain.decode_many(U[:, j]))
        U[~self.space.active(U)] = np.nan
        return U

    def held(self, U: Floats, held: Held) -> Floats:
        """U (m, d), filled, with some columns at their values; then snapped."""
        U = U.copy()
        for j, value in held.items():
            U[:, j] = value
        return self.snapped(U)

    def within(self, U: Floats, held: Held) -> Floats:
        """(m,): which rows have these values."""
        inside = np.ones(len(U), bool)
        for j, value in held.items():
            inside &= np.abs(U[:, j] - value) < 1e-9
        return inside

    def ancestors(self, j: int) -> dict[int, float]:
        """The choices that column j hangs on, at its branch."""
        found: dict[int, float] = {}
        column = self.space.columns[j]
        while column.parent is not None:
            parent = self.space.columns[column.parent]
            found[column.parent] = parent.domain.encode(column.branch)
            column = parent
        return found

    def leaves(self, most: int) -> list[dict[int, float]]:
        """All combinations of branches, each as the choices that it holds; none where they are more than `most`."""
        found: list[dict[int, float]] = [{}]
        for j, column in enumerate(self.space.columns):
            if column.kind != "choice":
                continue
            places, grown = self.levels[j], list[dict[int, float]]()
            above = self.ancestors(j)
            for leaf in found:
                here = all(leaf.get(i) == value for i, value in above.items())
                grown += [{**leaf, j: float(u)} for u in places] if here and places is not None else [leaf]
            found = grown
            if len(found) > most:
                return []
        return found if len(found) > 1 else []

    def allowed(self, U: Floats) -> Floats:
        """(m,): which rows satisfy the known constraints."""
        if not self.space.conditions and self.space.only is None:
            return np.ones(len(U), bool)
        return np.array([self.space.allows(params) for params in self.space.decode(U)], bool)

    def params(self, u: Floats) -> Params:
        """What u (d,) stands for; listed params are given as they are listed, which decoding would round."""
        if self.space.only is not None and (i := self._listed.get(u.tobytes())) is not None:
            return dict(self.space.only[i])
        return self.space.decode(u[None])[0]

    def drawn(self, n: int, rng: "Generator", held: Held) -> Floats:
        """Uniform points of a part."""
        return self.held(rng.random((n, self.d)), held)

    def around(self, U: Floats, n: int, rng: "Generator", held: Held) -> Floats:
        """n points near the rows of U, by steps of all sizes in some of the columns."""
        d = self.d
        M = np.repeat(U, -(-n // len(U)), axis=0)[:n]
        M = np.where(np.isnan(M), rng.random(M.shape), M)
        sizes = 10.0 ** rng.uniform(_NARROWEST, _WIDEST, (n, 1))
        moved = rng.random((n, d)) < np.maximum(rng.random((n, 1)), 1.5 / max(d, 1))
        redrawn = np.where(rng.random((n, d)) < _REDRAWN, rng.random((n, d)), M)
        stepped = np.where(self.words, redrawn, M + sizes * rng.standard_normal((n, d)))
        return self.held(np.clip(np.where(moved, stepped, M), 0.0, 1.0), held)

    def neighbours(self, u: Floats, rng: "Generator", held: Held) -> Floats:
        """Points that differ from u (d,) in one column of listed values: all other words, the next numbers, and one
        further away; what a new branch brings is drawn."""
        moved: list[tuple[int, float]] = []
        for j, places in enumerate(self.levels):
            if places is None or len(places) < 2 or j in held or np.isnan(u[j]):
                continue
            here = int(np.argmin(np.abs(places - u[j])))
            if self.words[j]:
                others: Sequence[int] = range(len(places))
            else:
                others = sorted({max(0, here - 1), min(len(places) - 1, here + 1), int(rng.integers(len(places)))})
            moved += [(j, float(places[i])) for i in others if i != here]
        M = np.tile(u, (len(moved), 1))
        M = np.where(np.isnan(M), rng.random(M.shape), M)
        for row, (j, value) in enumerate(moved):
            M[row, j] = value
        return self.snapped(M)
