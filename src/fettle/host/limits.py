"""What a process tree may use: control groups (v1 or v2) where they can be written, else affinity and a watch.

A tree's group lies in `fettle` below this process's own group, one folder per v1 controller or one for v2. Its name
holds the owner's pid and start time, so that the next use removes what a dead owner has left.
"""

import functools
import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fettle.core.errors import FettleError, InvalidInput
from fettle.host.supervisor import kill_group, members, remove_groups, stat_fields

_PARENT = "fettle"
_WEIGHT_PER_CORE = 2048  # of all our trees together; 1024 is one ordinary process
_V1 = ("cpuset", "cpu", "cpuacct", "memory")  # all of them, or none: half a limit would be worse than the fallback
_V2 = ("cpuset", "cpu", "memory", "pids")
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Limits:
    """None: not limited. nice: added to our own. cpu_shares: weight against other processes, 1024 is the usual one."""

    cores: tuple[int, ...] | None = None
    memory_bytes: int | None = None
    nice: int = 0
    cpu_shares: int | None = None

    def __post_init__(self) -> None:
        if self.cores is not None and not self.cores:
            raise InvalidInput("limits: expected at least one core id, got none", "leave cores out for no limit")
        if self.memory_bytes is not None and self.memory_bytes < 1 << 20:
            raise InvalidInput(f"limits: expected at least 1 MiB of memory, got {self.memory_bytes} bytes")
        if self.cpu_shares is not None and not 2 <= self.cpu_shares <= 262144:
            raise InvalidInput(f"limits: expected cpu_shares from 2 to 262144, got {self.cpu_shares}")


@dataclass(frozen=True, slots=True)
class Group:
    """The control groups of one process tree: controller -> folder; in v2, all controllers share one folder."""

    version: int
    folders: Mapping[str, Path]

    @property
    def paths(self) -> list[str]:
        return list(dict.fromkeys(map(str, self.folders.values())))

    def pids(self) -> list[int]:
        return members(self.paths[0])

    def cpu_s(self) -> float | None:
        """CPU time of the tree, its dead included; None once the group is removed."""
        if self.version == 1:
            text = _read(self.folders["cpuacct"] / "cpuacct.usage")
            return int(text) / 1e9 if text else None
        usage = _keyed(self.folders["cpu"] / "cpu.stat").get("usage_usec")
        return None if usage is None else usage / 1e6

    def throttled_s(self) -> float:
        stat = _keyed(self.folders["cpu"] / "cpu.stat")
        return stat.get("throttled_time", 0) / 1e9 + stat.get("throttled_usec", 0) / 1e6

    @property
    def oom_file(self) -> Path:
        """Holds a line `oom_kill COUNT`."""
        return self.folders["memory"] / ("memory.oom_control" if self.version == 1 else "memory.events")

    def kill(self) -> list[int]:
        return kill_group(self.paths[0])

    def remove(self) -> bool:
        """False: something still lives in it."""
        return remove_groups(self.paths)


@dataclass(frozen=True, slots=True)
class Place:
    """Where groups can be made: controller -> this process's own folder."""

    version: int
    bases: Mapping[str, Path]


def isolation_mode() -> str:
    """How limits are held on this host: `cgroup v1`, `cgroup v2`, or `affinity and rlimits`."""
    place = _place()
    return f"cgroup v{place.version}" if place else "affinity and rlimits"


def make_group(limits: Limits) -> Group | None:
    """A fresh group that holds the limits, for a child to join; None where the host has no writable groups."""
    place = _place()
    if place is None:
        return None
    _sweep(place)
    name = f"{_owner(os.getpid())}-{next(_numbers)}"
    try:
        return make_at(place, name, limits)
    except OSError as error:
        raise FettleError(
            f"could not set up the control group for {limits}: {error}",
            f"the cores must be among {sorted(os.sched_getaffinity(0))}, the memory within this group's own limit",
        ) from error


def make_at(place: Place, name: str, limits: Limits) -> Group:
    """Creates the group's folders and writes the limits. Raises OSError, with nothing left behind."""
    folders = {controller: base / _PARENT / name for controller, base in place.bases.items()}
    group = Group(place.version, folders)
    for attempt in itertools.count():
        try:
            for controller, folder in folders.items():
                _make_folder(place, controller, folder)
            (_limit_v1 if place.version == 1 else _limit_v2)(folders, limits)
            return group
        except FileNotFoundError:  # another process has just removed the parent, which was empty
            if attempt >= 20:
                raise
        except OSError:
            group.remove()
            raise
    raise AssertionError("unreachable")


def _make_folder(place: Place, controller: str, folder: Path) -> None:
    parent = folder.parent
    parent.mkdir(exist_ok=True)
    if place.version == 2:
        wanted = " ".join(f"+{c}" for c in place.bases)
        for above in (parent.parent, parent):
            (above / "cgroup.subtree_control").write_text(wanted)
    folder.mkdir(exist_ok=True)
    if controller == "cpu" and _PARENT not in parent.parent.parts:
        # A group weighs as much as one process, however many it holds: on a busy machine a server with several
        # threads would get less than it gets without a group. Nested groups compete among themselves only.
        weight = _WEIGHT_PER_CORE * len(os.sched_getaffinity(0))
        name = "cpu.shares" if place.version == 1 else "cpu.weight"
        value = weight if place.version == 1 else min(10_000, weight * 100 // 1024)
        (parent / name).write_text(str(value))
    if place.version == 1 and controller == "cpuset":
        for level in (parent, folder):  # a v1 cpuset starts empty, and nothing can join an empty one
            for name in ("cpuset.mems", "cpuset.cpus"):
                if not _read(level / name):
                    (level / name).write_text(_read(level.parent / name))


def _limit_v1(folders: Mapping[str, Path], limits: Limits) -> None:
    if limits.cores is not None:
        (folders["cpuset"] / "cpuset.cpus").write_text(",".join(map(str, limits.cores)))
    if limits.cpu_shares is not None:
        (folders["cpu"] / "cpu.shares").write_text(str(limits.cpu_shares))
    if limits.memory_bytes is not None:
        (folders["memory"] / "memory.limit_in_bytes").write_text(str(limits.memory_bytes))
        swap = folders["memory"] / "memory.memsw.limit_in_bytes"  # memory and swap together; not in every kernel
        if swap.exists():
            swap.write_text(str(limits.memory_bytes))


def _limit_v2(folders: Mapping[str, Path], limits: Limits) -> None:
    if limits.cores is not None:
        cores = ",".join(map(str, limits.cores))
        if "cpuset" in folders:
            (folders["cpuset"] / "cpuset.cpus").write_text(cores)
        else:  # affinity, which the tree could undo, and as much time as that many cores have
            (folders["cpu"] / "cpu.max").write_text(f"{100_000 * len(limits.cores)} 100000")
    if limits.cpu_shares is not None:  # the kernel's own mapping of v1 shares to v2 weights
        (folders["cpu"] / "cpu.weight").write_text(str(1 + (limits.cpu_shares - 2) * 9999 // 262142))
    if limits.memory_bytes is not None:
        (folders["memory"] / "memory.max").write_text(str(limits.memory_bytes))
        swap = folders["memory"] / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")


@functools.cache
def _place() -> Place | None:
    """The first kind of control group in which a group can really be made."""
    for place in _candidates():
        name = f"{_owner(os.getpid())}-probe"
        try:
            make_at(place, name, Limits(tuple(sorted(os.sched_getaffinity(0))), 64 << 20, 0, 1024)).remove()
            return place
        except OSError:
            continue
    return None


def _candidates() -> list[Place]:
    own = own_folders()
    places = []
    if all(c in own for c in _V1):
        optional = [c for c in ("pids",) if c in own]
        places.append(Place(1, {c: own[c] for c in (*_V1, *optional)}))
    if "" in own:
        # a v2 group that has processes cannot hand controllers down, so beside our own where not in it
        for base in (own[""], own[""].parent):
            there = (_read(base / "cgroup.controllers")).split()
            if "cpu" in there and "memory" in there:
                places.append(Place(2, {c: base for c in _V2 if c in there}))
    return places


def own_folders() -> dict[str, Path]:
    """v1 controller -> the folder of this process's own group; v2's has the name ""."""
    mounts: dict[str, tuple[str, str]] = {}  # controller -> (root of the mount within the hierarchy, mount point)
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            names = [""] if kind == "cgroup2" else options.split(",")
            mounts.update(dict.fromkeys(names, (left.split()[3], left.split()[4])))
    found = {}
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in mounts:
                root, point = mounts[controller]
                below = path.removeprefix(root) if root != "/" else path
                folder = Path(point) / below.lstrip("/")
                if folder.is_dir():
                    found[controller] = folder
    return found


def _owner(pid: int) -> str:
    """Pid namespace, pid and start time: one process, for as long as the machine is up."""
    fields = stat_fields(pid)
    return f"{Path('/proc/self/ns/pid').stat().st_ino}-{pid}-{fields[19] if fields else 0}"


def _sweep(place: Place) -> None:
    """Removes groups whose owners are dead, and kills what they have left behind."""
    by_name: dict[str, dict[str, Path]] = {}
    for controller, base in place.bases.items():
        try:
            found = [f for f in (base / _PARENT).iterdir() if f.is_dir()]
        except OSError:
            continue
        for folder in found:
            by_name.setdefault(folder.name, {})[controller] = folder
    for name, folders in by_name.items():
        match = re.fullmatch(r"(\d+-(\d+)-\d+)-(\d+|probe)", name)
        # another namespace's pids mean nothing here: _owner starts with our own namespace
        if match and name.split("-")[0] == _owner(0).split("-")[0] and _owner(int(match[2])) != match[1]:
            group = Group(place.version, folders)
            group.kill()
            group.remove()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _keyed(path: Path) -> dict[str, int]:
    """Lines of a name and a whole number."""
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
