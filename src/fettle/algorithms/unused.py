"""The rule against duplicates, shared by the algorithms: in a finite space no point is proposed twice."""

from collections.abc import Callable, Hashable, Sequence

from fettle.core.errors import Exhausted
from fettle.core.space import Space
from fettle.core.trial import Params

_TRIES = 64  # draws before the remaining points are enumerated


class Unused:
    """Remembers what was told of a finite space; costs nothing in an infinite one."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.finite = space.only is not None or space.raw_size is not None
        self.told: set[Hashable] = set()

    def add(self, params: Params) -> None:
        if self.finite:
            self.told.add(self.space.key(params))

    def pick(self, n: int, pending: Sequence[Params], draw: Callable[[int, int], Params]) -> list[Params]:
        """Up to n unused params. draw(i, attempt) suggests the i-th one; where it keeps suggesting used ones,
        the first unused point in the space's own order is taken. Raises Exhausted when none is left."""
        if not self.finite:
            return [draw(i, 0) for i in range(n)]
        used = {self.space.key(p) for p in pending}
        picked: list[Params] = []
        for i in range(n):
            params = self._one(i, used, draw)
            if params is None:
                break
            used.add(self.space.key(params))
            picked.append(params)
        if not picked:
            raise Exhausted(
                f"every point of the space has been proposed ({len(self.told | used)})",
                "widen the space, or stop here: this search is complete",
            )
        return picked

    def _one(self, i: int, used: set[Hashable], draw: Callable[[int, int], Params]) -> Params | None:
        key, told = self.space.key, self.told
        size = self.space.size
        if size is None or len(told) + len(used) < size:
            for attempt in range(_TRIES):
                params = draw(i, attempt)
                if (k := key(params)) not in told and k not in used:
                    return params
        return next((p for p in self.space.enumerate() if (k := key(p)) not in told and k not in used), None)
