import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fettle.problems.serve import codec

DTYPES = st.sampled_from([*codec.DATATYPES])
ARRAYS = DTYPES.flatmap(lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
TEXTS = hnp.arrays(object, hnp.array_shapes(max_dims=2, max_side=3), elements=st.text(max_size=9))
TENSORS = st.dictionaries(st.text(max_size=6), ARRAYS | TEXTS, max_size=4)


@given(TENSORS)
def test_round_trip(tensors: dict[str, np.ndarray]) -> None:
    headers, body = codec.encode_request(tensors)
    for back in (codec.decode_request(body), codec.decode_response(codec.encode_response(tensors))):
        assert list(back) == list(tensors)
        for name, array in tensors.items():
            assert back[name].shape == array.shape
            assert codec.dtype_name(back[name]) == codec.dtype_name(array)
            np.testing.assert_array_equal(back[name], array)
    json.loads(body[: int(headers[codec.HEADER_LENGTH])])


@given(TENSORS, st.data())
def test_damaged_bodies_are_value_errors_or_other_tensors(tensors: dict[str, np.ndarray], data: st.DataObject) -> None:
    body = bytearray(codec.encode_request(tensors)[1])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    try:
        back = codec.decode_request(body)
    except ValueError:
        return
    assert all(isinstance(array, np.ndarray) for array in back.values())


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        codec.decode_response(b"\x00" + body)


def test_cut_and_longer_bodies_are_refused() -> None:
    body = codec.encode_response({"y": np.arange(6, dtype=np.float32)})
    for wrong in (body[:-1], body + b"x", b"", b"{}", b"[]", body.replace(b"[6]", b"[7]")):
        with pytest.raises(ValueError):
            codec.decode_response(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [-1]},
        {"shape": [True]},
        {"shape": "6"},
        {"shape": [2**40, 2**40]},
        {"shape": [1] * 40},
        {"datatype": "FP31"},
        {"datatype": 5},
        {"name": None},
        {"parameters": {}},
        {"parameters": {"binary_data_size": -24}},
        {"parameters": {"binary_data_size": 24.0}},
        {"parameters": {"binary_data_size": 2**60}},
    ],
)
def test_wrong_headers_are_refused(change: dict[str, object]) -> None:
    entry = {"name": "y", "shape": [6], "datatype": "FP32", "parameters": {"binary_data_size": 24}, **change}
    with pytest.raises(ValueError):
        codec.decode_response(json.dumps({"outputs": [entry]}).encode() + bytes(24))


def test_a_name_that_comes_twice_is_refused() -> None:
    entry = {"name": "y", "shape": [1], "datatype": "INT8", "parameters": {"binary_data_size": 1}}
    with pytest.raises(ValueError, match="twice"):
        codec.decode_response(json.dumps({"outputs": [entry, entry]}).encode() + bytes(2))


def test_header_beyond_one_chunk_and_in_utf8() -> None:
    entries = [
        {"name": f"ü{i}", "shape": [1], "datatype": "UINT8", "parameters": {"binary_data_size": 1}} for i in range(200)
    ]
    back = codec.decode_response(json.dumps({"outputs": entries}, ensure_ascii=False).encode() + bytes(range(200)))
    assert back["ü7"].tolist() == [7]


def test_unsupported_dtype_names_the_tensor() -> None:
    with pytest.raises(ValueError, match=r"'z'.*complex"):
        codec.encode_request({"z": np.zeros(2, complex)})


def test_not_finite_and_cost() -> None:
    item = {"a": np.array([1.0, np.nan]), "b": np.array([1.0]), "c": np.array([1])}
    assert codec.not_finite(item) == ["a"]
    assert 0 < codec.coding_cost_s([item], [item]) < 1
    with pytest.raises(ValueError, match="at least one"):
        codec.coding_cost_s([])
