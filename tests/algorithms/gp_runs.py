"""Asking and telling a Gaussian-process search by hand: what its tests share."""

from collections.abc import Callable, Sequence

import numpy as np

from fettle.algorithms.gp_bo import GPBO, GaussianProcessSearch
from fettle.core.space import Categorical, Choice, Float, Int, Params, Space
from fettle.core.trial import Objective, State, Trial, outcome

LOSS = (Objective("loss"),)
BOX = Space({f"x{i}": Float(0, 1) for i in range(4)})
PLANE = Space(x=Float(0, 1), y=Float(0, 1))
TREE = Space(
    lr=Float(1e-4, 1, log=True),
    n=Int(1, 9),
    kind=Choice(a=Space(s=Float(0, 1), w=Categorical(["p", "q", "r"])), b=Space(t=Float(0, 1)), c=Space()),
)
WORDS = Space(a=Categorical(list("pqrs")), b=Categorical(list("uvw")), c=Categorical([True, False]))


def build(space: Space, *, seed: int = 0, goals=LOSS, constraints=(), budget: int | None = None, **settings):
    return GPBO(**settings).build(space, goals, constraints, seed, budget)


def ask(algorithm: GaussianProcessSearch, number: int, n: int = 1, pending: Sequence[Params] = (), seed: int = 0):
    return algorithm.ask(n, number, list(pending), np.random.default_rng([seed, number]))


def tell(
    algorithm: GaussianProcessSearch,
    number: int,
    params: Params,
    state: State = State.COMPLETE,
    *,
    goals=LOSS,
    constraints=(),
    intervals=None,
    failure: str = "oom",
    timings=None,
    **metrics: float,
) -> Trial:
    failure = failure if state is State.FAILED else ""
    trial = Trial(
        number, params, state, metrics=metrics, intervals=intervals or {}, failure=failure, timings=timings or {}
    )
    algorithm.tell(trial, outcome(trial, goals, constraints))
    return trial


def bowl(params: Params) -> float:
    return sum((float(v) - 0.3) ** 2 for v in params.values() if isinstance(v, float)) + 0.1 * (
        params.get("kind") == "b"
    )


def run(algorithm: GaussianProcessSearch, n: int, f: Callable[[Params], float] = bowl, seed: int = 0) -> list[Params]:
    found = []
    for number in range(n):
        (proposal,) = ask(algorithm, number, seed=seed)
        found.append(proposal.params)
        tell(algorithm, number, proposal.params, loss=f(proposal.params))
    return found
