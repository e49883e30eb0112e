"""HEBO with its defaults, on a flattened space; failures and broken constraints as a penalty."""

import logging
import warnings

import numpy as np
import pandas as pd
import torch
from hebo.design_space.design_space import DesignSpace
from hebo.optimizers.hebo import HEBO

from fettle.core.space import Params
from fettle.problems.synthetic import Synthetic
from peers import Single, Told, nearest
from peers.flat import Flat, bounds, is_log, is_number, labels

logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")


class Hebo:
    def __init__(self, problem: Synthetic, budget: int) -> None:
        self.problem, self.flat, self.single = problem, Flat(problem.space), Single()
        torch.manual_seed(problem.seed)
        np.random.seed(problem.seed)  # noqa: NPY002 - HEBO draws from the global one
        described = []
        for column in problem.space.columns:
            name, domain = self.flat.short(column), column.domain
            if not is_number(domain):
                described.append({"name": name, "type": "cat", "categories": labels(domain)})
                continue
            low, high = bounds(domain)
            kind = {(True, True): "pow", (True, False): "num", (False, True): "pow_int", (False, False): "int"}
            described.append(
                {"name": name, "type": kind[column.kind == "float", is_log(domain)], "lb": low, "ub": high}
            )
        self.optimizer = HEBO(DesignSpace().parse(described), scramble_seed=problem.seed)

    def ask(self) -> Params:
        self.suggested: pd.DataFrame = self.optimizer.suggest(n_suggestions=1)
        self.asked = nearest(self.problem.space, self.flat.params(self.suggested.iloc[0].to_dict()))
        return self.asked

    def tell(self, told: Told) -> None:
        self.optimizer.observe(self.suggested, np.array([[self.single(told, self.asked)]]))

    def answer(self) -> Params | None:
        return self.single.best
