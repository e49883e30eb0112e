import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fettle.core.errors import FettleError, InvalidInput
from fettle.host import limits as limits_module
from fettle.host.limits import Group, Limits, Place, isolation_mode, make_at, make_group, own_folders

from .conftest import Start, alive, until

BURN = """
import os, time
os.fork()
end = time.monotonic() + 600
while time.monotonic() < end:
    pass
"""
EAT = """
import os, time
blocks = []
if os.fork() == 0:  # not the main child
    while True:
        blocks.append(b"x" * (1 << 20))
        time.sleep(0.002)
time.sleep(600)
"""


@pytest.mark.parametrize(
    "settings", [{"cores": ()}, {"memory_bytes": 10}, {"cpu_shares": 1}, {"cpu_shares": 262145}], ids=str
)
def test_nonsense_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="limits: expected"):
        Limits(**settings)


def test_two_busy_processes_share_the_one_core_that_they_got(start: Start, each_mode: str) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("takes two cores")
    core = max(os.sched_getaffinity(0))
    process = start(BURN, limits=Limits(cores=(core,)))
    assert until(lambda: len(process.pids()) == 2)
    begin, at = _cpu_s(process.pids()), time.monotonic()
    time.sleep(0.8)
    used = (_cpu_s(process.pids()) - begin) / (time.monotonic() - at)
    assert used < 1.15  # under 1 on a busy machine; two without the limit
    assert [os.sched_getaffinity(pid) for pid in process.pids()] == [{core}] * 2


def test_memory_limit_bites_and_is_told(start: Start, each_mode: str) -> None:
    process = start(EAT.replace("if os.fork() == 0:", "if True:"), limits=Limits(memory_bytes=64 << 20))
    assert process.wait(10) == -9
    assert process.oom_killed()
    process.stop()
    assert process.oom_killed()


def test_memory_limit_counts_the_whole_tree(start: Start, each_mode: str) -> None:
    process = start(EAT, limits=Limits(memory_bytes=64 << 20))
    assert until(process.oom_killed)
    process.stop()
    assert process.oom_killed()


def test_memory_below_the_limit_is_fine(start: Start, each_mode: str) -> None:
    process = start("x = b'x' * (20 << 20)", limits=Limits(memory_bytes=128 << 20))
    assert process.wait(10) == 0
    assert not process.oom_killed()


def test_a_kill_from_outside_is_no_oom(start: Start, each_mode: str) -> None:
    process = start("import time; time.sleep(600)", limits=Limits(memory_bytes=256 << 20))
    os.kill(process.pid, 9)
    assert process.wait(10) == -9
    assert not process.oom_killed()


def test_nice_and_shares(start: Start, groups: None) -> None:
    process = start("import time; time.sleep(600)", limits=Limits(nice=3, cpu_shares=2048))
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3
    assert process.group is not None
    if process.group.version == 1:
        assert (process.group.folders["cpu"] / "cpu.shares").read_text() == "2048\n"
    assert process.unmet == ()


def test_shares_without_groups_are_said_to_be_unmet(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "_place", lambda: None)
    assert isolation_mode() == "affinity and rlimits"
    assert start("pass", limits=Limits(cpu_shares=2048)).unmet == ("cpu_shares",)


def test_cores_that_do_not_exist_are_an_error(start: Start, groups: None) -> None:
    with pytest.raises(FettleError, match="control group"):
        start("pass", limits=Limits(cores=(4095,)))


def test_groups_of_a_dead_owner_are_removed_with_what_lives_in_them(tmp_path: Path, groups: None) -> None:
    code = """
import os, subprocess, sys
from fettle.host.limits import Limits, make_group
group = make_group(Limits())
child = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
for folder in group.paths:
    open(folder + "/cgroup.procs", "w").write(str(child.pid))
print(child.pid, *group.paths, sep="\\n", flush=True)
os._exit(0)
"""
    out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    pid, folders = int(out[0]), [Path(p) for p in out[1:]]
    assert alive([pid]) == [pid] and all(f.is_dir() for f in folders)
    mine = make_group(Limits())
    assert mine is not None
    try:
        assert until(lambda: not alive([pid]))
        assert not any(f.is_dir() for f in folders)
        assert all(Path(p).is_dir() for p in mine.paths)
        second = make_group(Limits())
        assert second is not None and second.remove()
        assert all(Path(p).is_dir() for p in mine.paths), "a live owner's group was swept"
    finally:
        mine.remove()


def test_own_folders_exist() -> None:
    assert all((folder / "cgroup.procs").exists() for folder in own_folders().values())


def _v2(tmp_path: Path, controllers: list[str]) -> Place:
    """A plain folder in the place of the v2 hierarchy: shows what is written, not what the kernel makes of it."""
    return Place(2, dict.fromkeys(controllers, tmp_path))


def test_v2_writes(tmp_path: Path) -> None:
    folder = tmp_path / "fettle" / "1-2-3-4"
    folder.mkdir(parents=True)
    (folder / "memory.swap.max").write_text("max")
    wanted = Limits(cores=(1, 3), memory_bytes=1 << 30, cpu_shares=1024)
    group = make_at(_v2(tmp_path, ["cpuset", "cpu", "memory"]), "1-2-3-4", wanted)
    assert group.paths == [str(folder)]
    assert {f.name: f.read_text() for f in folder.iterdir()} == {
        "cpuset.cpus": "1,3",
        "memory.max": str(1 << 30),
        "memory.swap.max": "0",
        "cpu.weight": "39",  # what the kernel's documents give for 1024 shares
    }
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpuset +cpu +memory"
    assert (tmp_path / "fettle" / "cgroup.subtree_control").read_text() == "+cpuset +cpu +memory"


def test_v2_without_cpuset_limits_time(tmp_path: Path) -> None:
    group = make_at(_v2(tmp_path, ["cpu", "memory"]), "1-2-3-4", Limits(cores=(1, 3)))
    assert (Path(group.paths[0]) / "cpu.max").read_text() == "200000 100000"


def test_v2_reads(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\nthrottled_usec 1500000\n")
    group = Group(2, dict.fromkeys(["cpu", "memory"], tmp_path))
    assert group.cpu_s() == 2.5
    assert group.throttled_s() == 1.5
    assert group.oom_file == tmp_path / "memory.events"


def _cpu_s(pids: list[int]) -> float:
    ticks = sum(sum(map(int, Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split()[11:13])) for p in pids)
    return ticks / os.sysconf("SC_CLK_TCK")
