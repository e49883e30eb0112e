"""Few-shot search: what earlier tasks have taught decides from the first trial, and earns its credit from then on.

A proposal maximises log EI times the chance that all constraints hold and that nothing fails (Gardner et al. 2014,
constrained EI), where objective, constraints and failures have a learned prior each. When the trials contradict the
prior, plain Bayesian optimisation goes on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fettle.algorithms.batches import one_by_one
from fettle.algorithms.climb import candidates
from fettle.algorithms.cube import Cube
from fettle.algorithms.gp_bo import GPBO, GaussianProcessSearch
from fettle.algorithms.used import Used
from fettle.core.errors import Exhausted, InvalidInput
from fettle.core.protocols import Proposal
from fettle.core.space import Params, Space
from fettle.core.trial import Constraint, Objective, Outcome, Trial, TrialLog
from fettle.surrogates.acquisition import log_ei
from fettle.surrogates.gp import imputed
from fettle.surrogates.meta.maml import AdaptedNetwork
from fettle.surrogates.meta.methods import Fitted
from fettle.surrogates.meta.model import MetaModel, load
from fettle.surrogates.meta.prior_gp import PriorGP
from fettle.surrogates.meta.scales import LOG, RANKS, Absolute, Ranks, Scale, forward
from fettle.surrogates.task_feasibility import CERTAIN
from fettle.surrogates.threads import on_one_thread

if TYPE_CHECKING:
    from numpy.random import Generator

Floats = np.ndarray
_DOUBT = 0.5  # credit below which the prior is not asked
_ALONE, _INSURED = 10, 3  # after so many trials the plain search has every third: a prior may be confident and wrong
_TRIES = 10  # of the plain search, where it proposes what certainly fails
_LEARNED_FROM = 200  # trials: of more, the best and the latest
_NO_FAULT = ("lost", "nan")


@dataclass(frozen=True, slots=True)
class FewShot:
    """model: a `fettle.meta` model or its file; without one this is gp_bo. features: figures that describe the new
    task. cost: a metric, or "wall_s": improvement per cost is sought. hot: see `GPBO`. sha256: of the
    model, filled in when the study is stored; a file that has changed is refused."""

    model: MetaModel | str | Path | None = None
    features: Mapping[str, float] | None = None
    cost: str = ""
    sha256: str = ""
    hot: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "hot", tuple(self.hot))
        if isinstance(self.model, Path):
            object.__setattr__(self, "model", str(self.model))
        if not (self.model is None or isinstance(self.model, MetaModel | str)):
            raise InvalidInput(
                f"fewshot: expected a meta-model or its path, got {self.model!r:.80}",
                "train one with fettle.meta.train(tasks, space)",
            )

    def loaded(self) -> MetaModel | None:
        if self.model is None or isinstance(self.model, MetaModel):
            return self.model
        model = load(self.model)
        if self.sha256 and model.sha256 != self.sha256:
            raise InvalidInput(f"{self.model} is not the meta-model that the study began with", "restore that file")
        return model

    def kept_in(self, folder: Path) -> "FewShot":
        """These settings with the model as a file in the folder, named by its content."""
        model = self.loaded()
        if model is None:
            return self
        path = folder / f"meta-{model.sha256[:16]}.npz"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            model.save(path)
        return replace(self, model=str(path), sha256=model.sha256)

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> "FewShotSearch":
        plain = GPBO(cost=self.cost, hot=self.hot).build(space, objectives, constraints, seed, budget)
        return FewShotSearch(self.loaded(), plain, objectives, constraints, features=self.features)


@dataclass(frozen=True, slots=True)
class _Told:
    params: Params
    x: Floats
    metrics: Mapping[str, float]
    failed: float  # NaN: nobody knows
    bound: int  # of the objective: +1 it is at least what was told, -1 at most, 0 exactly
    feasible: bool
    views: Floats


class FewShotSearch:
    """plain: the search that goes on where the model cannot help, and that is told everything, too."""

    def __init__(
        self,
        model: MetaModel | None,
        plain: GaussianProcessSearch,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        *,
        features: Mapping[str, float] | None = None,
    ) -> None:
        self._features = features
        self.plain, self.space = plain, plain.space
        self.objectives, self.constraints = tuple(objectives), tuple(constraints)
        self.model = model if model is not None and self._helps(model) else None
        self._told: dict[int, _Told] = {}
        self._used = Used(self.space)
        self.cube: Cube = plain.cube
        if self.model is not None:
            self.knobs = self.model.knobs.joined(self.space)
            self._known = len(self.model.knobs)
            self._feasibility = self.model.feasibility
            self._grid = None if self.cube.grid is None else self.knobs.encode(self.cube.points, self.space)
            self._views = None if self._grid is None else self._feasibility.views(self._grid[:, : self._known])

    def _helps(self, model: MetaModel) -> bool:
        """One objective that the tasks measured, and a knob in common."""
        known = len(self.objectives) == 1 and self.objectives[0].metric in model.metrics
        return known and bool(set(self.space.names) & set(model.knobs.names))

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self.plain.tell(trial, outcome)
        self._used.add(trial.params)
        if self.model is None or not self.space.contains(trial.params):
            return
        loss = outcome.losses[0]
        feasible = outcome.ok and math.isfinite(loss) and all(v <= 0 for v in outcome.violations)
        failed = (math.nan if outcome.failure in _NO_FAULT else 1.0) if not outcome.ok else 0.0
        x = self.knobs.encode([trial.params], self.space)[0]
        bound = round(self.objectives[0].sign) * (outcome.censored[0] if outcome.censored else 0)
        views = self._feasibility.views(x[None, : self._known])[:, 0]
        self._told[trial.number] = _Told(trial.params, x, outcome.metrics, failed, bound, feasible and not bound, views)

    @on_one_thread
    def recommend(self, log: TrialLog) -> int | None:
        return self.plain.recommend(log)

    @on_one_thread
    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        def one(at: int, waiting: Sequence[Params]) -> Proposal:
            insured = len(self._told) >= _ALONE and len(self._told) % _INSURED == 0
            made = None if self.model is None or insured else self._one(self.model, waiting, rng)
            return made or self._plainly(at, waiting, rng)

        return one_by_one(n, number, pending, one)

    def _plainly(self, number: int, waiting: Sequence[Params], rng: "Generator") -> Proposal:
        """What the plain search proposes, but for what certainly fails: the last of some tries, at worst."""
        refused: list[Params] = []
        while True:
            try:
                (proposal,) = self.plain.ask(1, number, [*waiting, *refused], rng)
            except Exhausted:
                if not refused:
                    raise
                return Proposal(refused[-1], "nothing is left that may succeed")
            if self.model is None or len(refused) == _TRIES:
                return proposal
            Z = self.knobs.encode([proposal.params], self.space)
            if self._spared(Z, self._feasibility.views(Z[:, : self._known]))[0] > CERTAIN:
                return proposal
            refused.append(proposal.params)

    # -- one proposal -------------------------------------------------------------------------------------------

    def _one(self, model: MetaModel, waiting: Sequence[Params], rng: "Generator") -> Proposal | None:
        """None where the prior has lost its credit, or has nothing new."""
        objective = self.objectives[0]
        credit = self._fitted(model, objective.metric, waiting)
        if credit.credit < _DOUBT:
            return None
        params, Z, views = self._candidates(waiting, rng)
        if not params:
            return None
        bounded = [c.metric for c in self.constraints if c.metric in model.metrics]
        fits = {objective.metric: credit, **{m: self._fitted(model, m, waiting) for m in bounded}}
        worth = self._worth(model, fits, Z) + self._chance(model, fits, Z, views)
        if (dear := self.plain.log_cost()) is not None:
            worth = worth - dear(self.space.encode(params))
        best = int(np.argmax(worth))
        note = f"{model.method} of {len(model.tasks)} tasks, credit {credit.credit:.0%}"
        scales = {metric: self._scale(model, metric) for metric in fits}
        return Proposal(params[best], note, _predicted(scales, fits, Z[best : best + 1]))

    def _worth(self, model: MetaModel, fits: Mapping[str, Fitted], Z: Floats) -> Floats:
        objective = self.objectives[0]
        fitted = fits[objective.metric]
        mean, std = fitted.predict(Z)
        scale = self._scale(model, objective.metric)
        held = [t.metrics[objective.metric] for t in self._told.values() if t.feasible]
        best = None if not held else float(scale.forward(np.array([(min if objective.sign > 0 else max)(held)]))[0])
        if isinstance(fitted, AdaptedNetwork):  # the paper's acquisition
            worth = fitted.optimism(Z) - objective.sign * mean
        else:
            worth = improvement(mean, std, best, goal=objective.goal, log=scale.kind == LOG)
        return worth

    def _chance(self, model: MetaModel, fits: Mapping[str, Fitted], Z: Floats, views: Floats) -> Floats:
        """(m,): log-probability that nothing fails and all constraints hold."""
        bound = [c for c in self.constraints if c.metric in fits]
        return self._spared(Z, views) + sum(_within(model, c, fits[c.metric], Z) for c in bound)

    def _spared(self, Z: Floats, views: Floats) -> Floats:
        """(m,): log-probability that nothing fails."""
        rows = [t for t in self._told.values() if math.isfinite(t.failed)]
        X = np.array([t.x for t in rows]).reshape(-1, Z.shape[1])
        failed = np.array([t.failed for t in rows])
        seen = np.array([t.views for t in rows]).reshape(-1, len(views)).T
        d = self._known
        return self._feasibility.log_chance(Z[:, :d], views, X[:, :d], failed, seen)

    def _scale(self, model: MetaModel, metric: str) -> Scale:
        """Ranks, where tasks are more alike by them, for what is bound by nothing."""
        bound = any(constraint.metric == metric for constraint in self.constraints)
        if bound or not model.ranked(metric) or metric != self.objectives[0].metric:
            return Absolute(model.scale(metric))
        seen = [t.metrics[metric] for t in self._told.values() if metric in t.metrics and t.failed != 1.0]
        return Ranks.of(np.array(seen, float))

    def _fitted(self, model: MetaModel, metric: str, waiting: Sequence[Params]) -> Fitted:
        """Pending params count as if they had come out as expected (Ginsbourger et al. 2010)."""
        scale, columns = self._scale(model, metric), self.knobs.columns
        learned = model.of(metric, self._features, ranks=scale.kind == RANKS)
        own = metric == self.objectives[0].metric  # bounds of other metrics are not told apart from figures
        rows = [t for t in self._told.values() if metric in t.metrics and t.failed != 1.0 and (own or not t.bound)]
        y = scale.forward(np.array([t.metrics[metric] for t in rows]))
        known = np.flatnonzero(np.isfinite(y))[-_LEARNED_FROM:]
        X = np.array([t.x for t in rows]).reshape(-1, len(self.knobs))[known]
        y, bound = y[known], np.array([t.bound for t in rows], int)[known]
        exact = bound == 0
        limit = next((_limit(model, c) for c in self.constraints if c.metric == metric), math.nan)
        if not len(y) and isinstance(learned, PriorGP) and math.isfinite(limit):
            learned = learned.under(limit)
        fitted = learned.fit(X[exact], y[exact], columns=columns)
        if not exact.all():
            y = imputed(fitted, X, y, bound)
            fitted = learned.fit(X, y, columns=columns)
        inside = [params for params in waiting if self.space.contains(params)]
        if not inside:
            return fitted
        more = self.knobs.encode(inside, self.space)
        return learned.fit(np.vstack([X, more]), np.concatenate([y, fitted.predict(more)[0]]), columns=columns)

    def _candidates(self, waiting: Sequence[Params], rng: "Generator") -> tuple[list[Params], Floats, Floats]:
        """What may be proposed: all that is left of an enumerated space, else draws, some near the best."""
        taken = self._used.keys | self._used.pending(waiting)
        if self._grid is not None and self._views is not None:
            left = np.ones(len(self._grid), bool)
            left[[self.cube.places[key] for key in taken if key in self.cube.places]] = False
            if not left.any():
                raise Exhausted(f"all {self.space.size} params of the space have been proposed")
            rows = np.flatnonzero(left)
            return [dict(self.cube.points[i]) for i in rows.tolist()], self._grid[rows], self._views[:, rows]
        good = sorted((t for t in self._told.values() if t.feasible), key=self._loss)[:4]
        U = candidates(self.cube, self.space.encode([t.params for t in good]), rng, {})
        params = [p for p in self.space.decode(U) if self.space.key(p) not in taken]
        Z = self.knobs.encode(params, self.space)
        return params, Z, self._feasibility.views(Z[:, : self._known])

    def _loss(self, told: _Told) -> float:
        return self.objectives[0].sign * told.metrics[self.objectives[0].metric]


def improvement(mean: Floats, std: Floats, best: float | None, *, goal: str, log: bool) -> Floats:
    """log EI (m,) of a metric whose mean and std are on its scale. Before anything is feasible, over nothing: the
    expected value of a logarithm that is maximised, and what is gained on the worst otherwise."""
    if best is None and log and goal == "maximize":
        value: Floats = mean + 0.5 * std * std
        return value
    sign = 1.0 if goal == "minimize" else -1.0
    losses = sign * mean
    return log_ei(losses, std, float(losses.max()) if best is None else sign * best)[0]


def _limit(model: MetaModel, constraint: Constraint) -> float:
    """On the metric's scale."""
    value = constraint.upper if constraint.upper is not None else constraint.lower
    return float(forward(model.scale(constraint.metric), np.array([value]))[0])


def _within(model: MetaModel, constraint: Constraint, fitted: Fitted, Z: Floats) -> Floats:
    """(m,): log-probability that the constraint holds."""
    from scipy.special import log_ndtr

    upper, bound = constraint.upper is not None, _limit(model, constraint)
    mean, std = fitted.predict(Z)
    std = np.hypot(std, fitted.noise)
    if not math.isfinite(bound):  # of no logarithm: every figure is above it
        return np.full(len(Z), -50.0 if upper else 0.0)
    result: Floats = np.maximum(log_ndtr((bound - mean) / std * (1.0 if upper else -1.0)), -50.0)
    return result


def _predicted(scales: Mapping[str, Scale], fits: Mapping[str, Fitted], z: Floats) -> dict[str, list[float]]:
    """Metric -> value, and the ends of the 95 % interval of a measurement of it, at one point z (1, D)."""
    found = {}
    for metric, fitted in fits.items():
        mean, std = fitted.predict(z)
        spread = np.hypot(std, fitted.noise) * np.array([0.0, -1.96, 1.96])
        value, *ends = scales[metric].backward(mean + spread).tolist()
        if math.isfinite(value):  # else nothing was seen whose rank could be compared
            found[metric] = [value, *sorted(ends)]
    return found
