"""The plug-in points. Implementations get frozen records, never the study or the database."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from fettle.core.serving import Launch, Machine, Model, Request
from fettle.core.space import Space
from fettle.core.trial import Constraint, Estimate, Event, Objective, Outcome, Params, Report, Trial, TrialLog

if TYPE_CHECKING:
    from numpy.random import Generator

Metrics = Mapping[str, "float | Estimate"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Proposal:
    """Params to try. `repeat`: a declared repeat, exempt from the rule against duplicates."""

    params: Params
    note: str = ""
    predicted: Mapping[str, Any] | None = None
    repeat: bool = False


class Algorithm(Protocol):
    """Proposes params. Its state is the fold of its tells; `ask` changes nothing that a replay would not."""

    def ask(self, n: int, number: int, pending: Sequence[Params], rng: "Generator") -> list[Proposal]:
        """Up to n proposals; `number` is the first one's trial number. Raises Exhausted when none is left."""
        ...

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """A trial finished or paused; a later tell of the same number replaces the earlier."""
        ...


@runtime_checkable
class Kept(Protocol):
    """Settings with a large part, such as a meta-model, which goes into the study's folder."""

    def kept_in(self, folder: Path) -> "AlgorithmSettings":
        """Writes that part, named by its content, and returns the settings that refer to it: plain JSON."""
        ...


class AlgorithmSettings(Protocol):
    """Frozen settings; `fettle.Study` builds the algorithm from them."""

    def build(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        seed: int,
        budget: int | None,
    ) -> Algorithm:
        """budget: the number of trials, where it is known."""
        ...


@runtime_checkable
class Recommender(Protocol):
    """An algorithm that names the answer under noise, e.g. the lowest posterior mean."""

    def recommend(self, log: TrialLog) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the next worker does. params None: ask the algorithm. resume: go on with a paused trial at a
    higher fidelity. copy_from: a new trial that takes another's checkpoint."""

    fidelity: float | None = None
    params: Params | None = None
    resume: int | None = None
    copy_from: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be started before a running trial ends."""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing will be started any more."""


class Scheduler(Protocol):
    """Pure functions of the log."""

    def assign(self, log: TrialLog, rng: "Generator") -> Assignment | Wait | Done: ...

    def decide(self, log: TrialLog, trial: Trial) -> bool:
        """After a report: True to go on, False to stop."""
        ...


class Context(Protocol):
    """What an evaluator knows of its trial."""

    @property
    def number(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def fidelity(self) -> float | None: ...
    @property
    def workdir(self) -> Path: ...
    @property
    def devices(self) -> Sequence[str]: ...
    @property
    def checkpoint(self) -> Path | None: ...
    @property
    def incumbent(self) -> Mapping[str, float] | None: ...
    @property
    def predicted(self) -> Mapping[str, Any] | None: ...
    @property
    def deadline_s(self) -> float | None:
        """Seconds that this trial has when it starts."""
        ...

    def report(self, fidelity: float, metrics: Mapping[str, float]) -> bool:
        """Blocks, within a bound, until the study has decided: True to go on, False to stop."""
        ...

    def keep(self, key: str, start: Callable[[], T], stop: Callable[[T], None]) -> T:
        """Holds something dear between trials of one worker until its key changes."""
        ...

    def drop(self) -> None:
        """Stops what is held now."""
        ...

    def artifact(self, name: str, value: Any) -> None:
        """Stores a small JSON value with the trial."""
        ...

    def progress(self, info: Mapping[str, Any]) -> None:
        """Tells a live view what is going on; never stored."""
        ...


class Evaluator(Protocol):
    """Measures params. Raises TrialFailure or TrialStopped; any other exception is a failure 'other'."""

    def __call__(self, params: Params, ctx: Context) -> Metrics: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One trial for an executor. limit_s: wall-clock seconds after which it is killed (failure 'timeout')."""

    number: int
    params: Params
    seed: int
    workdir: Path
    fidelity: float | None = None
    limit_s: float | None = None
    incumbent: Mapping[str, float] | None = None
    predicted: Mapping[str, Any] | None = None
    checkpoint: Path | None = None


class Executor(Protocol):
    """Where evaluators run."""

    capacity: int

    def submit(self, job: Job, evaluate: Evaluator) -> None: ...

    def poll(self, timeout_s: float, on_report: Callable[[int, Report], bool]) -> list[Event]:
        """Waits for at most timeout_s; returns `told` events. The callback's answer goes back to the evaluator."""
        ...

    def stop(self, number: int) -> None:
        """Ends a trial's process tree now; its `told` event says so."""
        ...

    def close(self) -> None:
        """Ends everything that was started; idempotent."""
        ...


class Turn(Protocol):
    """The right to propose in one study."""

    @property
    def token(self) -> str: ...


class Journal(Protocol):
    """The events of one study. Many processes may share one."""

    def turn(self, lease_s: float) -> AbstractContextManager[Turn]:
        """One proposer at a time; renewed while its holder lives, runs out `lease_s` after its death."""
        ...

    def append(self, events: Sequence[Event], turn: Turn | None = None) -> int:
        """All or none; returns the last event's seq. Raises TurnExpired where the turn has run out."""
        ...

    def read(self, since: int = 0) -> Iterable[Event]:
        """Events with seq > since, in one total order."""
        ...

    def beat(self, number: int, lease_s: float) -> None:
        """A sign of life of a running trial; not an event."""
        ...

    def overdue(self) -> list[int]:
        """Running trials whose lease has run out."""
        ...


class Storage(Protocol):
    """Journals by study name."""

    def studies(self) -> list[str]: ...

    def open(self, name: str, *, create: bool = False) -> Journal:
        """Raises StudyNotFound unless it exists or `create` is set."""
        ...

    def folder(self, name: str) -> Path:
        """Where the study keeps files: work folders, artefacts, reports."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Figures of one trial that were measured again. `payload` goes into a `remeasured` event."""

    number: int
    payload: Mapping[str, Any] = field(default_factory=dict)


Measure = Callable[[Params, Mapping[str, Any]], Mapping[str, Any]]
"""(params, settings) -> payload of a `told` event: one measurement on a fresh server, in an executor."""


class Problem(Protocol):
    """Where all uses meet: what is searched, how it is measured, and how the answer is confirmed and shipped."""

    @property
    def name(self) -> str: ...
    @property
    def space(self) -> Space: ...
    @property
    def objectives(self) -> tuple[Objective, ...]: ...
    @property
    def constraints(self) -> tuple[Constraint, ...]: ...
    @property
    def fidelity(self) -> tuple[float, float] | None: ...

    def spec(self) -> dict[str, Any]:
        """JSON from which the registry rebuilds the problem on resume."""
        ...

    def defaults(self) -> Params | None:
        """The baseline: always trial 0, even where it lies outside the space."""
        ...

    def completed(self, trials: Sequence[Trial]) -> "Problem":
        """The problem with what the first trials have shown filled in, such as a rate to compare at."""
        ...

    def alone(self, timeout_s: float) -> AbstractContextManager[None]:
        """The right to measure, where measurements on one machine disturb one another. Raises FettleError when
        others have it for longer than timeout_s."""
        ...

    def evaluate(self, params: Params, ctx: Context) -> Metrics: ...

    def measure(self, settings: Mapping[str, Any], params: Params, ctx: Context) -> Metrics:
        """One more measurement on a fresh start, for confirmation and `fettle measure`."""
        ...

    def estimate(self, params: Params) -> Metrics:
        """Cheap prediction; may veto or inform, never a trial."""
        ...

    def confirm(
        self, ranked: Sequence[Trial], baseline: Trial | None, measure: Measure, *, budget_s: float
    ) -> Iterator[Confirmation]:
        """Measures the first of the ranked feasible trials again; the winner is chosen from these figures."""
        ...

    def export(self, trial: Trial, folder: Path) -> dict[str, str]:
        """Writes what ships; returns artefact name -> path."""
        ...


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier task, told in the params and metrics of a problem: rows of (params, metrics)."""

    name: str
    rows: Sequence[tuple[Params, Mapping[str, float]]]
    features: Mapping[str, float]


@runtime_checkable
class Experienced(Protocol):
    """A problem that measurements of other tasks say something of."""

    @property
    def features(self) -> Mapping[str, float]:
        """Figures that describe the task."""
        ...

    @property
    def hot(self) -> frozenset[str]:
        """Parameters that change without the start of a new process."""
        ...

    def earlier(self, collected: Sequence[Any]) -> Sequence[Earlier]:
        """The most similar tasks of those that ship, and of further ones that were collected here."""
        ...


@runtime_checkable
class Posterior(Protocol):
    """A fitted surrogate; immutable."""

    def predict(self, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Z (m, d) -> mean (m,), standard deviation (m,)."""
        ...


class Surrogate(Protocol):
    """X (n, d) in the unit cube, NaN where inactive; y (n,)."""

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        *,
        columns: Sequence[Any],
        noise: np.ndarray | None = None,
        censored: np.ndarray | None = None,
    ) -> Posterior: ...


class Target(Protocol):
    """An inference server: described, not driven."""

    name: str

    @property
    def hot(self) -> frozenset[str]:
        """Knobs that change without a restart."""
        ...

    def space(self, model: Model, machine: Machine) -> Space: ...

    def defaults(self, model: Model, machine: Machine) -> Params:
        """What a user gets who sets nothing: always trial 0."""
        ...

    def launch(self, model: Model, params: Params, port: int) -> Launch: ...

    def apply(self, params: Params) -> Request | None:
        """How all hot knobs are set on a running server, which answers 200 once they are in force; None where there are
        none."""
        ...


@runtime_checkable
class InSessions(Protocol):
    """A target whose work is done by ONNX Runtime sessions, so that measurements of these say something of it."""

    def sessions(self, params: Params, machine: Machine) -> Params:
        """What params amount to: workers, threads, spinning, max_batch, max_wait_s, graph_optimization, cores."""
        ...


class Estimator(Protocol):
    """Cheap prediction (FLOPs, bytes, roofline): may veto or inform, never a trial."""

    def __call__(self, params: Params) -> Metrics: ...
