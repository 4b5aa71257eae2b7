"""Tools out of Python functions that nobody wrote for it: with or without types, with or without a docstring.

A world's own tools must be typed and described (`tasks.worlds.tools` refuses others). A function that exists is taken as it is, and
its schema says no more than the function does: {} for an argument without a type, an object for a dict. Types beyond those of
`tasks.worlds.tools` (dict, tuple, set, unions, enums, dates, dataclasses, TypedDicts, pydantic models) are described and checked by
pydantic, strictly: "5" is no number, but JSON's array becomes the tuple that the function wants.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Optional, get_type_hints

from tasks.params import BadInput
from tasks.worlds import Kind
from tasks.worlds.adapters.keywords import untitled
from tasks.worlds.tools import Check, Refused, Tool, by_name, docstring, schema_of

_CODE = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)


def tool_of(
    name: str, function: Callable[..., Any], kind: Kind, produces: tuple[str, ...], where: str, known: Mapping[str, Any] | None = None
) -> Tool:
    """The tool that a bound method or function is. where: how messages call it. known: types of arguments that count more than what
    the function says. Raises BadInput when it cannot be called with named JSON arguments.
    """
    if any(is_async(function) for is_async in _CODE):
        raise BadInput(f"{where}: is async. Offer a method that waits for it, or leave it out with tools=(...).")
    try:
        signature, hints = inspect.signature(function), get_type_hints(function)
    except (ValueError, TypeError, NameError) as error:
        raise BadInput(
            f"{where}: its arguments cannot be read ({error}). Wrap it in a method, or leave it out with tools=(...)."
        ) from None
    for argument_name in known or {}:
        if argument_name not in signature.parameters:
            arguments = ", ".join(signature.parameters) or "none"
            raise BadInput(f"{where}: types names its argument {argument_name!r}; its arguments: {arguments}.")
    summary, about = docstring(inspect.getdoc(function) or "")
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    checks: dict[str, tuple[Check, bool]] = {}
    for argument in signature.parameters.values():
        place = f"{where}: argument {argument.name!r}"
        if argument.kind not in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
            raise BadInput(f"{place} is {argument.kind.description}, which a named JSON argument cannot fill. Wrap the method.")
        schema, check = _typed(_hint(argument, {**hints, **(known or {})}), place)
        definitions.update(schema.pop("$defs", {}))
        said = {"description": about[argument.name]} if argument.name in about else {}
        properties[argument.name] = {**schema, **said}
        checks[argument.name] = (check, argument.default is argument.empty)
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [name for name, (_, required) in checks.items() if required],
        "additionalProperties": False,
        **({"$defs": definitions} if definitions else {}),
    }
    return Tool(name, summary, parameters, kind, produces, tuple(checks), by_name(checks))


def _hint(argument: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    """The type of an argument; `= None` makes it optional, as Python code has it everywhere."""
    hint = hints.get(argument.name, Any)
    return Optional[hint] if argument.default is None and hint is not Any else hint  # noqa: UP045 - built at run time


def _typed(hint: Any, place: str) -> tuple[dict[str, Any], Check]:
    if hint in (Any, object):
        return {}, json_value
    try:
        schema, check = schema_of(hint)
        return dict(schema), check
    except BadInput:
        return _by_pydantic(hint, place)


def _by_pydantic(hint: Any, place: str) -> tuple[dict[str, Any], Check]:
    import pydantic

    try:
        adapter = pydantic.TypeAdapter(hint)
        schema = untitled(adapter.json_schema(ref_template="#/$defs/{model}"))
    except (pydantic.PydanticUserError, pydantic.errors.PydanticInvalidForJsonSchema, TypeError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(
            f"{place} has type {hint}, which no JSON value can be ({first}). Say another one in types=, or wrap the method."
        ) from None

    def check(value: Any) -> Any:
        text = _json(value)
        try:
            return adapter.validate_json(text, strict=True)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            at = "".join(f"[{part!r}]" for part in first["loc"])
            raise Refused(f"{f'at {at} ' if at else ''}is wrong: {first['msg']}, got {first['input']!r}") from None

    return schema, check


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(f"must be JSON: {error}") from None


def json_value(value: Any) -> Any:
    """Any JSON value, as a copy: what a tool keeps of it must not be the caller's."""
    return json.loads(_json(value))
