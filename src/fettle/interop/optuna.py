"""Fettle's algorithms as a sampler of Optuna: one line in a program that uses Optuna already.

    study = optuna.create_study(sampler=fettle.interop.optuna.FettleSampler(algorithm="gp_bo", seed=0))

Optuna's programs define their space while they run; `program` reads it off the trials that there are, conditions
included. What the sampler knows is a fold of the study's trials: it goes on from any storage, and from the trials of
other samplers. Of trials that run, in this process or in others, it counts the params that it knows as pending.
"""

import math
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from fettle import registry
from fettle.core.domains import Domain
from fettle.core.errors import Exhausted, InvalidInput, SpaceError
from fettle.core.protocols import Algorithm, AlgorithmSettings
from fettle.core.space import Categorical, Float, Int, Params
from fettle.core.trial import Constraint, Objective, State, Trial, outcome
from fettle.interop.program import Program, nearest

_CONSTRAINTS = "constraints"  # the attribute in which Optuna's own samplers, and its best trials, look for them
_STATES = {
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.STOPPED,
    TrialState.FAIL: State.FAILED,
}


class FettleSampler(optuna.samplers.BaseSampler):
    """algorithm: a name or settings, as for `fettle.Study`. seed: same seed, same trials (with one worker); None: any.
    constraints_func: of a finished trial, figures that are to be at most 0, as elsewhere in Optuna. n_trials: how many
    there will be, where that is known: some algorithms plan with it. Raises InvalidInput.

    A parameter that is seen for the first time is drawn, and so is one of a branch that was not proposed but comes from
    an enqueued trial or a PartialFixedSampler.
    """

    def __init__(
        self,
        algorithm: str | Mapping[str, Any] | AlgorithmSettings = "auto",
        *,
        seed: int | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        n_trials: int | None = None,
    ) -> None:
        if seed is not None and (not isinstance(seed, int) or seed < 0):
            raise InvalidInput(f"expected a seed of 0 or more, or None, got {seed!r}", "write seed=0")
        self._settings: AlgorithmSettings = registry.settings("algorithms", algorithm)
        self._seed = _entropy() if seed is None else seed
        self._more: list[int] = []  # of reseed_rng
        self._constraints_func = constraints_func
        self._n_trials = n_trials
        self._lock = threading.RLock()
        self._fold: Fold | None = None
        self._proposed: dict[int, dict[str, Any]] = {}  # running trial -> its params

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_fold": None, "_proposed": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def reseed_rng(self) -> None:
        """Other draws from here on. Parallel workers would not need it: what is drawn depends on the trial's number."""
        with self._lock:
            self._more.append(_entropy())

    def _rng(self, number: int, *more: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *self._more, number, *more])

    # -- what Optuna calls ----------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        with self._lock:
            return dict(self._synced(study).distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        with self._lock:
            fold = self._synced(study)
            pending = [params for number, params in fold.running(self._proposed).items() if number != trial.number]
            values = fold.proposal(trial.number, pending, self._rng(trial.number))
            self._proposed[trial.number] = values
            kept = {name: value for name, value in values.items() if name in search_space}
            return {name: _external(search_space[name], value) for name, value in kept.items()}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """What no proposal holds is drawn; what lies outside of the range of this trial moves into it."""
        domain = domain_of(param_distribution)
        rng = self._rng(trial.number, zlib.crc32(param_name.encode()))
        if domain is None:
            return _drawn(param_distribution, rng)
        with self._lock:
            proposed = self._proposed.get(trial.number, {})
            value = nearest(domain, proposed[param_name]) if param_name in proposed else domain.decode(rng.random())
        return _external(param_distribution, value)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        with self._lock:
            self._proposed.pop(trial.number, None)
        if self._constraints_func is None or state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return
        figures = tuple(map(float, self._constraints_func(trial)))
        if any(map(math.isnan, figures)):
            raise ValueError(f"constraints_func gave NaN: {figures}")
        study._storage.set_trial_system_attr(trial._trial_id, _CONSTRAINTS, figures)

    def _synced(self, study: optuna.Study) -> "Fold":
        # not study.get_trials(): under a Hyperband pruner that holds the trials of one bracket only
        storage, study_id = study._storage, study._study_id
        if self._fold is None or not self._fold.is_of(storage, study_id):
            self._fold = Fold(study, self._settings, self._seed, self._n_trials)
            self._proposed.clear()
        self._fold.sync(storage.get_all_trials(study_id, deepcopy=False))
        return self._fold


class Fold:
    """The trials of one study as an algorithm has been told them; told all again when the space has changed."""

    def __init__(self, study: optuna.Study, settings: AlgorithmSettings, seed: int, n_trials: int | None) -> None:
        self._of = (study._storage, study._study_id)
        self._settings, self._seed, self._n_trials = settings, seed, n_trials
        goals = ("maximize" if d == optuna.study.StudyDirection.MAXIMIZE else "minimize" for d in study.directions)
        self._objectives = [Objective(f"value_{i}", goal) for i, goal in enumerate(goals)]
        self._constraints: dict[str, Constraint] = {}
        self._program = Program()
        self.distributions: dict[str, BaseDistribution] = {}  # the latest of each parameter
        self._told: list[FrozenTrial] = []
        self._open: dict[int, FrozenTrial] = {}  # not finished yet, by place
        self._read = 0
        self._algorithm: Algorithm | None = None
        self._built: tuple[int, int] = (-1, -1)  # version of the space, number of constraints

    def is_of(self, storage: Any, study_id: int) -> bool:
        return self._of[0] is storage and self._of[1] == study_id

    def sync(self, trials: Sequence[FrozenTrial]) -> None:
        places = [*self._open, *range(self._read, len(trials))]
        self._read = len(trials)
        self._open = {place: trials[place] for place in places if not trials[place].state.is_finished()}
        news = [trials[place] for place in places if place not in self._open]
        for trial in news:
            self._learn(trial)
        told = len(self._told)
        self._told += news
        if self._built != (built := (self._program.version, len(self._constraints))):
            told, self._built = 0, built
            constraints = list(self._constraints.values())
            self._algorithm = self._settings.build(
                self._program.space, self._objectives, constraints, self._seed, self._n_trials
            )
        for trial in self._told[told:]:
            self._tell(trial)

    def _learn(self, trial: FrozenTrial) -> None:
        domains = {name: domain for name, d in trial.distributions.items() if (domain := domain_of(d)) is not None}
        self.distributions.update((name, trial.distributions[name]) for name in domains)
        self._program.add(_internal(trial, domains), domains, whole=trial.state == TrialState.COMPLETE)
        for name in _constraint_values(trial):
            self._constraints.setdefault(name, Constraint(name, upper=0.0))

    def _tell(self, trial: FrozenTrial) -> None:
        metrics = _constraint_values(trial)
        if trial.values is not None:
            metrics |= {o.metric: value for o, value in zip(self._objectives, trial.values, strict=True)}
        elif trial.state == TrialState.PRUNED and trial.intermediate_values and len(self._objectives) == 1:
            metrics["value_0"] = trial.intermediate_values[max(trial.intermediate_values)]
        state = _STATES[trial.state]
        failure = "other" if state is State.FAILED else ""
        made = Trial(trial.number, self._params(trial), state, metrics=metrics, failure=failure)
        assert self._algorithm is not None
        self._algorithm.tell(made, outcome(made, self._objectives, list(self._constraints.values())))

    def _params(self, trial: FrozenTrial) -> Params:
        return self._program.encoded(_internal(trial, self._program.domains))

    def running(self, proposed: Mapping[int, Mapping[str, Any]]) -> dict[int, Params]:
        """By number, the params of running trials: as they were proposed here, else as far as their programs have
        asked for them. Those that have not asked for any are left out."""
        found = {}
        for trial in self._open.values():
            values = {**proposed.get(trial.number, {}), **_internal(trial, self._program.domains)}
            if trial.state == TrialState.RUNNING and values.keys() & self._program.domains.keys():
                found[trial.number] = self._program.encoded(values)
        return found

    def proposal(self, number: int, pending: Sequence[Params], rng: np.random.Generator) -> dict[str, Any]:
        """The params of one trial; none where nothing is known of the program, or its space is used up."""
        if not len(self._program.space):
            return {}
        assert self._algorithm is not None
        try:
            (made,) = self._algorithm.ask(1, number, pending, rng)
        except Exhausted:  # Optuna's studies go on: with draws, which repeat what was tried
            return {}
        return self._program.decoded(made.params)


def domain_of(distribution: BaseDistribution) -> Domain | None:
    """The domain in Optuna's internal values (of a category: its index); None for ranges that no domain takes."""
    try:
        match distribution:
            case FloatDistribution(low=low, high=high, log=log, step=step):
                return Float(low, high, log=log, step=step)
            case IntDistribution(low=low, high=high, log=log, step=step):
                return Int(low, high, log=log, step=step)
            case CategoricalDistribution(choices=choices):
                return Categorical(range(len(choices)))
    except SpaceError:
        return None
    return None


def _internal(trial: FrozenTrial, names: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial for its domains."""
    return {
        name: int(d.to_internal_repr(trial.params[name]))
        if isinstance(d, CategoricalDistribution)
        else trial.params[name]
        for name, d in trial.distributions.items()
        if name in names
    }


def _external(distribution: BaseDistribution, value: Any) -> Any:
    return distribution.choices[value] if isinstance(distribution, CategoricalDistribution) else value


def _drawn(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """A draw from a range that is too wide for a domain: by its ends."""
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    if isinstance(distribution, IntDistribution):
        return low + distribution.step * int(rng.integers((high - low) // distribution.step, endpoint=True))
    u = rng.random()
    return low * (1.0 - u) + high * u


def _constraint_values(trial: FrozenTrial) -> dict[str, float]:
    """By name: "0", "1", ... of a constraints_func, and those that programs set by name."""
    listed = trial.system_attrs.get(_CONSTRAINTS) or ()
    named = {k.partition(":")[2]: v for k, v in trial.system_attrs.items() if k.startswith(f"{_CONSTRAINTS}:")}
    return {f"constraint_{name}": float(value) for name, value in [*enumerate(listed), *named.items()]}


def _entropy() -> int:
    return int(np.random.SeedSequence().generate_state(1)[0])
