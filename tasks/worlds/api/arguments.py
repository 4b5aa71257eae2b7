"""A tool's arguments for whoever reads schemas only roughly: shows them, draws values for them, or takes typed text for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

DEEP = 4
"""Levels of a schema that are looked into; ours: deeper ones are no matter of one line."""
_KEPT = ("type", "enum", "const", "description")


def arguments_of(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Argument -> its schema, in which references are followed and every schema is an object, some levels down. A world's own tools
    have such schemas to begin with.
    """
    return {name: _plain(schema, parameters, DEEP) for name, schema in (parameters.get("properties") or {}).items()}


def _plain(schema: Any, root: Mapping[str, Any], deep: int) -> dict[str, Any]:
    """A schema with what it refers to in place of the reference; true, false and what leads nowhere say nothing: {}."""
    for _ in range(DEEP):
        if isinstance(schema, Mapping) and isinstance(schema.get("$ref"), str):
            schema = {**_at(root, schema["$ref"]), **{key: value for key, value in schema.items() if key != "$ref"}}
    if not isinstance(schema, Mapping):
        return {}
    if deep == 0:
        return {key: schema[key] for key in _KEPT if key in schema}
    plain = dict(schema)
    if "items" in plain:
        items = plain["items"]
        plain["items"] = _plain(items[0] if isinstance(items, list) and items else items, root, deep - 1)
    for key in ("anyOf", "oneOf"):
        if key in plain:
            plain[key] = [_plain(part, root, deep - 1) for part in plain[key]]
    return plain


def _at(root: Any, pointer: str) -> Mapping[str, Any]:
    """What a pointer into the same document leads to; {} when that is no object."""
    found = root
    for part in pointer.removeprefix("#").split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if pointer.startswith("#") and isinstance(found, Mapping) and found is not root else {}
