"""Journals of old versions still load, and give the same trials and the same answer."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from fettle.core.trial import KINDS
from fettle.storage.sql import SqlStorage
from fettle.study import Study

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_journal", DATA / "make_journal.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", [1])
def test_an_old_journal_gives_the_same_study(maker: ModuleType, version: int, tmp_path: Path) -> None:
    shutil.copy(DATA / f"journal-v{version}.db", tmp_path / "a.db")
    study = Study.open("golden", tmp_path / "a.db")
    expected = json.loads((DATA / f"journal-v{version}.json").read_text())
    made = json.loads(json.dumps(maker.folded(study)))
    for trial, old in zip(made["trials"], expected["trials"], strict=True):  # which may have fields that are newer
        assert {name: trial[name] for name in old} == old
    for key, value in expected.items():
        assert key == "trials" or made[key] == value, key


@pytest.mark.parametrize("version", [1])
def test_every_kind_of_event_is_in_it_and_it_goes_on(version: int, tmp_path: Path) -> None:
    shutil.copy(DATA / f"journal-v{version}.db", tmp_path / "a.db")
    events = SqlStorage(tmp_path / "a.db").open("golden").read()
    assert {e.kind for e in events} == set(KINDS)
    assert {e.schema for e in events} == {version}
    study = Study.open("golden", tmp_path / "a.db")
    waiting = study.ask()
    assert waiting.number == 9, "what was enqueued comes first"
    fresh = study.ask()
    assert fresh.number == 11
    told = study.tell(fresh, {"loss": 0.2, "rate": 3.0, "latency_p99_s": 0.01})
    assert told.metrics["loss"] == 0.2


def test_today_writes_what_the_newest_golden_file_holds(maker: ModuleType, tmp_path: Path) -> None:
    """If this fails, the shape of what is stored has changed: raise the schema's version and add a golden file."""
    maker.main(tmp_path)
    golden = SqlStorage(shutil.copy(DATA / "journal-v1.db", tmp_path / "golden.db")).open("golden").read()
    assert SqlStorage(tmp_path / "journal-v1.db").open("golden").read() == golden
