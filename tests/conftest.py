"""What all tests share: skips for what a machine lacks, with one list of them at the end."""

import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
MODELS = Path(__file__).parents[1] / "src" / "fettle" / "data"
_HOW = {
    "chromium": "apt-get install chromium",
    "wrk": "apt-get install wrk",
    "cgroup": "run where cgroups can be written (root, or a delegated group)",
    "playwright": "pip install playwright",
    "torch": "pip install torch==2.13.0",
    "shared-data": "set FETTLE_DATA to a folder of benchmark data",
}
_missing: dict[str, set[str]] = {}


def pytest_configure() -> None:
    """A suite that runs in the background of a shell inherits an ignored Ctrl-C, and so would what it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the user's earlier tasks and probes, or leaves any."""
    monkeypatch.setenv("FETTLE_META", str(tmp_path_factory.getbasetemp() / "meta"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def _there(what: str) -> bool:
    if what == "cgroup":
        from fettle.host.limits import isolation_mode

        return isolation_mode() != "affinity and rlimits"
    if what in ("playwright", "torch"):
        return importlib.util.find_spec(what) is not None
    if what == "shared-data":
        return bool(os.environ.get("FETTLE_DATA"))
    return shutil.which(what) is not None


def pytest_runtest_setup(item: pytest.Item) -> None:
    required = set(filter(None, os.environ.get("FETTLE_REQUIRE", "").split(",")))
    for mark in item.iter_markers("needs"):
        for what in mark.args:
            if _there(what):
                continue
            if what in required:
                pytest.fail(f"{what} is required by FETTLE_REQUIRE and missing: {_HOW.get(what, '')}", pytrace=False)
            _missing.setdefault(what, set()).add(item.nodeid)
            pytest.skip(f"needs {what}: {_HOW.get(what, '')}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _missing:
        terminalreporter.section("skipped for what this machine lacks")
        for what, tests in sorted(_missing.items()):
            terminalreporter.line(f"{what}: {len(tests)} tests; {_HOW.get(what, '')}")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test writes into the checkout."""
    monkeypatch.chdir(tmp_path)
    yield


@pytest.fixture
def digits() -> dict[str, str]:
    """The demo's model files by precision."""
    return {"fp32": str(MODELS / "digits-fp32.onnx"), "int8": str(MODELS / "digits-int8.onnx")}
