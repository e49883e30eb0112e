"""Whose socket is it? Proof that what answers on a port is the server that we have started."""

import os
from collections.abc import Iterable
from pathlib import Path

_LISTEN = "0A"


def listens(pids: Iterable[int], port: int) -> bool:
    """True if every socket that listens on 127.0.0.1:port (or on all addresses) is held by one of the processes.

    Sockets are found by inode: in /proc/PID/net/tcp{,6} of the process's own network namespace, and among its open
    descriptors. A socket that a stranger shares the port with (SO_REUSEPORT) takes part of the requests, so that is
    False, too. So is a tree in another network namespace than ours: it cannot be reached over our loopback.
    """
    pids = list(pids)
    wanted = _listening(port)
    ours = _namespace("self")
    held: set[str] = set()
    for pid in pids:
        if _namespace(pid) == ours:
            held |= wanted & _sockets(pid)
    return bool(wanted) and held == wanted


def _listening(port: int) -> set[str]:
    """Inodes of the sockets in our namespace that would take a connection to 127.0.0.1:port."""
    found = set()
    for family in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/self/net/{family}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, number = fields[1].rpartition(":")
            if fields[3] == _LISTEN and int(number, 16) == port and _takes_loopback(address):
                found.add(fields[9])
    return found


def _takes_loopback(address: str) -> bool:
    """127.0.0.1, all addresses, or their IPv6 forms; each 32-bit word is printed in the machine's byte order."""
    loopback = ("0100007F", "7F000001")
    return set(address) == {"0"} or (address[-8:] in loopback and address[:-8] in ("", *_MAPPED))


_MAPPED = ("0000000000000000FFFF0000", "00000000000000000000FFFF")


def _namespace(pid: int | str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")  # noqa: PTH115  (Path.readlink would resolve nothing either)
    except OSError:
        return ""


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                name = str(link.readlink())
            except OSError:  # closed meanwhile
                continue
            if name.startswith("socket:["):
                found.add(name[8:-1])
    except OSError:  # the process has ended, or is another user's
        pass
    return found
