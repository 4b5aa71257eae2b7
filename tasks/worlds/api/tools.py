"""Tools: typed Python methods with Google docstrings, from which the JSON schema is derived, and the strict check of a call.

A world marks its methods with `@read`, `@write` or `@end`. Supported argument types: str, int, float, bool, Literal of strings
or integers, list of one of these, and `| None` for optional ones. Anything else is refused when the world is loaded, because a
schema that says less than the function means would let a model's output through unchecked.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import Kind
from tasks.worlds.api.places import place

Function = TypeVar("Function", bound=Callable[..., Any])
Check = Callable[[Any], Any]
"""Takes a JSON value, returns it in canonical form, or raises `Refused` saying what is wrong with it."""


COMPARED = 100
"""Characters of a name that is compared with the known ones; ours: the comparison takes time with the square of the length."""


class Refused(Exception):
    """A call that is refused: bad arguments, or a rule of the API. The message is what the agent reads."""


class Unreachable(Exception):
    """What stands behind a world's tools cannot be reached or started any more, so that no call of any conversation can be answered.
    The message says what it is and what to do."""


@dataclass(frozen=True)
class Tool:
    """One tool. parameters: JSON schema of the arguments. produces, consumes: types of ids and values that its answer gives
    and its arguments need (the edges of the API graph). check: takes the arguments, an object, and gives them in canonical form.
    notes: what is not checked as the schema says, and why; a world's own tools have none."""

    name: str
    description: str
    parameters: dict[str, Any]
    kind: Kind
    produces: tuple[str, ...]
    consumes: tuple[str, ...]
    check: Check
    notes: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """The tool in the OpenAI shape."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    def validate(self, arguments: Any) -> dict[str, Any]:
        """The arguments in canonical form, in the order of the schema; raises Refused on the first mistake."""
        if not isinstance(arguments, dict):
            raise Refused("arguments must be a JSON object")
        clean: dict[str, Any] = self.check(arguments)
        return clean


def by_name(checks: Mapping[str, tuple[Check, bool]], rest: Check | None = None) -> Check:
    """The check of arguments that are checked each by itself: name -> (check, whether it is required).

    rest: the check of arguments of any other name; without one they are refused.
    """

    def check_all(arguments: dict[str, Any]) -> dict[str, Any]:
        others = [name for name in arguments if name not in checks]
        if others and rest is None:
            raise Refused(unknown_argument(others[0], checks))
        clean = {}
        for name, (check, required) in checks.items():
            if name in arguments:
                clean[name] = _checked(name, check, arguments[name])
            elif required:
                raise Refused(f"argument {name!r} is missing")
        for name in others:
            clean[name] = _checked(name, rest, arguments[name])  # type: ignore[arg-type]
        return clean

    return check_all


def unknown_argument(name: str, known: Iterable[str]) -> str:
    """What is said of an argument that there is not."""
    known = tuple(known)
    return f"unknown argument {name!r}.{nearest(name, known) if len(name) <= COMPARED else ''} Known: {', '.join(known)}"


def _checked(name: str, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except Refused as error:
        raise Refused(f"argument {name!r} {error}") from None


def _mark(kind: Kind, produces: tuple[str, ...], consumes: tuple[str, ...] | None) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        function.__dict__["cairn_tool"] = (kind, produces, consumes)
        return function

    return decorate


def read(*, produces: tuple[str, ...] = (), consumes: tuple[str, ...] | None = None) -> Callable[[Function], Function]:
    """A tool that only looks; a write to the state inside it is refused. consumes: by default the argument names."""
    return _mark("read", produces, consumes)


def write(*, produces: tuple[str, ...] = (), consumes: tuple[str, ...] | None = None) -> Callable[[Function], Function]:
    """A tool that changes the state."""
    return _mark("write", produces, consumes)


def end(*, produces: tuple[str, ...] = (), consumes: tuple[str, ...] | None = None) -> Callable[[Function], Function]:
    """A tool that ends the conversation (hands over to a person); it changes nothing."""
    return _mark("end", produces, consumes)


def tools_of(world: type) -> dict[str, Tool]:
    """Every tool of a world class, by name, in the order of their definition.

    Raises BadInput with every mistake of every tool on a line of its own, each with its file and line.
    """
    if (foreign := getattr(world, "FOREIGN", None)) is not None:  # tasks.worlds.adapters: tools that nobody marked
        return dict(foreign.tools())
    found: dict[str, Tool] = {}
    wrong: list[str] = []
    for name, member in marked(world).items():
        found[name] = _tool(world, name, member, wrong)
    if wrong:
        raise BadInput("\n".join(wrong))
    if not found and not hasattr(world, "HUMAN"):  # which is all that there is to act on
        raise BadInput(f"world {world.__name__}: no tools. Decorate methods with @read, @write or @end of tasks.worlds.api.tools.")
    return found


def marked(world: type) -> dict[str, Callable[..., Any]]:
    """The methods of a world class that are marked as tools, by name, in the order of their definition."""
    members = [(name, member) for base in reversed(world.__mro__) for name, member in vars(base).items()]
    return {name: member for name, member in members if hasattr(member, "cairn_tool")}


def _tool(world: type, name: str, function: Callable[..., Any], wrong: list[str]) -> Tool:
    """One tool; what is wrong with it goes to `wrong`."""
    kind, produces, consumes = function.__dict__["cairn_tool"]

    def mistake(text: str, argument: str = "") -> None:
        about = f": argument {argument!r}" if argument else ":"
        wrong.append(f"tool {world.__name__}.{name} ({place(function, argument)}){about} {text}")

    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        mistake("is async or yields. Make it a plain function that returns its answer.")
    summary, about = docstring(inspect.getdoc(function) or "")
    if not summary:
        mistake("no docstring. Write one line on what the tool does, and an 'Args:' section.")
    try:
        hints = get_type_hints(function)
    except Exception as error:  # an annotation is code of the user's
        mistake(f"its type hints cannot be read ({error}). Import the names that they use.")
        hints = {}
    properties: dict[str, Any] = {}
    checks: dict[str, tuple[Check, bool]] = {}
    arguments = list(inspect.signature(function).parameters.values())[1:]
    for argument in arguments:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD, argument.POSITIONAL_ONLY):
            mistake("is no argument that can be given by name. Spell each argument out.", argument.name)
            continue
        if argument.name not in about and summary:
            mistake("is not described under 'Args:'. Add a line for it.", argument.name)
        if argument.name not in hints:
            mistake(f"has no type hint. {_ALLOWED}", argument.name)
            continue
        try:
            schema, check = schema_of(hints[argument.name])
        except BadInput as error:
            mistake(str(error), argument.name)
            continue
        properties[argument.name] = {**schema, "description": about.get(argument.name, "")}
        checks[argument.name] = (check, argument.default is inspect.Parameter.empty)
    for described in about:
        if described not in {argument.name for argument in arguments}:
            mistake(f"'Args:' describes {described!r}, which is no argument.{nearest(described, [one.name for one in arguments])}")
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [name for name, (_, required) in checks.items() if required],
        "additionalProperties": False,
    }
    return Tool(name, summary, parameters, kind, produces, tuple(checks) if consumes is None else consumes, by_name(checks))


def docstring(text: str) -> tuple[str, dict[str, str]]:
    """Summary (everything before the first section, on one line) and the Args section, argument -> text."""
    head, _, rest = text.partition("\nArgs:\n")
    summary = " ".join(re.split(r"\n(?:Returns|Raises):\n", head)[0].split())
    about: dict[str, str] = {}
    last = ""
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        if found := re.match(r"^ {2,4}(\w+)(?: \([^)]*\))?: (.+)$", line):
            last = found[1]
            about[last] = found[2].strip()
        elif last and line.strip():
            about[last] += " " + line.strip()
    return summary, about


def _text(value: Any) -> Any:
    if type(value) is not str:
        raise Refused(f"must be a string, got {value!r}")
    return value


def _integer(value: Any) -> Any:
    if type(value) is float and value.is_integer():
        return int(value)  # JSON has one kind of number: 2.0 is the integer 2
    if type(value) is not int:
        raise Refused(f"must be an integer, got {value!r}")
    return value


def _number(value: Any) -> Any:
    if type(value) is float and value - value != 0.0:
        raise Refused("must be a finite number")
    if type(value) not in (int, float):
        raise Refused(f"must be a number, got {value!r}")
    return value


def _boolean(value: Any) -> Any:
    if type(value) is not bool:
        raise Refused(f"must be true or false, got {value!r}")
    return value


_PLAIN: dict[Any, tuple[str, Check]] = {
    str: ("string", _text),
    int: ("integer", _integer),
    float: ("number", _number),
    bool: ("boolean", _boolean),
}


_ALLOWED = "Allowed: str, int, float, bool, Literal, list of these, and '| None'."


def schema_of(hint: Any) -> tuple[dict[str, Any], Check]:
    """JSON schema and check of one type hint. Raises BadInput for any other than the supported ones."""
    if hint in _PLAIN:
        name, check = _PLAIN[hint]
        return {"type": name}, check
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _choice(inner)
    if origin is list and len(inner) == 1:
        schema, check = schema_of(inner[0])
        return {"type": "array", "items": schema}, _list_of(check)
    if origin in (Union, types.UnionType) and len(inner) == 2 and type(None) in inner:
        schema, check = schema_of(next(kind for kind in inner if kind is not type(None)))
        return {"anyOf": [schema, {"type": "null"}]}, _optional(check)
    raise BadInput(f"has type {getattr(hint, '__name__', hint)}. {_ALLOWED}")


def _choice(values: tuple[Any, ...]) -> tuple[dict[str, Any], Check]:
    kinds = {type(value) for value in values}
    if len(kinds) != 1 or not kinds <= {str, int}:
        raise BadInput(f"has a Literal of {values}. It must hold strings only or integers only.")
    kind, plain = _PLAIN[kinds.pop()]

    def check(value: Any) -> Any:
        value = plain(value)
        if value not in values:
            raise Refused(f"must be one of {', '.join(map(str, values))}, got {value!r}")
        return value

    return {"type": kind, "enum": list(values)}, check


def _list_of(check: Check) -> Check:
    def check_all(value: Any) -> Any:
        if type(value) is not list:
            raise Refused(f"must be a list, got {value!r}")
        return [check(item) for item in value]

    return check_all


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)
