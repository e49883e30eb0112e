"""One server's life: laid out, started, proved to be ours, checked, and ended whatever happens."""

import os
import select
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.errors import FettleError, InvalidInput, TrialFailure
from fettle.core.serving import Launch, Machine, Request, Tensors
from fettle.host.identity import listens
from fettle.host.limits import Limits
from fettle.host.machine import free_port
from fettle.host.redact import redact
from fettle.host.supervise import Process, spawn
from fettle.problems.serve.http import Connection, ResponseError, layout

_POLL_S = 0.02
_LOG_LINES = 40
NOTICE_S = 0.5  # after broken connections: the news of the server's end may come a moment later than they
_BUSY = (429, 503)  # "not now": asked again before it counts as wrong
TOLERANCE_RATIO = 0.05  # of the reference's norm: batches and threads change the last digits, int8 a little more


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers on `port` of the loopback, proved to be ours. warm: it has served an earlier trial."""

    process: Process
    launch: Launch
    port: int
    start_s: float
    cores: tuple[int, ...]
    warm: bool = False

    def log(self) -> str:
        return redact(self.process.log_tail(_LOG_LINES))

    def failure(self, message: str, *, otherwise: str = "other") -> TrialFailure:
        """What went wrong, with the class that the process's end tells; `otherwise` while it lives."""
        code = self.process.wait(NOTICE_S)
        if self.process.oom_killed():
            return TrialFailure(f"{message}: the server was out of memory", failure="oom", log=self.log())
        if code is not None:
            return TrialFailure(f"{message}: the server ended ({_ending(code)})", failure="crash", log=self.log())
        return TrialFailure(message, failure=otherwise, log=self.log())


@contextmanager
def running(make_launch: Callable[[int], Launch], **how: Any) -> Iterator[Server]:
    """A server that `start` starts; its whole process tree is dead on leaving."""
    server = start(make_launch, **how)
    try:
        yield server
    finally:
        server.process.stop()


def start(
    make_launch: Callable[[int], Launch],
    *,
    folder: Path,
    machine: Machine,
    memory_bytes: int,
    nice: int,
    start_limit_s: float,
) -> Server:
    """The server that make_launch(port) describes, ready. Its end is the caller's affair.

    Raises TrialFailure: start_timeout, crash or oom, each with the server's last log lines; then nothing is left of it.
    """
    port = free_port()
    launch = make_launch(port)
    cores = machine.cores[: launch.cores] if launch.cores else machine.cores
    _lay_out(folder, launch)
    begun = time.monotonic()
    try:
        process = spawn(
            list(launch.argv),
            cwd=folder,
            env={**os.environ, **launch.env},
            log_path=folder / "server.log",
            limits=Limits(cores=cores, memory_bytes=memory_bytes, nice=nice),
            name="the server",
        )
    except FettleError as error:  # no such program, most of all
        raise TrialFailure(redact(str(error)), failure="crash", log=redact(error.hint)) from error
    try:
        server = Server(process, launch, port, 0.0, cores)
        _await_ready(server, begun + start_limit_s)
        if not listens(process.pids(), port):
            what = f"another program answers on port {port}, not this trial's server"
            raise TrialFailure(what, failure="start_timeout", log=server.log())
        return replace(server, start_s=time.monotonic() - begun)
    except BaseException:
        process.stop()
        raise


def retuned(server: Server, launch: Launch, change: Request, timeout_s: float) -> Server:
    """The same process after its hot knobs have been set. launch: how it would be started with them.

    Raises TrialFailure: timeout, bad_request, or what ended the server.
    """
    try:
        status, body = ask(server.port, change, timeout_s)
    except (OSError, ResponseError) as error:
        kind = "timeout" if isinstance(error, TimeoutError) else "bad_request"
        raise server.failure(f"no answer to the request that sets the hot knobs: {error}", otherwise=kind) from error
    if status != 200:
        shown = redact(body[:200].decode("utf-8", "replace"))
        what = f"the request that sets the hot knobs was answered with status {status}: {shown!r}"
        raise server.failure(what, otherwise="bad_request")
    return replace(server, launch=launch, start_s=0.0, warm=True)


def ask(port: int, request: Request, timeout_s: float) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body.

    timeout_s bounds all of it, however slowly the answer drips. Raises OSError or ResponseError.
    """
    deadline = time.monotonic() + timeout_s
    connection = Connection(("127.0.0.1", port))
    try:
        sent = connection.send(layout(request, "127.0.0.1", port))
        while (left := deadline - time.monotonic()) > 0:
            select.select([connection.sock], [] if sent else [connection.sock], [], left)
            sent = sent or connection.resume()
            complete, n = connection.receive() if sent else (False, 0)
            if complete:
                return connection.response.status, connection.response.body
            if n < 0:
                raise ConnectionResetError("the server closed the connection before the end of its answer")
        raise TimeoutError(f"no whole answer within {timeout_s:.3g} s")
    finally:
        connection.close()


def checker(launch: Launch, references: Sequence[Tensors] | None) -> Callable[[int, bytes], str]:
    """check(index of the item, body of a 200) -> "" or the kind of error."""

    def check(index: int, body: bytes) -> str:
        if not body:
            return "empty_body"
        if launch.decode is None:
            return ""
        try:
            outputs = launch.decode(body)
        except ValueError:
            return "bad_body"
        if references is None or outputs is None:
            return ""
        return compare(outputs, references[index % len(references)])

    return check


def compare(outputs: Tensors, expected: Tensors) -> str:
    """ "" where the outputs agree with ONNX Runtime's own, else the kind of error."""
    for name, reference in expected.items():
        got = outputs.get(name)
        if got is None or got.size != np.asarray(reference).size:
            return "wrong_output"
        if got.dtype.kind not in "fiub":
            if [str(x) for x in got.ravel()] != [str(x) for x in np.asarray(reference).ravel()]:
                return "wrong_output"
            continue
        a, b = np.asarray(got, float).ravel(), np.asarray(reference, float).ravel()
        if not np.isfinite(a).all() and np.isfinite(b).all():
            return "not_finite"
        scale = float(np.linalg.norm(b)) or 1.0
        if not float(np.linalg.norm(a - b)) <= TOLERANCE_RATIO * scale:
            return "wrong_output"
    return ""


def verify(server: Server, requests: Sequence[Request], check: Callable[[int, bytes], str], timeout_s: float) -> None:
    """A few single requests before any load. Raises TrialFailure: bad_request, timeout, or what ended the server."""
    for index, request in enumerate(requests[:3]):
        status, body = 0, b""
        try:
            for _ in range(3):
                status, body = ask(server.port, request, timeout_s)
                if status not in _BUSY:
                    break
                time.sleep(0.1)
        except (OSError, ResponseError) as error:
            kind = "timeout" if isinstance(error, TimeoutError) else "bad_request"
            raise server.failure(f"no answer to a single request: {error}", otherwise=kind) from error
        kind = check(index, body) if status == 200 else f"status {status}"
        if kind:
            shown = redact(body[:200].decode("utf-8", "replace"))
            raise server.failure(f"a single request was answered with {kind}: {shown!r}", otherwise="bad_request")


def _await_ready(server: Server, deadline: float) -> None:
    last = "no connection"
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise server.failure("the server did not start")
        try:
            status, _ = ask(server.port, server.launch.ready, min(2.0, max(0.1, deadline - time.monotonic())))
            if status == 200:
                return
            last = f"status {status}"
        except (OSError, ResponseError) as error:
            last = type(error).__name__
        time.sleep(_POLL_S)
    raise server.failure(f"the server was not ready in time (last: {last})", otherwise="start_timeout")


def _lay_out(folder: Path, launch: Launch) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in launch.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InvalidInput(f"the server's file {name!r} would leave its work folder", "use relative names")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.symlink_to(content.resolve())


def _ending(code: int) -> str:
    if code < 0:
        return f"signal {-code}"
    return f"exit status {code}" + ("" if code else "; it has to stay in the foreground")
