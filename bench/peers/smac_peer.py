"""SMAC3's hyper-parameter facade (random forest, log EI) on a ConfigSpace with conditions; ask and tell.

Failed trials are told as CRASHED with its crash cost, broken constraints as a penalty.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition
from ConfigSpace import Float as SmacFloat
from ConfigSpace import Integer as SmacInteger
from smac import HyperparameterOptimizationFacade, Scenario
from smac.runhistory import StatusType, TrialInfo, TrialValue

from fettle.core.domains import Column
from fettle.core.space import Params
from fettle.problems.synthetic import Synthetic
from peers import Single, Told, nearest
from peers.flat import bounds, is_log, is_number, labels, value_of

logging.disable(logging.WARNING)
_NOWHERE = Path(tempfile.mkdtemp(prefix="smac-"))


class Smac:
    def __init__(self, problem: Synthetic, budget: int) -> None:
        self.problem, self.single = problem, Single()
        space = ConfigurationSpace(seed=problem.seed)
        made: list[Any] = []
        for column in problem.space.columns:
            made.append(_parameter(column))
            space.add(made[-1])
            if column.parent is not None:
                parent = problem.space.columns[column.parent]
                label = f"v{list(parent.domain.values()).index(column.branch)}"
                space.add(EqualsCondition(made[-1], made[column.parent], label))
        scenario = Scenario(space, deterministic=True, n_trials=budget, seed=problem.seed, output_directory=_NOWHERE)
        self.smac = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: 0.0, overwrite=True, logging_level=False
        )

    def _params(self, config: Any) -> Params:
        given, params, columns = dict(config), Params(), self.problem.space.columns
        for column in columns:
            if column.parent is None or params.get(columns[column.parent].name, params) == column.branch:
                params[column.name] = value_of(column.domain, given[column.name.replace(".", "__")])
        return nearest(self.problem.space, params)

    def ask(self) -> Params:
        self.info: TrialInfo = self.smac.ask()
        self.asked = self._params(self.info.config)
        return self.asked

    def tell(self, told: Told) -> None:
        cost = self.single(told, self.asked)
        status = StatusType.SUCCESS if told.losses is not None else StatusType.CRASHED
        self.smac.tell(self.info, TrialValue(cost=cost if told.losses is not None else np.inf, status=status))

    def answer(self) -> Params | None:
        best = self.smac.intensifier.get_incumbents()
        return self._params(best[0]) if best else None


def _parameter(column: Column) -> Any:
    name, domain = column.name.replace(".", "__"), column.domain
    if not is_number(domain):
        return Categorical(name, labels(domain))
    low, high = bounds(domain)
    make = SmacFloat if column.kind == "float" else SmacInteger
    return make(name, (low, high), log=is_log(domain))
