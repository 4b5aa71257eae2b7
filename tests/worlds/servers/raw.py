"""A server that speaks the protocol by hand, and breaks it on demand: `python raw.py MODE`. It needs no library.

mute: never answers. dies: ends in a call. hangs: never answers a call. babble: answers a call with a line that is no JSON. wrong: answers a call with JSON that is no result.
stubborn: works, and ends neither when its input closes nor when it is asked to.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

MODE = sys.argv[1]
TOOLS = [{"name": name, "inputSchema": {"type": "object", "properties": {}}} for name in ("look", "dump")]
RESTORE = {"name": "restore", "inputSchema": {"type": "object", "properties": {"state": {"type": "string"}}}}


def answer(message: dict[str, Any]) -> None:
    """One answer to one request."""
    method, given = message["method"], message.get("params") or {}
    if method == "initialize":
        about = {
            "protocolVersion": given["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "raw", "version": "1"},
        }
        send(message, about)
    elif method == "tools/list":
        send(message, {"tools": [*TOOLS, RESTORE]})
    elif method == "tools/call":
        call(message, given["name"])
    else:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}), flush=True)


def call(message: dict[str, Any], name: str) -> None:
    """A tool: the dump works, whatever the mode."""
    if name == "look" and MODE == "dies":
        os._exit(3)
    if name == "look" and MODE == "hangs":
        return
    if name == "look" and MODE == "babble":
        print("Looking ...", flush=True)
    elif name == "look" and MODE == "wrong":
        send(message, {"content": "fine"})
    else:
        text = '{"a": 1}' if name == "dump" else str(os.getpid())
        send(message, {"content": [{"type": "text", "text": text}]})


def send(message: dict[str, Any], result: dict[str, Any]) -> None:
    """A result."""
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)


if MODE == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin:
    if MODE != "mute" and "id" in (message := json.loads(line)):
        answer(message)
while MODE == "stubborn":
    time.sleep(1)
