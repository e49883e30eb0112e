"""Records that describe a model, a machine and an inference server. Data only: nothing here runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. `shape` is that of one request; a leading batch dimension counts as 1."""

    name: str
    dtype: str  # NumPy's name: float32, int64, ...
    shape: tuple[int, ...]  # outputs: -1 where the size is known only at run time


@dataclass(frozen=True, slots=True)
class Model:
    """A model file and its variants of other precision.

    variants: precision name -> file; the first one is the reference for agreement and equal-precision gain.
    batchable: the first dimension of every input is dynamic, so a server may put requests together.
    """

    name: str
    variants: Mapping[str, Path]
    hashes: Mapping[str, str]  # precision name -> sha256 of the file (and of its external data)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool

    @property
    def path(self) -> Path:
        return next(iter(self.variants.values()))


@dataclass(frozen=True, slots=True)
class Machine:
    """What a server may use: core ids, memory in bytes, and the facts of the fingerprint."""

    cores: tuple[int, ...]
    memory_bytes: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One prepared HTTP request. `headers` must not hold Host or Content-Length: the sender adds them."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one server process tree and how to talk to it.

    argv runs in a fresh work folder in which `files` (relative name -> content, or a path to link to)
    have been laid out. `ready` answers 200 once the server can serve. `encode` makes the request for
    one item; `decode` turns a 200's body into named outputs (None: it holds none that could be compared) and raises
    ValueError on anything else.
    `requirements` are the pip requirements that a folder exported without Fettle needs.
    """

    argv: tuple[str, ...]
    ready: Request
    encode: Callable[[Tensors], Request]
    decode: Callable[[bytes], dict[str, np.ndarray] | None] | None
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    cores: int | None = None  # cores given to the server; None: all of the machine's
    concurrency: int = 1  # requests that the configuration can work on or gather at once: workers x max batch
    record: Mapping[str, Any] = field(default_factory=dict)  # timeouts, queue capacity ... for the study's record
    requirements: tuple[str, ...] = ()
