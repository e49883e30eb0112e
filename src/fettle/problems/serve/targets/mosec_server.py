"""The server script of the target `mosec`: ONNX Runtime sessions behind mosec's HTTP front.

Runs in a folder of its own beside `codec.py`, `config.json` and the model, with mosec, onnxruntime and NumPy
installed and without Fettle; it is copied there, never imported. mosec's flags come from the command line,
its folder for sockets from MOSEC_PATH. `POST /v2/models/model/infer` takes one or, where the model can, several
items; a request without inputs is answered without outputs, once *all* workers have loaded the model. (mosec's
front itself answers GET / and empty bodies with 200, before any worker is there: they prove nothing. And a bad
request that mosec has put into a batch takes its neighbours with it: all of them are answered with 422.)
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from codec import decode_request, dtype_name, encode_response
from mosec import Server, ValidationError, Worker

HERE = Path(__file__).resolve().parent
ROUTE = "/v2/models/model/infer"
LEVELS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
Tensors = dict[str, np.ndarray]


def load_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((HERE / "config.json").read_text())
    return config


def load_session(config: dict[str, Any]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config["threads"]
    options.inter_op_num_threads = 1
    options.graph_optimization_level = LEVELS[config["graph_optimization"]]
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if config["spinning"] else "0")
    # (a link is resolved first: external data lie beside the file that it names)
    model = os.path.realpath(HERE / config["model"])
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Inference(Worker):
    """One process with one session. Requests that mosec gathered run as one batch along axis 0."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.config = load_config()
        self.session = load_session(self.config)
        self.outputs = [output.name for output in self.session.get_outputs()]
        self._warm_up()
        self._await_others()

    def _warm_up(self) -> None:
        """One run of zeros, so that the first request does not pay for buffers. A model may refuse zeros."""
        specs = self.config["inputs"]
        if any(spec["dtype"] == "str" for spec in specs.values()):
            return
        try:
            self.session.run(None, {name: np.zeros(spec["shape"], spec["dtype"]) for name, spec in specs.items()})
        except Exception as error:  # noqa: BLE001, RUF100 (no common base)
            sys.stderr.write(f"warm-up with zeros failed: {error}\n")

    def _await_others(self) -> None:
        """Until every worker has loaded: a server with half of its workers must not look ready."""
        folder, parent = Path(os.environ["MOSEC_PATH"]), os.getppid()
        (folder / f"loaded-{os.getpid()}").touch()
        while len(list(folder.glob("loaded-*"))) < self.config["workers"]:
            if os.getppid() != parent:
                raise SystemExit("the server's main process is gone")
            time.sleep(0.01)

    def deserialize(self, data: bytes) -> Tensors:
        """No inputs at all is the question for readiness. Else anything but the model's inputs is answered with 422."""
        try:
            tensors: Tensors = decode_request(data)
            if not tensors:
                return tensors
            for name, spec in self.config["inputs"].items():
                check(name, spec, tensors, batchable=self.config["batchable"])
        except ValueError as error:
            raise ValidationError(str(error)) from error
        if extra := [name for name in tensors if name not in self.config["inputs"]]:
            raise ValidationError(f"unknown inputs {extra}; expected {list(self.config['inputs'])}")
        if self.config["batchable"] and len({len(array) for array in tensors.values()}) > 1:
            raise ValidationError("the inputs differ in their first dimension")
        return tensors

    def serialize(self, data: Tensors) -> bytes:
        body: bytes = encode_response(data)
        return body

    def forward(self, data: Any) -> Any:
        """One item, or the list of them that was gathered; answers in the same order."""
        if isinstance(data, dict):
            return self._run(data) if data else {}
        asked = [item for item in data if item]
        answers = iter(self._run_batch(asked))
        return [next(answers) if item else {} for item in data]

    def _run(self, tensors: Tensors) -> Tensors:
        return dict(zip(self.outputs, self.session.run(None, tensors), strict=True))

    def _run_batch(self, items: list[Tensors]) -> list[Tensors]:
        if len(items) < 2:
            return [self._run(item) for item in items]
        names = list(self.config["inputs"])
        merged = self._run({name: np.concatenate([item[name] for item in items]) for name in names})
        ends = np.cumsum([len(item[names[0]]) for item in items])[:-1]
        parts = {name: np.split(array, ends) for name, array in merged.items()}
        return [{name: part[i] for name, part in parts.items()} for i in range(len(items))]


def check(name: str, spec: dict[str, Any], tensors: Tensors, *, batchable: bool) -> None:
    """Raises ValueError unless the tensor is there with the dtype and shape of one request (or a batch)."""
    if name not in tensors:
        raise ValueError(f"input {name!r} is missing")
    array, fixed = tensors[name], int(batchable)
    if dtype_name(array) != spec["dtype"]:
        raise ValueError(f"input {name!r}: expected {spec['dtype']}, got {dtype_name(array)}")
    shape, wanted = list(array.shape), spec["shape"]
    if len(shape) != len(wanted) or shape[fixed:] != wanted[fixed:] or shape[:1] == [0]:
        raise ValueError(f"input {name!r}: expected shape {wanted}, got {shape}")


def main() -> None:
    config = load_config()
    os.chdir(HERE)
    server = Server()  # type: ignore[no-untyped-call]  # reads the flags and refuses a port that is taken
    folder = Path(os.environ["MOSEC_PATH"])
    shutil.rmtree(folder, ignore_errors=True)  # what a killed server left
    folder.mkdir(parents=True)
    server.append_worker(
        Inference,
        num=config["workers"],
        max_batch_size=config["max_batch"],
        max_wait_time=config["max_wait_ms"],
        route=ROUTE,
    )
    server.run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
