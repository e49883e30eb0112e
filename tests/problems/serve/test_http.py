import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.core.errors import InvalidInput
from fettle.core.serving import Request
from fettle.problems.serve.http import MAX_BODY_BYTES, MAX_HEAD_BYTES, Response, ResponseError, layout

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nA: b\r\n\r\n"
COUNTED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-LENGTH:  11\r\n\r\nhello world"


def read(data: bytes, cuts: list[int] | None = None) -> Response:
    reader = Response()
    edges = [0, *sorted(cuts or []), len(data)]
    done = False
    for start, stop in itertools.pairwise(edges):
        assert not done
        if start < stop:
            done = reader.feed(data[start:stop])
    assert done
    return reader


def test_layout_adds_the_framing() -> None:
    wire = layout(Request("POST", "/infer", {"Content-Type": "x/y"}, b"abc"), "127.0.0.1", 80)
    assert wire == b"POST /infer HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Type: x/y\r\nContent-Length: 3\r\n\r\nabc"


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "/a b"),
        Request("GET", ""),
        Request("GET", "/", {"X": "1\r\nEvil: 2"}),
        Request("POST", "/", {"content-length": "3"}),
        Request("POST", "/", {"Host": "x"}),
    ],
)
def test_layout_refuses_what_breaks_the_framing(request_: Request) -> None:
    with pytest.raises(InvalidInput):
        layout(request_, "127.0.0.1", 80)


@pytest.mark.parametrize("wire", [CHUNKED, COUNTED])
@given(data=st.data())
def test_any_cut_gives_the_same_body(wire: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(wire) - 1), max_size=12))
    reader = read(wire, cuts)
    assert (reader.status, reader.body, len(reader.body), reader.keep_alive) == (200, b"hello world", 11, True)


def test_a_reader_is_used_again() -> None:
    reader = read(CHUNKED)
    reader.reset()
    assert reader.feed(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    assert (reader.status, reader.body, len(reader.body), reader.keep_alive) == (503, b"no", 2, False)


def test_a_body_may_end_with_the_connection() -> None:
    reader = Response()
    assert not reader.end()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhel")
    assert not reader.feed(b"lo")
    assert reader.end() and reader.body == b"hello" and not reader.keep_alive


def test_a_counted_body_may_not() -> None:
    reader = Response()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel")
    assert not reader.end()


def test_http_1_0_closes_unless_it_says_otherwise() -> None:
    assert not read(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx").keep_alive
    assert read(b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx").keep_alive


def test_no_content_has_no_body() -> None:
    assert read(b"HTTP/1.1 204 No Content\r\n\r\n").body == b""


@pytest.mark.parametrize(
    "wire",
    [
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES,
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
    ],
)
def test_garbage_is_refused(wire: bytes) -> None:
    with pytest.raises(ResponseError):
        Response().feed(wire)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    reader = Response()
    try:
        done = reader.feed(data)
    except ResponseError as error:
        assert str(error)
    else:
        assert isinstance(done, bool)
