import socket
from pathlib import Path

import pytest

from fettle.host.identity import listens

from .conftest import Start, stubborn, until

LISTEN = """
import socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
server = socket.socket(family)
if sys.argv[3] == "shared":
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind((sys.argv[2], int(sys.argv[4])))
server.listen()
open(sys.argv[1], "w").write(str(server.getsockname()[1]) + " ")
time.sleep(600)
"""


def _listen(start: Start, folder: Path, address: str, how: str = "alone", port: int = 0) -> tuple[list[int], int]:
    file = folder / f"{how}{port}"
    process = start(LISTEN, str(file), address, how, str(port))
    assert until(lambda: file.exists() and file.read_text().endswith(" "))
    return process.pids(), int(file.read_text())


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_own_server_is_known(start: Start, tmp_path: Path, address: str) -> None:
    pids, port = _listen(start, tmp_path, address)
    assert listens(pids, port)


def test_a_listener_deep_in_the_tree_is_known(start: Start, tmp_path: Path) -> None:
    _, pids, port = stubborn(start, tmp_path)
    assert listens(pids, port)


def test_a_stranger_is_refused(start: Start) -> None:
    process = start("import time; time.sleep(600)")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        assert not listens(process.pids(), stranger.getsockname()[1])


def test_a_port_shared_with_a_stranger_is_refused(start: Start, tmp_path: Path) -> None:
    first, port = _listen(start, tmp_path, "127.0.0.1", "shared")
    assert listens(first, port)
    second, _ = _listen(start, tmp_path, "127.0.0.1", "shared", port)
    assert not listens(first, port)
    assert listens([*first, *second], port)


def test_a_port_where_nobody_listens(start: Start) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not listens(start("import time; time.sleep(600)").pids(), bound.getsockname()[1])


def test_no_processes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not listens([], server.getsockname()[1])
