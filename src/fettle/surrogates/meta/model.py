"""A trained meta-model: every metric of the tasks and feasibility, each learned on its own; saved without pickle."""

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.errors import InvalidInput
from fettle.core.space import Space
from fettle.surrogates.meta.anchors import Anchors, Sample, learned, sample
from fettle.surrogates.meta.knobs import Knobs
from fettle.surrogates.meta.methods import METHODS, Arrays, Learned
from fettle.surrogates.meta.prior_gp import Hyper, left_out
from fettle.surrogates.meta.scales import LOG, RANKS, Ranks, forward, possible
from fettle.surrogates.meta.similarity import Features, Likeness
from fettle.surrogates.meta.tables import Table, tabulated
from fettle.surrogates.meta.task import Task
from fettle.surrogates.task_feasibility import TaskFeasibility

Floats = np.ndarray
FORMAT = 2  # 1: without processes about single tasks
_SURER = 0.06  # rank correlation by which ranks have to foretell left-out tasks better than figures
_CLEARER = 0.25  # log-density per figure by which another scale than the logarithm has to be better


@dataclass(frozen=True, slots=True)
class MetaModel:
    """head: the JSON part (format, method, tasks, knobs, scale of each metric). arrays: "metric's index/name" -> it."""

    head: Mapping[str, Any]
    arrays: Mapping[str, Floats]
    _learned: dict[Any, Learned] = field(default_factory=dict, compare=False, repr=False)  # cache

    @property
    def method(self) -> str:
        return str(self.head["method"])

    @property
    def tasks(self) -> list[str]:
        return list(self.head["tasks"])

    @property
    def metrics(self) -> list[str]:
        return list(self.head["scales"])

    @property
    def knobs(self) -> Knobs:
        return Knobs.from_json(self.head["knobs"])

    def scale(self, metric: str) -> str:
        return str(self.head["scales"][metric])

    def fit(self, metric: str) -> float | None:
        """Mean log-density (nats) of a figure of a left-out task, given the others; None for a single task."""
        found: float | None = self.head.get("fit", {}).get(metric)
        return found

    def ranked(self, metric: str) -> bool:
        """Whether tasks are more alike by ranks than on the metric's scale."""
        return metric in self.head.get("ranked", ())

    def of(self, metric: str, features: Mapping[str, float] | None = None, *, ranks: bool = False) -> Learned:
        """What was learned of a metric, for a task with such features. ranks: on the scale of ranks."""
        key = metric, ranks, None if features is None else tuple(sorted(features.items()))
        if key not in self._learned:
            prefix = f"{self.metrics.index(metric)}/{'ranks/' if ranks else ''}"
            own = {name.removeprefix(prefix): a for name, a in self.arrays.items() if name.startswith(prefix)}
            likeness = self._likeness(own, features)
            self._learned[key] = METHODS[self.method].restore(own, self.knobs.columns, likeness)
        return self._learned[key]

    def _likeness(self, own: Mapping[str, Floats], features: Mapping[str, float] | None) -> Likeness:
        if self.head["features"] is None:
            return Likeness()
        line = own.get("level", np.empty(0))  # files of earlier versions have none
        tasks = own["tasks"].astype(int).tolist()
        return Features.from_json(self.head["features"]).likeness(features, tasks, float(own["bandwidth"][0]), line)

    @property
    def feasibility(self) -> TaskFeasibility:
        return TaskFeasibility.from_arrays(
            {name.removeprefix("feasibility/"): a for name, a in self.arrays.items() if name.startswith("feasibility/")}
        )

    # -- files ----------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """A compressed .npz, the same for the same content."""
        out = io.BytesIO()
        parts = {"head": np.frombuffer(json.dumps(self.head, sort_keys=True).encode(), np.uint8), **self.arrays}
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in sorted(parts.items()):
                buffer = io.BytesIO()
                small = array.astype(np.float32) if _rounded(name) else array
                np.lib.format.write_array(buffer, np.ascontiguousarray(small), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)
        return out.getvalue()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: str | Path) -> Path:
        """Writes one file; `fettle.meta.load` reads it."""
        path = Path(path)
        path.write_bytes(self.to_bytes())
        return path


def load(path: str | Path) -> MetaModel:
    """The model of a file that `save` wrote. Raises InvalidInput."""
    try:
        with np.load(Path(path), allow_pickle=False) as stored:
            parts = {name: stored[name] for name in stored.files}
        head = json.loads(bytes(parts.pop("head")))
        known = head["format"] == FORMAT
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{path} is no meta-model: {error}", "give a file that model.save(path) wrote") from error
    if not known:
        raise InvalidInput(f"{path} has format {head['format']}, this version reads {FORMAT}", "train it again")
    arrays = {name: a.astype(float) if a.dtype == np.float32 else a for name, a in parts.items()}
    return MetaModel(head, arrays)


def train(tasks: Sequence[Task], space: Space, *, method: str = "auto", seed: int = 0) -> MetaModel:
    """Learns every metric that at least one task has twice, and where tasks fail, over the knobs of `space`.

    method: one of METHODS; "auto" is "prior_gp". Raises InvalidInput.
    """
    name = "prior_gp" if method == "auto" else method
    if name not in METHODS:
        raise InvalidInput(f"unknown method {method!r}", f"known: auto, {', '.join(METHODS)}")
    knobs, tables = tabulated(tasks, space)
    features = Features.of([task.features for task in tasks])
    scales, fits, arrays = dict[str, str](), dict[str, float | None](), dict[str, Floats]()
    ranked: list[str] = []
    for metric in sorted({metric for table in tables for metric in table.y}):
        rng = np.random.default_rng([seed, len(scales)])
        found = _metric(name, metric, tables, knobs, features, rng)
        if found is not None:
            arrays |= {f"{len(scales)}/{key}": array for key, array in found.arrays.items()}
            scales[metric], fits[metric] = found.scale, found.fit if math.isfinite(found.fit) else None
            ranked += [metric] if found.ranked else []
    if not scales:
        raise InvalidInput("no metric was measured twice in any task", "give tasks with at least two measured rows")
    choices = np.array([len(k.choices) if k.kind == "word" else 0 for k in knobs.knobs], float)
    failures = TaskFeasibility.of([(t.X, t.failed) for t in tables], choices, np.random.default_rng(seed))
    arrays |= {f"feasibility/{key}": array for key, array in failures.to_arrays().items()}
    head = {
        "format": FORMAT,
        "method": name,
        "tasks": [table.name for table in tables],
        "knobs": knobs.to_json(),
        "scales": scales,
        "fit": fits,
        "ranked": ranked,
        "features": None if features is None else features.to_json(),
        "seed": seed,
    }
    return MetaModel(head, {k: a.astype(np.float32).astype(float) if _rounded(k) else a for k, a in arrays.items()})


def _rounded(name: str) -> bool:
    """Large arrays of figures are kept in single precision; places of points are not, as they are looked up."""
    return name.endswith(("/R", "/theta", "/demands"))


@dataclass(frozen=True, slots=True)
class _Metric:
    """What was learned of one metric. ranked: on the scale of ranks, too."""

    scale: str
    fit: float
    arrays: Arrays
    ranked: bool


def _metric(
    name: str,
    metric: str,
    tables: Sequence[Table],
    knobs: Knobs,
    features: Features | None,
    rng: np.random.Generator,
) -> _Metric | None:
    """None where no task has it twice."""
    figures = {t: table.y[metric] for t, table in enumerate(tables) if metric in table.y}

    def on(scale: str) -> _Scaled | None:
        return _scaled(scale, {t: tables[t].X for t in figures}, figures, knobs, rng)

    found = [one for scale in possible(list(figures.values())) if (one := on(scale)) is not None]
    if not found:
        return None
    best = found[0]
    for one in found[1:]:
        best = one if one.hyper.fit > best.hyper.fit + _CLEARER else best
    arrays = best.arrays(name, knobs, features, rng)
    ranks = on(RANKS)
    ranked = ranks is not None and len(figures) > 1 and ranks.hyper.skill > best.hyper.skill + _SURER
    if ranks is not None and ranked:
        arrays |= {f"ranks/{key}": array for key, array in ranks.arrays(name, knobs, features, rng).items()}
    return _Metric(best.scale, best.hyper.fit, arrays, ranked)


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A metric on one scale."""

    scale: str
    samples: Mapping[int, Sample]
    anchors: Anchors
    hyper: Hyper

    def arrays(self, name: str, knobs: Knobs, features: Features | None, rng: np.random.Generator) -> Arrays:
        tasks = list(self.samples)
        made = METHODS[name].learn(list(self.samples.values()), self.anchors, self.hyper, knobs.columns, rng)
        near, line = 0.0, np.empty(0)
        if features is not None and len(tasks) >= 3:
            near, line = features.bandwidth(self.anchors, tasks), features.levels(self.anchors.levels, tasks)
        return {**made, "tasks": np.array(tasks, float), "bandwidth": np.array([near]), "level": line}


def _scaled(
    scale: str, places: Mapping[int, Floats], figures: Mapping[int, Floats], knobs: Knobs, rng: np.random.Generator
) -> _Scaled | None:
    samples = {}
    for t, y in figures.items():
        z = Ranks.of(y).forward(y) if scale == RANKS else forward(scale, y)
        if (one := sample(places[t], z, own_unit=scale != LOG)) is not None:
            samples[t] = one
    if not samples:
        return None
    anchors = learned(list(samples.values()), knobs.columns, rng)
    return _Scaled(scale, samples, anchors, left_out(anchors, knobs.columns, rng, log=scale == LOG))
