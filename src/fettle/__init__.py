"""Fettle finds, by measuring, the smallest and fastest version of a model and the configuration to serve it with."""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Algorithm": "core.protocols",
    "Auto": "algorithms.auto",
    "Boxed": "algorithms.boxed",
    "CMAES": "algorithms.cmaes",
    "Categorical": "core.space",
    "Choice": "core.space",
    "Constraint": "core.trial",
    "Estimate": "core.trial",
    "Evolution": "algorithms.evolution",
    "Exhausted": "core.errors",
    "FettleError": "core.errors",
    "FewShot": "algorithms.fewshot",
    "Float": "core.space",
    "Grid": "algorithms.grid",
    "Int": "core.space",
    "InvalidInput": "core.errors",
    "NSGA2": "algorithms.nsga2",
    "Objective": "core.trial",
    "Ordinal": "core.space",
    "Outcome": "core.trial",
    "Proposal": "core.protocols",
    "QMC": "algorithms.qmc",
    "Random": "algorithms.random",
    "Result": "api",
    "Space": "core.space",
    "State": "core.trial",
    "Study": "study",
    "TPE": "algorithms.tpe",
    "Trial": "core.trial",
    "TrialFailure": "core.errors",
    "TrialStopped": "core.errors",
    "open_study": "api",
    "serve": "api",
}

_MODULES = {"meta": "surrogates.meta"}  # public under a shorter name

__all__ = [*_HOME, *_MODULES, "__version__"]  # noqa: PLE0604 (names resolve lazily)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"fettle.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        module = globals()[name] = importlib.import_module(f"fettle.{_MODULES[name]}")
        return module
    raise AttributeError(f"module 'fettle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
