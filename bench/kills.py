"""Random SIGKILLs while `fettle serve` runs: nothing told is lost, nothing is left running, no port answers.

    python bench/kills.py [--quick] [--kills 200] [--seed 0] [--folder DIR]

Runs searches of a quick server in a process of their own and kills, at random moments, the driver, a worker, a
supervisor or a process of the server. After each kill: every result that had been told is still in the journal,
unchanged; where the driver was killed, nothing of the run lives 5 s later; the ports of all its servers are silent
once it has ended. A killed driver's study is resumed, so one study lives through many kills. Lands
bench/results/kills.json after each kill; DIR keeps the journals, and a second call goes on with them.
"""

import argparse
import fcntl
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from fettle.core.errors import FettleError
from fettle.core.trial import Event
from fettle.host.machine import fingerprint
from fettle.storage import open_storage

RESULTS = Path(__file__).parent / "results" / "kills.json"
SERVER = Path(__file__).parent / "kills_server.py"
WHAT = ("driver", "worker", "supervisor", "server")
DEAD_S = 5.0  # nothing may live longer than this after its driver's death
STUDY, BUDGET_S = "kills", 25


def processes(mark: str) -> dict[int, str]:
    """pid -> command line of every live process on this machine with the mark in its environment or command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            line, environ = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX" and mark.encode() in line + environ:
            found[int(entry.name)] = line.decode(errors="replace").replace("\0", " ")
    return found


def role(line: str) -> str:
    if "fettle.cli.main" in line:  # whose arguments name the server, too
        return "driver"
    if SERVER.name in line:
        return "server"
    if "supervisor.py" in line:
        return "supervisor"
    return "worker" if "fettle.executors.worker" in line else "other"


def answering(ports: Iterator[int] | set[int]) -> list[int]:
    found = []
    for port in ports:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                found.append(port)
    return found


@dataclass
class Storm:
    """One folder of studies, and the fettle process that works on the current one."""

    folder: Path
    mark: str
    study: int = 0
    told: dict[tuple[int, int], str] = field(default_factory=dict)  # (study, seq) -> the event as it was first read
    process: subprocess.Popen[bytes] | None = None

    @property
    def storage(self) -> Path:
        return self.folder / f"study-{self.study}.db"

    def start(self) -> None:
        """A new study, or what is left of the one whose driver was killed."""
        words = [sys.executable, "-m", "fettle.cli.main"]
        if self.storage.exists() and self.events():
            words += ["resume", STUDY, "--storage", str(self.storage)]
        else:
            command = shlex.join([sys.executable, str(SERVER), "PORT", "DELAY", str(self.folder / "ports")])
            command = command.replace("PORT", "{port}").replace("DELAY", "{delay_ms}")
            space = self.folder / "space.yaml"
            space.write_text("space: {delay_ms: {float: [1.0, 4.0]}}\n")
            words += [
                "serve",
                str(files("fettle.data") / "digits-fp32.onnx"),
                "--slo",
                "p99=200ms",
                "--target",
                "command",
            ]
            words += ["--command", command, "--space", str(space), "--budget", f"{BUDGET_S}s", "--name", STUDY]
            words += ["--storage", str(self.storage), "--seed", str(self.study)]
        log = (self.folder / "driver.log").open("ab")
        env = {**os.environ, "FETTLE_KILLS": self.mark, "TMPDIR": str(self.folder)}
        with log:
            self.process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def events(self) -> list[Event]:
        try:
            storage = open_storage(self.storage, must_exist=True)
            try:
                return list(storage.open(STUDY).read()) if STUDY in storage.studies() else []
            finally:
                storage.close()
        except FettleError:  # not made yet, or half made: a driver killed while it creates the file
            return []

    def note_told(self) -> int:
        """Remembers every told event; returns how many of those known before are gone or have changed."""
        now = {
            (self.study, e.seq): json.dumps([e.number, dict(e.payload)], sort_keys=True)
            for e in self.events()
            if e.kind == "told"
        }
        lost = sum(now.get(key) != text for key, text in self.told.items() if key[0] == self.study)
        self.told.update(now)
        return lost

    def ports(self) -> set[int]:
        file = self.folder / "ports"
        return {int(word) for word in file.read_text().split()} if file.exists() else set()

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None


def kill_once(storm: Storm, rng: np.random.Generator) -> dict[str, Any] | None:
    """One kill and what came of it; None where the run ended by itself before its turn."""
    wanted = str(rng.choice(WHAT, p=[0.4, 0.2, 0.2, 0.2]))
    end = time.monotonic() + float(rng.uniform(0.2, 6.0))
    while time.monotonic() < end and not storm.ended():
        time.sleep(0.01)
    storm.note_told()
    victims: list[int] = []
    give_up = time.monotonic() + 10.0
    while not victims and not storm.ended() and time.monotonic() < give_up:
        victims = sorted(pid for pid, line in processes(storm.mark).items() if role(line) == wanted)
        if wanted == "driver" and storm.process is not None:
            victims = [storm.process.pid]
        time.sleep(0.005)
    if storm.ended() or not victims or storm.process is None:
        return None
    victim = int(rng.choice(victims))
    before = len(storm.told)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return None
    killed = time.monotonic()
    row: dict[str, Any] = {"what": wanted, "study": storm.study, "told_before": before}
    if wanted == "driver":
        storm.process.wait()
        left = processes(storm.mark)
        while left and time.monotonic() - killed < 3 * DEAD_S:
            time.sleep(0.02)
            left = processes(storm.mark)
        row |= {"dead_after_s": time.monotonic() - killed, "left": sorted(map(role, left.values()))}
        row["answering"] = answering(storm.ports())
        row["lost_told"] = storm.note_told()
        if left:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        storm.start()
        return row
    # The run goes on: of what was killed nothing may be left a little later, and the rest must not hang.
    time.sleep(0.5)
    row |= {"victim_lives": Path(f"/proc/{victim}").exists() and victim in processes(storm.mark)}
    row["lost_told"] = storm.note_told()
    return row


def finish(storm: Storm, row: dict[str, Any]) -> None:
    """A run that has ended by itself: nothing may be left then, at once."""
    left = processes(storm.mark)
    row |= {"exit": storm.process.returncode if storm.process else None, "left": sorted(map(role, left.values()))}
    row["answering"] = answering(storm.ports())
    row["lost_told"] = storm.note_told()
    row["trials"] = sum(e.kind == "told" for e in storm.events())


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    kills = [r for r in rows if r["what"] != "end"]
    dead = [r["dead_after_s"] for r in kills if "dead_after_s" in r]
    ends = [r for r in rows if r["what"] == "end"]
    return {
        "kills": len(kills),
        "by_what": {what: sum(r["what"] == what for r in kills) for what in WHAT},
        "told_lost": sum(r.get("lost_told", 0) for r in rows),
        "left_running": sum(len(r.get("left", [])) for r in rows) + sum(bool(r.get("victim_lives")) for r in kills),
        "ports_answering": sum(len(r.get("answering", [])) for r in rows),
        "dead_after_median_s": statistics.median(dead) if dead else None,
        "dead_after_longest_s": max(dead, default=None),
        "studies_ended": len(ends),
        "bad_exits": sum(r["exit"] not in (0, 1) for r in ends),
    }


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two storms in one folder would kill each other's processes."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another run works in {folder}: wait for its end, or give another --folder")
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("bench-kills"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with alone(args.folder):
        storm_until(args.folder.absolute(), 20 if args.quick else args.kills, args.seed, args.results.absolute())


def storm_until(folder: Path, wanted: int, seed: int, results: Path) -> None:
    kept = folder / "rows.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    rng = np.random.default_rng([seed, len(rows)])
    storm = Storm(
        folder, f"kills-{os.getpid()}-{time.time_ns()}", study=max((r["study"] for r in rows), default=-1) + 1
    )
    begun = time.monotonic()
    storm.start()
    try:
        while sum(r["what"] != "end" for r in rows) < wanted:
            row = kill_once(storm, rng)
            if row is not None:
                rows.append(row)
                print(len(rows), json.dumps(row), flush=True)
            if storm.ended():
                rows.append({"what": "end", "study": storm.study})
                finish(storm, rows[-1])
                print(len(rows), json.dumps(rows[-1]), flush=True)
                storm.study += 1
                storm.start()
            kept.write_text(json.dumps(rows))
            land(rows, seed, time.monotonic() - begun, results)
    finally:
        if storm.process is not None:
            storm.process.kill()
            storm.process.wait()
    found = summary(rows)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["told_lost"] or found["left_running"] or found["ports_answering"] or found["bad_exits"] else 0)


def land(rows: list[dict[str, Any]], seed: int, seconds: float, results: Path) -> None:
    results.parent.mkdir(exist_ok=True)
    landed = {"schema": 1, "machine": fingerprint(), "seed": seed, "seconds": seconds, "rows": [summary(rows), *rows]}
    results.write_text(json.dumps(landed, indent=1) + "\n")


if __name__ == "__main__":
    main()
