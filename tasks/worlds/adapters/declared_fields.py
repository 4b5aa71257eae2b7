"""The attributes of an object that are its values: the declared fields of a model, all attributes of any other object.

Models of pydantic (1 and 2), SQLModel, dataclasses and attrs say what their fields are; what their frameworks keep beside them (which
fields were named when the model was made, sessions, results of cached properties) is no part of them. A field that its model does not
compare (`field(compare=False)`, `attrs.field(eq=False)`) is no part of a state either.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

_NO_VALUES = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
_FRAMEWORKS = frozenset({"_sa_instance_state", "_sa_registry", "__fields_set__", "__pydantic_fields_set__"})
"""Names under which SQLAlchemy and pydantic keep what is theirs."""


def attributes(value: Any, every: bool = False) -> dict[str, Any] | None:
    """Attributes of an object by name, slots included; None when it has none, or is code. every: fields that are not compared too."""
    if isinstance(value, _NO_VALUES) or callable(getattr(value, "__next__", None)):
        return None
    slots = _slots(type(value))  # type: ignore[arg-type]
    if not slots and not hasattr(value, "__dict__"):
        return None
    cls = type(value)
    found = {name: getattr(value, name) for name in slots if name not in _FRAMEWORKS and hasattr(value, name)}
    for more in ("__pydantic_extra__", "__pydantic_private__"):
        found.update(found.pop(more, None) or {})
    fields = getattr(cls, "__pydantic_fields__", None)
    held = getattr(value, "__dict__", {})
    found.update(held if not isinstance(fields, dict) else {name: held[name] for name in fields if name in held})
    return {name: item for name, item in found.items() if name not in _left_out(cls, every)}  # type: ignore[arg-type]


@functools.lru_cache(maxsize=1024)
def _left_out(cls: type, every: bool) -> frozenset[str]:
    """Names that are no values of objects of a class."""
    computed = {name for base in cls.__mro__ for name, one in vars(base).items() if isinstance(one, functools.cached_property)}
    if every:
        return _FRAMEWORKS | computed
    if dataclasses.is_dataclass(cls):
        computed |= {one.name for one in dataclasses.fields(cls) if not one.compare}
    computed |= {one.name for one in getattr(cls, "__attrs_attrs__", ()) if not one.eq}
    return _FRAMEWORKS | computed


@functools.lru_cache(maxsize=1024)
def _slots(cls: type) -> tuple[str, ...]:
    return tuple(name for base in cls.__mro__ for name in _own_slots(base))


def _own_slots(base: type) -> Iterator[str]:
    declared = vars(base).get("__slots__", ())
    for name in (declared,) if isinstance(declared, str) else declared:
        if name not in ("__dict__", "__weakref__"):
            yield f"_{base.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
