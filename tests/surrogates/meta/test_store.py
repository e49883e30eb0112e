"""The store of tasks: files, names, damage, and writers side by side."""

import gzip
import json
import math
import multiprocessing
from pathlib import Path

import pytest

import fettle
from fettle.core.errors import InvalidInput
from fettle.surrogates.meta import Store, Task

SPACE = fettle.Space(batch=fettle.Int(1, 8))


def task(name: str = "m", rate: float = 1.0, origin: str = "") -> Task:
    context = {"origin": origin} if origin else None
    return Task(name, [({"batch": 1}, {"rate": rate}), ({"batch": 8}, "oom")], space=SPACE, context=context)


def names(store: Store) -> list[str]:
    return sorted(t.name for t in store.tasks())


def test_a_task_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "not" / "there" / "yet")
    assert store.tasks() == []
    full = Task("m", task().rows, space=SPACE, features={"flops": 1e9}, context={"machine": {"cores": 2}})
    path = store.add(full)
    assert path.parent == store.folder and path.name.endswith(".json.gz")
    assert store.tasks() == [full]
    assert store.find("m").path == path


def test_the_same_origin_takes_its_earlier_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.add(task(rate=1.0, origin="a"))
    store.add(task(rate=2.0, origin="b"))
    assert names(store) == ["m", "m-2"]
    assert store.add(task(rate=3.0, origin="a")) == first
    store.add(task(rate=4.0, origin="b"))
    assert {t.name: t.rows[0].metrics["rate"] for t in store.tasks()} == {"m": 3.0, "m-2": 4.0}
    store.remove("m")
    store.add(task(rate=5.0, origin="b"))  # keeps its name
    assert names(store) == ["m-2"]
    store.add(task(origin="c"))
    assert names(store) == ["m", "m-2"]


def test_tasks_without_origin_are_told_apart_by_content(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for rate in (1.0, 1.0, 2.0):
        store.add(task(rate=rate))
    assert names(store) == ["m", "m-2"]


def test_the_latest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for at, name in ((3.0, "a"), (1.0, "b"), (2.0, "c")):
        monkeypatch.setattr("time.time", lambda at=at: at)
        store.add(task(name))
    assert [t.name for t in store.tasks()] == ["b", "c", "a"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", ".hidden", "résumé 🦀", "x" * 500, "-", "a\nb\x1b[31m"])
def test_names_are_made_safe_for_files(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "store")
    path = store.add(task(name))
    assert path.parent == store.folder and path.exists()
    assert names(store) == [name]
    store.add(task(name, rate=2.0))
    assert names(store) == [name, f"{name}-2"]


def test_names_that_look_alike_in_files_stay_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(task("a/b"))
    store.add(task("a_b"))
    assert names(store) == ["a/b", "a_b"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"no json"),
        gzip.compress(json.dumps([1]).encode()),
        gzip.compress(json.dumps({"format": 99}).encode()),
        gzip.compress(json.dumps({"format": 1, "added_s": 1.0, "task": {"name": "m", "rows": [3]}}).encode()),
        gzip.compress(json.dumps({"format": 1, "added_s": None, "task": {}}).encode()),
        gzip.compress(json.dumps({"format": 1, "added_s": math.inf, "task": task().to_json()}).encode()),
        gzip.compress(json.dumps({"format": 1, "added_s": 1, "task": {**task().to_json(), "context": [1]}}).encode()),
        gzip.compress(
            json.dumps({"format": 1, "added_s": 1, "task": {"name": "m", "rows": [[{"a": [1]}, {"x": 1.0}]]}}).encode()
        ),
        gzip.compress(b"{" * 1000)[:-9],
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    path = store.add(task(origin="a"))
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="is no stored task") as error:
        store.tasks()
    assert path.name in str(error.value)


def test_what_a_killed_writer_left_is_no_task(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(task())
    (tmp_path / ".new-abc").write_bytes(b"half")
    assert names(store) == ["m"]


def test_wrong_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no task 'm'") as error:
        Store(tmp_path).remove("m")
    assert "none yet" in error.value.hint
    (tmp_path / "file").write_text("")
    for store in (Store(tmp_path / "file"), Store(tmp_path / "file" / "inner")):
        with pytest.raises(InvalidInput, match="cannot write to the store"):
            store.add(task())
    with pytest.raises(InvalidInput, match="cannot read the store"):
        Store(tmp_path / "file").tasks()
    with pytest.raises(InvalidInput, match="cannot be stored"):
        Store(tmp_path).add(Task("m", [({"batch": b"1"}, {"rate": 1.0})]))


def _add(folder: Path, who: int) -> None:
    for i in range(5):
        Store(folder).add(task(rate=float(i), origin=f"{who} {i % 2}"))


def test_writers_side_by_side_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=_add, args=(tmp_path, who)) for who in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(30)
    assert [process.exitcode for process in running] == [0, 0]
    assert names(Store(tmp_path)) == ["m", "m-2", "m-3", "m-4"]


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETTLE_META", str(tmp_path / "own"))
    assert Store.default().folder == tmp_path / "own"
    monkeypatch.delenv("FETTLE_META")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Store.default().folder == tmp_path / "fettle" / "meta"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store.default().folder == tmp_path / ".local" / "share" / "fettle" / "meta"


def test_a_study_that_goes_on_replaces_its_own_copy(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        study = fettle.Study(SPACE, objectives=["loss"], storage=tmp_path / folder / "s.db", name="s", algorithm="grid")
        for n in range(2):
            study.tell(study.ask(), {"loss": float(n)})
            store.add(Task.from_study(study, features={"rows": 5.0}))
        study.close()
    assert {t.name: len(t.rows) for t in store.tasks()} == {"s": 2, "s-2": 2}
    context = store.find("s").task.context
    assert context is not None
    assert context["problem"] == "function" and context["objectives"] == [{"metric": "loss", "goal": "minimize"}]
    assert store.find("s").task.features == {"rows": 5.0}
