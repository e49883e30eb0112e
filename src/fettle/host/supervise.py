"""Starts process trees that cannot outlive this process. See `supervisor.py` for the other half.

Whatever dies first - this process, the supervisor, the main child, each by SIGKILL if need be - the rest of the
tree is killed within `supervisor.KILL_S`. Only where the supervisor itself is killed does that take a call here
(`poll`, `wait`, `stop`); its main child dies with it in any case.
"""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fettle.core.errors import FettleError
from fettle.host import supervisor
from fettle.host.limits import Group, Limits, make_group
from fettle.host.redact import escape_terminal, redact

_START_S = 20.0  # a supervisor answers within tens of milliseconds; this is for machines that swap
_TAIL_BYTES = 256 << 10
_MARK = "FETTLE_TREE"  # an environment variable by which a tree's processes are known when their supervisor is gone


class Process:
    """A supervised process tree. Thread-safe; `stop` may also be called from a signal handler.

    pid: the main child's. unmet: wishes that the host did not grant, e.g. `nice`.
    """

    def __init__(
        self, started: subprocess.Popen[bytes], control: socket.socket, group: Group | None, mark: str
    ) -> None:
        self.pid = 0
        self.unmet: tuple[str, ...] = ()
        self.group = group
        self.log_path = Path()
        self._supervisor, self._control, self._mark = started, control, mark
        self._failed = ""
        self._returncode: int | None = None
        self._oom = False
        self._seen: dict[int, str] = {}
        self._ended = False  # nothing of the tree is left, or nothing more can be done about it
        self._lock = threading.RLock()  # re-entrant for signal handlers; never held while waiting

    @property
    def returncode(self) -> int | None:
        """The main child's exit status as last seen by `poll`; -N: ended by signal N."""
        return self._returncode

    @property
    def supervisor_pid(self) -> int:
        return self._supervisor.pid

    def pids(self) -> list[int]:
        """Every live process of the tree, the supervisor not included."""
        if self._ended:
            return []
        grouped = self.group.pids() if self.group else []
        if self.group is not None and self.group.version == 1:
            return sorted(grouped)  # cheaper than a walk over all processes, and nested trees are inside
        found = supervisor.descendants(self._supervisor.pid)
        self._seen.update({pid: fields[19] for pid, fields in found.items()})
        return sorted({*found, *grouped})

    def poll(self) -> int | None:
        """The main child's exit status, None while it runs. The rest of its tree is dead soon after it."""
        self._receive()
        return self._returncode

    def wait(self, timeout_s: float | None = None) -> int | None:
        """As `poll`, after waiting for the end of the main child for at most timeout_s."""
        give_up = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while self.poll() is None and (left := give_up - time.monotonic()) > 0:
            self._wait_for_message(min(left, 1.0))
        return self._returncode

    def stop(self, grace_s: float = 0.0) -> None:
        """Ends the whole tree: SIGTERM to the main child if grace_s > 0, SIGKILL to all that is left after it.

        Returns when everything is dead, after at most grace_s and `KILL_S` + 1 seconds; may be called again.
        """
        give_up = time.monotonic() + grace_s + supervisor.KILL_S + 1.0
        try:
            self._control.send(b"stop %.3f" % grace_s)
        except OSError:  # it is gone already
            pass
        while not self._ended and time.monotonic() < give_up:
            self._receive()
            self._wait_for_message(0.2)
        if not self._ended:
            self._supervisor_died(hangs=True)

    def oom_killed(self) -> bool:
        """True if memory ran out for the tree: the kernel says so, or our own watch where it holds no limit."""
        self._receive()
        return self._oom or (self.group is not None and supervisor.oom_kills(str(self.group.oom_file)) > 0)

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the tree's output, harmless to print and without secrets."""
        try:
            with self.log_path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                data = file.read(_TAIL_BYTES)
        except OSError:
            return ""
        last = data.decode(errors="replace").replace("\r\n", "\n").split("\n")
        while last and not last[-1].strip():
            last.pop()
        return redact(escape_terminal("\n".join(line[:2000] for line in last[-lines:])))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_for_message(self, timeout_s: float) -> None:
        try:
            if not self._ended:
                select.select([self._control], [], [], timeout_s)
        except (OSError, ValueError):  # closed meanwhile by another thread or by a signal handler
            pass

    def _receive(self) -> None:
        """Takes in what the supervisor has said. Whole messages: an interruption between two loses nothing."""
        with self._lock:
            while not self._ended:
                try:
                    data = self._control.recv(65536, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return
                except OSError:
                    data = b""
                if not data:
                    self._supervisor_died()
                    return
                self._take(json.loads(data))

    def _take(self, message: Mapping[str, Any]) -> None:
        if "pid" in message:
            self.pid, self.unmet = message["pid"], tuple(message["unmet"])
            fields = supervisor.stat_fields(self.pid)
            self._seen[self.pid] = fields[19] if fields else ""
        self._failed = message.get("failed", self._failed)
        if "exit" in message:
            self._oom = message["oom"]
            self._returncode = -9 if message["exit"] is None else message["exit"]

    def _supervisor_died(self, hangs: bool = False) -> None:
        """It has ended: after its work, or because it was killed. Then its work is ours."""
        with self._lock:
            if self._ended:
                return
            try:
                clean = self._supervisor.wait(0.0 if hangs else 1.0) == 0
            except subprocess.TimeoutExpired:
                self._supervisor.kill()
                clean = self._supervisor.wait() == 0
            give_up = time.monotonic() + supervisor.KILL_S
            while not clean and (left := self._left()) and time.monotonic() < give_up:
                supervisor.kill(left)
                time.sleep(0.01)
            self._control.close()
            if self.group is not None:
                self._oom = self._oom or supervisor.oom_kills(str(self.group.oom_file)) > 0
                self.group.remove()
            if self._returncode is None and self.pid:
                self._returncode = -9
            self._ended = True

    def _left(self) -> list[int]:
        """Processes of the tree that live although their supervisor is gone, found in every way there is."""
        found = set(self.group.kill() if self.group else ())
        mark = f"{_MARK}={self._mark}".encode()
        for pid, fields in supervisor.processes().items():
            if not supervisor.is_alive(pid, fields) or pid == self._supervisor.pid:
                continue
            if self._seen.get(pid) == fields[19] or mark in _environ(pid):
                found.update([pid, *supervisor.descendants(pid)])
        return sorted(found)


def spawn(
    argv: Sequence[str],
    *,
    cwd: str | Path,
    env: Mapping[str, str],
    log_path: Path,
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    name: str = "",
    pass_fds: tuple[int, ...] = (),
) -> Process:
    """Starts argv in a tree of its own, with exactly env (and one variable more); its output goes to log_path.

    pass_fds: descriptors that the child inherits under the same numbers. name: for messages.
    Raises FettleError if the program cannot be started or the limits cannot be set.
    """
    log_path = Path(log_path).absolute()
    log_path.parent.mkdir(parents=True, exist_ok=True)
    group = make_group(limits)
    mark = f"{os.getpid()}-{time.monotonic_ns()}-{os.urandom(4).hex()}"
    settings = {
        "argv": list(argv),
        "cwd": str(cwd),
        "env": {**env, _MARK: f"{env.get(_MARK, '')}/{mark}"},
        "log_path": str(log_path),
        "parent": os.getpid(),
        "pass_fds": list(pass_fds),
        "groups": group.paths if group else [],
        "oom_file": str(group.oom_file) if group else None,
        "watch_bytes": None if group else limits.memory_bytes,
        "cores": None if limits.cores is None else list(limits.cores),
        "nice": limits.nice,
        "unmet": ["cpu_shares"] if limits.cpu_shares is not None and group is None else [],
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        started = _start_supervisor(settings, theirs)
    except (OSError, TypeError):
        ours.close()
        if group:
            group.remove()
        raise
    process = Process(started, ours, group, mark)
    process.log_path = log_path
    give_up = time.monotonic() + _START_S
    while not (process.pid or process._failed or process._ended) and time.monotonic() < give_up:
        process._wait_for_message(0.5)
        process._receive()
    if not process.pid:
        process.stop()
        what = process._failed or "its supervisor gave no answer"
        raise FettleError(f"could not start {name or argv[0]}: {what}", f"argv was {list(argv)}, in the folder {cwd}")
    return process


def _start_supervisor(settings: Mapping[str, Any], control: socket.socket) -> subprocess.Popen[bytes]:
    with control, tempfile.TemporaryFile() as file:
        file.write(json.dumps(settings).encode())
        file.seek(0)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, str(control.fileno())],
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(control.fileno(), *settings["pass_fds"]),
            start_new_session=True,
            cwd="/",
        )


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
