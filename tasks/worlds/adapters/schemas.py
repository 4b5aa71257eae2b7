"""Tools out of the JSON schemas that a server lists: the model is shown the server's own, and each argument is checked with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.params import BadInput
from tasks.worlds import Kind
from tasks.worlds.adapters.functions import json_value, untitled
from tasks.worlds.tools import Check, Refused, Tool


def tool_of_schema(name: str, description: str, schema: Mapping[str, Any], kind: Kind, produces: tuple[str, ...], where: str) -> Tool:
    """The tool behind an input schema. where: how messages call it. Arguments that the schema does not name are refused, even where
    the server would take them: what nobody describes, nobody checks. Raises BadInput for what is no schema of an object."""
    schema = untitled(schema)
    properties = schema.get("properties") or {}
    if schema.get("type") != "object" or not isinstance(properties, Mapping):
        raise BadInput(
            f"{where}: its input schema describes no object ({dict(schema)}). Leave it out with 'tools', or mend the server."
        )
    required = tuple(schema.get("required") or ())
    parameters = {**schema, "properties": dict(properties), "required": list(required), "additionalProperties": False}
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    checks = {
        argument: (
            _checker({**shared, **about} if isinstance(about, Mapping) else {}, f"{where}: argument {argument!r}"),
            argument in required,
        )
        for argument, about in properties.items()
    }
    return Tool(name, " ".join(description.split()), parameters, kind, produces, tuple(checks), checks)


def _checker(schema: Mapping[str, Any], where: str) -> Check:
    import jsonschema
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise BadInput(
            f"{where}: its schema is wrong ({error.message}). Leave the tool out with 'tools', or mend the server."
        ) from None
    validator = kind(schema, registry=Registry())  # an empty one: nothing is fetched

    def check(value: Any) -> Any:
        value = json_value(value)
        try:
            found = jsonschema.exceptions.best_match(validator.iter_errors(value))
        except Unresolvable as error:
            raise Refused(f"cannot be checked: its schema refers to {error.ref!r}, which is not there") from None
        if found is not None:
            raise Refused(f"is wrong: {_short(found.message)}")
        return value

    return check


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."
