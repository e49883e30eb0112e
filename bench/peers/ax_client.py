"""Ax's Client with its default generation strategy, on a flattened space.

Constraints are outcome constraints; a failed trial is marked so. Each run is one experiment with its own seed.
"""

import logging
import warnings

from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

from fettle.core.space import Params
from fettle.problems.synthetic import Synthetic
from peers import Single, Told, nearest
from peers.flat import Flat, bounds, is_log, is_number, labels

logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")


class AxClient:
    def __init__(self, problem: Synthetic, budget: int) -> None:
        self.problem, self.flat, self.single = problem, Flat(problem.space), Single()
        self.client = Client(random_seed=problem.seed)
        parameters: list[RangeParameterConfig | ChoiceParameterConfig] = []
        for column in problem.space.columns:
            name, domain = self.flat.short(column), column.domain
            if is_number(domain):
                kind = "float" if column.kind == "float" else "int"
                scaling = "log" if is_log(domain) else "linear"
                parameters.append(
                    RangeParameterConfig(name=name, bounds=bounds(domain), parameter_type=kind, scaling=scaling)
                )
            else:
                parameters.append(
                    ChoiceParameterConfig(name=name, values=labels(domain), parameter_type="str", is_ordered=False)
                )
        self.client.configure_experiment(parameters=parameters)
        limits = [f"c{i} <= 0" for i in range(len(problem.constraints))]
        self.client.configure_optimization(objective="-loss", outcome_constraints=limits or None)

    def ask(self) -> Params:
        ((self.number, given),) = self.client.get_next_trials(max_trials=1).items()
        self.asked = nearest(self.problem.space, self.flat.params(given))
        return self.asked

    def tell(self, told: Told) -> None:
        self.single(told, self.asked)
        if told.losses is None:
            self.client.mark_trial_failed(self.number)
            return
        data = {"loss": told.losses[0], **{f"c{i}": value for i, value in enumerate(told.excess)}}
        self.client.complete_trial(self.number, raw_data=data)

    def answer(self) -> Params | None:
        """By its model's prediction."""
        given = self.client.get_best_parameterization()[0]
        return nearest(self.problem.space, self.flat.params(given))
