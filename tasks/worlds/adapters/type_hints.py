"""Type hints as they stand in functions that nobody wrote for a world: what they say besides the type, and old TypedDicts.

`Annotated` carries a description as plain text or as `Doc`, and limits as pydantic's `Field` or the types of annotated_types. A
default may be a `Field` too, as frameworks for tools have it. A `typing.TypedDict` before Python 3.12 is refused by pydantic, since
it cannot always say which keys are required; here it becomes one of typing_extensions with the keys that it does say.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Optional, get_args, get_origin

import typing_extensions

_REQUIRED = (typing.Required, typing.NotRequired, typing_extensions.Required, typing_extensions.NotRequired)
_HOOK = "__get_pydantic_core_schema__"


@dataclasses.dataclass(frozen=True)
class Hint:
    """What a function says of one argument. type: with its limits. description: "" for none. fill: makes the value of an argument
    that is not given, when what stands in the signature is not the value itself."""

    type: Any
    description: str
    required: bool
    fill: Callable[[], Any] | None = None


def hint_of(argument: inspect.Parameter, hint: Any) -> Hint:
    """The hint of an argument with this annotation; `= None` makes it optional, as Python code has it everywhere."""
    hint, description = _described(hint)
    default, fill = argument.default, None
    if _is_field(default):
        field, default = default, argument.empty
        description = description or str(field.description or "")
        if not field.is_required():
            fill = functools.partial(field.get_default, call_default_factory=True)
            default = fill()
        if field.metadata:
            hint = Annotated[(hint, *field.metadata)]
    if default is None and hint is not Any:
        hint = Optional[hint]  # noqa: UP045 - built at run time
    for old in _old_dicts(hint, set()):
        setattr(old, _HOOK, classmethod(_by_the_new))
    gathers = argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
    return Hint(hint, description, default is argument.empty and not gathers, fill)


def _described(hint: Any) -> tuple[Any, str]:
    """The hint without what only describes it, and the description."""
    if get_origin(hint) is not Annotated:
        return hint, ""
    inner, *more = get_args(hint)
    texts = [one if isinstance(one, str) else getattr(one, "documentation", None) for one in more]
    texts += [one.description for one in more if _is_field(one)]
    kept = tuple(one for one in more if not isinstance(one, str) and not isinstance(one, typing_extensions.Doc))
    said = next((text for text in texts if isinstance(text, str) and text.strip()), "")
    return (Annotated[(inner, *kept)] if kept else inner), " ".join(said.split())


def _is_field(value: Any) -> bool:
    return f"{type(value).__module__}.{type(value).__qualname__}" == "pydantic.fields.FieldInfo"


# --- TypedDicts of typing before Python 3.12 ---


def _old_dicts(hint: Any, seen: set[int]) -> Iterator[Any]:
    """Every typing.TypedDict in a hint that pydantic refuses, also inside dataclasses, named tuples and other TypedDicts."""
    if sys.version_info >= (3, 12) or id(hint) in seen:
        return
    seen.add(id(hint))
    for inner in get_args(hint):
        yield from _old_dicts(inner, seen)
    if not isinstance(hint, type):
        return
    if typing_extensions.is_typeddict(hint) and type(hint).__module__ == "typing" and _HOOK not in vars(hint):
        yield hint
    if typing_extensions.is_typeddict(hint) or dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
        for inner in _hints(hint).values():
            yield from _old_dicts(inner, seen)


def _hints(kind: Any) -> Mapping[str, Any]:
    try:
        return typing_extensions.get_type_hints(kind, include_extras=True)
    except Exception:  # an annotation is code of somebody's; pydantic says what is wrong with it
        return {}


def _by_the_new(old: Any, source: Any, handler: Any) -> Any:
    """What pydantic asks of a class: how its values are checked."""
    return handler.generate_schema(_new(old))


def _new(old: Any) -> Any:
    """The TypedDict of typing_extensions that has the keys of one of typing."""
    known: Any = vars(old).get("__cairn_new__")
    if known is None:
        keys = {
            name: hint if get_origin(hint) in _REQUIRED or name in old.__required_keys__ else typing_extensions.NotRequired[hint]
            for name, hint in _hints(old).items()
        }
        make: Any = typing_extensions.TypedDict  # by a name that no checker of types can see
        known = make(old.__name__, keys)
        known.__module__, known.__doc__ = old.__module__, old.__doc__
        old.__cairn_new__ = known
    return known
