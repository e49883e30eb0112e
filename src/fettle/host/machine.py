"""What this machine is and has, and the right to be the only one who measures on it."""

import contextlib
import errno
import fcntl
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fettle.core.errors import FettleError
from fettle.core.serving import Machine
from fettle.host.limits import isolation_mode, own_folders

_PACKAGES = ("fettle", "numpy", "scipy")
_ISA = re.compile(r"sse4_2|avx|avx2|fma|f16c|avx512\w+|avx_\w+|amx_\w+|asimd\w*|neon|sve\w*|i8mm|bf16|fphp")
_LOCK = "fettle-machine.lock"


def machine(extra_packages: Sequence[str] = ()) -> Machine:
    """The cores and the memory that this process may use, with the fingerprint as facts."""
    return Machine(usable_cores(), usable_memory_bytes(), fingerprint(extra_packages))


def usable_cores() -> tuple[int, ...]:
    """Core ids that may be used; under a CPU quota of q cores, the first floor(q), but at least one."""
    cores = _affinity()
    quota = _quota_cores()
    return cores if quota is None else cores[: max(1, int(quota))]


def usable_memory_bytes() -> int:
    """The least of physical memory and the limits of our control group and those above it."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_memory_limits()])


def fingerprint(extra_packages: Sequence[str] = ()) -> dict[str, Any]:
    """Facts that a figure depends on, as JSON. The host's name is hashed: it tells machines apart, no more."""
    cpu = _cpuinfo()
    flags = (cpu.get("flags") or cpu.get("Features") or "").split()
    return {
        "cpu_model": cpu.get("model name") or cpu.get("CPU part") or platform.processor() or platform.machine(),
        "cores": len(usable_cores()),
        "cores_online": os.cpu_count() or 1,
        "isa": sorted({flag for flag in flags if _ISA.fullmatch(flag)}),
        "architecture": platform.machine(),
        "memory_bytes": usable_memory_bytes(),
        "kernel": platform.release(),
        "system": platform.system(),
        "isolation": isolation_mode(),
        "virtualised": "hypervisor" in flags,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in sorted({*_PACKAGES, *extra_packages})},
        "host": hashlib.sha256(f"fettle {platform.node()}".encode()).hexdigest()[:12],
    }


@contextlib.contextmanager
def machine_lock(timeout_s: float) -> Iterator[None]:
    """One measurement at a time on this machine, whoever runs it; the lock ends with its holder, however that ends.

    Raises FettleError, with the holder's pid, when it is not free within timeout_s.
    """
    fd = _open_lock(Path(tempfile.gettempdir()) / _LOCK)
    try:
        give_up = time.monotonic() + timeout_s
        while not _try_lock(fd):
            if time.monotonic() >= give_up:
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
                holder = holder if holder.isdecimal() else "unknown"
                raise FettleError(
                    f"another measurement runs on this machine (process {holder}), for more than {timeout_s:.3g} s",
                    "wait until it has ended: two measurements at once would spoil both",
                )
            time.sleep(0.05)
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)  # gives the lock back; the file stays, else two could hold "the" lock


def free_port() -> int:
    """A TCP port that nobody uses on 127.0.0.1 just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _open_lock(path: Path) -> int:
    """A regular file that all users may lock. Neither a link nor a device: the folder is everyone's."""
    try:
        try:
            # without O_CREAT first: in a sticky folder the kernel refuses O_CREAT on another user's file
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):
                os.fchmod(fd, 0o666)  # whatever the umask is
    except OSError as error:
        what = "it is a symbolic link" if error.errno == errno.ELOOP else str(error)
        raise FettleError(f"cannot open the machine's lock {path}: {what}", f"remove {path}") from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(fd)
        raise FettleError(f"the machine's lock {path} is no ordinary file", f"remove {path}")
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _affinity() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _levels(controller: str) -> list[Path]:
    """The folder of our own control group and all above it; v2's where the controller has no v1 hierarchy."""
    folders = own_folders()
    own = folders.get(controller) or folders.get("")
    found = []
    while own is not None and (own / "cgroup.procs").exists():
        found.append(own)
        own = own.parent
    return found


def _quota_cores() -> float | None:
    quotas = []
    for folder in _levels("cpu"):
        v1 = [_word(folder / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        quota, period = v1 if all(v1) else [*_word(folder / "cpu.max", 2).split(), "", ""][:2]
        if quota.isdecimal() and period.isdecimal() and int(period):  # "-1" and "max" are no quotas
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _memory_limits() -> list[int]:
    found = []
    for folder in _levels("memory"):
        for name in ("memory.limit_in_bytes", "memory.max"):
            if (text := _word(folder / name)).isdecimal():
                found.append(int(text))
    return found


def _word(path: Path, n: int = 1) -> str:
    try:
        return " ".join(path.read_text().split()[:n])
    except OSError:
        return ""


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """Of the first core."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
