"""Nevergrad's NGOpt on nested `ng.p.Choice` and `ng.p.Dict`; it is told the budget, on which its choice depends.

Constraints are told as `constraint_violation`, failures as a loss worse than all seen. Ordinals are transition
choices. A listed space is searched by its parameters, the nearest listed point is evaluated.
"""

import warnings

import nevergrad as ng
import numpy as np

from fettle.core.domains import Domain
from fettle.core.space import Choice, Float, Int, Ordinal, Params, Space
from fettle.problems.synthetic import Synthetic
from peers import Single, Told, nearest

_BRANCH = "="  # no parameter's name
warnings.filterwarnings("ignore", module="nevergrad")
warnings.filterwarnings("ignore", module="cma")


class NGOpt:
    def __init__(self, problem: Synthetic, budget: int) -> None:
        self.problem = problem
        parametrization = _dict(problem.space)
        parametrization.random_state = np.random.RandomState(problem.seed)
        self.optimizer = ng.optimizers.NGOpt(parametrization=parametrization, budget=budget)
        self.single = Single()

    def _params(self, value: dict[str, object]) -> Params:
        flat: Params = {}
        _flatten(self.problem.space, value, "", flat)
        return nearest(self.problem.space, flat)

    def ask(self) -> Params:
        self.candidate = self.optimizer.ask()
        self.asked = self._params(self.candidate.value)
        return self.asked

    def tell(self, told: Told) -> None:
        penalised = self.single(told, self.asked)
        if told.losses is None or not told.excess:
            self.optimizer.tell(self.candidate, penalised)
        else:
            self.optimizer.tell(self.candidate, told.losses[0], constraint_violation=list(told.excess))

    def answer(self) -> Params | None:
        return self._params(self.optimizer.provide_recommendation().value)


def _dict(space: Space, **more: object) -> ng.p.Dict:
    return ng.p.Dict(**{name: _node(domain) for name, domain in space.domains.items()}, **more)  # type: ignore[arg-type]


def _node(domain: Domain) -> object:
    if isinstance(domain, Float | Int):
        if domain.log:
            made = ng.p.Log(lower=domain.low, upper=domain.high)
        else:
            made = ng.p.Scalar(lower=domain.low, upper=domain.high) if domain.low < domain.high else domain.low
        return made.set_integer_casting() if isinstance(domain, Int) and domain.low < domain.high else made
    if isinstance(domain, Ordinal):
        return ng.p.TransitionChoice(list(domain.values()))
    if isinstance(domain, Choice):
        return ng.p.Choice([_dict(inner, **{_BRANCH: name}) for name, inner in domain.items])
    return ng.p.Choice(list(domain.values()))


def _flatten(space: Space, value: dict[str, object], prefix: str, flat: Params) -> None:
    for name, domain in space.domains.items():
        got, label = value[name], f"{prefix}{name}"
        if isinstance(domain, Choice):
            branch = got[_BRANCH]  # type: ignore[index]
            flat[label] = branch
            _flatten(domain.branches[branch], got, f"{label}.{branch}.", flat)  # type: ignore[arg-type]
        elif isinstance(domain, Int):
            steps = round((float(got) - domain.low) / domain.step)  # type: ignore[arg-type]
            flat[label] = domain.low + domain.step * min(domain.size - 1, max(0, steps))
        elif isinstance(domain, Float):
            flat[label] = min(domain.high, max(domain.low, float(got)))  # type: ignore[arg-type]
        else:
            flat[label] = got
