"""The load generator against its bars: CPU per request on a trivial server, and agreement with wrk.

    python bench/generator.py [--quick]

Lands bench/results/generator.json. The server that costs 3 ms answers each connection 3 ms of one core's
work later; wrk (Debian package) is skipped, and said so, where it is missing.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np

from fettle.core.serving import Request
from fettle.host.machine import fingerprint
from fettle.problems.serve.load import Generator

RESULTS = Path(__file__).parent / "results" / "generator.json"
BODY = b"x" * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + b"y" * 64


class _Server(asyncio.Protocol):
    """Answers every request after cost_s of work, one request at a time (cost 0: at once)."""

    def __init__(self, cost_s: float) -> None:
        self.cost_s, self.buffer = cost_s, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            match = re.search(rb"content-length: *(\d+)", head)
            size = end + 4 + (int(match[1]) if match else 0)
            if len(self.buffer) < size:
                return
            self.buffer = self.buffer[size:]
            if self.cost_s:
                until = time.perf_counter() + self.cost_s
                while time.perf_counter() < until:
                    pass
            self.transport.write(ANSWER)  # type: ignore[attr-defined]


def _serve(port: int, cost_s: float, core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Server(cost_s), "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())


def _start(cost_s: float, core: int | None) -> tuple[multiprocessing.process.BaseProcess, int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(port, cost_s, core), daemon=True)
    process.start()
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return process, port
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the benchmark's server did not start")


def _requests() -> list[Request]:
    return [Request("POST", "/infer", {"Content-Type": "application/octet-stream"}, BODY) for _ in range(32)]


def open_rate(rate: float, seconds: float, core: int | None) -> dict[str, object]:
    process, port = _start(0.0, core)
    try:
        with Generator("127.0.0.1", port, requests=_requests(), connections=32, seed=1) as generator:
            generator.open_loop(rate, 0.5)
            samples = generator.open_loop(rate, seconds)
    finally:
        process.kill()
        process.join()
    summary = {k: v for k, v in samples.summary().items() if k != "histogram"}
    return {"row": "open_loop_cpu", "rate": rate, "holds": samples.client_cpu_ratio < 0.5, **summary}


def wrk_once(port: int, connections: int, seconds: int, script: Path) -> tuple[float, float, float]:
    """(requests/s, p50_s, p99_s)"""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    text = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/infer"], check=True, capture_output=True, text=True, timeout=seconds + 30
    ).stdout
    figures = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

    def latency(name: str) -> float:
        match = re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", text)
        if match is None:
            raise RuntimeError(f"wrk printed no {name} %:\n{text}")
        return float(match[1]) * figures[match[2]]

    rps = re.search(r"Requests/sec:\s+([\d.]+)", text)
    return float(rps[1]) if rps else 0.0, latency("50"), latency("99")


def against_wrk(pairs: int, seconds: int, connections: int, cost_s: float, core: int | None) -> dict[str, object]:
    if shutil.which("wrk") is None:
        return {"row": "against_wrk", "skipped": "wrk is missing: apt-get install wrk"}
    script = RESULTS.parent / "wrk_post.lua"
    script.write_text('wrk.method = "POST"\nwrk.body = string.rep("x", 1024)\n')
    process, port = _start(cost_s, core)
    ours, theirs = [], []
    try:
        with Generator("127.0.0.1", port, requests=_requests(), connections=connections) as generator:
            generator.closed_loop(connections, 1.0)
            for pair in range(pairs):
                for turn in (pair % 2, 1 - pair % 2):  # who goes first alternates
                    if turn:
                        theirs.append(wrk_once(port, connections, seconds, script))
                        continue
                    got = generator.closed_loop(connections, seconds)
                    ours.append((got.throughput_rps, got.percentile(0.5), got.percentile(0.99)))
    finally:
        process.kill()
        process.join()
        script.unlink()
    mine, other = np.median(np.array(ours), axis=0), np.median(np.array(theirs), axis=0)
    ratio = mine / other
    return {
        "row": "against_wrk", "pairs": pairs, "seconds": seconds, "connections": connections, "cost_s": cost_s,
        "throughput_ratio": float(ratio[0]), "p50_ratio": float(ratio[1]), "p99_ratio": float(ratio[2]),
        "ours": mine.tolist(), "wrk": other.tolist(),
        "holds": bool(abs(ratio[0] - 1.0) <= 0.03 and abs(ratio[1] - 1.0) <= 0.05),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    RESULTS.parent.mkdir(exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    server_core = cores[-1] if len(cores) > 1 else None
    if server_core is not None:
        os.sched_setaffinity(0, {cores[0]})  # the client's core; wrk inherits it
    rows = [open_rate(5000.0, 3.0 if quick else 10.0, server_core)]
    print(json.dumps(rows[-1]))
    rows.append(against_wrk(10, 2 if quick else 5, 16, 0.003, server_core))
    print(json.dumps(rows[-1]))
    landed = {"schema": 1, "machine": fingerprint(("fettle", "uvloop")), "rows": rows}
    RESULTS.write_text(json.dumps(landed, indent=1) + "\n")


if __name__ == "__main__":
    main()
