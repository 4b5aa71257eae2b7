"""Which parts of a JSON schema are schemas themselves. All else in it is data (default, enum, const, examples and what nobody knows),
and data is left as it is, whatever it looks like. The lists hold the keywords of every draft: each means the same wherever it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
"""Keywords that hold schemas under names that are the author's own."""
PARTS = frozenset(
    {
        *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "extends", "disallow", "type"),
        *("additionalProperties", "unevaluatedProperties", "propertyNames", "contentSchema"),
        *("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"),
    }
)
"""Keywords that hold a schema or a list of them; names of types and such stand in the same places and are no schemas."""


def changed(schema: Mapping[str, Any], change: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
    """A copy in which `change` was applied to each schema that stands directly inside; true and false are left."""

    def one(part: Any) -> Any:
        return change(part) if isinstance(part, Mapping) else part

    def inside(key: str, value: Any) -> Any:
        if key in NAMED and isinstance(value, Mapping):
            return {name: one(part) for name, part in value.items()}
        if key in PARTS:
            return [one(part) for part in value] if isinstance(value, list) else one(value)
        return value

    return {key: inside(key, value) for key, value in schema.items()}


def below(schema: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every schema in a schema, itself first, with the place where it stands ("" for itself); references are not followed."""
    todo: list[tuple[Mapping[str, Any], str]] = [(schema, "")]
    while todo:
        one, place = todo.pop()
        yield one, place
        for key, value in one.items():
            if key in NAMED and isinstance(value, Mapping):
                found = [(part, f"{place}/{key}/{name}") for name, part in value.items()]
            elif key in PARTS:
                found = [(part, f"{place}/{key}/{number}") for number, part in enumerate(value)] if isinstance(value, list) else []
                found += [(value, f"{place}/{key}")] if isinstance(value, Mapping) else []
            else:
                continue
            todo += [(part, at) for part, at in reversed(found) if isinstance(part, Mapping)]


def untitled(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without its titles, which libraries make up from names; an argument that is called title stays, and so does data."""
    kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    return changed(kept, untitled)
