"""A batch of proposals, one by one: each is made as if those before it were pending."""

from collections.abc import Callable, Sequence

from fettle.core.errors import Exhausted
from fettle.core.protocols import Proposal
from fettle.core.space import Params


def one_by_one(
    n: int, number: int, pending: Sequence[Params], one: Callable[[int, Sequence[Params]], Proposal]
) -> list[Proposal]:
    """Up to n proposals of one(trial number, what is pending then); raises Exhausted where there is not even one."""
    made: list[Proposal] = []
    while len(made) < n:
        try:
            made.append(one(number + len(made), [*pending, *(p.params for p in made)]))
        except Exhausted:
            if not made:
                raise
            break
    return made
