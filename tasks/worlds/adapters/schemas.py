"""Tools out of the JSON schemas that a server lists: the model is shown the server's own, and each call's arguments are checked with
the whole of it, in its own dialect. What is checked is what the schema says and no more: arguments that it does not name are the
server's business, unless it forbids them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.contract.params import BadInput
from tasks.contract.problem import Kind
from tasks.worlds.adapters.empty_schemas import uncallable
from tasks.worlds.adapters.functions import json_value
from tasks.worlds.adapters.schema_dialects import Read, Unreadable, read, shortened
from tasks.worlds.adapters.schema_keywords import untitled
from tasks.worlds.api.tools import Check, Refused, Tool, unknown_argument

_REMEDY = "Leave it out ('tools', 'operations'), or mend the server."


def tool_of_schema(name: str, description: str, schema: Mapping[str, Any], kind: Kind, produces: tuple[str, ...], where: str) -> Tool:
    """The tool behind an input schema. where: how messages call it. Raises BadInput for what is no schema, for references that lead
    nowhere, and for a schema that no arguments fit.
    """
    try:
        meant = read(schema)
    except Unreadable as error:
        raise BadInput(f"{where}: its input schema cannot be used: {error}. {_REMEDY}") from None
    if reason := uncallable(meant):
        raise BadInput(f"{where}: it cannot be called with anything: {reason}. {_REMEDY}")
    names = tuple(dict.fromkeys(_names(meant)))
    check = _checker(meant, names)
    return Tool(name, " ".join(description.split()), _for_models(schema), kind, produces, names, check, meant.notes)


def notes(tools: Mapping[str, Tool]) -> Iterator[tuple[str, str]]:
    """(tool, note) for everything about a world's tools that is not checked as their schemas say, and why. What makes a tool useless
    is no note: building the world refuses it, with a line for each such tool.
    """
    for name, tool in tools.items():
        yield from ((name, note) for note in tool.notes)


def _for_models(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as a model reads it: an object, with the two keys that readers of schemas rely on. It means the same."""
    whole = {"type": "object", **untitled(schema)}
    properties = whole.get("properties") or {}
    forms: dict[bool, Any] = {True: {}, False: {"not": {}}}
    required = whole.get("required")
    return {
        **whole,
        "properties": {name: forms[part] if isinstance(part, bool) else part for name, part in properties.items()},
        "required": list(required) if isinstance(required, list) else [],
    }


def _names(meant: Read) -> Iterator[str]:
    """Names of arguments that stand in the schema, in its combinations and behind its references."""
    for one in meant.in_place():
        yield from one.get("properties") or ()


def _checker(meant: Read, names: tuple[str, ...]) -> Check:
    """The check of whole arguments; they come back as a copy, in the order of the schema."""
    from jsonschema.exceptions import best_match

    validator = meant.validator

    def check(arguments: dict[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = json_value(arguments)
        try:
            found = best_match(validator.iter_errors(given))
        except RecursionError:
            raise Refused("arguments are nested deeper than their schema can be followed") from None
        except re.error:  # told when the tool was made
            found = None
        if found is not None:
            raise Refused(_message(found, names))
        return {**{name: given[name] for name in names if name in given}, **given}

    return check


def unmet(promised: Read, structured: Any) -> str:
    """How an answer fails to keep its tool's output schema; "" when it does."""
    from jsonschema.exceptions import best_match

    if structured is None:
        return "its answer does not keep its output schema: it has no structured content"
    try:
        found = best_match(promised.validator.iter_errors(structured))
    except (RecursionError, re.error):
        return ""
    if found is None:
        return ""
    place = "".join(f"[{part!r}]" for part in found.absolute_path)
    return f"its answer does not keep its output schema: {shortened(found.message)}{f' at {place}' if place else ''}"


def _message(error: Any, names: tuple[str, ...]) -> str:
    """What is wrong, in the words of a world's own tools where they have any."""
    path = list(error.absolute_path)
    if not path and error.parent is None and isinstance(error.instance, dict):
        if error.validator == "required" and isinstance(error.validator_value, list):
            return f"argument {next(name for name in error.validator_value if name not in error.instance)!r} is missing"
        unknown = [name for name in error.instance if name not in names]
        if error.validator == "additionalProperties" and error.validator_value is False and unknown:
            return unknown_argument(unknown[0], names)
    message = shortened(error.message)
    if not path:
        return f"the arguments are wrong: {message}"
    at = "".join(f"[{part!r}]" for part in path[1:])
    return f"argument {path[0]!r}{f' at {at}' if at else ''} is wrong: {message}"
