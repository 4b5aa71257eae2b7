"""Schemas of an OpenAPI description as JSON schemas: one document for each tool, which holds all that it refers to.

OpenAPI 3.1 writes JSON Schema 2020-12. What 3.0 writes otherwise is translated: `nullable`, exclusive bounds that are true or false,
and what stands beside a `$ref`, which does not count there. In both a `discriminator` becomes what it means: the value of its property
says which of the choices holds. Properties that are read only are left out, since these schemas are of what is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.worlds.adapters.openapi_spec import Spec
from tasks.worlds.adapters.schema_keywords import changed

_NO_SCHEMA = frozenset({"discriminator", "xml", "externalDocs", "example", "nullable", "readOnly", "writeOnly"})
"""Keywords of OpenAPI that JSON Schema does not have."""


class Schemas:
    """The schemas of one tool. `definitions` holds those that were referred to, once `finished`."""

    def __init__(self, spec: Spec, where: str) -> None:
        self._spec, self._where = spec, where
        self._names: dict[str, str] = {}

    def converted(self, schema: Any) -> Any:
        """A schema of the description as JSON Schema; its references lead to `definitions`."""
        if not isinstance(schema, Mapping):
            return schema
        if isinstance(pointer := schema.get("$ref"), str):
            told = {"description": schema["description"]} if isinstance(schema.get("description"), str) else {}
            beside = {} if self._spec.version == "3.0" else self._own({key: one for key, one in schema.items() if key != "$ref"})
            return {"$ref": f"#/$defs/{self._name(pointer)}", **told, **beside}
        return self._own(schema)

    def definitions(self) -> dict[str, Any]:
        """Every schema that was referred to, by name; those that they refer to as well."""
        found: dict[str, Any] = {}
        while missing := [(pointer, name) for pointer, name in self._names.items() if name not in found]:
            for pointer, name in missing:
                found[name] = self.converted(self._spec.at(pointer, self._where))
        return found

    def properties(self, schema: Any) -> dict[str, Any] | None:
        """Name -> schema of an object that can be taken apart into arguments; None when it combines schemas or takes any name."""
        plain = self._spec.behind(schema, self._where)
        given, kind = plain.get("properties"), plain.get("type", "object")
        combined = any(key in plain for key in ("allOf", "anyOf", "oneOf", "not", "if", "discriminator", "patternProperties", "enum"))
        open_ended = plain.get("additionalProperties", False) is not False
        if kind != "object" or combined or open_ended or plain.get("nullable") or not isinstance(given, Mapping) or not given:
            return None
        return {name: part for name, part in given.items() if not self._read_only(part)}

    def required(self, schema: Any) -> list[str]:
        """Names of the properties that an object must have."""
        named = self._spec.behind(schema, self._where).get("required")
        return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []

    def _name(self, pointer: str) -> str:
        """The name of a definition: the last part of the reference, numbered where two end alike."""
        if pointer not in self._names:
            name = base = re.sub(r"[^A-Za-z0-9_.-]", "_", pointer.rpartition("/")[2]) or "root"
            number = 1
            while name in self._names.values():
                number += 1
                name = f"{base}_{number}"
            self._names[pointer] = name
        return self._names[pointer]

    def _own(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """A schema that is no reference."""
        kept = {key: value for key, value in schema.items() if key not in _NO_SCHEMA and not key.startswith("x-")}
        if isinstance(properties := kept.get("properties"), Mapping):
            hidden = {name for name, part in properties.items() if self._read_only(part)}
            kept["properties"] = {name: part for name, part in properties.items() if name not in hidden}
            if hidden and isinstance(required := kept.get("required"), list):
                kept["required"] = [name for name in required if name not in hidden]
        kept = changed(kept, self.converted)
        if self._spec.version == "3.0":
            kept = _bounds(kept)
        if isinstance(schema.get("discriminator"), Mapping):
            kept = self._discriminated(schema, kept)
        return _or_null(kept) if schema.get("nullable") is True and self._spec.version == "3.0" else kept

    def _read_only(self, part: Any) -> bool:
        return isinstance(part, Mapping) and part.get("readOnly") is True

    def _discriminated(self, schema: Mapping[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
        """With the choices told apart by the property that the discriminator names."""
        about = schema["discriminator"]
        key, mapping = about.get("propertyName"), about.get("mapping") or {}
        choice = "oneOf" if "oneOf" in schema else "anyOf"
        parts = schema.get(choice)
        if not isinstance(key, str) or not isinstance(parts, list):
            return kept  # on a base schema: those that build on it are named by their own references
        told_apart = []
        for part, one in zip(parts, kept[choice], strict=True):
            names = list(_names_of(part, mapping)) if isinstance(part, Mapping) else []
            rule = {"properties": {key: {"enum": names}}, "required": [key]}
            told_apart.append({"allOf": [one, rule]} if names else one)
        return {**{name: value for name, value in kept.items() if name != choice}, "anyOf": told_apart}


def _names_of(part: Mapping[str, Any], mapping: Mapping[str, Any]) -> Iterator[str]:
    """The values of the discriminator's property that mean this choice."""
    pointer = str(part.get("$ref", ""))
    last = pointer.rpartition("/")[2]
    named = [name for name, target in mapping.items() if target in (pointer, last)]
    yield from named or ([last] if last else [])


def _bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """Exclusive bounds as numbers: in 3.0 they are true or false beside the bound."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(said := schema.get(exclusive), bool):
            del schema[exclusive]
            if said and bound in schema:
                schema[exclusive] = schema.pop(bound)
    return schema


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that takes null too."""
    kind = schema.get("type")
    if isinstance(kind, str) and "enum" not in schema and not {"allOf", "anyOf", "oneOf", "$ref", "const"} & schema.keys():
        return {**schema, "type": [kind, "null"]}
    words: dict[str, Any] = {key: schema.pop(key) for key in ("description", "title", "default") if key in schema}
    return {**words, "anyOf": [schema, {"type": "null"}]} if schema else words
