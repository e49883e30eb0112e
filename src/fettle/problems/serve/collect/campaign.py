"""Collecting measurements: runs the plan, one point at a time, on a calm machine, and writes every row at once."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.errors import InvalidInput
from fettle.core.protocols import Evaluator, Executor, Job
from fettle.core.serving import Machine
from fettle.host.machine import machine_lock
from fettle.host.observe import ForeignLoad
from fettle.problems.runtimes.onnxgraph import model_features
from fettle.problems.runtimes.probe import machine_features
from fettle.problems.serve import onnxfile
from fettle.problems.serve.collect import rows
from fettle.problems.serve.collect.grid import ordered, shared_space, spread
from fettle.problems.serve.collect.inprocess import InProcess, Item, Measured
from fettle.problems.serve.collect.plan import Settings, Wanted, total, wanted

FOREIGN_RATIO = (
    0.10  # of the machine's time taken by strangers or by the hypervisor: above it, a point is measured again
)
_LIMIT_S = 60.0  # for one measurement, loading included
_LOCK_S = 600.0
_SHOWN = ("flops", "weight_bytes", "activation_bytes", "intensity", "depth", "share_matmul", "share_depthwise")
_SAME = ("cpu_model", "cores", "isa", "host", "packages")  # facts that all rows of a file must share


@dataclass(frozen=True, slots=True)
class Calm:
    """How much is done against strangers on the machine: tries per point, and seconds to wait before a further one."""

    tries: int = 3
    wait_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Progress:
    done: int
    total: int
    seconds: float
    line: Mapping[str, Any]  # the row just measured


@dataclass(slots=True)
class Collected:
    """measured: rows of this run; complete: nothing is left to measure."""

    path: Path
    measured: int = 0
    failed: int = 0
    disturbed: int = 0
    total: int = 0
    seconds: float = 0.0
    complete: bool = False
    full: list[str] = field(default_factory=list)


def find(folder: Path) -> dict[str, Measured]:
    """The models of a folder: NAME.onnx, with NAME.int8.onnx beside it or the reason why there is none in
    NAME.int8.txt. Raises ModelError, and InvalidInput where there is none."""
    found = {}
    for path in sorted(folder.glob("*.onnx")):
        name = path.name.removesuffix(".onnx")
        if name.endswith(".int8"):
            continue
        declared = onnxfile.read(path).inputs
        for value in declared:
            if not value.shape or value.shape[0] is not None or None in value.shape[1:]:
                raise InvalidInput(
                    f"{path}: input {value.name!r}: expected the batch, and nothing else, left open; got {value.shape}",
                    "export it with a dynamic first dimension and fixed sizes otherwise",
                )
        items = {v.name: Item(tuple(n for n in v.shape or () if n is not None), v.dtype) for v in declared}
        int8, reason = path.with_name(f"{name}.int8.onnx"), path.with_name(f"{name}.int8.txt")
        files = {"fp32": path} | ({"int8": int8} if int8.exists() else {})
        missing = {"int8": reason.read_text().strip()} if reason.exists() else {}
        found[name] = Measured(files, missing, items)
    if not found:
        raise InvalidInput(f"{folder}: expected .onnx files, found none", "give the folder of the models")
    return found


def collect(
    folder: Path,
    out: Path,
    *,
    executor: Executor,
    machine: Machine,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    calm: Calm = Calm(),
    seconds: float | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Collected:
    """Measure the models of a folder into the file `out`, from where it stands, for at most `seconds`.

    Points of every model come first, in turn, so that a part of the whole is useful. machine: with its fingerprint as
    facts. Raises InvalidInput if `out` was begun with other models, settings or another machine.
    """
    begun = time.monotonic()
    models = find(folder)
    features = {name: model_features(model.files["fp32"]) for name, model in models.items()}
    space = shared_space(len(machine.cores))
    points = ordered(space, seed=settings.seed)
    names = list(models)
    full = [names[i] for i in spread(_table(features), min(settings.full, len(names)))]
    stored = _begin(out, models, features, machine, settings)
    result = Collected(out, total=total(len(names), len(full), len(points), settings), full=full)
    known, evaluate = rows.done(stored.lines), InProcess(models)
    with _writer(out) as writer, tempfile.TemporaryDirectory(prefix="fettle-collect-") as work:
        for i, one in enumerate(wanted(names, full, points, settings, stored.lines, len(machine.cores))):
            if one.key in known:
                continue
            if seconds is not None and time.monotonic() - begun >= seconds:
                break
            line = _measured(one, Job(i, {"model": one.model, **one.params}, i, Path(work)), executor, evaluate, calm)
            writer.append("row", line)
            stored.lines.append(line)
            known.add(one.key)
            result.measured += 1
            result.failed += bool(line.get("failure"))
            result.disturbed += line["foreign"] > FOREIGN_RATIO
            result.seconds = time.monotonic() - begun
            watch(Progress(len(known), result.total, result.seconds, line))
        else:
            result.complete = True
    return result


def _table(features: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    """(models, figures): what tells models apart, sizes by their logarithm."""
    values = np.array([[row[name] for name in _SHOWN] for row in features.values()])
    large = [i for i, name in enumerate(_SHOWN) if not name.startswith("share_")]
    values[:, large] = np.log(np.maximum(values[:, large], 1e-9))
    return values


def _begin(
    out: Path,
    models: Mapping[str, Measured],
    features: Mapping[str, Mapping[str, float]],
    machine: Machine,
    settings: Settings,
) -> rows.RowFile:
    """The file as it stands, its header written if it is new."""
    space = shared_space(len(machine.cores))
    described = {
        name: {"features": dict(features[name]), "sha256": onnxfile.read(model.files["fp32"]).sha256()}
        for name, model in models.items()
    }
    if out.exists() and out.stat().st_size:
        found = rows.read(out)
        facts = {name: (found.header["fingerprint"].get(name), machine.facts.get(name)) for name in _SAME}
        other = next((name for name, (then, now) in facts.items() if then != now), None)
        if other:
            raise InvalidInput(
                f"{out}: was measured where {other} is {facts[other][0]}, here it is {facts[other][1]}",
                "write into another file: one file is one machine",
            )
        same = (found.header["settings"], found.header["space"]) == (asdict(settings), space.to_json())
        if not same or {n: m["sha256"] for n, m in found.models.items()} != {
            n: m["sha256"] for n, m in described.items()
        }:
            raise InvalidInput(f"{out}: was begun with other models or settings", "write into another file")
        return found
    header = {
        "schema": rows.SCHEMA,
        "space": space.to_json(),
        "settings": asdict(settings),
        "fingerprint": dict(machine.facts),
        "probe": machine_features(machine, seed=settings.seed),
    }
    with _writer(out) as writer:
        writer.append("header", header)
        for name, entry in described.items():
            writer.append("model", {"name": name, **entry})
    return rows.read(out)


@contextmanager
def _writer(path: Path) -> Iterator[rows.Writer]:
    writer = rows.Writer(path)
    try:
        yield writer
    finally:
        writer.close()


def _measured(one: Wanted, job: Job, executor: Executor, evaluate: Evaluator, calm: Calm) -> dict[str, Any]:
    """The row of one point: of several tries, that with the least foreign load."""
    attempts = []
    for attempt in range(calm.tries):
        with machine_lock(_LOCK_S):
            load = ForeignLoad()
            load.start()
            payload = _run(job, executor, evaluate)
            noise = load.stop()
        foreign = noise.foreign_ratio + noise.steal_ratio
        attempts.append((foreign, payload))
        if foreign <= FOREIGN_RATIO or payload.get("failure"):
            break
        if attempt < calm.tries - 1:
            _wait(calm.wait_s)
    foreign, payload = min(attempts, key=lambda pair: pair[0])
    artifacts: Mapping[str, Any] = payload.get("artifacts", {})
    line = {
        "model": one.model,
        "params": one.params,
        "repeat": one.repeat,
        "metrics": payload.get("metrics", {}),
        "intervals": payload.get("intervals", {}),
        "foreign": round(foreign, 4),
        "tries": len(attempts),
        "runs": artifacts.get("runs", 0),
        "seconds": artifacts.get("seconds", 0.0),
        "at": round(time.time(), 1),
    }
    return line | {name: payload[name] for name in ("failure", "error") if payload.get(name)}


def _run(job: Job, executor: Executor, evaluate: Evaluator) -> dict[str, Any]:
    """The payload of a `told` event; a worker that was killed from outside is started again, twice."""
    limited = Job(job.number, job.params, job.seed, job.workdir / "run", limit_s=_LIMIT_S)
    for _ in range(3):
        executor.submit(limited, evaluate)
        events: Sequence[Any] = ()
        while not events:
            events = executor.poll(1.0, lambda number, report: True)
        if events[0].kind == "told":
            return dict(events[0].payload)
    return {"failure": "lost", "error": "its worker was killed three times"}


def _wait(seconds: float) -> None:
    """Until strangers are quiet, for at most so long."""
    load, give_up = ForeignLoad(), time.monotonic() + seconds
    while time.monotonic() < give_up:
        load.start()
        time.sleep(0.5)
        noise = load.stop()
        if noise.foreign_ratio + noise.steal_ratio <= FOREIGN_RATIO:
            return
