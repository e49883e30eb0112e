"""The worker's side of executors/process.py: `python -m fettle.executors.worker IN OUT`.

Frames are a 4-byte length and a body. From the driver: pickles that it made a moment ago, over a pipe that
only it holds. To the driver: JSON, so that nothing an evaluator returns is ever unpickled.
"""

import json
import os
import pickle
import signal
import struct
import sys
import threading
from collections.abc import Mapping
from typing import Any

from fettle.core.protocols import Job
from fettle.core.trial import Report
from fettle.executors.context import Kept, TrialContext, evaluate_job


class Pipe:
    """Length-prefixed frames over two file descriptors. Raises EOFError when the other side is gone."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        self._sending = threading.Lock()  # an evaluator may report its progress from any thread

    def send(self, body: bytes) -> None:
        data = memoryview(struct.pack("!I", len(body)) + body)
        with self._sending:
            while data:
                data = data[os.write(self.write_fd, data) :]

    def receive(self) -> bytes:
        (length,) = struct.unpack("!I", self._exactly(4))
        return self._exactly(length)

    def _exactly(self, n: int) -> bytes:
        parts = []
        while n:
            part = os.read(self.read_fd, min(n, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        for fd in {self.read_fd, self.write_fd}:
            os.close(fd)


def _reply(pipe: Pipe, kind: str, value: Mapping[str, Any]) -> None:
    pipe.send(json.dumps({"kind": kind, "value": value}, default=str).encode())


def _evaluate(pipe: Pipe, job: Job, evaluate: Any, kept: Kept) -> None:
    def on_report(report: Report) -> bool:
        _reply(pipe, "report", {"fidelity": report.fidelity, "metrics": report.metrics})
        return bool(pickle.loads(pipe.receive()))  # the driver's answer: it bounds the wait by ending us

    ctx = TrialContext(job, on_report, lambda info: _reply(pipe, "progress", info), kept)
    _reply(pipe, "began", {})
    payload = evaluate_job(evaluate, ctx)
    _reply(pipe, "told", {"payload": payload, "kept": not kept.empty})


def main() -> None:
    pipe = Pipe(int(sys.argv[1]), int(sys.argv[2]))
    for fd in (pipe.read_fd, pipe.write_fd):
        os.set_inheritable(fd, False)  # an evaluator's own children must not hold the pipe open
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    sys.path[:] = pickle.loads(pipe.receive())
    kept, evaluate = Kept(), None
    try:
        while True:
            kind, value = pickle.loads(pipe.receive())
            if kind == "evaluate":
                evaluate = pickle.loads(value)
            elif kind == "job":
                _evaluate(pipe, value, evaluate, kept)
            else:
                break
    except EOFError:
        pass
    finally:
        kept.drop()


if __name__ == "__main__":
    main()
