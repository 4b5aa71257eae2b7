"""Worlds out of what exists: `from_object` for Python objects, `from_mcp` for MCP servers, `from_openapi` for HTTP services.

Each gives a class to derive a world from, in a module of the user's own, which params name as any other world (`my_shop.world:Shop`):

    class Shop(from_mcp(Path(__file__).with_name("mcp.yaml"), name="shop", policy=POLICY, problems_file=...)):
        ...

What none of them gives is a scripted human: the conversations of such a world need a model in the human's role, or SCRIPTS in the
class (`tasks.worlds.api.served` makes them of services). Problems come from a file (`given`), or from FAMILIES, context and propose in
the class; the generate room makes more with a model in the generator's role.
"""

from __future__ import annotations

from tasks.worlds.adapters.objects import from_object
from tasks.worlds.adapters.openapi import from_openapi
from tasks.worlds.adapters.openapi_database import PostgresDatabase, SqliteDatabase
from tasks.worlds.adapters.servers import from_mcp

__all__ = ["PostgresDatabase", "SqliteDatabase", "from_mcp", "from_object", "from_openapi"]
