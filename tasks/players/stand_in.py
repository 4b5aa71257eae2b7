"""A stand-in for models in all roles: it reads the prompts and knows no world. The stub server answers so (knob `plays`).

It makes a road run whose world has no scripts, so that a person sees their API go down every stage without paying anybody, and an
estimate can count what is asked; it is no model, and nothing that it writes is worth learning. A draft calls one tool, with values that
the prompt's data hold under the argument's name; whether that works is found out by the proof, and what was refused is drafted again
with other values. Its instruction holds the call as it is (`cancel_order {"order_id": "W1"}`), the human says it, the agent
makes the calls that it reads. Judges agree with everything; every other critic finds a flaw at random.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from tasks.contract.client import Message, Request
from tasks.contract.scripts import STOP
from tasks.worlds.api.arguments import arguments_of

LONGEST = 2000
"""Characters of a tool's answer that the agent repeats."""
DEEP = 8
"""Levels of the data that are searched for values."""
AS_IS = 0.3
"""How often an argument that is no id takes a value that the data hold already: a write of that may change nothing."""


class StandIn:
    """It as a client, without a server."""

    name, revision = "stand-in", "1"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """An answer for each request; the same for the same one."""
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Message:
        rng = Random(f"{request.seed} {json.dumps(request.messages, default=str)}")
        answer = message(request.messages, request.tools, request.schema, rng)
        for call in answer.get("tool_calls") or ():
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        return {**answer, "content": answer["content"] or ""}


def message(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], schema: Mapping[str, Any] | None, rng: Random) -> Message:
    """The answer of whoever is asked: an author, judge or critic by the answer's schema, the agent by its tools, else the human."""
    if schema is not None:
        return {"role": "assistant", "content": json.dumps(form(messages, schema, rng), ensure_ascii=False)}
    return _agent(messages, tools) if tools else {"role": "assistant", "content": _human(messages)}


def form(messages: Sequence[Message], schema: Mapping[str, Any], rng: Random) -> Any:
    """The answer of a role that answers in JSON."""
    properties = schema.get("properties", {})
    if "actions" in properties:
        return _draft(messages, rng)
    if "instruction" in properties:
        return {"instruction": " ".join(str(wish["instruction"]) for wish in _block(messages, "tasks") or ())}
    if "summary" in properties:
        return {"summary": "; ".join(map(str, _block(messages, "failures") or ()))[:LONGEST]}
    if scored := [name for name, one in properties.items() if "score" in one.get("properties", {})]:
        return {name: {"score": 1, "reason": ""} for name in scored}
    if "units" in properties and rng.random() < 0.5:
        return {"units": []}
    return fill(schema, rng)


def fill(schema: Mapping[str, Any], rng: Random) -> Any:
    """A value that fits a JSON schema of the simple kind."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: fill(one, rng) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [fill(schema.get("items", {"type": "string"}), rng) for _ in range(max(1, schema.get("minItems", 1)))]
    if kind == "integer":
        return rng.randint(schema.get("minimum", 0), schema.get("maximum", 100))
    return {"number": round(rng.random(), 3), "boolean": rng.random() < 0.5}.get(kind, f"word{rng.getrandbits(24):06x}")


# --- people --------------------------------------------------------------------------------------------------------------


def _human(messages: Sequence[Message]) -> str:
    """The instruction, a yes to any question but the last one, and goodbye."""
    spoken = [one for one in messages if one["role"] == "assistant"]
    if not spoken:
        found = re.search(r"^Instruction: (.*?)(?=^Rules:|\Z)", str(messages[0]["content"]), re.MULTILINE | re.DOTALL)
        return found[1].strip() if found else "Hello."
    last = str(messages[-1].get("content") or "").rstrip()
    return "Yes, please." if last.endswith("?") and not last.endswith(CLOSING) and len(spoken) < 4 else STOP


CLOSING = "Anything else?"


def _agent(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> Message:
    """The next call that the user's words hold and that was not made yet; then what the last one answered."""
    names = [tool["function"]["name"] for tool in tools]
    words = "\n".join(str(one["content"]) for one in messages if one["role"] == "user")
    made = [call["function"]["name"] for one in messages for call in one.get("tool_calls") or ()]
    wishes = list(_calls(words, names))
    if not wishes and len(tools) == 1:  # it is looked at whether a server's model calls tools at all
        wishes = [(names[0], fill(tools[0]["function"].get("parameters", {}), Random(0)))]
    if len(made) < len(wishes):
        name, arguments = wishes[len(made)]
        function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": f"call_{len(made)}", "type": "function", "function": function}],
        }
    answers = [str(one["content"]) for one in messages if one["role"] == "tool"]
    return {"role": "assistant", "content": f"{answers[-1][:LONGEST] if answers else 'I see.'} {CLOSING}"}


def _calls(text: str, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The calls that stand in a text, each a tool's name before a JSON object."""
    for found in re.finditer(r"([\w.:/-]+) (?=\{)", text):
        if found[1] in names:
            try:
                yield found[1], json.JSONDecoder().raw_decode(text, found.end())[0]
            except ValueError:
                continue


# --- the author ----------------------------------------------------------------------------------------------------------


def _draft(messages: Sequence[Message], rng: Random) -> dict[str, Any]:
    """A problem of one call. After two refusals a look-up is tried, which needs no luck with the state: the call itself is required, as
    it is where nothing can be compared."""
    tools = [tool for tool in _block(messages, "tools") or () if tool.get("kind") != "end"]
    data, walk = _block(messages, "data") or {}, _block(messages, "walk") or []
    refused = sum(one["role"] == "assistant" for one in messages)
    near = [tool for tool in tools if tool["name"] in walk] or tools
    first = [tool for tool in near if tool["kind"] == "write"] or near
    reads = [tool for tool in tools if tool["kind"] == "read"]
    chosen = (first if refused < 2 else reads) or tools
    if not chosen:
        return {"thought": "there is no tool to call", "instruction": "Hello.", "actions": [], "outputs": []}
    tool = rng.choice(chosen)
    call = {"name": tool["name"], "arguments": _arguments(tool, data, rng)}
    return {
        "thought": f"one call of {tool['name']}",
        "instruction": f"Please do this: {call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}",
        "actions": [call],
        "outputs": [],
        "required": [] if tool["kind"] == "write" and not refused else [call],
    }


def _arguments(tool: Mapping[str, Any], data: Mapping[str, Any], rng: Random) -> dict[str, Any]:
    """What a tool is called with: its required arguments, each for itself."""
    parameters = tool.get("parameters") or {}
    schemas = arguments_of(parameters)
    needed = [name for name in schemas if name in (parameters.get("required") or ())]
    return {name: _value(name, schemas[name], tool["name"], data, rng) for name in needed}


def _value(name: str, schema: Mapping[str, Any], tool: str, data: Mapping[str, Any], rng: Random) -> Any:
    """A value for an argument: as its schema says, else one that the data hold under its name, else one of its type."""
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return rng.choice(list(schema[key]))
    for key in ("anyOf", "oneOf"):
        if forms := [one for one in schema.get(key, ()) if one.get("type") != "null"]:
            return _value(name, rng.choice(forms), tool, data, rng)
    kind, known = _type(schema), [value for value in _named(name, tool, data) if _is(value, schema)]
    is_id = _stem(name) != name or {value for value in known if isinstance(value, str)} & {key for key, _ in _pairs(data)}
    if known and (is_id or rng.random() < AS_IS):
        return rng.choice(known)
    if kind == "object":
        inner = arguments_of(schema)
        return {key: _value(key, one, tool, data, rng) for key, one in inner.items() if key in schema.get("required", ())}
    if kind == "array":
        return [_value(name, schema.get("items") or {}, tool, data, rng)]
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        return rng.randint(int(least), max(int(least), int(min(schema.get("maximum", least + 3), least + 3))))
    if kind == "boolean":
        return rng.random() < 0.5
    person = data.get("user_id")  # the id of the row that all is about, whatever it is called
    if kind == "string" and "format" not in schema and isinstance(person, str) and (_stem(name) != name or rng.random() < AS_IS):
        return person
    made = {"date": "2030-01-15", "date-time": "2030-01-15T09:00:00Z", "time": "09:00:00", "email": "ada@example.org"}
    return made.get(str(schema.get("format")), f"word{rng.getrandbits(16):04x}")


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "string")
    return str(next((one for one in kind if one != "null"), "string") if isinstance(kind, list) else kind)


_PYTHON: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def _is(value: Any, schema: Mapping[str, Any]) -> bool:
    kind = _type(schema)
    return isinstance(value, _PYTHON.get(kind, (str,))) and isinstance(value, bool) == (kind == "boolean")


def _named(name: str, tool: str, data: Any) -> list[Any]:
    """Values that the data hold under an argument's name: of a field so called, else ids of a table so called, also by its last word
    (`source_account`); an argument that is only called "id" is of what the tool is about."""
    if exact := [value for key, value in _pairs(data) if key == name]:
        return exact
    stem = _stem(name)
    for stems in ({stem}, {stem.rpartition("_")[2]}) if stem else ({_stem(word) for word in re.split(r"[^a-z]+", tool.lower())},):
        about = [value for key, value in _pairs(data) if _stem(key) in stems - {""}]
        if found := [one for value in about for one in (value if isinstance(value, dict | list) else [value])]:
            return found
    return []


def _stem(name: str) -> str:
    """order_id, orders and orderId are about the same: order."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().strip("_")
    return re.sub(r"(_?ids?|_?numbers?|_?keys?|_?names?)$", "", plain).removesuffix("s")


def _pairs(value: Any, deep: int = DEEP) -> Iterator[tuple[str, Any]]:
    """Every key of nested JSON with its value."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict):
        yield from value.items()
    for part in parts if deep else ():
        yield from _pairs(part, deep - 1)


def _block(messages: Sequence[Message], name: str) -> Any:
    """The first named block of JSON in the prompts, None when there is none."""
    for one in messages:
        if found := re.search(rf"^```json {name}\n(.*)\n```$", str(one.get("content")), re.MULTILINE):
            return json.loads(found[1])
    return None
