import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from loopback import OK, serving

from fettle.core.errors import InvalidInput
from fettle.core.serving import Request
from fettle.problems.serve.load import Generator, schedule

_GRACE_S = 3.0  # what a busy machine may take on top of a bound
REQUESTS = [Request("POST", "/infer", {"Content-Type": "text/plain"}, b"%d" % i) for i in range(32)]


def ok(client: socket.socket, number: int) -> bool:
    client.sendall(OK)
    return True


def sends(data: bytes, keep: bool = True):
    def answer(client: socket.socket, number: int) -> bool:
        client.sendall(data)
        return keep

    return answer


def generator(port: int, **options) -> Generator:
    return Generator("127.0.0.1", port, requests=REQUESTS, **{"connections": 4, "timeout_s": 0.3, **options})


def test_all_requests_are_answered_and_counted_from_their_schedule():
    with serving(ok) as port, generator(port) as load:
        samples = load.open_loop(300.0, 0.5)
    assert samples.completed == samples.n > 100
    assert samples.errors == {} and samples.error_ratio == 0.0
    assert np.all(samples.latency_s > 0.0) and np.all(samples.latency_s >= samples.send_late_s)
    assert samples.throughput_rps == pytest.approx(samples.n / 0.5, rel=0.05)
    assert samples.received_bytes == samples.n * len(OK)


def test_closed_loop_keeps_its_concurrency():
    with serving(ok) as port, generator(port) as load:
        samples = load.closed_loop(3, 0.3)
    assert samples.completed == samples.n > 30
    busy = [
        np.count_nonzero((samples.scheduled_s <= t) & (samples.scheduled_s + samples.latency_s > t)) for t in (0.1, 0.2)
    ]
    assert max(busy) <= 3


def test_same_seed_same_schedule():
    def due(seed: int) -> list[np.ndarray]:
        with serving(ok) as port, generator(port, seed=seed) as load:
            return [load.open_loop(200.0, 0.1).scheduled_s for _ in range(2)]

    first, again, other = due(3), due(3), due(4)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0][:5], first[1][:5]) and not np.array_equal(first[0][:5], other[0][:5])


def test_schedules():
    rng = np.random.default_rng(0)
    assert schedule(10.0, 1.0, "constant", rng).tolist() == pytest.approx([i / 10 for i in range(10)])
    times = schedule(1000.0, 20.0, "poisson", rng)
    assert times.size == pytest.approx(20_000, rel=0.03) and times.max() < 20.0
    gaps = np.diff(times)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    with pytest.raises(InvalidInput, match="poisson"):
        schedule(1.0, 1.0, "uniform", rng)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), "stalled"),
        (sends(b""), "timeout"),
        (sends(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "bad_response"),
        (sends(b"HTTP/1.1 2x0 OK\r\n\r\n"), "bad_response"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n"), "bad_response"),
        (sends(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 80_000), "bad_response"),
        (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "bad_response"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"), "bad_response"),
        (sends(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno"), "http_503"),
        (sends(b"HTTP/1.1 204 Empty\r\n\r\n"), "http_204"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "empty_body"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", keep=False), "closed"),
    ],
)
def test_bad_answers_are_errors_by_kind_and_end_in_time(answer, kind):
    with serving(answer) as port, generator(port) as load:
        begun = time.monotonic()
        samples = load.open_loop(60.0, 0.25, drain_s=0.6)
        assert time.monotonic() - begun < 0.25 + 0.6 + _GRACE_S
    assert samples.n > 3 and samples.completed == 0 and samples.error_ratio == 1.0
    assert samples.errors.get(kind, 0) >= 0.7 * samples.n
    assert sum(samples.errors.values()) == samples.n


@pytest.mark.parametrize("answer_end", ["endless", "drip"])
def test_an_answer_without_end_is_bounded(answer_end):
    stop = threading.Event()

    def endless(client: socket.socket, number: int) -> bool:
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not stop.is_set():
            client.sendall(b"x" * (4096 if answer_end == "endless" else 1))
            time.sleep(0.01)
        return False

    with serving(endless) as port, generator(port) as load:
        begun = time.monotonic()
        samples = load.open_loop(40.0, 0.2, drain_s=0.5)
        took = time.monotonic() - begun
        stop.set()
    assert took < 0.7 + _GRACE_S
    assert samples.completed == 0 and samples.errors.get("stalled", 0) > 0.7 * samples.n


def test_chunks_trailers_and_interim_answers():
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
    seen = []

    def slowly(client: socket.socket, number: int) -> bool:
        for i in range(0, len(body), 7):
            client.sendall(body[i : i + 7])
        return True

    def check(index: int, data: bytes) -> bool:
        seen.append(data)
        return data == b"abcde"

    with serving(slowly) as port, generator(port, check=check, check_every=1) as load:
        samples = load.open_loop(50.0, 0.3)
    assert samples.errors == {} and samples.completed == samples.n == len(seen)


def test_closing_after_each_answer_costs_no_errors():
    def polite(client: socket.socket, number: int) -> bool:
        client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood")
        return False

    def rude(client: socket.socket, number: int) -> bool:
        client.sendall(OK)
        return False

    def until_end(client: socket.socket, number: int) -> bool:
        client.sendall(b"HTTP/1.0 200 OK\r\n\r\ngood")
        return False

    for answer in (polite, rude, until_end):
        with serving(answer) as port, generator(port) as load:
            samples = load.open_loop(100.0, 0.3)
        assert samples.completed == samples.n, samples.errors


def test_wrong_bodies_count_in_proportion():
    def check(index: int, data: bytes) -> str:
        return "non_finite" if index % 4 == 0 else ""

    with serving(ok) as port, generator(port, check=check, check_every=3) as load:
        samples = load.open_loop(400.0, 0.5)
    assert samples.bad == samples.errors["non_finite"] > 0
    assert samples.error_ratio == pytest.approx(0.25, abs=0.1)


def test_a_pause_of_the_server_shows_in_the_percentiles():
    paused = threading.Event()

    def pauses(client: socket.socket, number: int) -> bool:
        if not paused.is_set() and number > 20:
            paused.set()
            until.append(time.monotonic() + 0.5)
        if until and time.monotonic() < until[0]:
            time.sleep(max(0.0, until[0] - time.monotonic()))
        client.sendall(OK)
        return True

    until: list[float] = []
    with serving(pauses) as port, generator(port, timeout_s=3.0) as load:
        samples = load.open_loop(200.0, 1.0)
    # about a hundred requests fell into the pause, and each waited for what was left of it
    assert samples.percentile(0.99) > 0.4
    assert 0.2 < np.mean(samples.latency_s > 0.05) < 0.7


def test_more_connections_are_opened_when_all_are_busy():
    def slow(client: socket.socket, number: int) -> bool:
        time.sleep(0.1)
        client.sendall(OK)
        return True

    with serving(slow) as port, generator(port, connections=2, timeout_s=2.0) as load:
        samples = load.open_loop(100.0, 0.4)
    assert samples.completed == samples.n
    assert samples.percentile(0.9) < 0.2


def test_oversaturation_stops_the_sending():
    lock = threading.Lock()

    def one_at_a_time(client: socket.socket, number: int) -> bool:
        with lock:
            time.sleep(0.02)
        client.sendall(OK)
        return True

    with serving(one_at_a_time) as port, generator(port, timeout_s=5.0) as load:
        samples = load.open_loop(300.0, 3.0, slo_s=0.02, drain_s=0.2)
    assert samples.oversaturated
    assert (
        samples.seconds < 1.5 and samples.n < 500
    )  # no word on client_limited: the server's threads share its process


def test_no_server_at_all():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with generator(port) as load:
        begun = time.monotonic()
        samples = load.open_loop(50.0, 0.3)
        closed = load.closed_loop(4, 0.2)
        assert time.monotonic() - begun < 0.5 + _GRACE_S
    assert samples.completed == closed.completed == 0
    assert samples.errors.keys() == {"connect"} == closed.errors.keys()


def test_the_next_probe_reaches_a_server_that_came_back():
    broken = threading.Event()

    def answer(client: socket.socket, number: int) -> bool:
        if broken.is_set():
            return False
        client.sendall(OK)
        return True

    with serving(answer) as port, generator(port) as load:
        assert load.open_loop(50.0, 0.2).error_ratio == 0.0
        broken.set()
        assert load.open_loop(50.0, 0.2).error_ratio == 1.0
        broken.clear()
        assert load.open_loop(50.0, 0.2).error_ratio == 0.0


def test_bad_arguments():
    with pytest.raises(InvalidInput, match="no request"):
        Generator("127.0.0.1", 1, requests=[])
    with generator(1) as load:
        for call in (
            lambda: load.open_loop(0.0, 1.0),
            lambda: load.open_loop(1.0, -1.0),
            lambda: load.closed_loop(0, 1.0),
        ):
            with pytest.raises(InvalidInput):
                call()
    with pytest.raises(ValueError, match="line break"):
        Generator("127.0.0.1", 1, requests=[Request("GET", "/", {"X": "a\r\nY: b"})])


THROTTLED = """
import sys
from fettle.core.serving import Request
from fettle.problems.serve.load import Generator
with Generator("127.0.0.1", int(sys.argv[1]), requests=[Request("GET", "/", {}, b"x")], connections=4) as load:
    print("ready", flush=True)
    samples = load.open_loop(200.0, 2.0, slo_s=0.05)
print(samples.client_limited, samples.limited, sep="|")
"""


@pytest.mark.medium
def test_a_throttled_generator_says_so():
    with serving(ok) as port:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(THROTTLED), str(port)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        end = time.monotonic() + 1.8
        while time.monotonic() < end:  # it runs for a fifth of the time
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.12)
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.03)
        out, _ = process.communicate(timeout=20)
    assert out.startswith("True|"), out
    assert "late" in out or "sent in time" in out
