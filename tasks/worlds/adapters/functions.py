"""Tools out of Python functions that nobody wrote for it: with or without types, with or without a docstring.

A world's own tools must be typed and described (`tasks.worlds.api.tools` refuses others). A function that exists is taken as it is, and
its schema says no more than the function does: {} for an argument without a type, an object for a dict. Types beyond those of
`tasks.worlds.api.tools` (dict, tuple, set, unions, enums, dates, dataclasses, TypedDicts, pydantic models) are described and checked by
pydantic, strictly: "5" is no number, but JSON's array becomes the tuple that the function wants.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, get_type_hints

from tasks.contract.params import BadInput
from tasks.contract.problem import Kind
from tasks.worlds.adapters.schema_keywords import untitled
from tasks.worlds.adapters.type_hints import hint_of
from tasks.worlds.api.tools import Check, Refused, Tool, by_name, docstring, schema_of

_NOT_BY_NAME = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Callee:
    """How a function is called with arguments by name. fills: argument -> what makes its value when it is not given. placed: whether
    some cannot be handed over by name. rest: name of the `**` that takes all others, "" for none."""

    signature: inspect.Signature
    fills: Mapping[str, Callable[[], Any]]
    placed: bool
    rest: str

    def arguments(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(by place, by name) for checked arguments."""
        values = {**{name: fill() for name, fill in self.fills.items() if name not in values}, **values}
        if not self.placed:
            return (), values
        own = {name: value for name, value in values.items() if name in self.signature.parameters and name != self.rest}
        if self.rest:
            own[self.rest] = {name: value for name, value in values.items() if name not in own}
        bound = inspect.BoundArguments(self.signature, OrderedDict(own))
        bound.apply_defaults()
        return bound.args, bound.kwargs


def callee_of(function: Callable[..., Any]) -> Callee:
    """How a function that `tool_of` took is called."""
    signature, hints = inspect.signature(function), _hints(function)
    arguments = signature.parameters.values()
    said = {one.name: hint_of(one, hints.get(one.name, Any)) for one in arguments}
    fills = {name: hint.fill for name, hint in said.items() if hint.fill is not None}
    rest = next((one.name for one in arguments if one.kind is one.VAR_KEYWORD), "")
    return Callee(signature, fills, any(one.kind in _NOT_BY_NAME for one in arguments), rest)


def tool_of(
    name: str, function: Callable[..., Any], kind: Kind, produces: tuple[str, ...], where: str, known: Mapping[str, Any] | None = None
) -> Tool:
    """The tool that a bound method or function is. where: how messages call it. known: types of arguments that count more than what
    the function says. Raises BadInput when it cannot be called with JSON arguments.

    Arguments that a function takes by place alone are given by their name too; `*names` is one argument, a list, and `**more` stands
    for arguments of any name.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise BadInput(
            f"{where}: yields its answer piece by piece, and a tool gives one. Offer a method that returns it, such as list(...) of "
            "what it yields, or leave it out with tools=(...)."
        )
    try:
        signature, hints = inspect.signature(function), _hints(function)
    except Exception as error:  # annotations are code of somebody's
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
    more: dict[str, Any] = {"additionalProperties": False}
    rest: Check | None = None
    for argument in signature.parameters.values():
        said = hint_of(argument, {**hints, **(known or {})}.get(argument.name, Any))
        place = f"{where}: argument {argument.name!r}"
        hint = GenericAlias(list, (said.type,)) if argument.kind is argument.VAR_POSITIONAL else said.type
        schema, check = _typed(hint, place)
        for defined, meaning in schema.pop("$defs", {}).items():
            if definitions.setdefault(defined, meaning) != meaning:
                raise BadInput(f"{place}: another argument has a type of the same name {defined!r}. Rename one.")
        if argument.kind is argument.VAR_KEYWORD:
            more, rest = {"additionalProperties": schema or True}, check
            continue
        described = about.get(argument.name) or said.description
        properties[argument.name] = {**schema, **({"description": described} if described else {})}
        checks[argument.name] = (check, said.required)
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [name for name, (_, required) in checks.items() if required],
        **more,
        **({"$defs": definitions} if definitions else {}),
    }
    return Tool(name, summary, parameters, kind, produces, tuple(checks), by_name(checks, rest))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(function, include_extras=True)


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of defaults that JSON cannot say: the schema is without them
            schema = untitled(adapter.json_schema(ref_template="#/$defs/{model}"))
    except Exception as error:  # of many kinds: a type may be code of somebody's
        first = (str(error).splitlines() or [type(error).__name__])[0]
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
