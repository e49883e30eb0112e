"""The exception tree. Every message says what was expected, what was got and what to do.

FettleError
├── InvalidInput          bad input of any kind; the CLI exits with 2
│   ├── SpaceError        a search space, domain or condition that cannot be
│   ├── ParamsError       params that do not fit their space
│   ├── ModelError        a model file that is missing, broken or unsupported
│   ├── StudyMismatch     the stored study was made with another space or problem
│   └── StudyNotFound     no study of that name in that storage
├── StorageError          the journal could not be read or written
│   └── TurnExpired       the right to propose ran out before the append
├── Exhausted             every point of a finite space has been proposed
├── TrialFailure          raised by an evaluator: this trial failed, and why
└── TrialStopped          raised by an evaluator: this trial cannot beat the incumbent
"""

from collections.abc import Mapping
from typing import Any


class FettleError(Exception):
    """Base of all errors. `hint` says how to mend it; `str(error)` is the bare message."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.hint)


class InvalidInput(FettleError, ValueError):
    """Bad input: the CLI prints the message and the hint and exits with 2."""


class SpaceError(InvalidInput):
    """A search space, domain or condition that cannot be."""


class ParamsError(InvalidInput):
    """Params that do not fit their space; the message lists unknown, missing and inactive names."""


class ModelError(InvalidInput):
    """A model file that is missing, broken or unsupported."""


class StudyMismatch(InvalidInput):
    """A study of that name exists with another space or problem; the message shows the difference."""


class StudyNotFound(InvalidInput):
    """No study of that name in that storage."""


class StorageError(FettleError):
    """The journal could not be read or written."""


class TurnExpired(StorageError):
    """The turn ran out before its events were appended; nothing was written. Take a new turn."""


class Exhausted(FettleError):
    """Every point of a finite space has been proposed."""


class TrialFailure(FettleError):
    """Raised by an evaluator when the trial failed.

    failure: one of `core.trial.FAILURES`. log: the last lines of whatever failed.
    metrics: figures that were measured before the failure.
    """

    def __init__(
        self, message: str, *, failure: str = "other", log: str = "", metrics: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.log = log
        self.metrics = dict(metrics or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_failure, (str(self), self.failure, self.log, self.metrics)


def _rebuild_failure(message: str, failure: str, log: str, metrics: Mapping[str, Any]) -> TrialFailure:
    return TrialFailure(message, failure=failure, log=log, metrics=metrics)


class TrialStopped(FettleError):
    """Raised by an evaluator that gives up because it cannot beat `ctx.incumbent`.

    metrics: the objective at the *optimistic* end of its interval, a bound on the true value.
    """

    def __init__(self, message: str, metrics: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.metrics = dict(metrics)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrialStopped, (str(self), self.metrics)
