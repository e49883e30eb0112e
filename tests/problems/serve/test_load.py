import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fettle.core.errors import InvalidInput
from fettle.core.serving import Request
from fettle.problems.serve.load import Generator, schedule

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODIES = [Request("POST", "/infer", {}, b"%04d" % i) for i in range(32)]


class Misbehaving:
    """A real server: one thread per connection; `respond(connection, request, number)` does what it likes.

    It returns False to have the connection closed.
    """

    def __init__(self, respond: Callable[[socket.socket, bytes, int], bool]) -> None:
        self.respond = respond
        self.seen: list[bytes] = []
        self.accepted = 0
        self.stop = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.socket.getsockname()[1]
        self.threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self.socket.settimeout(0.05)
        while not self.stop.is_set():
            try:
                connection, _ = self.socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.accepted += 1
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(0.2)
            data, number = b"", 0
            while not self.stop.is_set():
                try:
                    piece = connection.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not piece:
                    return
                data += piece
                while (end := data.find(b"\r\n\r\n")) >= 0 and len(data) >= end + 8:
                    request, data = data[: end + 8], data[end + 8 :]
                    self.seen.append(request)
                    number += 1
                    try:
                        if not self.respond(connection, request, number):
                            return
                    except OSError:
                        return

    def close(self) -> None:
        self.stop.set()
        self.socket.close()
        for thread in self.threads:
            thread.join(3.0)


@contextmanager
def serving(respond: Callable[[socket.socket, bytes, int], bool]) -> Iterator[Misbehaving]:
    server = Misbehaving(respond)
    try:
        yield server
    finally:
        server.close()


def always(answer: bytes, *, keep: bool = True) -> Callable[[socket.socket, bytes, int], bool]:
    def respond(connection: socket.socket, request: bytes, number: int) -> bool:
        connection.sendall(answer)
        return keep

    return respond


def test_open_loop_counts_what_it_sent() -> None:
    with serving(always(OK)) as server, Generator("127.0.0.1", server.port, BODIES, seed=3) as generator:
        samples = generator.open_loop(300, 0.6)
        assert samples.n == len(server.seen) == samples.completed
        assert samples.error_ratio == 0.0 and not samples.errors
        assert samples.received_bytes == samples.n * len(OK)
        assert 0 < samples.percentile(0.5) < 0.1
        assert len({request[-4:] for request in server.seen}) > 20  # the bodies really differ
        assert samples.throughput_rps == pytest.approx(samples.n / 0.6, rel=0.05)
        assert server.accepted == 32  # every connection, and so every instance, is used
        again = generator.open_loop(300, 0.2, arrivals="constant")
        assert again.n == 60 and server.accepted == 32  # still warm


def test_closed_loop_keeps_its_clients_busy() -> None:
    def respond(connection: socket.socket, request: bytes, number: int) -> bool:
        time.sleep(0.01)
        connection.sendall(OK)
        return True

    with serving(respond) as server, Generator("127.0.0.1", server.port, BODIES, connections=4) as generator:
        samples = generator.closed_loop(4, 0.5)
    assert samples.completed == samples.n == len(server.seen)
    assert 4 * 0.5 / 0.03 < samples.n <= 4 * (0.5 / 0.01 + 1)
    assert samples.percentile(0.0) >= 0.01


def test_seeds_give_the_same_schedule() -> None:
    first = schedule(100, 2, "poisson", np.random.default_rng([5, 1]))
    assert np.array_equal(first, schedule(100, 2, "poisson", np.random.default_rng([5, 1])))
    assert not np.array_equal(first[:50], schedule(100, 2, "poisson", np.random.default_rng([6, 1]))[:50])
    with serving(always(OK)) as server:
        sent = []
        for seed in (1, 1, 2):
            with Generator("127.0.0.1", server.port, BODIES, connections=2, seed=seed) as generator:
                sent.append(generator.open_loop(100, 0.2).scheduled_s.tolist())
    assert sent[0] == sent[1] != sent[2]


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(schedule(1000, 20, "poisson", np.random.default_rng(0)))
    assert gaps.mean() == pytest.approx(1e-3, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    constant = schedule(50, 2, "constant", np.random.default_rng(0))
    assert constant.size == 100 and np.allclose(np.diff(constant), 0.02)


@pytest.mark.parametrize(("rate", "seconds", "arrivals"), [(0, 1, "poisson"), (1, np.inf, "poisson"), (1, 1, "burst")])
def test_schedule_refuses(rate: float, seconds: float, arrivals: str) -> None:
    with pytest.raises(InvalidInput):
        schedule(rate, seconds, arrivals, np.random.default_rng(0))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no request"):
        Generator("127.0.0.1", 1, [])
    with pytest.raises(InvalidInput, match="connections"):
        Generator("127.0.0.1", 1, BODIES, connections=0)
    with pytest.raises(InvalidInput, match="timeout_s"):
        Generator("127.0.0.1", 1, BODIES, timeout_s=0)


def test_latency_counts_from_the_scheduled_time() -> None:
    """A pause of the whole server of 0.5 s shows in the requests that were due in it, not only in those sent."""
    gate = threading.Event()
    gate.set()

    def respond(connection: socket.socket, request: bytes, number: int) -> bool:
        gate.wait(2.0)
        connection.sendall(OK)
        return True

    with serving(respond) as server, Generator("127.0.0.1", server.port, BODIES, connections=2) as generator:
        timers = [threading.Timer(0.2, gate.clear), threading.Timer(0.7, gate.set)]
        for timer in timers:
            timer.start()
        samples = generator.open_loop(200, 1.0, arrivals="constant")
    assert samples.completed == 200
    slow = np.count_nonzero(samples.latency_s > 0.1)
    assert 60 <= slow <= 120  # 80 were due in the first 0.4 s of the pause
    assert 0.4 < samples.percentile(0.99) < 0.7


def stall(connection: socket.socket, request: bytes, number: int) -> bool:
    connection.sendall(OK[:-1])
    return True


def slow_loris(connection: socket.socket, request: bytes, number: int) -> bool:
    for byte in OK * 10:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)
    return True


def endless_body(connection: socket.socket, request: bytes, number: int) -> bool:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    deadline = time.monotonic() + 3.0
    while time.monotonic() < deadline:
        connection.sendall(b"x" * 1000)
        time.sleep(0.001)
    return False


def every_fifth_503(connection: socket.socket, request: bytes, number: int) -> bool:
    connection.sendall(OK if number % 5 else b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    return True


@pytest.mark.parametrize(
    ("respond", "kind"),
    [
        (stall, "stalled"),
        (slow_loris, "stalled"),
        (endless_body, "stalled"),
        (lambda *_: True, "timeout"),
        (lambda *_: False, "closed"),
        (always(b"NOT HTTP AT ALL\r\n\r\n"), "bad_response"),
        (always(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000), "bad_response"),
        (always(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "empty_body"),
        (always(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno"), "http_503"),
        (always(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", keep=False), "closed"),
    ],
)
def test_a_misbehaving_server_is_counted_by_kind_and_bounded(
    respond: Callable[[socket.socket, bytes, int], bool], kind: str
) -> None:
    with (
        serving(respond) as server,
        Generator("127.0.0.1", server.port, BODIES, connections=4, timeout_s=0.2) as generator,
    ):
        begun = time.monotonic()
        samples = generator.open_loop(40, 0.4, drain_s=0.4)
        assert time.monotonic() - begun < 0.4 + 0.4 + 0.5
        assert samples.n > 0 and samples.completed == 0
        assert samples.errors[kind] >= 0.5 * samples.n
        assert sum(samples.errors.values()) == samples.n and samples.error_ratio == 1.0
        begun = time.monotonic()
        closed = generator.closed_loop(4, 0.3, drain_s=0.3)
        assert time.monotonic() - begun < 0.3 + 0.3 + 0.5
        assert closed.completed == 0 and closed.errors


def test_what_is_never_answered_ends_with_the_drain() -> None:
    with serving(lambda *_: True) as server, Generator("127.0.0.1", server.port, BODIES, connections=2) as generator:
        begun = time.monotonic()
        samples = generator.open_loop(50, 0.2, drain_s=0.2)
        assert time.monotonic() - begun < 1.0
    assert samples.errors == {"unfinished": samples.n}


def test_no_server_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Generator("127.0.0.1", port, BODIES) as generator:
        samples = generator.open_loop(100, 0.2)
        assert samples.n and samples.errors == {"connect": samples.n}
        closed = generator.closed_loop(4, 0.2)
        assert closed.completed == 0 and set(closed.errors) == {"connect"}
        assert closed.n < 4 * 0.2 / 0.004  # it does not spin


def test_a_server_that_dies_midway() -> None:
    with serving(always(OK)) as server, Generator("127.0.0.1", server.port, BODIES, connections=4) as generator:
        timer = threading.Timer(0.3, server.close)
        timer.start()
        begun = time.monotonic()
        samples = generator.open_loop(100, 1.0, drain_s=0.5)
        assert time.monotonic() - begun < 2.0
        timer.join()
    assert 0.1 < samples.error_ratio < 0.9
    assert np.isnan(samples.latency_s[-20:]).all()


@pytest.mark.parametrize("said", [True, False])
def test_connections_that_the_server_closes_are_opened_again(said: bool) -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if said else OK
    with (
        serving(always(answer, keep=False)) as server,
        Generator("127.0.0.1", server.port, BODIES, connections=4) as generator,
    ):
        samples = generator.open_loop(100, 0.5)
    assert samples.error_ratio == 0.0
    assert server.accepted >= samples.n


def test_chunked_answers() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
    with serving(always(answer)) as server, Generator("127.0.0.1", server.port, BODIES) as generator:
        assert generator.open_loop(100, 0.3).error_ratio == 0.0


def test_some_503_do_not_hide() -> None:
    with serving(every_fifth_503) as server, Generator("127.0.0.1", server.port, BODIES, connections=1) as generator:
        samples = generator.closed_loop(1, 0.3)
    assert samples.error_ratio == pytest.approx(0.2, abs=0.05)
    assert set(samples.errors) == {"http_503"}


def test_wrong_bodies_are_found_by_sample() -> None:
    """Half of the answers are wrong; only every fifth is looked at, and the share that is told is still about half."""

    def respond(connection: socket.socket, request: bytes, number: int) -> bool:
        body = b"nan" if int(request[-4:]) % 2 else request[-4:]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        return True

    def check(index: int, body: bytes) -> str:
        return "" if body == b"%04d" % index else "bad_body"

    with (
        serving(respond) as server,
        Generator("127.0.0.1", server.port, BODIES, check=check, check_every=5, seed=1) as generator,
    ):
        samples = generator.open_loop(800, 0.5)
    assert samples.checked == pytest.approx(8 + samples.n / 5, abs=3)
    assert samples.errors == {"bad_body": samples.bad}
    assert samples.error_ratio == pytest.approx(0.5, abs=0.2)


def test_over_saturation_stops_the_sending() -> None:
    lock = threading.Lock()

    def respond(connection: socket.socket, request: bytes, number: int) -> bool:
        with lock:
            time.sleep(0.01)
        connection.sendall(OK)
        return True

    with serving(respond) as server, Generator("127.0.0.1", server.port, BODIES, connections=4) as generator:
        begun = time.monotonic()
        samples = generator.open_loop(400, 5.0, slo_s=0.02, drain_s=0.5)
        assert time.monotonic() - begun < 2.0
    assert samples.oversaturated and samples.seconds < 1.0
    assert samples.n == pytest.approx(400 * samples.seconds, rel=0.4)


SERVER = """
import asyncio
class Trivial(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
async def main():
    server = await asyncio.get_running_loop().create_server(Trivial, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
CLIENT = """
import sys
from fettle.core.serving import Request
from fettle.problems.serve.load import Generator
with Generator("127.0.0.1", int(sys.argv[1]), [Request("POST", "/", {}, b"x")], connections=8) as generator:
    generator.open_loop(100, 0.1)
    print("ready", flush=True)
    sys.stdin.readline()
    if sys.argv[2] == "open":
        samples = generator.open_loop(400, 1.5, slo_s=0.05)
    else:
        samples = generator.closed_loop(2, 1.5)
    print(samples.limited or "free", flush=True)
"""


@pytest.mark.medium
@pytest.mark.parametrize("loop", ["open", "closed"])
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_throttled_generator_says_so(loop: str) -> None:
    """The generator is held for 40 ms out of every 100 ms; its server is not."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVER], **pipes) as server:  # type: ignore[call-overload]
        try:
            port = server.stdout.readline().strip()
            command = [sys.executable, "-c", CLIENT, port, loop]
            with subprocess.Popen(command, env=environment, **pipes) as client:  # type: ignore[call-overload]
                assert client.stdout.readline() == "ready\n"
                client.stdin.write("go\n")
                client.stdin.flush()
                for _ in range(12):
                    time.sleep(0.06)
                    client.send_signal(signal.SIGSTOP)
                    time.sleep(0.04)
                    client.send_signal(signal.SIGCONT)
                assert "late" in client.stdout.readline()
        finally:
            server.kill()
