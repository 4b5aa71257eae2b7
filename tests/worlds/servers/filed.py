"""A server that keeps its state in a file of its seat, and the commands that dump and restore it: `python filed.py serve | dump | restore`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

FILE = Path(os.environ["CAIRN_SEAT"]) / "count.json"


def count() -> dict[str, int]:
    """What the file holds."""
    return json.loads(FILE.read_text()) if FILE.exists() else {"count": 0}  # type: ignore[no-any-return]


def serve() -> None:
    """The server."""
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("filed")

    @server.tool()
    def add(many: int) -> int:
        """Count on."""
        FILE.write_text(json.dumps({"count": count()["count"] + many}))
        return count()["count"]

    server.run()


if sys.argv[1] == "serve":
    serve()
elif sys.argv[1] == "dump":
    print(json.dumps(count()))
elif sys.argv[1] == "restore":
    FILE.write_text(sys.stdin.read())
else:
    sys.exit(f"no {sys.argv[1]}")
