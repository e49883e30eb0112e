"""Makes journal-v1.db and journal-v1.json: every kind of event, written by the schema of its time.

    python tests/data/make_journal.py FOLDER

Run once per schema version, never again for an old one: the test is that today's code reads yesterday's file.
"""

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import fettle
from fettle.core.answer import answer
from fettle.core.trial import SCHEMA, Event, Trial, TrialLog
from fettle.storage.sql import SqlStorage
from fettle.study import Study

NAME = "golden"


def experiment() -> dict[str, Any]:
    space = fettle.Space(
        lr=fettle.Float(0.0001, 1, log=True),
        n=fettle.Int(1, 8),
        size=fettle.Ordinal(["16", "128"]),
        opt=fettle.Choice(sgd=fettle.Space(momentum=fettle.Float(0, 1)), adam=fettle.Space()),
    )
    return {
        "name": NAME,
        "space": space.to_json(),
        "objectives": [{"metric": "loss", "goal": "minimize"}, {"metric": "rate", "goal": "maximize"}],
        "constraints": [{"metric": "latency_p99_s", "upper": 0.05, "lower": None}],
        "algorithm": {"name": "random"},
        "scheduler": None,
        "seed": 3,
        "budget": {"trials": 20, "seconds": None},
        "prices": {"core_hour": 0.04},
    }


def params(i: int) -> dict[str, Any]:
    branch = {"opt": "adam"} if i % 2 else {"opt": "sgd", "opt.sgd.momentum": 0.125 * i}
    return {"lr": 0.25 / (i + 1), "n": i + 1, "size": ("16", "128")[i % 2], **branch}


def told(loss: float | None, rate: float = 1.0, p99: float = 0.04, **more: Any) -> dict[str, Any]:
    metrics = {} if loss is None else {"loss": loss, "rate": rate, "latency_p99_s": p99}
    return {"state": "complete", "metrics": metrics, "fidelity": None, **more}


def failed(failure: str, error: str, **more: Any) -> dict[str, Any]:
    return {"state": "failed", "metrics": {}, "failure": failure, "error": error, **more}


def confirmed(loss: float, *, passed: bool = True, intervals: Any = ()) -> dict[str, Any]:
    figures = {"metrics": {"loss": loss}, "intervals": dict(intervals)}
    return {"source": "confirm", "passed": passed, "wall_s": 2.0, **figures}


def events() -> list[Event]:
    """One second apart."""
    common = {"lease_s": 30.0, "incumbent": None, "fidelity": None}
    intervals = {"loss": [0.4, 0.6, 30], "rate": [0.9, None, 3]}
    extra = {"timings": {"wall_s": 0.9, "cpu_s": 0.5}, "artifacts": {"log": "größe\n", "curve": [[1, None]]}}
    rows: list[tuple[str, int, dict[str, Any]]] = [
        ("created", -1, experiment()),
        ("enqueued", 0, {"params": {**params(0), "n": 99}, "note": "the defaults", "outside": True}),
        ("enqueued", 1, {"params": params(1), "note": ""}),
        ("started", 0, {**common, "seen": 3}),
        ("told", 0, told(0.1, **extra)),
        ("started", 1, {**common, "seen": 5}),
        ("told", 1, told(0.5, intervals=intervals, **extra)),
        ("started", 2, {"params": params(2), "note": "drawn", "predicted": {"rate": 2.0}, **common, "seen": 7}),
        ("started", 3, {"params": params(3), "repeat": True, **common, "lease_s": None, "seen": 7}),
        ("reported", 2, {"fidelity": 1.0, "metrics": {"loss": 0.7}}),
        ("reported", 2, {"fidelity": 3.0, "metrics": {"loss": 0.6}}),
        ("told", 2, {**told(0.6), "state": "stopped", "error": "it cannot win"}),
        ("told", 3, told(0.3, rate=5.0, p99=0.09)),
        ("told", 4, {**told(0.45, rate=0.5), "params": params(4)}),
        ("started", 5, {"params": params(5), **common, "seen": 14}),
        ("lost", 5, {"error": "its worker gave no sign of life", "seen_s": 1_700_000_014.5}),
        ("enqueued", 6, {"params": params(5), "note": "second try of lost trial 5", "parent": 5}),
        ("started", 6, {**common, "seen": 17}),
        ("told", 6, failed("oom", "no memory left", artifacts={"log": "Killed\n"})),
        ("told", 5, told(0.4, rate=2.0)),
        ("told", 5, told(0.0)),
        ("started", 7, {"params": params(7), **common, "fidelity": 1.0, "seen": 21}),
        ("told", 7, {**told(0.9), "state": "paused", "fidelity": 1.0}),
        ("started", 7, {**common, "fidelity": 3.0, "resume_from": 1.0, "seen": 23}),
        ("told", 7, {**told(0.8), "fidelity": 3.0}),
        ("started", 8, {"params": params(6), **common, "seen": 25}),
        ("told", 8, failed("nan", "not a finite number: loss")),
        ("remeasured", 5, confirmed(0.55, intervals={"loss": [0.5, 0.6, 9]})),
        ("remeasured", 1, confirmed(0.52)),
        ("remeasured", 4, confirmed(0.1, passed=False)),
        ("remeasured", 5, {"source": "measure", "metrics": {"loss": 0.01}, "wall_s": 1.0}),
        ("enqueued", 9, {"params": params(0), "note": "waits"}),
        ("started", 10, {"params": {**params(3), "n": 2}, **common, "lease_s": None, "seen": 32}),
    ]  # fmt: skip
    return [Event(kind, number, payload, 1_700_000_000.0 + i) for i, (kind, number, payload) in enumerate(rows)]


def as_json(trial: Trial) -> dict[str, Any]:
    fields = {name: getattr(trial, name) for name in trial.__slots__}
    fields["state"] = str(trial.state)
    fields["reports"] = [[r.fidelity, dict(r.metrics)] for r in trial.reports]
    fields["intervals"] = {k: [None if abs(x) == float("inf") else x for x in v] for k, v in trial.intervals.items()}
    for name in ("metrics", "timings", "artifacts"):
        fields[name] = dict(fields[name])
    fields["confirmed"] = None if trial.confirmed is None else dict(trial.confirmed)
    return fields


def folded(study: Study) -> dict[str, Any]:
    """All that a journal's fold gives, as JSON."""
    log: TrialLog = study.sync()
    made = answer(log)
    return {
        "experiment": dict(log.experiment),
        "trials": [as_json(t) for t in log.trials],
        "answer": {"best": made.best, "front": list(made.front), "reason": made.reason},
        "counts": {str(state): count for state, count in log.counts.items()},
        "totals": [log.started, log.elsewhere, log.units, log.seconds, log.seen],
        "rungs": {str(fidelity): rows for fidelity, rows in log.rungs.items()},
        "incumbent": None if log.incumbent is None else log.incumbent.number,
    }


def main(folder: Path) -> None:
    path = folder / f"journal-v{SCHEMA}.db"
    path.unlink(missing_ok=True)
    storage = SqlStorage(path)
    storage.open(NAME, create=True).append(events())
    study = Study.open(NAME, path)
    made = folded(study)
    study.close()
    storage.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = DELETE")  # one file, no -wal beside it
    db.execute("VACUUM")
    db.close()
    text = json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True)
    (folder / f"journal-v{SCHEMA}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
