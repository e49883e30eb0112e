"""Hyperopt's TPE on a tree of `hp.choice`; failures are told as STATUS_FAIL, broken constraints as a penalty.

Integers are `uniformint` (or `qloguniform` with step 1), ordinals integer indices. `fmin`'s loop is unrolled, so that
asking and telling can be timed; a listed space is searched by its parameters, the nearest listed point is evaluated.
"""

import logging
import math

import numpy as np
from hyperopt import JOB_STATE_DONE, STATUS_FAIL, STATUS_OK, Trials, hp, space_eval, tpe
from hyperopt.base import Domain as HyperoptDomain

from fettle.core.domains import Domain
from fettle.core.space import Choice, Float, Int, Ordinal, Params, Space
from fettle.problems.synthetic import Synthetic
from peers import Single, Told, nearest

logging.getLogger("hyperopt").setLevel(logging.ERROR)


class HyperoptTPE:
    def __init__(self, problem: Synthetic, budget: int) -> None:
        self.problem = problem
        self.tree = _tree(problem.space, "")
        self.domain = HyperoptDomain(lambda params: 0.0, self.tree)
        self.trials, self.rng = Trials(), np.random.default_rng(problem.seed)
        self.single, self.params = Single(), dict[int, Params]()

    def ask(self) -> Params:
        self.trials.refresh()
        (number,) = self.trials.new_trial_ids(1)
        seed = int(self.rng.integers(2**31 - 1))
        (self.doc,) = tpe.suggest([number], self.domain, self.trials, seed, verbose=False)
        point = {label: values[0] for label, values in self.doc["misc"]["vals"].items() if values}
        flat: Params = {}
        _flatten(self.problem.space, space_eval(self.tree, point), "", flat)
        self.asked = self.params[number] = nearest(self.problem.space, flat)
        return self.asked

    def tell(self, told: Told) -> None:
        loss = self.single(told, self.asked)
        failed = {"status": STATUS_FAIL}
        self.doc["result"] = failed if told.losses is None else {"status": STATUS_OK, "loss": loss}
        self.doc["state"] = JOB_STATE_DONE
        self.trials.insert_trial_docs([self.doc])
        self.trials.refresh()

    def answer(self) -> Params | None:
        if not any(result["status"] == STATUS_OK for result in self.trials.results):
            return None
        return self.params[self.trials.best_trial["tid"]]


def _tree(space: Space, prefix: str) -> dict[str, object]:
    return {name: _node(f"{prefix}{name}", domain) for name, domain in space.domains.items()}  # type: ignore[arg-type]


def _node(label: str, domain: Domain) -> object:
    if isinstance(domain, Float):
        if domain.log:
            return hp.loguniform(label, math.log(domain.low), math.log(domain.high))
        return hp.uniform(label, domain.low, domain.high)
    if isinstance(domain, Int) and domain.log:
        return hp.qloguniform(
            label, math.log(domain.low - 0.5 if domain.low > 1 else 0.5), math.log(domain.high + 0.5), 1
        )
    if isinstance(domain, Int | Ordinal):
        return hp.uniformint(label, 0, domain.size - 1)
    if isinstance(domain, Choice):
        return hp.choice(label, [{"": i, **_tree(s, f"{label}.{n}.")} for i, (n, s) in enumerate(domain.items)])
    return hp.choice(label, list(domain.values()))


def _flatten(space: Space, tree: dict[str, object], prefix: str, flat: Params) -> None:
    for name, domain in space.domains.items():
        value, label = tree[name], f"{prefix}{name}"
        if isinstance(domain, Choice):
            branch, inner = domain.items[value[""]]  # type: ignore[index]
            flat[label] = branch
            _flatten(inner, value, f"{label}.{branch}.", flat)  # type: ignore[arg-type]
        elif isinstance(domain, Int):
            whole = round(value) if domain.log else domain.low + domain.step * int(value)  # type: ignore[call-overload]
            flat[label] = min(domain.high, max(domain.low, whole))
        elif isinstance(domain, Ordinal):
            flat[label] = domain.choices[int(value)]  # type: ignore[call-overload]
        elif isinstance(domain, Float):
            flat[label] = min(domain.high, max(domain.low, float(value)))  # type: ignore[arg-type]
        else:
            flat[label] = value
