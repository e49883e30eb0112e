# ruff: noqa: PTH106, PTH116, PTH120, PTH123, PTH208
"""Owns one process tree: the stand-alone half of `supervise.py`, started as `python -I -S supervisor.py FD`.

FD is a SOCK_SEQPACKET socket to the driver; the settings are JSON on standard input. The driver may send
`stop SECONDS`; the end of the connection, or another parent than at the start, means that the driver is dead.
The supervisor answers with one JSON message each: {"pid", "unmet"} or {"failed"}, {"exit", "oom"}, and ends
once nothing of the tree is left. As a subreaper it inherits every orphan below it, so whatever a process does
(double fork, new session), it stays among the supervisor's descendants.

Standard library only, and little of it (no pathlib): start-up is paid for by each server start.
"""

import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any, NoReturn

KILL_S = 5.0  # nothing of a tree may live longer than this after its end
_TICK_S = 0.2
_WATCH_S = 0.1  # between two looks at the memory, where no control group limits it
_LOG_CAP_BYTES = 16 << 20
_LOG_KEEP_BYTES = 1 << 20
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_DEFAULTED = ("SIGINT", "SIGHUP", "SIGTERM", "SIGCHLD", "SIGPIPE", "SIGXFSZ")


def stat_fields(pid: int) -> list[str] | None:
    """/proc/PID/stat after the name: [0] state, [1] parent, [11:15] CPU ticks, [19] start; None: no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split() or None
    except OSError:
        return None


def is_alive(pid: int, fields: list[str]) -> bool:
    """Zombies are dead, unless only the first thread has ended."""
    if fields[0] not in "ZX":
        return True
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def processes() -> dict[int, list[str]]:
    """pid -> `stat_fields` of every process, zombies included."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return {pid: fields for pid in pids if (fields := stat_fields(pid))}


def descendants(root: int) -> dict[int, list[str]]:
    """pid -> `stat_fields` of every live process below root, itself not included."""
    table = processes()
    children: dict[int, list[int]] = {}
    for pid, fields in table.items():
        children.setdefault(int(fields[1]), []).append(pid)
    found: dict[int, list[str]] = {}
    todo = [root]
    while todo:
        for pid in children.pop(todo.pop(), []):
            todo.append(pid)
            if is_alive(pid, table[pid]):
                found[pid] = table[pid]
    return found


def members(folder: str) -> list[int]:
    """The live processes in a control group and the groups below it."""
    found = []
    for path, _, files in os.walk(folder):
        if "cgroup.procs" not in files:
            continue
        try:
            with open(f"{path}/cgroup.procs") as file:
                pids = [int(line) for line in file]
        except OSError:  # removed meanwhile
            continue
        # 0 stands for a process of another pid namespace
        found += [p for p in pids if p > 0 and (fields := stat_fields(p)) and is_alive(p, fields)]
    return found


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        if pid > 1 and pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass


def kill_group(folder: str) -> list[int]:
    """Kills a control group's members, forks in progress included where the kernel helps; returns who was there."""
    pids = members(folder)
    if pids:
        for path, _, files in os.walk(folder):
            if "pids.max" in files:
                _write(f"{path}/pids.max", "0")  # no more forks: a chain of them cannot outrun us
        _write(f"{folder}/cgroup.kill", "1")  # v2 only
        kill(pids)
    return pids


def remove_groups(folders: list[str], timeout_s: float = 1.0) -> bool:
    """Removes emptied control groups, bottom up, and their parent if they were its last. False: some are left."""
    give_up = time.monotonic() + timeout_s
    while True:
        for path in [path for folder in folders for path, _, _ in os.walk(folder, topdown=False)]:
            try:
                os.rmdir(path)
            except OSError:  # the kernel takes a moment to let go of the dead
                pass
        left = any(map(os.path.isdir, folders))
        if not left or time.monotonic() > give_up:
            break
        time.sleep(0.01)
    for parent in {os.path.dirname(f) for f in folders}:
        try:
            os.rmdir(parent)
        except OSError:  # in use by others
            pass
    return not left


def oom_kills(path: str | None) -> int:
    """How many processes of a control group the kernel has killed for memory."""
    try:
        with open(path or "") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0


def rss_bytes(pid: int) -> int:
    """Resident memory; pages that processes share count in each."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, IndexError):
        return 0


def pss_bytes(pid: int) -> int:
    """Resident memory; shared pages are divided among their users. Costs a walk over the page tables."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next((int(line.split()[1]) << 10 for line in file if line.startswith("Pss:")), 0)
    except OSError:
        return 0


def _write(path: str, text: str) -> None:
    """To a kernel file, which may be missing or refuse."""
    try:
        fd = os.open(path, os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(fd, text.encode())
    except OSError:
        pass
    finally:
        os.close(fd)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class _Tree:
    """Starts the main child, waits for a reason to end, and leaves nothing behind."""

    def __init__(self, settings: dict[str, Any], control: socket.socket) -> None:
        self.settings, self.control = settings, control
        self.groups: list[str] = settings["groups"]
        self.limit: int | None = settings["watch_bytes"]
        self.pid = 0
        self.status: int | None = None
        self.oom = False
        self.high = 0
        self.asked = False

    def run(self) -> bool:
        """True: nothing is left."""
        wake, wake_write = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides what Ctrl-C means
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        try:
            if self._start():
                self._supervise(wake)
        finally:
            clean = self._end()
        return clean

    def _on_term(self, number: int, frame: object) -> None:
        self.asked = True

    def _start(self) -> bool:
        errors, errors_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(self.settings, errors_write)
        os.close(errors_write)
        for fd in self.settings["pass_fds"]:
            os.close(fd)  # else the driver would wait for ever for the end of its child's pipe
        said = b""
        while part := os.read(errors, 4096):  # ends with the child's exec
            said += part
        os.close(errors)
        lines = [line.partition(" ") for line in said.decode(errors="replace").splitlines()]
        for kind, _, text in lines:
            if kind == "failed":
                self._send({"failed": text})
                return False
        self._send({"pid": self.pid, "unmet": [text for _, _, text in lines]})
        return True

    def _supervise(self, wake: int) -> None:
        end = float("inf")  # killed at this time
        trim_at = 0.0
        control = self.control.fileno()
        while self.status is None and not self.asked:
            tick = _TICK_S if self.limit is None else _WATCH_S
            ready, _, _ = select.select([control, wake], [], [], max(0.0, min(tick, end - time.monotonic())))
            if wake in ready:
                os.read(wake, 4096)
            self._reap()
            if control in ready:
                grace_s = self._receive()
                if grace_s is None:
                    return
                end = min(end, time.monotonic() + grace_s)
                if grace_s > 0 and self.status is None:
                    os.kill(self.pid, signal.SIGTERM)  # not reaped yet, so the pid is still its own
            if time.monotonic() >= end or os.getppid() != self.settings["parent"] or self._over_limit():
                return
            if time.monotonic() >= trim_at:
                _trim(self.settings["log_path"])
                trim_at = time.monotonic() + 1.0

    def _receive(self) -> float | None:
        """The grace time of a stop; None when the driver is gone."""
        try:
            message = self.control.recv(4096)
        except OSError:
            return None
        return float(message.split()[1]) if message else None

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = os.waitstatus_to_exitcode(status)

    def _over_limit(self) -> bool:
        if self.limit is None:
            return False
        pids = descendants(os.getpid())
        used = sum(map(rss_bytes, pids))
        if used > self.limit:  # shared pages counted several times: look closer before killing
            used = sum(map(pss_bytes, pids))
        self.high = max(self.high, used)
        self.oom = used > self.limit
        return self.oom

    def _end(self) -> bool:
        if self.limit is not None and self.status == -signal.SIGKILL and self.high > 0.8 * self.limit:
            self.oom = True  # not our signal, and close to the limit: the kernel was faster
        self.oom = self.oom or oom_kills(self.settings["oom_file"]) > 0
        by_itself = self.status is not None
        if by_itself:
            self._send({"exit": self.status, "oom": self.oom})
        give_up = time.monotonic() + KILL_S
        left: list[int] = []
        while time.monotonic() < give_up:
            left = [*descendants(os.getpid())]
            kill(left)
            left += [pid for folder in self.groups[:1] for pid in kill_group(folder)]
            self._reap()
            if not left:
                break
            time.sleep(0.005)
        self._reap()
        if not by_itself:
            self._send({"exit": self.status, "oom": self.oom})
        _trim(self.settings["log_path"])
        return remove_groups(self.groups) and not left

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self.control.send(json.dumps(message).encode())
        except OSError:  # the driver is gone
            pass


def _become(settings: dict[str, Any], errors: int) -> NoReturn:
    """In the forked child: takes on the limits and turns into the program. Never returns."""
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != settings["supervisor"]:
            os._exit(127)  # it died before the line above
        for folder in settings["groups"]:
            with open(f"{folder}/cgroup.procs", "w") as file:
                file.write("0")
        if settings["cores"] is not None and sys.platform == "linux":
            os.sched_setaffinity(0, settings["cores"])
        try:
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + settings["nice"])
        except PermissionError:
            os.write(errors, b"unmet nice\n")
        for wish in settings["unmet"]:
            os.write(errors, f"unmet {wish}\n".encode())
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        _write("/proc/self/oom_score_adj", "500")  # before the driver, when the whole machine runs out
        signal.set_wakeup_fd(-1)
        for name in _DEFAULTED:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        null = os.open("/dev/null", os.O_RDONLY)
        log = os.open(settings["log_path"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for fd, number in ((null, 0), (log, 1), (log, 2)):
            os.dup2(fd, number)
        for fd in settings["pass_fds"]:
            os.set_inheritable(fd, True)
        os.chdir(settings["cwd"])
        os.execvpe(settings["argv"][0], settings["argv"], settings["env"])
    except (OSError, ValueError) as error:
        os.write(errors, f"failed {error}".replace("\n", " ").encode(errors="replace"))
    finally:
        os._exit(127)


def _trim(path: str) -> None:
    """Keeps the tail of a log that has grown too long; its writers append, so they go on where it ends."""
    try:
        size = os.stat(path).st_size
        if size <= _LOG_CAP_BYTES:
            return
        with open(path, "rb") as file:
            file.seek(-_LOG_KEEP_BYTES, os.SEEK_END)
            tail = file.read(_LOG_KEEP_BYTES)
        os.truncate(path, 0)
        with open(path, "ab") as file:
            file.write(b"[%d bytes of log dropped]\n" % (size - len(tail)) + tail)
    except OSError:  # the folder was removed, or the disk is full: no reason to let go of the tree
        pass


def main() -> int:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    settings = json.load(sys.stdin)
    settings["supervisor"] = os.getpid()
    for fd in settings["pass_fds"]:
        os.set_inheritable(fd, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return 0 if _Tree(settings, control).run() else 1


if __name__ == "__main__":
    sys.exit(main())
