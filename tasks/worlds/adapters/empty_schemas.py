"""Schemas that nothing fits: a tool behind one would refuse every call, and nobody would know why.

What is found is certain; what is not found may still be one, since the question has no short answer for schemas in general: each
keyword is looked at by itself, and two that contradict each other through a combination of others are not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.worlds.adapters.schema_dialects import OLD, Read, followed, pointers

_BOUNDS = (
    ("number", "minimum", "maximum"),
    ("integer", "minimum", "maximum"),
    ("string", "minLength", "maxLength"),
    ("array", "minItems", "maxItems"),
    ("object", "minProperties", "maxProperties"),
)


def uncallable(schema: Read) -> str:
    """Why no arguments fit; "" when some may."""
    return _Search(schema).why(schema.schema, schema.resolver(), frozenset(), ("object",))


class _Search:
    """One look through one schema."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def why(self, schema: Any, resolver: Any, above: frozenset[int], kinds: tuple[str, ...] = ()) -> str:
        """Why nothing fits, or "". above: schemas inside which this one is needed. kinds: types that are asked for; () for any."""
        if schema is False:
            return "false allows no value"
        if not isinstance(schema, Mapping):
            return ""
        if id(schema) in above:
            return "it needs itself inside itself without end"
        above = above | {id(schema)}
        for pointer in pointers(schema, self._read.draft):
            found = followed(pointer, resolver)
            if found is not None and (reason := self.why(*found, above, kinds)):
                return reason
        if "$ref" in schema and self._read.draft in OLD:
            return ""
        kinds = kinds or _kinds(schema)
        return next((reason for reason in self._reasons(schema, resolver, above, kinds) if reason), "")

    def _reasons(self, schema: Mapping[str, Any], resolver: Any, above: frozenset[int], kinds: tuple[str, ...]) -> Iterator[str]:
        own = _kinds(schema)
        if own and kinds and "any" not in own and not any(_meet(one, other) for one in own for other in kinds):
            yield f"it must be {' or '.join(own)} and {' or '.join(kinds)} at once"
        for key in ("allOf", "extends"):
            parts = schema.get(key, ())
            for part in parts if isinstance(parts, list) else [parts]:
                yield self.why(part, resolver, above, kinds)
        for key in ("anyOf", "oneOf"):
            if parts := schema.get(key):
                reasons = [self.why(part, resolver, above, kinds) for part in parts]
                yield reasons[0] if all(reasons) else ""
        yield self._values(schema, kinds)
        for kind, low, high in _BOUNDS:
            if kinds == (kind,) and _above(schema.get(low), schema.get(high)):
                yield f"{low} {schema[low]} is above {high} {schema[high]}"
        if kinds == ("object",):
            yield from self._needed(schema, resolver, above)

    def _values(self, schema: Mapping[str, Any], kinds: tuple[str, ...]) -> str:
        """The listed values must fit the rest."""
        listed = schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else None
        if listed is None:
            return ""
        checker = self._read.validator.evolve(schema=schema)
        try:
            fit = any(checker.is_valid(value) and (kinds != ("object",) or isinstance(value, dict)) for value in listed)
        except Exception:  # what cannot be checked may fit
            return ""
        return "" if fit else f"none of its listed values fits what else it says ({str(listed)[:100]})"

    def _needed(self, schema: Mapping[str, Any], resolver: Any, above: frozenset[int]) -> Iterator[str]:
        """Properties without which no object fits."""
        properties = schema.get("properties") or {}
        needed = list(schema["required"]) if isinstance(schema.get("required"), list) else []
        if self._read.draft == "03":
            needed = [name for name, part in properties.items() if isinstance(part, Mapping) and part.get("required") is True]
        if _above(len(needed), schema.get("maxProperties")):
            yield f"it needs {len(needed)} arguments and allows {schema['maxProperties']}"
        patterns = schema.get("patternProperties") or {}
        for name in needed:
            rules = [properties[name]] if name in properties else []
            rules += [part for pattern, part in patterns.items() if _matches(pattern, name)]
            if not rules and schema.get("additionalProperties") is False:
                yield f"it needs {name!r}, which it does not allow (additionalProperties is false)"
            for rule in rules or [schema.get("additionalProperties", True)]:
                reason = self.why(rule, resolver, above)
                yield reason and f"it needs {name!r}, for which no value fits: {reason}"


def _kinds(schema: Mapping[str, Any]) -> tuple[str, ...]:
    said = schema.get("type")
    listed = said if isinstance(said, list) else [said]
    names = tuple(kind for kind in listed if isinstance(kind, str))
    return names if len(names) == len(listed) else ()


def _meet(one: str, other: str) -> bool:
    return one == other or {one, other} == {"integer", "number"}


def _above(low: Any, high: Any) -> bool:
    return type(low) in (int, float) and type(high) in (int, float) and low > high


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return True
