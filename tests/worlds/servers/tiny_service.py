"""A service of Python's own library, which starts at once: a counter in memory, and notes in $CAIRN_SEAT. `dies` ends it."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

OK = {"200": {"description": "well"}}
SPEC = {
    "openapi": "3.0.3",
    "paths": {
        "/count": {"get": {"operationId": "count", "responses": OK}, "post": {"operationId": "add", "responses": OK}},
        "/note": {"post": {"operationId": "note", "responses": OK}},
        "/dies": {"post": {"operationId": "dies", "responses": OK}},
        "/about": {"get": {"operationId": "about", "responses": OK}},
    },
}
STATE = {"count": 0, "notes": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        about = {
            "seat": os.environ["CAIRN_SEAT"],
            "key": os.environ.get("KEY", ""),
            "pid": os.getpid(),
            "url": f"http://127.0.0.1:{sys.argv[1]}/about",
        }
        answers = {"/count": STATE["count"], "/state": STATE, "/openapi.json": SPEC, "/about": about}
        self.answer(answers[self.path])

    def do_POST(self) -> None:
        if self.path == "/dies":
            print("killed by the test", flush=True)
            os._exit(3)
        if self.path == "/note":
            place = Path(os.environ["CAIRN_SEAT"]) / "notes"
            place.write_text(place.read_text() + "x" if place.exists() else "x")
            STATE["notes"] = len(place.read_text())
            with sqlite3.connect(Path(os.environ["CAIRN_SEAT"]) / "tiny.db") as database:
                database.execute("create table if not exists notes (words)")
                database.execute("insert into notes values ('x')")
        STATE["count"] += self.path == "/count"
        self.answer(STATE["count"])

    def answer(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    if sys.argv[2:] == ["refuses"]:
        sys.exit("no shop today")
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
