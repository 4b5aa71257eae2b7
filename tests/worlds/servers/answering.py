"""A server whose tools answer what `ANSWERS` says, by hand and to the letter: the lines that other servers send. It needs no library."""

from __future__ import annotations

import json
import sys
from typing import Any


def text(*parts: str, **more: Any) -> dict[str, Any]:
    """A result of text parts."""
    return {"content": [{"type": "text", "text": part} for part in parts], **more}


DUMP = text('{"users": {"u1": {}, "u2": {}, "u3": {}}, "half": "x\\ud83d"}')
ANSWERS: dict[str, Any] = {
    "half": text("cut \ud83d"),
    "nul": text("a\x00b"),
    "nan_text": text('{"price": NaN}'),
    "nan_value": {"content": [], "structuredContent": {"price": float("nan"), "low": float("-inf")}},
    "bytes": b'{"jsonrpc": "2.0", "id": ID, "result": {"content": [{"type": "text", "text": "caf\xe9"}]}}',
    "flagged": text("no such order", isError=True),
    "flagged_empty": {"content": [], "isError": True},
    "flagged_value": {"content": [], "structuredContent": {"why": "late"}, "isError": True},
    "unflagged": text("Error: no such order"),
    "keyed": text('{"error": "no such order"}'),
    "not_keyed": text('{"error": null, "total": 3}'),
    "unmet": text("x"),
    "unmet_value": text("x", structuredContent={"total": "three"}),
    "unmet_flagged": text("no such order", isError=True),
    "huge": text("x" * 3_000_000),
}
PROMISED = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
ANNOTATIONS: dict[str, dict[str, bool]] = {}
ERRORS = {"internal": -32603, "own": -32000, "parameters": -32602}


def listed(name: str) -> dict[str, Any]:
    """A tool as it is listed."""
    argument = {"properties": {"state": {"type": "object"}}} if name == "restore" else {}
    promised = {"outputSchema": PROMISED} if name.startswith("unmet") else {}
    hints = {"annotations": ANNOTATIONS[name]} if name in ANNOTATIONS else {}
    return {"name": name, "inputSchema": {"type": "object", **argument}, **promised, **hints}


def answer(message: dict[str, Any]) -> bytes:
    """One line."""
    method, given = message["method"], message.get("params") or {}
    line: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        server = {"name": "answering", "version": "1"}
        line["result"] = {"protocolVersion": given["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": server}
    elif method == "tools/list":
        line["result"] = {"tools": [listed(name) for name in (*ANSWERS, *ERRORS, "dump", "restore")]}
    elif method != "tools/call" or given["name"] in ERRORS:
        line["error"] = {"code": ERRORS.get(given.get("name"), -32601), "message": "Order W9 is nowhere"}
    else:
        result = {**ANSWERS, "dump": DUMP, "restore": text("ok")}[given["name"]]
        if isinstance(result, bytes):
            return result.replace(b"ID", str(message["id"]).encode())
        line["result"] = result
    return json.dumps(line).encode()


def serve() -> None:
    """Answer each line until there is none any more."""
    for read in sys.stdin:
        if "id" in (request := json.loads(read)):
            sys.stdout.buffer.write(answer(request) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
