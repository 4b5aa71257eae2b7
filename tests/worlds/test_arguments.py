"""Schemas for rough readers: whatever a server's schema is made of, it can be shown, drawn for, and taken from typed text.

Worked by hand: "#/$defs/Size" is in place of the reference; true says nothing. Limit: a schema that holds itself ends some levels down.
"""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

from flows.worlds.report import kind_of, tool_lines
from flows.worlds.sample import Pool
from tasks.contract.conventions import Conventions
from tasks.players.trivial.constant import hands_over
from tasks.worlds.adapters.schemas import tool_of_schema
from tasks.worlds.api.arguments import arguments_of
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.runtime import World
from tasks.worlds.api.state import Base

SIZES = {"enum": ["s", "l"]}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {"Size": SIZES, "Node": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
    "properties": {
        "size": {"$ref": "#/$defs/Size", "description": "how large"},
        "same": {"$ref": "#/properties/size"},
        "node": {"$ref": "#/$defs/Node"},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/Size"}},
        "pair": {"type": "array", "prefixItems": [True], "items": False},
        "either": {"oneOf": [True, {"type": ["integer", "null"]}]},
        "kinds": {"type": ["integer", "null"]},
        "fixed": {"const": 7},
        "any": True,
    },
    "required": ["size", "same", "node", "rows", "kinds", "fixed", "either", "more"],
}


def test_references_are_followed() -> None:
    plain = arguments_of(SCHEMA)
    assert plain["size"] == plain["same"] == {**SIZES, "description": "how large"} and plain["rows"]["items"] == SIZES
    assert plain["any"] == plain["pair"]["items"] == plain["either"]["oneOf"][0] == {}
    own = world_class("tasks.worlds.library.retail:Retail")
    for tool in World.build(own, 3, 0).tools.values():
        assert arguments_of(tool.parameters) == tool.parameters["properties"], "a world's own are as they are"


def test_every_reader_copes() -> None:
    tool = tool_of_schema("it", "", SCHEMA, "end", (), "tool 'it'")
    assert kind_of(arguments_of(tool.parameters)["either"]) == "any or integer or null"
    assert next(iter(tool_lines(tool))).startswith('end    it(size: "s" or "l", same: "s" or "l", node: list of list of')
    world: Any = SimpleNamespace(shared=SimpleNamespace(base=Base({"users": {"u1": {}}})), tools={"it": tool}, foreign=None)
    pool, rng = Pool(world, []), Random(0)
    drawn = {name: pool.draw("it", name, schema, rng) for name, schema in arguments_of(tool.parameters).items()}
    assert drawn["size"] in SIZES["enum"] and drawn["rows"][0] in SIZES["enum"] and drawn["fixed"] == 7
    world.conventions = Conventions(hand_over="it")
    agent = hands_over()
    agent.send("c", [], world, 0)
    ((_, turn),) = agent.poll()
    arguments = turn.message["tool_calls"][0]["function"]["arguments"]
    assert tool.validate(arguments) == arguments and arguments["kinds"] == 1 and arguments["fixed"] == 7
