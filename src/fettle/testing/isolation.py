"""Conformance suite for executors that run trials in processes which they can end; used as `executors.py`."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from fettle.core.errors import InvalidInput
from fettle.core.protocols import Context
from fettle.testing.executors import WAIT_S, Check, Make, gather, go_on, job, made, one, until


def check_time_limit(make: Make, folder: Path) -> None:
    """A trial over its limit is killed with all that it started, and is a timeout; the next one runs."""

    def evaluate(params: Any, ctx: Context) -> Any:
        if params["hang"]:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            (ctx.workdir / "pids").write_text(f"{os.getpid()} {child.pid}")
            os.write(1, b"about to hang\n")
            time.sleep(600)
        return {"loss": 0.0}

    with made(make) as executor:
        executor.submit(job(folder, 0, params={"hang": True}, limit_s=1.0), evaluate)
        payload = gather(executor, 1)[0].payload
        assert (payload["state"], payload["failure"]) == ("failed", "timeout"), payload
        assert "about to hang" in payload["artifacts"]["log"]
        _dead(folder / "trial-0" / "pids")
        executor.submit(job(folder, 1, params={"hang": False}, limit_s=20.0), evaluate)
        assert gather(executor, 1)[1].payload["state"] == "complete"


def check_crashes(make: Make, folder: Path) -> None:
    """A process that ends under its trial: by itself a crash, by SIGKILL from outside lost; others run on."""

    def evaluate(params: Any, ctx: Context) -> Any:
        os.write(1, b"last words\n")
        if params["how"] == "exit":
            os._exit(3)
        if params["how"] == "system exit":
            sys.exit(4)
        if params["how"] == "closes":
            os.closerange(3, 4096)
            time.sleep(600)
        if params["how"] != "fine":
            os.kill(os.getpid(), getattr(signal, params["how"]))
            time.sleep(600)
        return {"loss": 0.0}

    expected = {
        "exit": "status 3",
        "system exit": "status 4",
        "SIGSEGV": "signal 11",
        "SIGABRT": "signal 6",
        "closes": "",
    }
    with made(make) as executor:
        for number, (how, text) in enumerate(expected.items()):
            executor.submit(job(folder, number, params={"how": how}), evaluate)
            event = gather(executor, 1)[number]
            assert event.kind == "told", event
            assert (event.payload["state"], event.payload["failure"]) == ("failed", "crash"), event.payload
            assert text in event.payload["error"], event.payload
            assert "last words" in event.payload["artifacts"]["log"], event.payload
        executor.submit(job(folder, 8, params={"how": "SIGKILL"}), evaluate)
        event = gather(executor, 1)[8]
        assert event.kind == "lost", event
        assert event.payload["error"]
        executor.submit(job(folder, 9, params={"how": "fine"}), evaluate)
        assert gather(executor, 1)[9].payload["state"] == "complete"


def check_killed_between_trials(make: Make, folder: Path) -> None:
    """A worker that dies while it has no trial is replaced, and no trial is lost for it."""

    def evaluate(params: Any, ctx: Context) -> Any:
        return {"loss": 0.0, "pid": os.getpid()}

    with made(make) as executor:
        executor.submit(job(folder, 0), evaluate)
        pid = int(gather(executor, 1)[0].payload["metrics"]["pid"])
        os.kill(pid, signal.SIGKILL)
        until(lambda: not _alive(pid), "the worker outlived SIGKILL")
        time.sleep(0.3)  # its supervisor has told
        executor.submit(job(folder, 1), evaluate)
        assert gather(executor, 1)[1].payload["state"] == "complete"


def check_strays(make: Make, folder: Path) -> None:
    """Processes that a trial leaves behind are dead afterwards, daemonised ones included."""

    def evaluate(params: Any, ctx: Context) -> Any:
        code = "import os, time\nif os.fork() == 0:\n os.setsid()\n print(os.getpid(), flush=True)\n time.sleep(600)"
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert child.stdout is not None
        pid = child.stdout.readline().strip()
        child.stdout.close()
        child.wait()
        (ctx.workdir / "pids").write_text(pid)
        return {"loss": 0.0}

    with made(make) as executor:
        executor.submit(job(folder, 0), evaluate)
        assert gather(executor, 1)[0].payload["state"] == "complete"
        _dead(folder / "trial-0" / "pids")
        executor.submit(job(folder, 1), evaluate)
        assert gather(executor, 1)[1].payload["state"] == "complete"
    _dead(folder / "trial-1" / "pids")


def check_close(make: Make, folder: Path) -> None:
    """`close` ends running trials and all that they started."""

    def evaluate(params: Any, ctx: Context) -> Any:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        (ctx.workdir / "tmp").write_text(f"{os.getpid()} {child.pid}")
        (ctx.workdir / "tmp").rename(ctx.workdir / "pids")
        time.sleep(600)

    with made(make, workers=2) as executor:
        for number in (0, 1):
            executor.submit(job(folder, number), evaluate)
        for number in (0, 1):
            until((folder / f"trial-{number}" / "pids").exists, "the trials did not run at once")
    for number in (0, 1):
        _dead(folder / f"trial-{number}" / "pids")


def check_stop(make: Make, folder: Path) -> None:
    """`stop` asks first, by the answer to a report, and kills who does not listen; both end as stopped."""

    def evaluate(params: Any, ctx: Context) -> Any:
        ctx.report(1, {"loss": 5.0})
        (ctx.workdir / "pids").write_text(str(os.getpid()))
        if params["deaf"]:
            time.sleep(600)
        while ctx.report(2, {"loss": 4.0}):
            time.sleep(0.02)
        return {"loss": 3.0}

    with made(make) as executor:
        for number, deaf in enumerate((False, True)):
            executor.submit(job(folder, number, params={"deaf": deaf}), evaluate)
            give_up = time.monotonic() + WAIT_S
            while not (folder / f"trial-{number}" / "pids").exists():
                assert time.monotonic() < give_up
                assert executor.poll(0.05, go_on) == []
            executor.stop(number)
            payload = gather(executor, 1)[number].payload
            assert payload["state"] == "stopped", payload
            assert payload["metrics"] == {"loss": 5.0 if deaf else 3.0}
    _dead(folder / "trial-1" / "pids")


def check_threads_set(make: Make, folder: Path) -> None:
    """Numerical libraries are told how many threads they get; an evaluator may report progress from its own."""

    def evaluate(params: Any, ctx: Context) -> Any:
        def talk() -> None:
            for _ in range(50):
                ctx.progress({"text": "x" * 999})

        workers = [threading.Thread(target=talk) for _ in range(2)]
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()
        return {"loss": float(os.environ["OMP_NUM_THREADS"])}

    payload = one(make, folder, evaluate).payload
    assert payload["state"] == "complete", payload
    assert payload["metrics"]["loss"] >= 1.0


def check_unpicklable(make: Make, folder: Path) -> None:
    """An evaluator that cannot be sent is refused with the reason; one that cannot be loaded is a crash."""
    lock = threading.Lock()

    class Poison:
        def __reduce__(self) -> Any:
            return exec, ("raise RuntimeError('cannot be loaded')",)

        def __call__(self, params: Any, ctx: Context) -> Any:
            return {"loss": 0.0}

    with made(make) as executor:
        try:
            executor.submit(job(folder, 0), lambda params, ctx: {"loss": float(lock.locked())})
        except InvalidInput as error:
            assert "lock" in str(error)
        else:
            raise AssertionError("a lock was sent to another process")
        executor.submit(job(folder, 1), Poison())
        payload = gather(executor, 1)[1].payload
        assert payload["failure"] == "crash", payload
        assert "cannot be loaded" in payload["artifacts"]["log"], payload


CHECKS: tuple[Check, ...] = (
    check_time_limit,
    check_crashes,
    check_killed_between_trials,
    check_strays,
    check_close,
    check_stop,
    check_threads_set,
    check_unpicklable,
)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _dead(pids: Path) -> None:
    for pid in map(int, pids.read_text().split()):
        until(lambda p=pid: not _alive(p), f"process {pid} of a trial that has ended still lives", 5.0)  # type: ignore[misc]
