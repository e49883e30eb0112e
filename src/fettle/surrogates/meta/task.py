"""A task: what one earlier search measured, as data to learn from."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fettle.core.errors import InvalidInput
from fettle.core.protocols import Journal
from fettle.core.space import Params, Space
from fettle.core.trial import FAILURES, State, Trial, TrialLog

_HINT = 'write rows=[({"batch": 8}, {"throughput_rps": 812.0}), ({"batch": 256}, "oom")]'


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. failure: "" or one of the failure classes; metrics: what was measured, until then."""

    params: Params
    metrics: Mapping[str, float]
    failure: str = ""


class Finished(Protocol):
    """What `Task.from_study` reads of a study."""

    name: str
    space: Space
    log: TrialLog
    journal: Journal

    @property
    def trials(self) -> list[Trial]: ...


@dataclass(frozen=True, slots=True, init=False)
class Task:
    """Rows of one model, data set or program; repeated params are repeats of one measurement.

    A row is (params, metrics), (params, metrics, failure) or (params, failure). space: gives the knobs' units.
    features: figures that describe the task (FLOPs, rows of the data set ...). context: JSON that says where the rows
    are from (machine's fingerprint, problem ...); tasks of equal context["origin"] are one. Raises InvalidInput.
    """

    name: str
    rows: tuple[Row, ...]
    space: Space | None
    features: Mapping[str, float] | None
    context: Mapping[str, Any] | None

    def __init__(
        self,
        name: str,
        rows: Sequence[Any],
        *,
        space: Space | None = None,
        features: Mapping[str, float] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"task: expected a name, got {name!r}", 'write fettle.meta.Task("resnet50", rows=[...])')
        if isinstance(rows, str | Mapping) or not isinstance(rows, Sequence) or not rows:
            raise InvalidInput(f"task {name!r}: expected a list of rows with at least one, got {rows!r:.80}", _HINT)
        if space is not None and not isinstance(space, Space):
            raise InvalidInput(f"task {name!r}: expected a fettle.Space or None, got {space!r:.80}")
        if context is not None and not isinstance(context, Mapping):
            raise InvalidInput(f"task {name!r}: context: expected a dict or None, got {context!r:.80}")
        made = tuple(_row(f"task {name!r}: rows[{i}]", row) for i, row in enumerate(rows))
        if not any(row.metrics or row.failure for row in made):
            raise InvalidInput(f"task {name!r}: no row has a finite metric or a failure", _HINT)
        flat = None if features is None else _figures(f"task {name!r}: features", features)
        for key, value in (("name", name), ("rows", made), ("space", space), ("features", flat), ("context", context)):
            object.__setattr__(self, key, value)

    @classmethod
    def from_study(cls, study: Finished, *, features: Mapping[str, float] | None = None) -> "Task":
        """The measured and the failed trials of a study; what was stopped or lost says nothing exact."""
        rows: list[Any] = []
        for trial in study.trials:
            if trial.state is State.COMPLETE:
                rows.append((trial.params, trial.metrics))
            elif trial.state is State.FAILED and trial.failure != "lost":
                rows.append((trial.params, trial.metrics, trial.failure or "other"))
        if not rows:
            raise InvalidInput(f"study {study.name!r} has no finished trial", "learn from studies that have some")
        return cls(study.name, rows, space=study.space, features=features, context=_context(study))

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics in the rows, sorted."""
        return sorted({name for row in self.rows for name in row.metrics})

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rows": [[row.params, dict(row.metrics), row.failure] for row in self.rows],
            "space": None if self.space is None else self.space.to_json(),
            "features": None if self.features is None else dict(self.features),
            "context": None if self.context is None else dict(self.context),
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> "Task":
        space = None if form.get("space") is None else Space.from_json(form["space"])
        rows = [tuple(row) for row in form["rows"]]
        return cls(form["name"], rows, space=space, features=form.get("features"), context=form.get("context"))


def _context(study: Finished) -> dict[str, Any]:
    """What was searched for and on which machine, as far as the study's record says. The beginning of its journal is
    what tells it from other studies, of the same name or not."""
    record = study.log.experiment
    begun = next(iter(study.journal.read())).time_s
    text = json.dumps([study.name, begun, record.get("space"), record.get("seed")], sort_keys=True)
    problem = record.get("problem") or {}
    target = problem.get("target")
    known = {
        "origin": f"study {hashlib.sha256(text.encode()).hexdigest()[:16]}",
        "problem": problem.get("name", "function"),
        "target": target.get("name") if isinstance(target, Mapping) else target,
        "models": (problem.get("model") or {}).get("hashes"),
        "slo": problem.get("slo_text"),
        "objectives": record.get("objectives"),
        "constraints": record.get("constraints"),
        "machine": record.get("machine"),
        "fingerprint": record.get("fingerprint"),
        "begun_s": begun,
    }
    return {key: value for key, value in known.items() if value}


def _row(where: str, row: Any) -> Row:
    if isinstance(row, Row):
        return row
    if not isinstance(row, tuple | list) or len(row) not in (2, 3) or not isinstance(row[0], Mapping):
        raise InvalidInput(f"{where}: expected (params, metrics) or (params, failure), got {row!r:.80}", _HINT)
    params, second, failure = row[0], row[1], row[2] if len(row) == 3 else ""
    if isinstance(second, str) and len(row) == 2:
        second, failure = {}, second
    if not isinstance(second, Mapping):
        raise InvalidInput(f"{where}: expected metrics or the class of a failure, got {second!r:.80}", _HINT)
    if failure and failure not in FAILURES:
        raise InvalidInput(f"{where}: unknown failure {failure!r}", f"known: {', '.join(FAILURES)}")
    return Row(dict(params), _figures(where, second), failure or "")


def _figures(where: str, given: Any) -> dict[str, float]:
    """Finite figures; those that are not known (NaN, infinite) are left out."""
    found = {}
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{where}: expected a dict of figures, got {given!r:.80}")
    for name, value in given.items():
        if isinstance(value, str) or not isinstance(name, str):
            raise InvalidInput(f"{where}: {name!r}: expected a number, got {value!r}")
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{where}: {name!r}: expected a number, got {value!r}") from error
        if math.isfinite(number):
            found[name] = number
    return found
