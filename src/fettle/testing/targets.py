"""Conformance suite for targets: descriptions of inference servers.

    def test_my_target(tmp_path):
        check_target(MyTarget(), load_model("model.onnx"), tmp_path)

Checks raise AssertionError; `check_serves` starts a real server and may raise TrialFailure with its log.
"""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fettle.core.protocols import Target
from fettle.core.serving import Launch, Machine, Model, Request
from fettle.core.space import Params
from fettle.host.machine import machine
from fettle.problems.serve.model import reference, samples
from fettle.problems.serve.session import ask, checker, running, verify

_PORT = 12_345
_DRAWS = 60
_START_S = 60.0


def check_target(target: Target, model: Model, folder: Path) -> None:
    """Runs all checks on this machine. folder: an empty one for the server's files."""
    here = machine()
    check_space(target, model, here)
    check_launch(target, model, here)
    check_serves(target, model, here, folder)


def check_space(target: Target, model: Model, here: Machine) -> None:
    """Every knob has values to choose from; the defaults can be stored; one core is enough for a space."""
    space, defaults = target.space(model, here), target.defaults(model, here)
    idle = [column.name for column in space.columns if column.size == 1]
    assert not idle, f"knobs with one value only: {idle}; leave them out of the space"
    assert json.loads(json.dumps(defaults)) == defaults, f"the defaults change when they are stored: {defaults}"
    assert target.defaults(model, here) == defaults, "the defaults differ from call to call"
    assert target.hot <= set(space.names), f"hot knobs that do not exist: {target.hot - set(space.names)}"
    for params in (
        target.defaults(model, alone := Machine(here.cores[:1], here.memory_bytes)),
        *_drawn(target, model, alone),
    ):
        target.launch(model, params, _PORT)


def check_launch(target: Target, model: Model, here: Machine) -> None:
    """The same params describe the same server, other params another one; nothing leaves the server's folder."""
    seen: dict[Any, Params] = {}
    for params in [target.defaults(model, here), *_drawn(target, model, here)]:
        launch = target.launch(model, params, _PORT)
        assert _described(target.launch(model, params, _PORT)) == _described(launch), (
            f"{params}: two calls, two servers"
        )
        assert str(_PORT) in " ".join([*launch.argv, *launch.env.values()]), f"{params}: the port is not passed on"
        for name in launch.files:
            assert not PurePosixPath(name).is_absolute() and ".." not in name, f"file {name!r} leaves the folder"
        assert launch.cores is None or 1 <= launch.cores <= len(here.cores), f"{params}: {launch.cores} cores"
        assert launch.concurrency >= 1
        cold = {name: value for name, value in params.items() if name not in target.hot}
        same = seen.setdefault(_described(launch), cold)
        assert same == cold, f"{same} and {cold} describe the same server: a knob that does not act"


def check_serves(target: Target, model: Model, here: Machine, folder: Path) -> None:
    """The defaults start, are ready only when they serve, and answer as ONNX Runtime does; then all is ended."""
    params = target.defaults(model, here)
    items = samples(model)
    precision = str(params.get("precision", next(iter(model.variants))))
    references = reference(model, precision, items)
    with running(
        lambda port: target.launch(model, params, port),
        folder=folder.absolute() / "server",
        machine=here,
        memory_bytes=int(0.8 * here.memory_bytes),
        nice=0,
        start_limit_s=_START_S,
    ) as server:
        requests = [server.launch.encode(item) for item in items]
        verify(server, requests, checker(server.launch, references), timeout_s=30.0)
        if server.launch.decode is not None:
            nonsense = Request("POST", requests[0].path, requests[0].headers, b"nonsense")
            status, _ = ask(server.port, nonsense, 30.0)
            assert status != 200, "nonsense was answered with 200"
        for hot in target.hot & set(params):
            change = target.apply({**params, hot: params[hot]})
            assert change is not None and ask(server.port, change, 30.0)[0] == 200, f"{hot} is not hot"
        assert server.process.pids(), "the server's processes cannot be seen: does it leave its process tree?"
    assert not server.process.pids(), "processes of the server are left"


def _drawn(target: Target, model: Model, here: Machine) -> list[Params]:
    return target.space(model, here).sample(_DRAWS, np.random.default_rng(0))


def _described(launch: Launch) -> Any:
    files: Mapping[str, Any] = dict(sorted(launch.files.items()))
    return (launch.argv, tuple(sorted(launch.env.items())), tuple(files.items()), launch.cores)
