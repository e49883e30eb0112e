"""Collecting: what is written, resumed and refused. The figures come from a double of the executor."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fettle.core.errors import InvalidInput
from fettle.core.protocols import Evaluator, Job
from fettle.core.serving import Machine
from fettle.core.trial import Event, Report
from fettle.problems.serve.collect import campaign, rows
from fettle.problems.serve.collect.campaign import Calm, Collected, collect, find
from fettle.problems.serve.collect.plan import Settings

FACTS = {"cpu_model": "c", "cores": 1, "isa": [], "host": "h", "packages": {}}
HERE = Machine((0,), 1 << 30, FACTS)
SMALL = Settings(points=4, full=1, top=2, repeats=1)
METRICS = {"throughput_rps": 10.0, "latency_p50_s": 0.1, "latency_p99_s": 0.2, "rss_bytes": 1e6}


class Answers:
    """An executor that answers at once; `say` makes the payload of a job."""

    capacity = 1

    def __init__(self, say: Callable[[Job], dict[str, Any] | None] | None = None) -> None:
        self.say = say or (lambda job: {"metrics": METRICS, "intervals": {}, "artifacts": {"runs": 5, "seconds": 0.5}})
        self.jobs: list[Job] = []

    def submit(self, job: Job, evaluate: Evaluator) -> None:
        self.jobs.append(job)

    def poll(self, timeout_s: float, on_report: Callable[[int, Report], bool]) -> list[Event]:
        payload = self.say(self.jobs[-1])
        return [Event("lost" if payload is None else "told", self.jobs[-1].number, payload or {}, 0.0)]

    def stop(self, number: int) -> None: ...


@pytest.fixture
def folder(tmp_path: Path, onnx_tools: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three models of one addition each; a probe that costs nothing."""
    probe = {"cores": 1.0, "flops_fp32_1": 1e10}
    monkeypatch.setattr(campaign, "machine_features", lambda machine, seed: probe)
    monkeypatch.setattr(campaign.ForeignLoad, "stop", lambda self: replace(QUIET))
    models = tmp_path / "models"
    models.mkdir()
    for i, name in enumerate(("a", "b", "c")):
        onnx_tools.double(models / f"{name}.onnx", ["batch", 3 + i])
    shutil.copy(models / "a.onnx", models / "a.int8.onnx")
    (models / "b.int8.txt").write_text("ValueError: no such operator\n")
    return models


QUIET = campaign.ForeignLoad().stop()
QUIET = replace(QUIET, foreign_ratio=0.0, steal_ratio=0.0)


def run(folder: Path, executor: Answers, **more: Any) -> Collected:
    given = {"machine": HERE, "settings": SMALL, "calm": Calm(tries=1), **more}
    return collect(folder, folder.parent / "rows.jsonl", executor=executor, **given)


def test_models_are_found_with_their_variants(folder: Path) -> None:
    found = find(folder)
    assert list(found) == ["a", "b", "c"]
    assert set(found["a"].files) == {"fp32", "int8"}
    assert found["b"].missing == {"int8": "ValueError: no such operator"}
    assert found["c"].inputs["x"].shape == (5,)


def test_a_collection_is_complete_and_can_be_read(folder: Path) -> None:
    seen = []
    result = run(folder, Answers(), watch=seen.append)
    assert result.complete and result.measured == result.total == len(seen)
    assert (seen[-1].done, seen[-1].total) == (result.total, result.total)
    tasks = rows.measurements(result.path)
    assert [task.name for task in tasks] == ["a", "b", "c"]
    full = {task.name: len(task.rows) for task in tasks}[result.full[0]]
    assert full == sum(1 for _ in tasks[0].space.enumerate()) + 2
    params, metrics = tasks[0].rows[0]
    assert tasks[0].space.contains(params) and metrics == METRICS
    assert tasks[0].context["fingerprint"] == FACTS and tasks[0].context["probe"]["cores"] == 1.0
    assert tasks[0].features["input_elements"] == 3.0
    packed = folder.parent / "x" / "rows.jsonl.gz"
    assert rows.pack(result.path, packed) == packed.stat().st_size
    assert rows.measurements(packed) == tasks
    before = packed.read_bytes()
    rows.pack(result.path, packed)
    assert packed.read_bytes() == before


def test_a_killed_collection_goes_on(folder: Path) -> None:
    out = folder.parent / "rows.jsonl"
    whole = run(folder, Answers())
    lines = out.read_bytes().split(b"\n")
    out.write_bytes(b"\n".join(lines[:10]) + b"\n" + lines[10][:20])  # cut off in the middle of a line
    again = run(folder, Answers())
    assert again.complete and again.measured == whole.total - (10 - 4)  # a header and three models come first
    found = rows.read(out)
    assert len(found.lines) == whole.total == len(rows.done(found.lines))
    assert run(folder, Answers()).measured == 0


def test_time_is_bounded(folder: Path) -> None:
    result = run(folder, Answers(), seconds=0.0)
    assert (result.measured, result.complete) == (0, False)
    assert rows.measurements(result.path) == []


def test_failures_are_rows(folder: Path) -> None:
    def say(job: Job) -> dict[str, Any] | None:
        if job.params["max_batch"] == 16:
            return {"metrics": {}, "failure": "oom", "error": "killed"}
        return Answers().say(job)

    result = run(folder, Answers(say))
    assert result.complete and result.failed > 0
    bad = [row for task in rows.measurements(result.path) for row in task.rows if len(row) == 3]
    assert len(bad) == result.failed
    assert all(row[2] == "oom" and row[1] == {} for row in bad)


def test_a_worker_that_is_killed_is_tried_again(folder: Path) -> None:
    lost = iter([None, None])

    def say(job: Job) -> dict[str, Any] | None:
        return next(lost, Answers().say(job))

    assert run(folder, Answers(say)).failed == 0
    executor = Answers(lambda job: None)
    shutil.rmtree(folder.parent / "other", ignore_errors=True)
    found = collect(folder, folder.parent / "lost.jsonl", executor=executor, machine=HERE, settings=SMALL, seconds=1e9)
    assert {line["failure"] for line in rows.read(found.path).lines} == {"lost"}


def test_disturbed_points_are_measured_again_and_marked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = iter([0.5, 0.3, 0.4])
    monkeypatch.setattr(campaign.ForeignLoad, "stop", lambda self: replace(QUIET, foreign_ratio=next(ratios, 0.0)))
    figures = iter([1.0, 2.0, 3.0])

    def say(job: Job) -> dict[str, Any]:
        return {"metrics": METRICS | {"throughput_rps": next(figures, 9.0)}}

    result = run(folder, Answers(say), calm=Calm(tries=3, wait_s=0.0))
    first, second = rows.read(result.path).lines[:2]
    assert (first["tries"], first["foreign"], first["metrics"]["throughput_rps"]) == (3, 0.3, 2.0)
    assert (second["tries"], second["foreign"]) == (1, 0.0)
    assert result.disturbed == 1


def test_another_machine_or_other_models_are_refused(folder: Path, onnx_tools: Any) -> None:
    run(folder, Answers())
    with pytest.raises(InvalidInput, match="measured where cpu_model is c, here it is other"):
        run(folder, Answers(), machine=replace(HERE, facts=FACTS | {"cpu_model": "other"}))
    with pytest.raises(InvalidInput, match="other models or settings"):
        run(folder, Answers(), settings=replace(SMALL, points=5))
    onnx_tools.double(folder / "d.onnx")
    with pytest.raises(InvalidInput, match="other models or settings"):
        run(folder, Answers())


def test_bad_folders_and_files(tmp_path: Path, onnx_tools: Any) -> None:
    with pytest.raises(InvalidInput, match="found none"):
        find(tmp_path)
    onnx_tools.double(tmp_path / "fixed.onnx", [1, 3])
    with pytest.raises(InvalidInput, match="the batch, and nothing else"):
        find(tmp_path)
    for name, text in (("a", ""), ("b", "text\n"), ("c", json.dumps({"kind": "header", "schema": 99}) + "\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InvalidInput):
            rows.read(tmp_path / name)
    with pytest.raises(InvalidInput, match="cannot be read"):
        rows.read(tmp_path / "none")
