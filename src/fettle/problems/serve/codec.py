"""Request and response bodies as raw tensors: the Open Inference Protocol's binary tensor extension.

A body is a JSON header followed by the tensors' little-endian bytes, in the header's order; each tensor's
`binary_data_size` says how many. The JSON can be read without knowing its length, so a body decodes without
the HTTP headers. Strings (BYTES) are each a little-endian uint32 length and that many bytes of UTF-8.

Needs NumPy alone: a copy of this file lies beside every server script that speaks the protocol.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

HEADER_LENGTH = "Inference-Header-Content-Length"
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
_DTYPES = {datatype: np.dtype(name).newbyteorder("<") for name, datatype in DATATYPES.items()}
_CHUNK = 4096  # most headers end within it
_MAX_DIMENSIONS = 32


def dtype_name(array: np.ndarray) -> str:
    """NumPy's name of the element type; "str" for text of any representation."""
    return "str" if array.dtype.kind in "OUS" else array.dtype.name


def encode_request(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, str], bytes]:
    """Inputs by name -> HTTP headers and body; asks for a binary answer. Raises ValueError on other dtypes."""
    body, header_length = _encode("inputs", tensors, {"parameters": {"binary_data_output": True}})
    return {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(header_length)}, body


def decode_request(body: bytes | bytearray) -> dict[str, np.ndarray]:
    """Body -> inputs by name. Raises ValueError unless the body is exactly what its header says."""
    return _decode("inputs", body)


def encode_response(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Outputs by name -> body."""
    return _encode("outputs", tensors, {})[0]


def decode_response(body: bytes | bytearray) -> dict[str, np.ndarray]:
    """Body -> outputs by name; views of the body where possible. Raises ValueError on anything else."""
    return _decode("outputs", body)


def not_finite(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    return [name for name, array in tensors.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]


def coding_cost_s(
    inputs: Sequence[Mapping[str, np.ndarray]], outputs: Sequence[Mapping[str, np.ndarray]] = (), *, rounds: int = 3
) -> float:
    """Seconds of CPU per request spent on coding: the request's and the answer's, both ends; best of `rounds`."""
    if not inputs:
        raise ValueError("coding_cost_s: expected at least one item, got none")

    def once() -> float:
        start = time.perf_counter()
        for item in inputs:
            decode_request(encode_request(item)[1])
        middle = time.perf_counter()
        for answer in outputs:
            decode_response(encode_response(answer))
        end = time.perf_counter()
        return (middle - start) / len(inputs) + (end - middle) / max(1, len(outputs))

    return min(once() for _ in range(max(1, rounds)))


def _encode(key: str, tensors: Mapping[str, np.ndarray], more: Mapping[str, Any]) -> tuple[bytes, int]:
    entries, parts = [], []
    for name, array in tensors.items():
        array = np.asarray(array)
        datatype, raw = _raw(name, array)
        parts.append(raw)
        entries.append(
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": datatype,
                "parameters": {"binary_data_size": len(raw)},
            }
        )
    header = json.dumps({key: entries, **more}, separators=(",", ":")).encode()
    return b"".join([header, *parts]), len(header)


def _raw(name: str, array: np.ndarray) -> tuple[str, bytes]:
    if dtype_name(array) == "str":
        return "BYTES", b"".join(_text(name, value) for value in array.ravel().tolist())
    datatype = DATATYPES.get(array.dtype.name)
    if datatype is None:
        raise ValueError(f"tensor {name!r}: expected one of {', '.join(DATATYPES)} or text, got {array.dtype}")
    return datatype, array.astype(_DTYPES[datatype], copy=False).tobytes()


def _text(name: str, value: Any) -> bytes:
    if not isinstance(value, str | bytes):
        raise ValueError(f"tensor {name!r}: expected text elements, got {type(value).__name__}")
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(4, "little") + raw


def _decode(key: str, body: bytes | bytearray) -> dict[str, np.ndarray]:
    header, at = _header(body)
    entries = header.get(key) if isinstance(header, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f"expected a JSON header with a list of {key}")
    tensors: dict[str, np.ndarray] = {}
    for entry in entries:
        name, shape, datatype, size = _entry(entry)
        if name in tensors:
            raise ValueError(f"tensor {name!r} is there twice")
        if size > len(body) - at:
            raise ValueError(f"tensor {name!r}: {size} bytes are announced, {len(body) - at} are left")
        tensors[name] = _array(name, shape, datatype, memoryview(body)[at : at + size])
        at += size
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes follow the last tensor")
    return tensors


def _header(body: bytes | bytearray) -> tuple[Any, int]:
    """The JSON at the body's start and where it ends. Latin-1 keeps one character per byte while searching."""
    if body[:1] != b"{":
        raise ValueError("expected a JSON header, the body does not start with one")
    size = _CHUNK
    while True:
        text = bytes(body[:size]).decode("latin-1")
        try:
            header, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError) as error:
            if size >= len(body):
                raise ValueError(f"the JSON header is broken: {error}") from None
            size *= 8
            continue
        return (header if text[:end].isascii() else json.loads(bytes(body[:end]).decode())), end


def _entry(entry: Any) -> tuple[str, tuple[int, ...], str, int]:
    if not isinstance(entry, dict) or not isinstance(name := entry.get("name"), str):
        raise ValueError("expected each tensor to be an object with a name")
    shape, datatype, more = entry.get("shape"), entry.get("datatype"), entry.get("parameters")
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not _naturals(shape):
        raise ValueError(f"tensor {name!r}: expected a shape of sizes >= 0, got {str(shape)[:80]}")
    if not isinstance(datatype, str) or (datatype not in _DTYPES and datatype != "BYTES"):
        raise ValueError(f"tensor {name!r}: unknown datatype {str(datatype)[:40]!r}")
    size = more.get("binary_data_size") if isinstance(more, dict) else None
    if not _naturals([size]):
        raise ValueError(f"tensor {name!r}: expected binary_data_size, the raw bytes that follow the header")
    return name, tuple(shape), datatype, int(size or 0)


def _naturals(values: Iterable[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _array(name: str, shape: tuple[int, ...], datatype: str, raw: memoryview) -> np.ndarray:
    if datatype == "BYTES":
        texts = _texts(name, math.prod(shape), bytes(raw))
        return np.array(texts, dtype=object).reshape(shape)
    dtype = _DTYPES[datatype]
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"tensor {name!r}: {len(raw)} bytes do not make shape {list(shape)} of {datatype}")
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


def _texts(name: str, count: int, raw: bytes) -> list[str]:
    texts, at = [], 0
    while at < len(raw):
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or at > len(raw):
            raise ValueError(f"tensor {name!r}: a string is cut off")
        texts.append(raw[start:at].decode())
    if len(texts) != count:
        raise ValueError(f"tensor {name!r}: expected {count} strings, got {len(texts)}")
    return texts
