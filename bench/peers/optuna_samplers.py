"""Optuna's samplers, define-by-run: the parameters of a branch are suggested where it was chosen.

Ordinals are suggested as integer indices. Failed trials are told as FAIL; constraints by `Trial.set_constraint`
(Optuna 5). A listed space is suggested as its parameters, and the nearest listed point is evaluated.
"""

import warnings

import optuna

from fettle.core.domains import Domain
from fettle.core.space import Choice, Float, Int, Ordinal, Params
from fettle.problems.synthetic import Synthetic
from peers import Told, nearest

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", module="optuna")


class Optuna:
    """Subclasses choose the sampler."""

    def __init__(self, problem: Synthetic, budget: int) -> None:
        self.problem = problem
        directions = ["minimize"] * len(problem.objectives)
        self.study = optuna.create_study(sampler=self.sampler(problem.seed), directions=directions)
        self.params: dict[int, Params] = {}

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        raise NotImplementedError

    def ask(self) -> Params:
        self.trial = self.study.ask()
        params: Params = {}
        columns = self.problem.space.columns
        for column in columns:
            if column.parent is None or params.get(columns[column.parent].name, params) == column.branch:
                params[column.name] = _suggested(self.trial, column.name, column.domain)
        self.params[self.trial.number] = params = nearest(self.problem.space, params)
        return params

    def tell(self, told: Told) -> None:
        if told.losses is None:
            self.study.tell(self.trial, state=optuna.trial.TrialState.FAIL)
            return
        for i, value in enumerate(told.excess):
            self.trial.set_constraint(f"c{i}", value)
        self.study.tell(self.trial, list(told.losses))

    def answer(self) -> Params | None:
        try:
            return self.params[self.study.best_trial.number]
        except ValueError:  # nothing feasible yet
            return None


def _suggested(trial: optuna.Trial, name: str, domain: Domain) -> object:
    if isinstance(domain, Float):
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, Int):
        high = domain.low + domain.step * (domain.size - 1)
        return trial.suggest_int(name, domain.low, high, log=domain.log, step=domain.step)
    values = list(domain.values())
    if isinstance(domain, Ordinal):
        return values[trial.suggest_int(name, 0, len(values) - 1)]
    assert isinstance(domain, Choice) or domain.kind == "categorical"
    return trial.suggest_categorical(name, values)


class TPE(Optuna):
    """The default of the installed version."""

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(seed=seed)


class GroupTPE(Optuna):
    """Multivariate, by groups of parameters that occur together."""

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=False, warn_independent_sampling=False
        )


class NSGA2(Optuna):
    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.NSGAIISampler(seed=seed)


class GP(Optuna):
    """Parameters that are not in every trial are drawn by its independent sampler, as it documents."""

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
