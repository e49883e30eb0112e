import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fettle.core.errors import FettleError
from fettle.host import supervisor
from fettle.host.limits import own_folders
from fettle.host.supervise import spawn

from .conftest import STUBBORN, Start, alive, port_answers, stubborn, until

DRIVER = """
import os, sys, time
from pathlib import Path
from fettle.host.supervise import spawn
process = spawn([sys.executable, "-c", sys.argv[1], sys.argv[2] + "/port"], cwd=sys.argv[2], env=dict(os.environ),
                log_path=Path(sys.argv[2]) / "log")
while len(process.pids()) < int(sys.argv[3]) or not Path(sys.argv[2] + "/port").exists():
    time.sleep(0.01)
pids = [process.supervisor_pid, process.pid, *process.pids()]
Path(sys.argv[2] + "/tmp").write_text(" ".join(map(str, pids)))
os.rename(sys.argv[2] + "/tmp", sys.argv[2] + "/pids")
while True:
    process.poll()
    time.sleep(0.05)
"""


def driver(folder: Path, code: str = STUBBORN, n: int = 3) -> tuple[subprocess.Popen[bytes], list[int], int]:
    """A process that has spawned a tree: itself, the supervisor and the tree, the port."""
    folder.mkdir(exist_ok=True)
    running = subprocess.Popen([sys.executable, "-c", DRIVER, code, str(folder), str(n)])
    assert until((folder / "pids").exists)
    return running, list(map(int, (folder / "pids").read_text().split())), int((folder / "port").read_text())


def leftover_groups() -> list[Path]:
    parents = [folder / "fettle" for folder in own_folders().values()]
    return [g for parent in parents if parent.is_dir() for g in parent.iterdir() if f"-{os.getpid()}-" in g.name]


def test_exit_status_and_log(start: Start, each_mode: str) -> None:
    process = start("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert process.wait(10) == 3
    assert process.poll() == process.returncode == 3
    assert sorted(process.log_tail().split()) == ["err", "out"]
    assert not process.oom_killed()


def test_death_by_signal_is_reported(start: Start) -> None:
    assert start("import os; os.kill(os.getpid(), 15)").wait(10) == -15


def test_wait_gives_up(start: Start) -> None:
    process = start("import time; time.sleep(600)")
    assert process.wait(0.05) is None
    assert process.poll() is None


def test_stop_kills_daemonised_and_resessioned_children(start: Start, each_mode: str, tmp_path: Path) -> None:
    process, pids, port = stubborn(start, tmp_path)
    assert port_answers(port)
    process.stop()
    assert alive([process.supervisor_pid, *pids]) == []
    assert not port_answers(port)
    assert process.pids() == []
    assert leftover_groups() == []
    process.stop()  # again: no error


def test_nothing_survives_the_main_child(start: Start, each_mode: str, tmp_path: Path) -> None:
    process, pids, port = stubborn(start, tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(5) == -9
    assert until(lambda: not alive(pids), 5)
    assert not port_answers(port)
    assert not process.oom_killed()


def test_nothing_survives_the_supervisor(start: Start, each_mode: str, tmp_path: Path) -> None:
    process, pids, port = stubborn(start, tmp_path)
    os.kill(process.supervisor_pid, signal.SIGKILL)
    assert until(lambda: not alive([process.pid]))  # by the kernel, without our doing anything
    process.stop()
    assert alive(pids) == []
    assert not port_answers(port)
    assert process.returncode == -9
    assert leftover_groups() == []


def test_poll_notices_a_dead_supervisor(start: Start, tmp_path: Path) -> None:
    process, pids, _ = stubborn(start, tmp_path)
    os.kill(process.supervisor_pid, signal.SIGKILL)
    assert until(lambda: process.poll() == -9)
    assert alive(pids) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_survives_the_driver(tmp_path: Path, number: int) -> None:
    running, pids, port = driver(tmp_path)
    running.send_signal(number)
    running.wait(10)
    assert until(lambda: not alive(pids), 5)
    assert not port_answers(port)


def test_a_forked_sibling_that_holds_the_connection_does_not_keep_the_tree(tmp_path: Path) -> None:
    folder = tmp_path
    fork = "sibling = os.fork()\nif sibling: Path(sys.argv[2] + '/sibling').write_text(str(sibling))\n"
    script = DRIVER.replace("while True:\n    process.poll()", fork + "while True:\n    time.sleep(1)\n    pass")
    running = subprocess.Popen([sys.executable, "-c", script, STUBBORN, str(folder), "3"])
    assert until(lambda: (folder / "sibling").exists() and (folder / "sibling").read_text())
    sibling = int((folder / "sibling").read_text())
    try:
        running.kill()
        running.wait(10)
        assert until(lambda: not alive(list(map(int, (folder / "pids").read_text().split()))), 5)
        assert alive([sibling]) == [sibling]
    finally:
        os.kill(sibling, signal.SIGKILL)


def test_nested_trees_die_with_the_outer_one(start: Start, each_mode: str, tmp_path: Path) -> None:
    process = start(DRIVER, STUBBORN, str(tmp_path), "3")
    assert until((tmp_path / "pids").exists)
    inner = list(map(int, (tmp_path / "pids").read_text().split()))
    assert set(inner) <= set(process.pids())
    port = int((tmp_path / "port").read_text())
    process.stop()
    assert alive(inner) == []
    assert not port_answers(port)
    assert leftover_groups() == []


def test_grace_lets_the_main_child_end_by_itself(start: Start, tmp_path: Path) -> None:
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); time.sleep(600)"
    )
    process = start(code)
    assert until(process.log_tail)
    process.stop(grace_s=5.0)
    assert process.returncode == 7


def test_grace_ends(start: Start, tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    process = start(code)
    assert until(process.log_tail)
    process.stop(grace_s=0.2)
    assert process.returncode == -9


def test_stop_from_two_threads_and_a_signal_handler(start: Start, tmp_path: Path) -> None:
    process, pids, _ = stubborn(start, tmp_path)
    before = signal.signal(signal.SIGALRM, lambda *_: process.stop())
    try:
        other = threading.Thread(target=process.stop)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        other.start()
        process.stop()
        other.join(10)
        assert not other.is_alive()
        assert until(lambda: signal.getitimer(signal.ITIMER_REAL)[0] == 0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert alive(pids) == []


def test_passed_descriptors_reach_the_child_and_close_with_it(start: Start) -> None:
    read, write = os.pipe()
    process = start("import os, sys; os.write(int(sys.argv[1]), b'hello')", str(write), pass_fds=(write,))
    os.close(write)
    with os.fdopen(read, "rb") as file:
        assert file.read() == b"hello"  # ends: neither the supervisor nor anyone else holds the other side
    assert process.wait(5) == 0


def test_the_child_gets_default_signals_and_the_given_environment(tmp_path: Path) -> None:
    code = "import os, signal; print(signal.getsignal(2) is signal.default_int_handler, sorted(os.environ))"
    env = {"A": "1", "LC_CTYPE": "C.UTF-8"}
    with spawn([sys.executable, "-c", code], cwd=tmp_path, env=env, log_path=tmp_path / "l") as process:
        assert process.wait(10) == 0
        assert process.log_tail() == "True ['A', 'FETTLE_TREE', 'LC_CTYPE']"


@pytest.mark.parametrize("argv, cwd", [(["no-such-program"], "/"), ([sys.executable], "/no/such/folder")])
def test_what_cannot_start_raises_and_leaves_nothing(tmp_path: Path, argv: list[str], cwd: str) -> None:
    with pytest.raises(FettleError, match="could not start the server"):
        spawn(argv, cwd=cwd, env={}, log_path=tmp_path / "l", name="the server")
    assert leftover_groups() == []


def test_log_tail_of_hostile_bytes(start: Start) -> None:
    lines = rb"b'a\x1b[2Jb\xff\xfe\rc\n' + b'x' * 3000000 + b'\npassword=hunter2\n\x1b]0;t\x07\n'".decode()
    code = f"import sys; sys.stdout.buffer.write({lines})"
    process = start(code)
    assert process.wait(10) == 0
    tail = process.log_tail(3)
    assert "hunter2" not in tail and "\x1b" not in tail
    assert len(tail) < 10_000
    assert process.log_tail(2).startswith("password=[redacted]")


def test_log_tail_without_a_log(start: Start) -> None:
    process = start("pass")
    process.log_path.unlink(missing_ok=True)
    assert process.log_tail() == ""


def test_log_is_capped_and_keeps_its_end(start: Start) -> None:
    process = start("import sys\nfor i in range(40): sys.stdout.write('y' * (1 << 20))\nprint('\\nthe end')")
    assert process.wait(20) == 0
    process.stop()
    assert process.log_path.stat().st_size < 17 << 20
    assert process.log_tail(1) == "the end"


@pytest.mark.medium
def test_random_kills_leave_nothing(tmp_path: Path) -> None:
    draw = random.Random(7)
    for turn in range(30):
        running, pids, port = driver(tmp_path / str(turn))
        victim = draw.choice(["driver", "main", "supervisor"])
        time.sleep(draw.random() * 0.05)
        os.kill({"driver": running.pid, "supervisor": pids[0], "main": pids[1]}[victim], signal.SIGKILL)
        assert until(lambda pids=pids: not alive(pids), 5), f"turn {turn}: {victim}"
        assert not port_answers(port)
        running.kill()
        running.wait(10)


@pytest.mark.medium
def test_drivers_killed_while_they_start_leave_nothing(tmp_path: Path) -> None:
    draw = random.Random(8)
    for turn in range(15):
        folder = tmp_path / str(turn)
        folder.mkdir()
        running = subprocess.Popen([sys.executable, "-c", DRIVER, STUBBORN, str(folder), "3"])
        time.sleep(0.05 + draw.random() * 0.25)  # from within the imports to the tree's last fork
        running.kill()
        running.wait(10)
        mark = f"{folder}/".encode()
        assert until(lambda mark=mark: not _mentioning(mark), 5), f"turn {turn}"


def _mentioning(mark: bytes) -> list[int]:
    """Live processes with the folder in their command line."""
    found = []
    for pid, fields in supervisor.processes().items():
        try:
            text = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if mark in text and supervisor.is_alive(pid, fields):
            found.append(pid)
    return found
