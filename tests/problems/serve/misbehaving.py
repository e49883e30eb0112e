"""A small HTTP server that misbehaves in a chosen way: `python misbehaving.py PORT MODE [MARK]`.

It answers POST with y = x + x as Open Inference Protocol tensors, and GET /ready with 200. MARK is in its
command line, so that whatever is left of it can be found.
"""

import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from fettle.problems.serve import codec

PORT, MODE = int(sys.argv[1]), sys.argv[2]
GOOD_REQUESTS = 30  # before those modes begin that break down under load
SERVICE_S = 0.002
busy, counter, hoard = threading.Lock(), iter(range(1 << 60)), []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.answer(200, b"ready")

    def do_POST(self) -> None:
        item = codec.decode_request(self.rfile.read(int(self.headers["Content-Length"])))
        number = next(counter)
        late = number >= GOOD_REQUESTS
        with busy:
            time.sleep(SERVICE_S)
        out = item["x"] + item["x"]
        if MODE == "slow":
            time.sleep(0.03)
        elif MODE == "garbage":
            self.wfile.write(b"\x00\x01 this is not HTTP\r\n")
            self.close_connection = True
            return
        elif MODE == "nan":
            out = np.full_like(out, np.nan)
        elif MODE == "wrong":
            out = out * 1.5
        elif MODE == "empty":
            out = None
        elif (MODE == "flaky" and late and number % 3 == 0) or MODE == "busy":
            self.answer(503, b"busy")
            return
        elif MODE == "stalls" or (MODE == "stalls_later" and late):
            self.stall(codec.encode_response({"y": out}))
            return
        elif MODE == "dies" and late:
            print("the server sees its end coming", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        elif MODE == "eats":
            hoard.append(np.ones(4 << 20))
        self.answer(200, b"" if out is None else codec.encode_response({"y": out}))

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stall(self, body: bytes) -> None:
        """One byte at a time, for as long as anybody listens."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + 10_000))
        self.end_headers()
        try:
            self.wfile.write(body)
            while True:
                time.sleep(0.1)
                self.wfile.write(b".")
        except OSError:
            self.close_connection = True

    def log_message(self, *words: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, address: object) -> None:
        pass  # clients may go when they like


def main() -> None:
    print("the server says hello, password=hunter22", file=sys.stderr, flush=True)
    Path("port").write_text(str(PORT))
    if MODE == "exits":
        sys.exit("the server found no weights")
    if MODE in ("never_ready", "squatted"):
        time.sleep(600)
    if MODE == "deaf":  # takes connections and says nothing
        listener = socket.create_server(("127.0.0.1", PORT))
        time.sleep(600)
        listener.close()
    if MODE == "daemon" and os.fork():
        os._exit(0)
    if MODE == "daemon":
        os.setsid()
        if os.fork():
            os._exit(0)
    Server(("127.0.0.1", PORT), Handler).serve_forever()


main()
