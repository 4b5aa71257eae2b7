"""An MCP server whose tools take their time, for `infra.bench_servers`: `python slow_server.py SECONDS`. It needs no library.

Its state is a count, which is dumped and restored at once; a call of `add` or `look` answers after so many seconds, as a tool does that
asks a service.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

ARGUMENTS: dict[str, dict[str, Any]] = {
    "add": {"many": {"type": "integer"}},
    "look": {},
    "dump": {},
    "restore": {"state": {"type": "object"}},
}


def called(seconds: float, state: dict[str, int], name: str, arguments: dict[str, Any]) -> str:
    """What a tool answers."""
    if name in ("add", "look"):
        time.sleep(seconds)
    if name == "add":
        state["count"] += arguments["many"]
    if name == "restore":
        state.update(arguments["state"])
    return json.dumps(state)


def answer(seconds: float, state: dict[str, int], message: dict[str, Any]) -> dict[str, Any]:
    """The result of a request."""
    parameters = message.get("params") or {}
    if message["method"] == "initialize":
        about = {"name": "slow", "version": "1"}
        return {"protocolVersion": parameters["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about}
    if message["method"] == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object", "properties": own}} for name, own in ARGUMENTS.items()]}
    return {"content": [{"type": "text", "text": called(seconds, state, parameters["name"], parameters.get("arguments") or {})}]}


def main() -> None:
    """Answer until standard input ends."""
    seconds, state = float(sys.argv[1]), {"count": 0}
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") in ("initialize", "tools/list", "tools/call"):
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(seconds, state, message)}), flush=True)
        elif "id" in message:
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}), flush=True)


if __name__ == "__main__":
    main()
