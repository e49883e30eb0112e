"""`fettle meta add`, `list`, `remove`, `train` and `evaluate` on studies that lie in SQLite."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

import fettle as package
from fettle.cli import experiment
from fettle.problems.serve.collect.rows import Writer
from fettle.study import Study
from fettle.surrogates.meta import Store, Task, load

from . import conftest
from .conftest import HOSTILE, MODELS, Fettle, check, finished_study

SPACE = package.Space(batch=package.Int(1, 32, log=True), threads=package.Ordinal([1, 2, 4, 8]))
GRID = [{"batch": b, "threads": t} for b in (1, 2, 4, 8, 16, 32) for t in (1, 2, 4, 8)]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The default store of these tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FETTLE_META", str(tmp_path / "store"))
    return Store.default()


def searched(name: str, peak: float) -> None:
    """A finished study of a Python function."""
    study = Study(
        SPACE, objectives=[package.Objective("rate", "maximize")], storage="fettle.db", name=name, algorithm="random"
    )
    for params in GRID:
        if params["batch"] * params["threads"] == 256:
            study.tell(study.enqueue(params), failure="oom")
        else:
            off = (math.log2(params["batch"]) - peak) ** 2 + math.log2(params["threads"]) ** 2
            study.tell(study.enqueue(params), {"rate": 100.0 * peak * (0.2 + math.exp(-off))})
    study.close()


def collected(path: Path) -> Path:
    writer = Writer(path)
    space = {"batch": {"int": [1, 8]}}
    writer.append("header", {"schema": 1, "space": space, "fingerprint": {"cores": 2}, "probe": {"flops": 1e9}})
    for name in ("one", "two", "unmeasured"):
        writer.append("model", {"name": name, "features": {"flops": 1e6}})
    for name in ("one", "one", "two"):
        line = {"model": name, "params": {"batch": 4}, "repeat": 0, "metrics": {"rate": 2.0}}
        writer.append("row", line)
    writer.append("row", {"model": "two", "params": {"batch": 8}, "repeat": 0, "metrics": {}, "failure": "oom"})
    writer.close()
    return path


def test_a_served_model_is_added(fettle: Fettle, finished: Path, store: Store) -> None:
    ran = fettle("meta", "add", "digits", "--json")
    assert (ran.code, ran.err) == (0, "")
    check("meta_add", ran.document)
    (added,) = ran.document["tasks"]
    assert (added["name"], added["rows"], added["failed"], added["features"]) == ("digits", 4, 1, True)
    assert added["problem"] == "serve" and added["note"] == "" and added["machine"]["cores"] >= 1
    assert "throughput_rps" in added["metrics"] and Path(added["path"]).exists()
    (task,) = store.tasks()
    assert task.features is not None and task.features["flops"] > 1e5
    context = task.context or {}
    assert (context["target"], context["slo"]) == ("mosec", "p99=50ms,errors=1%")
    assert context["objectives"][0]["metric"] == "cost_per_million" and len(context["models"]) == 2
    again = fettle("meta", "add", "digits")
    assert again.code == 0 and "1 added" in again.out and "digits" in again.out
    assert len(store.tasks()) == 1


def test_a_model_that_is_gone_is_said(fettle: Fettle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for file in MODELS.glob("digits*"):
        shutil.copy(file, folder)
    monkeypatch.setattr(conftest, "MODELS", folder)
    finished_study(tmp_path / "fettle.db")
    (folder / "digits-fp32.onnx").write_bytes((folder / "digits-int8.onnx").read_bytes())
    ran = fettle("meta", "add", "digits", "--json")
    assert ran.code == 0 and "has changed since" in ran.document["tasks"][0]["note"]
    (folder / "digits-fp32.onnx").unlink()
    ran = fettle("meta", "add", "digits", "--json")
    assert ran.code == 0 and ran.document["tasks"][0]["features"] is False
    assert "no such file" in ran.document["tasks"][0]["note"]
    assert "features are not known" in fettle("meta", "add", "digits").out


def test_a_collection_is_added(fettle: Fettle, tmp_path: Path, store: Store) -> None:
    path = collected(tmp_path / "rows.jsonl")
    ran = fettle("meta", "add", "--rows", path, "--json")
    check("meta_add", ran.document)
    assert [(t["name"], t["rows"], t["failed"]) for t in ran.document["tasks"]] == [("one", 2, 0), ("two", 2, 1)]
    writer = Writer(path)
    writer.append("row", {"model": "one", "params": {"batch": 1}, "repeat": 0, "metrics": {"rate": 1.0}})
    writer.close()
    assert fettle("meta", "add", "--rows", path).code == 0
    assert {t.name: len(t.rows) for t in store.tasks()} == {"one": 3, "two": 2}


def test_list_and_remove(fettle: Fettle, tmp_path: Path) -> None:
    ran = fettle("meta", "list", "--json")
    check("meta_list", ran.document)
    assert ran.document["tasks"] == [] and "no tasks yet" in fettle("meta", "list").out
    searched("a", 1.0)
    searched("b", 2.0)
    assert fettle("meta", "add", "b", "a").code == 0
    ran = fettle("meta", "list", "--json")
    check("meta_list", ran.document)
    assert ran.document["total"] == {"tasks": 2, "rows": 48, "failed": 2}
    assert ran.document["tasks"][0]["knobs"] == ["batch", "threads"]
    shown = fettle("meta", "list")
    assert "batch, threads" in shown.out and "2 tasks, 48 rows, 2 of them failures" in shown.out
    ran = fettle("meta", "remove", "a", "--json")
    check("meta_remove", ran.document)
    assert not Path(ran.document["removed"]).exists()
    assert [t["name"] for t in fettle("meta", "list", "--json").document["tasks"]] == ["b"]
    assert fettle("meta", "remove", "b").out == "b removed\n"
    elsewhere = tmp_path / "other"
    assert fettle("meta", "add", "a", "--store", elsewhere).code == 0
    assert [t.name for t in Store(elsewhere).tasks()] == ["a"]
    assert fettle("meta", "list", "--json").document["tasks"] == []


def test_train_makes_what_few_shot_search_takes(fettle: Fettle, store: Store, tmp_path: Path) -> None:
    for i in range(3):
        searched(f"s{i}", 1.0 + i)
    assert fettle("meta", "add", "s0", "s1", "s2").code == 0
    store.add(Task("other", [({"depth": 3}, {"rate": 1.0}), ({"depth": 4}, {"rate": 2.0})]))
    ran = fettle("meta", "train", "-o", "m.npz", "--json")
    assert (ran.code, ran.err) == (0, "")
    check("meta_train", ran.document)
    assert sorted(ran.document["tasks"]) == ["s0", "s1", "s2"] and ran.document["left_out"] == ["other"]
    (metric,) = ran.document["metrics"]
    assert metric["name"] == "rate" and math.isfinite(metric["fit"])
    assert Path("m.npz").stat().st_size == ran.document["bytes"]
    assert load("m.npz").sha256 == ran.document["sha256"]
    study = Study(
        SPACE, objectives=[package.Objective("rate", "maximize")], algorithm=package.FewShot("m.npz"), storage="x.db"
    )
    assert "prior_gp of 3 tasks" in study.ask().note
    same = fettle("meta", "train", "-o", "n.npz", "--task", "s1", "--json").document
    assert same["sha256"] == ran.document["sha256"]
    few = Study(package.Space(batch=package.Int(1, 64)), objectives=["loss"], storage="few.db", name="few")
    few.close()
    ran = fettle("meta", "train", "-o", "o.npz", "--like", "few", "--storage", "few.db", "--method", "nearest")
    assert ran.code == 0, ran.err
    for words in ("nearest of 3 tasks", "left out  other", "knobs     batch\n", "fettle.FewShot('o.npz')"):
        assert words in ran.out


def test_an_experiment_file_names_the_model(tmp_path: Path) -> None:
    """Relative to itself, as all its paths are."""
    (tmp_path / "inner").mkdir()
    file = tmp_path / "inner" / "e.yaml"
    file.write_text(
        "problem: serve\nmodel: m.onnx\nslo: p99=50ms\nalgorithm: {name: fewshot, model: m.npz}\n", encoding="utf-8"
    )
    _, given = experiment.read(file)
    assert given["algorithm"] == {"name": "fewshot", "model": str(tmp_path / "inner" / "m.npz")}


@pytest.mark.medium
def test_evaluate_says_whether_earlier_tasks_help(fettle: Fettle) -> None:
    names = [f"s{i}" for i in range(5)]
    for i, name in enumerate(names):
        searched(name, 4.0 + 0.5 * (i % 3))
    assert fettle("meta", "add", *names).code == 0
    ran = fettle("meta", "evaluate", "--seeds", "1", "--methods", "prior_gp,gp_bo", "--json")
    assert (ran.code, ran.err) == (0, "")
    check("meta_evaluate", ran.document)
    assert ran.document["objective"] == {"metric": "rate", "goal": "maximize"}
    means = {mean["method"]: mean for mean in ran.document["means"]}
    assert means["prior_gp"]["to95"] < means["gp_bo"]["to95"]
    assert ran.document["verdict"][0].startswith("earlier tasks help here")
    words = ("--objective", "rate:maximize", "--methods", "random", "--seeds", "1")
    shown = fettle("meta", "evaluate", *words)
    assert shown.code == 0 and "mean regret" in shown.out and "static" in shown.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add",), "expected names of studies, or --rows"),
        (("add", "none"), "none"),
        (("add", "none", "s", "--storage", "small.db"), "none"),
        (("add", "s", "--storage", "small.db"), "no finished trial"),
        (("add", "s", "--rows", "x.jsonl"), "expected names of studies, or --rows"),
        (("add", "--rows", "x.jsonl"), "cannot be read"),
        (("add", "--rows", "small.db"), "not a line"),
        (("add", "--rows", "empty.jsonl"), "no measurements yet"),
        (("list", "--store", "small.db"), "cannot read the store"),
        (("list", "--store", "damaged"), "bad.json.gz is no stored task"),
        (("train", "-o", "m.npz", "--store", "damaged"), "bad.json.gz is no stored task"),
        (("remove", "none"), "no task 'none'"),
        (("train", "-o", "m.npz"), "no tasks yet"),
        (("train", "-o", "m.npz", "--store", "one", "--task", "none"), "no task 'none'"),
        (("train", "-o", "m.npz", "--store", "one", "--method", "magic"), "unknown method"),
        (("train", "-o", "missing/m.npz", "--store", "one"), "cannot write the model"),
        (("train", "-o", "m.npz", "--store", "one", "--like", "s", "--task", "t"), "got both"),
        (("train", "-o", "m.npz", "--store", "one", "--like", "s", "--storage", "small.db"), "no task shares a knob"),
        (("train", "-o", "m.npz", "--store", "bare"), "no task has a space"),
        (("train", "-o", "m.npz", "--store", "bare", "--task", "t"), "task 't' has a space"),
        (("train",), "--output"),
        (("evaluate",), "no study of the store says what is sought"),
        (("evaluate", "--store", "one"), "metrics: rate"),
        (("evaluate", "--store", "one", "--objective", "rate"), "expected METRIC:GOAL"),
        (("evaluate", "--store", "one", "--objective", "rate:up"), "expected goal"),
        (("evaluate", "--store", "one", "--objective", "speed:maximize"), "speed was not measured"),
        (("evaluate", "--store", "one", "--objective", "rate:maximize"), "no task can be replayed: t: 2 rows"),
        (("evaluate", "--store", "one", "--objective", "rate:maximize", "--methods", "magic"), "unknown method"),
        (("evaluate", "--seeds", "0"), "--seeds"),
    ],
)
def test_bad_input(fettle: Fettle, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    Study(package.Space(x=package.Int(0, 3)), objectives=["loss"], storage="small.db", name="s").close()
    rows: list[Any] = [({"batch": n, "threads": 1}, {"rate": float(n)}) for n in (1, 2)]
    Store(tmp_path / "one").add(Task("t", rows, space=SPACE))
    Store(tmp_path / "bare").add(Task("t", rows))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "bad.json.gz").write_bytes(b"bad")
    header = {"kind": "header", "schema": 1, "space": SPACE.to_json(), "fingerprint": {}, "probe": {}}
    (tmp_path / "empty.jsonl").write_text(json.dumps(header) + "\n")
    ran = fettle("meta", *words)
    assert ran.code == 2, ran
    assert ran.out == "" and "Traceback" not in ran.err and ran.err.startswith("fettle: ")
    assert said in ran.err
    ran = fettle("meta", *words, "--json")
    assert ran.code == 2 and ran.err == ""
    check("error", ran.document)
    assert not Store.default().tasks() and not Path("m.npz").exists()


def test_hostile_names_do_nothing(fettle: Fettle, store: Store) -> None:
    store.add(Task(HOSTILE, [({HOSTILE: 1}, {HOSTILE: 1.0})], context={"fingerprint": {"cpu_model": HOSTILE}}))
    shown = fettle("meta", "list")
    assert shown.code == 0 and "\x1b" not in shown.out and "\u202e" not in shown.out
    assert fettle("meta", "remove", HOSTILE).code == 0
