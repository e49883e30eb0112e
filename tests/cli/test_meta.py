"""`fettle meta collect` with real measurements, in a process of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fettle.problems.serve.collect import rows

from .conftest import MODELS, Fettle, check

pytestmark = pytest.mark.medium


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One model in two precisions. The lock on measuring lies in the temporary folder, so that tests do not wait."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(MODELS / "digits-fp32.onnx", models / "digits.onnx")
    shutil.copy(MODELS / "digits-int8.onnx", models / "digits.int8.onnx")
    return models


def test_collecting_goes_on_after_a_kill_and_leaves_nothing_behind(folder: Path) -> None:
    out = folder.parent / "rows.jsonl"
    words = ["meta", "collect", folder, "--out", out, "--points", "8", "--full", "0", "--tries", "1", "--json"]
    command = [sys.executable, "-m", "fettle.cli.main", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and (not out.exists() or out.read_bytes().count(b'"row"') < 3):
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
    before = rows.read(out).lines
    assert 3 <= len(before) < 8
    assert ended(folder.parent)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "Traceback" not in done.stderr
    found = rows.read(out)
    assert found.lines[: len(before)] == before
    assert len(found.lines) == 8 == len(rows.done(found.lines))
    assert not [line for line in found.lines if line.get("failure")]
    assert found.header["probe"]["flops_fp32_1"] > 0
    task = rows.measurements(out)[0]
    assert task.name == "digits" and task.features["flops"] > 1e6
    assert ended(folder.parent)


def ended(folder: Path) -> bool:
    """Whether all processes that name the folder end within 10 seconds."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        named = []
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and int(process.name) != os.getpid():
                    named += [process.name] * (str(folder).encode() in (process / "cmdline").read_bytes())
        if not named:
            return True
        time.sleep(0.1)
    return False


def test_what_it_prints(folder: Path, fettle: Fettle) -> None:
    words = ("meta", "collect", folder, "--out", "rows.jsonl", "--points", "2", "--full", "1", "--minutes", "0")
    ran = fettle(*words, "--json")
    check("collect", ran.document)
    assert (ran.code, ran.document["measured"], ran.document["full"]) == (0, 0, ["digits"])
    ran = fettle(*words)
    assert ran.code == 0
    assert "0 rows in 0 s" in ran.out and "the same command goes on" in ran.out


def test_bad_input(folder: Path, fettle: Fettle) -> None:
    ran = fettle("meta", "collect", folder / "none", "--out", "rows.jsonl")
    assert ran.code == 2 and "found none" in ran.err
    ran = fettle("meta", "collect", folder, "--out", folder / "digits.onnx")
    assert ran.code == 2 and "not a line of measurements" in ran.err
    assert (folder / "digits.onnx").read_bytes() == (MODELS / "digits-fp32.onnx").read_bytes()
    assert fettle("meta", "collect", folder).code == 2
