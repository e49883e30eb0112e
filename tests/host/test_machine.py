import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from fettle.core.errors import FettleError
from fettle.host import machine as module
from fettle.host.limits import isolation_mode
from fettle.host.machine import fingerprint, free_port, machine, machine_lock

HOLD = """
import sys, time
from fettle.host.machine import machine_lock
with machine_lock(5):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_lock_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's own lock may be held by a real measurement."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_machine() -> None:
    found = machine(["pytest"])
    assert set(found.cores) <= os.sched_getaffinity(0) and found.cores
    assert 64 << 20 < found.memory_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found.facts["packages"]["pytest"] == pytest.__version__


def test_fingerprint_is_json_and_names_no_host() -> None:
    found = fingerprint(["no-such-package"])
    text = json.dumps(found)
    assert json.loads(text) == found
    assert socket.gethostname() not in text
    assert found["isolation"] == isolation_mode()
    assert found["packages"]["no-such-package"] is None
    assert found["packages"]["numpy"]
    assert found["cpu_model"] and found["kernel"]


def test_quota_and_memory_of_groups_above_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "a", inner):
        (folder / "cgroup.procs").write_text("")
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    (inner / "memory.max").write_text("max\n")
    (tmp_path / "a" / "memory.max").write_text(f"{1 << 30}\n")
    monkeypatch.setattr(module, "own_folders", lambda: {"": inner})
    found = machine()
    assert len(found.cores) == 1
    assert found.memory_bytes == 1 << 30


def test_v1_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    monkeypatch.setattr(module, "own_folders", lambda: {"cpu": tmp_path})
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    assert set(machine().cores) == os.sched_getaffinity(0)
    (tmp_path / "cpu.cfs_quota_us").write_text("50000\n")
    assert len(machine().cores) == 1


def _hold() -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_lock_excludes_others_and_dies_with_its_holder() -> None:
    with _hold() as holder:
        try:
            begin = time.monotonic()
            with pytest.raises(FettleError, match=f"process {holder.pid}") as caught, machine_lock(0.1):
                pass
            assert caught.value.hint
            assert time.monotonic() - begin >= 0.1
        finally:
            holder.kill()
    with machine_lock(5.0):
        pass


def test_lock_is_free_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="x"), machine_lock(1.0):
        raise ValueError("x")
    with machine_lock(0.0):
        pass


def test_lock_is_for_all_users(own_lock_folder: Path) -> None:
    before = os.umask(0o077)
    try:
        with machine_lock(1.0):
            pass
    finally:
        os.umask(before)
    assert (own_lock_folder / "fettle-machine.lock").stat().st_mode & 0o777 == 0o666


def test_lock_follows_no_links(own_lock_folder: Path) -> None:
    precious = own_lock_folder / "precious"
    precious.write_text("data")
    lock = own_lock_folder / "fettle-machine.lock"
    lock.symlink_to(precious)
    with pytest.raises(FettleError, match="symbolic link"), machine_lock(0.1):
        pass
    lock.unlink()
    lock.hardlink_to(precious)
    with pytest.raises(FettleError, match="no ordinary file"), machine_lock(0.1):
        pass
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(FettleError, match="no ordinary file"), machine_lock(0.1):
        pass
    assert precious.read_text() == "data"


def test_free_port_can_be_bound() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass
