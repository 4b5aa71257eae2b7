"""A service of Python's own library with orders of twenty people: `python order_service.py PORT` is a process that a test can kill."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OK = {"200": {"description": "well"}}
ORDER = [{"name": "order_id", "in": "path", "required": True, "schema": {"type": "string"}}]
SPEC = {
    "openapi": "3.0.3",
    "paths": {
        "/orders/{order_id}": {"get": {"operationId": "get_order", "parameters": ORDER, "responses": OK}},
        "/orders/{order_id}/cancel": {"post": {"operationId": "cancel_order", "parameters": ORDER, "responses": OK}},
    },
}


def start() -> dict[str, Any]:
    """What it begins with."""
    orders = {f"W{number}": {"user_id": f"u{number}", "status": "pending", "total": 10 + number} for number in range(20)}
    return {"users": {f"u{number}": {"name": f"N{number}"} for number in range(20)}, "orders": orders}


class Handler(BaseHTTPRequestHandler):
    state = start()

    def do_GET(self) -> None:
        order = self.state["orders"].get(self.path.rpartition("/")[2])
        self.answer(200 if order or self.path == "/state" else 404, self.state if self.path == "/state" else order)

    def do_POST(self) -> None:
        if self.path == "/reset":
            Handler.state = start()
            self.answer(200, "reset")
            return
        order = self.state["orders"].get(self.path.split("/")[2], {})
        pending = order.get("status") == "pending"
        order.update({"status": "cancelled"} if pending else {})
        self.answer(200 if pending else 409, "cancelled" if pending else {"detail": "only what is pending can be cancelled"})

    def answer(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
