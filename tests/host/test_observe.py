import subprocess
import sys
import time
from pathlib import Path

from fettle.host.limits import Limits
from fettle.host.observe import ForeignLoad, TreeObserver

from .conftest import Start, until

BURN = "import time\nend = time.monotonic() + float(__import__('sys').argv[1])\nwhile time.monotonic() < end: pass\n"
# three short-lived children, one after the other, and 40 MB that comes and goes
WORK = f"""
import subprocess, sys, time
while not __import__("os").path.exists(sys.argv[1]): time.sleep(0.01)
for _ in range(3):
    subprocess.run([sys.executable, "-c", {BURN!r}, "0.2"])
block = b"x" * (40 << 20)
time.sleep(0.4)
del block
open(sys.argv[1] + ".done", "w").close()
time.sleep(600)
"""


def test_tree_usage_counts_the_dead_and_the_peak(start: Start, each_mode: str, tmp_path: Path) -> None:
    process = start(WORK, str(tmp_path / "go"))
    observer = TreeObserver(process)
    observer.start()
    (tmp_path / "go").touch()
    assert until((tmp_path / "go.done").exists, 20)
    seen = observer.peak_bytes
    usage = observer.stop()
    assert 40 << 20 < seen <= usage.peak_rss_bytes
    assert 0.2 < usage.cpu_s < usage.wall_s + 0.5
    assert 40 << 20 < usage.peak_rss_bytes < 120 << 20
    assert usage.n_processes == 2
    assert usage.cpu_source == ("cgroup" if each_mode == "groups" else "proc")


def test_shared_pages_count_once(start: Start, tmp_path: Path) -> None:
    code = "import os, time\nblock = b'x' * (60 << 20)\nfor _ in range(2): os.fork()\ntime.sleep(600)"
    process = start(code)
    assert until(lambda: len(process.pids()) == 4)
    observer = TreeObserver(process)
    observer.start()
    assert observer.stop().peak_rss_bytes < 150 << 20  # four times 60 MB and more as a plain sum


def test_a_tree_that_dies_meanwhile_keeps_its_figures(start: Start, each_mode: str) -> None:
    process = start(BURN, "0.5")
    observer = TreeObserver(process)
    observer.start()
    assert process.wait(20) == 0
    process.stop()
    usage = observer.stop()
    assert usage.cpu_s > 0.1
    assert usage.peak_rss_bytes > 1 << 20


def test_throttling_is_seen(start: Start, groups: None) -> None:
    process = start("import time; time.sleep(0.2)\nwhile True: pass", limits=Limits())
    assert process.group is not None
    if process.group.version == 1:
        (process.group.folders["cpu"] / "cpu.cfs_quota_us").write_text("20000")
    else:
        (process.group.folders["cpu"] / "cpu.max").write_text("20000 100000")
    observer = TreeObserver(process)
    observer.start()
    time.sleep(0.8)
    assert observer.stop().throttled_s > 0.05


def test_own_load_is_not_foreign_and_a_strangers_is(start: Start, tmp_path: Path) -> None:
    """The stranger is orphaned, so that nothing ties it to this process. Others may be busy, too: only differences."""
    load = ForeignLoad()
    load.start()
    start(BURN, "1.0").wait(20)
    ours = load.stop()
    pid_file = tmp_path / "pid"
    orphan = (
        f"import os, subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {BURN!r}, '30'],"
        f" start_new_session=True); open({str(pid_file)!r}, 'w').write(str(child.pid)); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", orphan], check=True)
    pid = int(pid_file.read_text())
    try:
        strange, adopted = ForeignLoad(), ForeignLoad(own=lambda: [pid])
        strange.start()
        adopted.start()
        time.sleep(1.0)
        foreign, known = strange.stop(), adopted.stop()
    finally:
        subprocess.run(["kill", "-9", str(pid)], check=True)
    assert ours.busy_ratio - ours.foreign_ratio > 0.1  # what we burnt was taken off
    assert foreign.foreign_ratio > 0.1
    assert foreign.foreign_ratio - known.foreign_ratio > 0.1


def test_children_that_live_and_die_within_the_interval_are_ours() -> None:
    load = ForeignLoad()
    load.start()
    for _ in range(4):
        subprocess.run([sys.executable, "-c", BURN, "0.1"], check=True)
    found = load.stop()
    assert found.busy_ratio - found.foreign_ratio > 0.05


def test_a_short_interval_is_drawn_out() -> None:
    load = ForeignLoad()
    load.start()
    found = load.stop()
    assert found.wall_s >= 0.2
    assert 0 <= found.foreign_ratio <= found.busy_ratio + 1e-9
    assert 0 <= found.steal_ratio <= 1
    assert found.pressure_ratio >= 0
