"""Which params are used up: the rule against duplicates, shared by all algorithms."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

from fettle.core.errors import Exhausted
from fettle.core.space import Params, Space

if TYPE_CHECKING:
    from numpy.random import Generator

_TRIES = 20


class Used:
    """Keys of all told params of the space. In finite spaces nothing is given out twice.

    Spaces of unknown size (infinite, or too large to count under constraints) avoid duplicates as well as
    `_TRIES` draws can.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.keys: set[Hashable] = set()
        self._left: list[Params] | None = None  # cache: unused params, once draws begin to miss them

    def add(self, params: Params) -> None:
        """Params outside the space (a baseline may be) use up nothing."""
        if self.space.size is None or self.space.contains(params):
            self.keys.add(self.space.key(params))

    def pending(self, pending: Iterable[Params]) -> set[Hashable]:
        finite = self.space.size is not None
        return {self.space.key(params) for params in pending if not finite or self.space.contains(params)}

    def fresh(self, n: int, pending: Sequence[Params], rng: "Generator", draw: Callable[[int], Params]) -> list[Params]:
        """Up to n unused params from draw(attempt); raises Exhausted when none is left."""
        busy = self.pending(pending)
        found: list[Params] = []
        while len(found) < n and (params := self._one(busy, rng, draw)) is not None:
            busy.add(self.space.key(params))
            found.append(params)
        if n and not found:
            raise Exhausted(f"all {self.space.size} params of the space have been proposed")
        return found

    def _one(self, busy: set[Hashable], rng: "Generator", draw: Callable[[int], Params]) -> Params | None:
        size, key = self.space.size, self.space.key
        if size is not None and len(self.keys) + sum(k not in self.keys for k in busy) >= size:
            return None
        for attempt in range(_TRIES):
            params = draw(attempt)
            if (k := key(params)) not in self.keys and k not in busy:
                return params
        if size is None:
            return params
        # nearly used up: pick from what is left, in the space's own order
        pool = self.space.enumerate() if self._left is None else self._left
        self._left = [p for p in pool if key(p) not in self.keys]
        free = [p for p in self._left if key(p) not in busy]
        return dict(free[int(rng.integers(len(free)))])
