"""What a process tree used, and what strangers used meanwhile."""

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fettle.host import supervisor
from fettle.host.supervise import Process

_SAMPLE_S = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_MIN_INTERVAL_S = 0.2  # the kernel counts in ticks of 10 ms


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """cpu_s: of the tree, its dead included. peak_rss_bytes: highest sum of proportional set sizes over the whole
    tree, sampled each 0.1 s; each resident page once, mapped files included, the rest of the page cache not.
    throttled_s: time in which a quota held it back. cpu_source: `cgroup` (exact) or `proc` (in ticks of 10 ms).
    """

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    throttled_s: float
    n_processes: int
    cpu_source: str


class TreeObserver:
    """Watches one supervised tree between `start` and `stop`, by a thread.

    The proportional size costs a walk over page tables that would disturb the server. So the cheap sum of resident
    sizes, an upper bound, is taken each time, and the dear one only when that reaches a new height.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._thread = threading.Thread(target=self._watch, name="fettle-observer", daemon=True)
        self._done = threading.Event()
        self._rss_high = self._peak = self._n_processes = 0
        self._begun = self._cpu_begun = self._cpu = self._throttled_begun = self._throttled = 0.0
        self._source = "proc"

    def start(self) -> None:
        self._source = "cgroup" if self._process.group and self._process.group.cpu_s() is not None else "proc"
        self._cpu_begun = self._cpu = self._cpu_s() or 0.0
        self._throttled_begun = self._throttled = self._process.group.throttled_s() if self._process.group else 0.0
        self._begun = time.monotonic()
        self._sample()
        self._thread.start()

    @property
    def peak_bytes(self) -> int:
        """The highest so far."""
        return self._peak

    def stop(self) -> TreeUsage:
        """Of a tree that has ended meanwhile, what was seen last."""
        self._done.set()
        self._thread.join()
        self._sample()
        return TreeUsage(
            time.monotonic() - self._begun,
            max(0.0, self._cpu - self._cpu_begun),
            self._peak,
            max(0.0, self._throttled - self._throttled_begun),
            self._n_processes,
            self._source,
        )

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        pids = self._process.pids()
        self._n_processes = max(self._n_processes, len(pids))
        rss = sum(map(supervisor.rss_bytes, pids))
        if rss > self._rss_high * 1.01 or not self._peak:
            self._rss_high = rss
            self._peak = max(self._peak, sum(map(supervisor.pss_bytes, pids)) or rss)
        cpu = self._cpu_s()
        if cpu is not None:
            self._cpu = max(self._cpu, cpu)
        if self._process.group is not None:
            self._throttled = max(self._throttled, self._process.group.throttled_s())

    def _cpu_s(self) -> float | None:
        """None: the tree is gone."""
        if self._source == "cgroup" and self._process.group is not None:
            return self._process.group.cpu_s()
        root = self._process.supervisor_pid
        fields = supervisor.stat_fields(root)
        if fields is None:
            return None
        # what the supervisor has reaped, not what it used itself
        return (sum(map(int, fields[13:15])) + sum(map(_ticks, supervisor.descendants(root).values()))) / _TICKS


@dataclass(frozen=True, slots=True)
class Foreign:
    """Shares of the machine's time in an interval: used by strangers, stolen by the hypervisor, and the share of
    the interval in which somebody waited for a CPU (0 where the kernel does not say)."""

    foreign_ratio: float
    steal_ratio: float
    pressure_ratio: float
    busy_ratio: float
    wall_s: float


class ForeignLoad:
    """CPU that neither this process nor anything below it has used; `own` names further processes of ours.

    A process's time counts with that of the children it has reaped, so what a child used stays in the sum when it
    dies, as long as its parent is ours.
    """

    def __init__(self, own: Callable[[], Iterable[int]] = tuple) -> None:
        self._own = own
        self._begin: _Snapshot | None = None

    def start(self) -> None:
        self._begin = self._take()

    def stop(self) -> Foreign:
        """Figures since `start`; may be called again. Intervals under 0.2 s are drawn out to that."""
        begin = self._begin or self._take()
        time.sleep(max(0.0, begin.at_s + _MIN_INTERVAL_S - time.monotonic()))
        end = self._take()
        wall = end.at_s - begin.at_s
        room = wall * end.n_cores
        ours = 0
        for key, ticks in end.own.items():
            if key in begin.own or int(key[1]) >= begin.uptime_ticks:  # not: ours by adoption, its past a stranger's
                ours += ticks
        ours -= sum(begin.own.values())
        busy = (end.busy_ticks - begin.busy_ticks) / _TICKS
        return Foreign(
            foreign_ratio=max(0.0, busy - max(0, ours) / _TICKS) / room,
            steal_ratio=max(0, end.steal_ticks - begin.steal_ticks) / _TICKS / room,
            pressure_ratio=max(0.0, end.pressure_s - begin.pressure_s) / wall,
            busy_ratio=busy / room,
            wall_s=wall,
        )

    def _take(self) -> "_Snapshot":
        table = supervisor.processes()
        children: dict[int, list[int]] = {}
        for pid, fields in table.items():
            children.setdefault(int(fields[1]), []).append(pid)
        own: dict[tuple[int, str], int] = {}
        todo = [os.getpid(), *self._own()]
        while todo:
            pid = todo.pop()
            todo += children.pop(pid, [])
            if pid in table:
                own[pid, table[pid][19]] = _ticks(table[pid])
        lines = Path("/proc/stat").read_text().splitlines()
        user, nice, system, _, _, irq, softirq, steal = map(int, lines[0].split()[1:9])
        n_cores = sum(line.startswith("cpu") for line in lines) - 1
        uptime = int(float(Path("/proc/uptime").read_text().split()[0]) * _TICKS)
        busy = user + nice + system + irq + softirq
        return _Snapshot(time.monotonic(), uptime, n_cores, busy, steal, _pressure_s(), own)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    at_s: float
    uptime_ticks: int
    n_cores: int
    busy_ticks: int
    steal_ticks: int
    pressure_s: float
    own: dict[tuple[int, str], int]  # (pid, start time) -> ticks


def _ticks(fields: list[str]) -> int:
    """Used by a process and by its children that it has reaped."""
    return sum(map(int, fields[11:15]))


def _pressure_s() -> float:
    try:
        text = Path("/proc/pressure/cpu").read_text()
    except OSError:
        return 0.0
    some = next((line for line in text.splitlines() if line.startswith("some")), "total=0")
    return int(some.rpartition("total=")[2]) / 1e6
