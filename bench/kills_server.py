"""A quick server for kills.py: `python kills_server.py PORT DELAY_MS PORTS_FILE`.

A main process that answers, a child that would answer in its place, and a daemonised grandchild in a session of its
own that holds the port open too: three chances to leave something behind.
"""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT, DELAY_S, PORTS = int(sys.argv[1]), float(sys.argv[2]) / 1000, Path(sys.argv[3])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.answer(b"ready")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(DELAY_S)
        self.answer(b"42")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, address: object) -> None:
        pass


def main() -> None:
    with PORTS.open("a") as file:
        file.write(f"{PORT}\n")
    server = Server(("127.0.0.1", PORT), Handler)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
        time.sleep(600)
        os._exit(0)
    server.serve_forever()


main()
