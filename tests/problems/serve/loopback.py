"""A real loopback server with a bad character of one's choice: one thread per connection, raw bytes."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
Answer = Callable[[socket.socket, int], bool]


def read_request(client: socket.socket, buffer: bytearray) -> bool:
    """Takes one request (headers and Content-Length body) off the connection; False at its end."""
    while b"\r\n\r\n" not in buffer:
        data = client.recv(65536)
        if not data:
            return False
        buffer += data
    head, _, _ = bytes(buffer).partition(b"\r\n\r\n")
    size = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(buffer) < len(head) + 4 + size:
        data = client.recv(65536)
        if not data:
            return False
        buffer += data
    del buffer[: len(head) + 4 + size]
    return True


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[int]:
    """answer(socket, number of the request on this connection) -> keep the connection open?"""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    clients: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def handle(client: socket.socket) -> None:
        buffer, number = bytearray(), 0
        try:
            while read_request(client, buffer) and answer(client, number):
                number += 1
        except OSError:
            pass
        finally:
            client.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            clients.append(client)
            threads.append(threading.Thread(target=handle, args=(client,), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
