"""Target `mosec`: ONNX Runtime sessions behind mosec's Rust front (dynamic batching, worker processes).

The server process tree is described here and runs `mosec_server.py`; nothing of mosec is imported.
"""

import json
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

from fettle.core.serving import Launch, Machine, Model, Request, Tensors
from fettle.core.space import Categorical, Choice, Int, Ordinal, Params, Space
from fettle.problems.serve import codec

INFER_PATH = "/v2/models/model/infer"
TIMEOUT_MS = 10_000  # per request, in queue and worker; mosec answers 408 after it
QUEUE_CAPACITY = 1_024  # requests; mosec answers 429 beyond it
MAX_WORKERS = 64
MAX_BATCH = (2, 4, 8, 16, 32)
MAX_WAIT_MS = (1, 2, 5, 10, 20)  # (0 would mean mosec's own default of 10)
OPTIMIZATION = ("disabled", "basic", "extended", "all")
PACKAGES = ("mosec", "onnxruntime", "numpy")


class Mosec:
    """Knobs: workers, threads and spinning of each worker's session, dynamic batching, graph optimisation,
    cores given to the server, precision. A knob that could not act on this model and machine is left out."""

    name = "mosec"
    hot: frozenset[str] = frozenset()  # every knob needs a new process

    def space(self, model: Model, machine: Machine) -> Space:
        cores = len(machine.cores)
        domains: dict[str, Any] = {"workers": Int(1, min(2 * cores, MAX_WORKERS), log=cores > 8)}
        where: list[str] = []
        if cores > 1:
            domains["threads"] = Int(1, cores, log=cores > 8)
            domains["spinning"] = Categorical([True, False])
            # More threads than that only wait for one another; and a lone thread has nobody to spin for.
            where = ["workers * threads <= 2 * cores", "threads <= cores", "spinning == False or threads > 1"]
        if model.batchable:
            batch = Space({"max_batch": Ordinal(MAX_BATCH), "max_wait_ms": Ordinal(MAX_WAIT_MS, unit="ms")})
            domains["batching"] = Choice({"off": Space(), "on": batch})
        domains["graph_optimization"] = Categorical(OPTIMIZATION)
        if cores > 1:
            domains["cores"] = Int(1, cores, log=cores > 8)
        if len(model.variants) > 1:
            domains["precision"] = Categorical(list(model.variants))
        return Space(domains, where=where)

    def defaults(self, model: Model, machine: Machine) -> Params:
        """One worker without batching on all cores, with ONNX Runtime's own threads and spinning."""
        cores = len(machine.cores)
        params: Params = {"workers": 1}
        if cores > 1:
            params |= {"threads": cores, "spinning": True}
        if model.batchable:
            params["batching"] = "off"
        params["graph_optimization"] = "all"
        if cores > 1:
            params["cores"] = cores
        if len(model.variants) > 1:
            params["precision"] = next(iter(model.variants))
        return params

    def launch(self, model: Model, params: Params, port: int) -> Launch:
        config = self._config(model, params)
        request_bytes = len(self._encode(_zeros(model)).body)
        limits = {
            "timeout": TIMEOUT_MS,
            "capacity": QUEUE_CAPACITY,
            "max-request-size": max(10 * 2**20, 2 * request_bytes * config["max_batch"]),
        }
        flags = [f"--{name}={value}" for name, value in limits.items()]
        here = files("fettle.problems.serve")
        return Launch(
            argv=(sys.executable, "server.py", "--address=127.0.0.1", f"--port={port}", *flags),
            ready=self._encode({}),  # answered by a worker; an empty body would be answered by mosec's front
            encode=self._encode,
            decode=codec.decode_response,
            # The sockets' path is relative, so it stays short however deep the work folder lies.
            env={"MOSEC_PATH": f"ipc-{port}", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            files={
                "server.py": here.joinpath("targets", "mosec_server.py").read_bytes(),
                "codec.py": here.joinpath("codec.py").read_bytes(),
                "config.json": (json.dumps(config, indent=2) + "\n").encode(),
                "model.onnx": model.variants[params.get("precision", next(iter(model.variants)))],
            },
            cores=params.get("cores"),
            concurrency=config["workers"] * config["max_batch"],
            record={
                "timeout_s": TIMEOUT_MS / 1000,
                "queue_capacity": QUEUE_CAPACITY,
                "max_request_bytes": limits["max-request-size"],
                **{f"{package}_version": found for package, found in _versions().items()},
            },
            requirements=tuple(f"{package}=={found}" for package, found in _versions().items()),
        )

    def apply(self, params: Params) -> Request | None:
        return None

    def sessions(self, params: Params, machine: Machine) -> Params:
        batching = params.get("batching") == "on"
        return {
            "workers": params["workers"],
            "threads": params.get("threads", 1),
            "spinning": params.get("spinning", False),
            "max_batch": params["batching.on.max_batch"] if batching else 1,
            "max_wait_s": params["batching.on.max_wait_ms"] / 1000 if batching else 0.0,
            "graph_optimization": params["graph_optimization"],
            "cores": params.get("cores", len(machine.cores)),
        }

    def _config(self, model: Model, params: Params) -> dict[str, Any]:
        batching = params.get("batching") == "on"
        return {
            "model": "model.onnx",
            "workers": params["workers"],
            "threads": params.get("threads", 1),
            "spinning": params.get("spinning", False),
            "max_batch": params["batching.on.max_batch"] if batching else 1,
            "max_wait_ms": params["batching.on.max_wait_ms"] if batching else 1,
            "graph_optimization": params["graph_optimization"],
            "batchable": model.batchable,
            "inputs": {spec.name: {"dtype": spec.dtype, "shape": list(spec.shape)} for spec in model.inputs},
        }

    def _encode(self, item: Tensors) -> Request:
        headers, body = codec.encode_request(item)
        return Request("POST", INFER_PATH, headers, body)


def _zeros(model: Model) -> Tensors:
    import numpy as np

    return {spec.name: np.zeros(spec.shape, "U1" if spec.dtype == "str" else spec.dtype) for spec in model.inputs}


def _versions() -> Mapping[str, str]:
    """Installed versions; a package that is missing is left out, and the server's own message will name it."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
