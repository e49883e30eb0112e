"""`fettle doctor`: what this machine allows, and what is missing."""

import importlib.util
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from fettle.cli.printing import stdout_console
from fettle.core.serving import Machine
from fettle.host.machine import fingerprint, machine, machine_lock
from fettle.report.figures import number
from fettle.report.text import plain

_PACKAGES = {
    "onnx": "reads models",
    "onnxruntime": "runs models",
    "mosec": "the embedded server",
    "uvloop": "a faster load generator",
}
_NEEDED = ("onnx", "onnxruntime", "mosec")
_FACTS = ("cpu_model", "cores", "memory_bytes", "isolation")


def findings(*, probe: bool = False) -> dict[str, Any]:
    """schema 1: facts, and checks with what to do where one fails; `ok` where serving a model works here. probe: how
    fast this machine is, measured and kept for later studies; else what was kept, {} where nothing was."""
    here = machine()
    facts = fingerprint(tuple(_PACKAGES))
    checks = []
    for package, use in _PACKAGES.items():
        there = importlib.util.find_spec(package) is not None
        checks.append(_check(package, there, use, "pip install 'fettle[serve]'", needed=package in _NEEDED))
    limited = facts.get("isolation", "") != "affinity and rlimits"
    checks.append(
        _check(
            "cgroup",
            limited,
            "limits cores and memory exactly",
            "run where cgroups are writable; affinity is used instead",
        )
    )
    enough = len(here.cores) >= 4
    checks.append(
        _check(
            "cores", enough, "load generator on a core of its own", "takes 4 cores; here it shares one with the server"
        )
    )
    with tempfile.TemporaryFile() as scratch:
        checks.append(_check("temporary folder", scratch.writable(), "work folders", "set TMPDIR", needed=True))
    checks.append(
        _check(
            "taskset", shutil.which("taskset") is not None, "exported servers keep their cores", "install util-linux"
        )
    )
    ok = all(check["ok"] or not check["needed"] for check in checks)
    return {"schema": 1, "ok": ok, "fingerprint": facts, "checks": checks, "probe": _speed(here, probe)}


def _speed(here: Machine, probe: bool) -> dict[str, float]:
    from fettle.problems.runtimes.probe import machine_features, remember, remembered

    if probe:
        with machine_lock(30.0):
            remember(here, machine_features(here))
    return remembered(here)


def show_findings(found: dict[str, Any]) -> None:
    console = stdout_console()
    for name in _FACTS:
        if name in found["fingerprint"]:
            console.print(f"{name:16} {plain(found['fingerprint'][name])}")
    if speed := found["probe"]:
        console.print(f"{'arithmetic':16} {number(speed['flops_fp32_all'] / 1e9)} GFLOP/s")
        console.print(f"{'bandwidth':16} {number(speed['bandwidth_all'] / 1e9)} GB/s")
    for check in found["checks"]:
        state = "ok" if check["ok"] else "missing" if check["needed"] else "no"
        console.print(f"{check['name']:16} {state:8} {check['use'] if check['ok'] else check['mend']}")


def differences(stored: Mapping[str, Any]) -> list[str]:
    """Warnings where a study was begun on another machine or with other versions."""
    now = fingerprint(tuple(stored.get("packages") or {}))
    changed = [
        k for k in ("cpu_model", "cores", "memory_bytes", "isolation") if k in stored and stored[k] != now.get(k)
    ]
    lines = [f"{k} was {stored[k]} when the study began, now it is {now.get(k)}" for k in changed]
    for package, version in (stored.get("packages") or {}).items():
        if (current := (now.get("packages") or {}).get(package)) != version:
            lines.append(f"{package} was {version} when the study began, now it is {current}")
    return lines


def _check(name: str, ok: bool, use: str, mend: str, *, needed: bool = False) -> dict[str, Any]:
    return {"name": name, "ok": ok, "use": use, "mend": mend, "needed": needed}
