"""HTTP/1.1 as a load generator needs it: requests laid out once, answers parsed with bounds, one socket each."""

import errno
import socket

from fettle.core.errors import InvalidInput
from fettle.core.serving import Request

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
_READ_BYTES = 256 * 1024
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})


class ResponseError(Exception):
    """The server's answer is not HTTP, or longer than any sane answer."""


def layout(request: Request, host: str, port: int) -> bytes:
    """The whole request as bytes. Raises InvalidInput on what would make another request of it."""
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {host}:{port}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines.append(f"Content-Length: {len(request.body)}")
    if any("\r" in line or "\n" in line for line in lines) or not request.path or " " in request.path:
        raise InvalidInput(
            f"request {request.method} {request.path!r}: a line break in its head, or no path, or a blank in it",
            "percent-encode the path",
        )
    if own := {name for name in request.headers if name.lower() in _OWN_HEADERS}:
        raise InvalidInput(f"request: the sender itself sets {', '.join(sorted(own))}", "leave it out of the headers")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body


class Response:
    """Parses one answer after the other. `feed` says when one is complete; then status, body and keep_alive hold."""

    __slots__ = ("_body_n", "_buffer", "_chunked", "_head_n", "_scan", "body", "keep_alive", "started", "status")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.reset()

    def reset(self) -> None:
        self._buffer.clear()
        self._head_n = 0  # 0: the head is not complete
        self._body_n = -1  # -1: up to the end of the connection
        self._chunked = False
        self._scan = 0
        self.started = False
        self.status = 0
        self.body = b""
        self.keep_alive = True

    def feed(self, data: bytes) -> bool:
        """True once the answer is complete. Raises ResponseError."""
        self.started = True
        self._buffer += data
        while not self._head_n:
            end = self._buffer.find(b"\r\n\r\n", max(0, self._scan - 3))
            self._scan = len(self._buffer)
            if end < 0:
                if not self._buffer.startswith(b"HTTP/1."[: len(self._buffer)]):
                    raise ResponseError("not HTTP/1.x")
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise ResponseError(f"more than {MAX_HEAD_BYTES} bytes of headers")
                return False
            self._head(bytes(self._buffer[:end]))
            if 100 <= self.status < 200:
                del self._buffer[: end + 4]
                self._scan = 0
            else:
                self._head_n = self._scan = end + 4
        if self._chunked:
            return self._feed_chunks()
        if len(self._buffer) - self._head_n > MAX_BODY_BYTES:
            raise ResponseError(f"more than {MAX_BODY_BYTES} bytes of body")
        if self._body_n < 0 or len(self._buffer) < self._head_n + self._body_n:
            return False
        self.body = bytes(self._buffer[self._head_n : self._head_n + self._body_n])
        if len(self._buffer) > self._head_n + self._body_n:
            raise ResponseError("bytes after the end of the answer")
        return True

    def end(self) -> bool:
        """The server closed the connection: True if that completed an answer without a length."""
        if not self._head_n or self._chunked or self._body_n >= 0:
            return False
        self.body, self.keep_alive = bytes(self._buffer[self._head_n :]), False
        return True

    def _head(self, head: bytes) -> None:
        status, _, rest = head.partition(b"\r\n")
        parts = status.split(b" ", 2)
        if len(parts) < 2 or not status.startswith(b"HTTP/1.") or not (len(parts[1]) == 3 and parts[1].isdigit()):
            raise ResponseError(f"bad status line {status[:60]!r}")
        self.status = int(parts[1])
        self.keep_alive = parts[0] != b"HTTP/1.0"
        self._body_n, self._chunked = -1, False
        for line in rest.lower().split(b"\r\n") if rest else ():
            name, _, value = line.partition(b":")
            if name == b"content-length":
                if not value.strip().isdigit() or len(value) > 16:
                    raise ResponseError(f"bad content-length {value[:30]!r}")
                self._body_n = int(value)
            elif name == b"transfer-encoding":
                self._chunked = b"chunked" in value
            elif name == b"connection":
                self.keep_alive = b"close" not in value and (self.keep_alive or b"keep-alive" in value)
        if self.status in (204, 304):
            self._body_n, self._chunked = 0, False
        if self._body_n > MAX_BODY_BYTES:
            raise ResponseError(f"a body of {self._body_n} bytes is announced")

    def _feed_chunks(self) -> bool:
        """Moves whole chunks into the body; `_scan` is where the next size line begins."""
        buffer = self._buffer
        while True:
            end = buffer.find(b"\r\n", self._scan, self._scan + 1024)
            if end < 0:
                if len(buffer) - self._scan > 1024:
                    raise ResponseError("bad chunk size")
                return False
            try:
                size = int(bytes(buffer[self._scan : end]).split(b";")[0], 16)
            except ValueError:
                raise ResponseError("bad chunk size") from None
            if size < 0 or len(self.body) + size > MAX_BODY_BYTES:
                raise ResponseError(f"more than {MAX_BODY_BYTES} bytes of body")
            if size == 0:  # trailers, if any, end with an empty line
                if buffer[end : end + 4] == b"\r\n\r\n":
                    return True
                if len(buffer) - end > MAX_HEAD_BYTES:
                    raise ResponseError("endless trailers")
                return buffer.find(b"\r\n\r\n", end) >= 0
            if len(buffer) < end + 2 + size + 2:
                return False
            self.body += bytes(buffer[end + 2 : end + 2 + size])
            self._scan = end + 2 + size + 2


class Connection:
    """One non-blocking keep-alive socket that carries one request at a time. Raises OSError as sockets do."""

    __slots__ = ("_rest", "fd", "response", "served", "sock", "ticket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        self.response = Response()
        self.served = 0
        self.ticket = -1  # the request it carries; -1: idle
        self._rest: memoryview | None = None
        self.fd = self.sock.fileno()
        try:
            self.sock.setblocking(False)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = self.sock.connect_ex(address)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, "connect")
        except OSError:
            self.sock.close()
            raise

    def send(self, data: bytes) -> bool:
        """Begins to send. True once all of it is in the socket's buffer, else `resume` when it is writable."""
        self.response.reset()
        self._rest = memoryview(data)
        return self.resume()

    def resume(self) -> bool:
        while self._rest:
            try:
                sent = self.sock.send(self._rest)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno == errno.ENOTCONN:  # still connecting
                    return False
                raise
            self._rest = self._rest[sent:]
        self._rest = None
        return True

    def receive(self) -> tuple[bool, int]:
        """(answer complete, bytes read); -1 bytes: the server has closed the connection."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False, 0
        if not data:
            return self.response.end(), -1
        return self.response.feed(data), len(data)

    def close(self) -> None:
        self.sock.close()
