"""A small HTTP server with a knob that can be set while it runs: `python hot_server.py PORT THREADS DELAY_MS STARTS
MARK`.

Each start adds a line to the file STARTS. POST /settings with {"delay_ms": x} sets the delay of answers; 13 is refused.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

settings = {"delay_ms": float(sys.argv[3])}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.answer(200, settings)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/settings":
            time.sleep(settings["delay_ms"] / 1000)
            self.answer(200, settings)
        elif json.loads(body)["delay_ms"] == 13:
            self.answer(400, {"error": "an unlucky number"})
        else:
            settings.update(json.loads(body))
            self.answer(200, settings)

    def answer(self, status: int, form: object) -> None:
        body = json.dumps(form).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    with Path(sys.argv[4]).open("a") as starts:
        starts.write(" ".join(sys.argv[2:4]) + "\n")
    server.serve_forever()
