"""What foreign state looks like as JSON: plain data out of any Python values, and the difference between two of them.

Objects become their attributes with their type's name, sets sorted lists, enum members and times text, NumPy's values Python's;
numbers, decimals included, are left to the canonical form of `tasks.contract.values`. An object that holds one of its own holders (a
folder with its parent) is shown there as the number of levels up, so that cycles end. What has no attributes and no value (a function,
a lock, an open file) is refused by its place: a state that is compared must be made of values.

An answer is shown as JSON libraries would write it, without what is private: the value of an enum member, a pydantic model as it
dumps itself, keys as JSON has them.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import functools
import hashlib
import json
from collections import deque
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import PurePath
from random import Random
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any
from uuid import UUID

from tasks.contract.values import whole_text
from tasks.worlds.adapters.answers import clear
from tasks.worlds.api.state import canonical_json

TYPE, UP = "(type)", "(up)"
_NO_VALUES = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


class NotPlain(TypeError):
    """A value that is no data. The message names its place and type."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind, self.place = kind, ""

    def under(self, name: str) -> NotPlain:
        """The same, seen from one level up."""
        self.place = name + self.place
        return self

    def __str__(self) -> str:
        return f"{self.place.lstrip('.') or 'the value'} holds {self.kind}"


@dataclass(frozen=True)
class View:
    """How values are shown. leave_out: patterns (`*`, `?`) of names of attributes and keys that are not. inside: whether an object
    shows its type and its private attributes too."""

    leave_out: tuple[str, ...] = ()
    inside: bool = True

    def plain(self, value: Any) -> Any:
        """The value as JSON (and decimals). Raises NotPlain for what is no data, or lies deeper than Python can follow."""
        try:
            return self._plain(value, {})
        except RecursionError:
            raise NotPlain("more levels than can be compared") from None

    def _plain(self, value: Any, above: dict[int, int]) -> Any:
        kind = type(value)
        if kind is str:
            return whole_text(value)
        if value is None or kind is int or kind is bool:
            return value
        if kind is float:
            return self._number(value)
        if kind not in (dict, list) and (simple := self._simple(value)) is not None:
            return simple
        if id(value) in above:
            return {UP: len(above) - above[id(value)]}
        above[id(value)] = len(above)
        try:
            return self._nested(value, above)
        finally:
            del above[id(value)]

    def _number(self, value: float) -> Any:
        if value - value == 0.0:
            return value
        return f"({value})" if self.inside else clear(value)

    def _simple(self, value: Any) -> Any:
        """The form of values that hold no others; None for all others."""
        if isinstance(value, enum.Enum) and not self.inside:
            return self.plain(value.value)  # what the tools that take one are given
        if isinstance(value, bytes | bytearray) and not self.inside:
            with contextlib.suppress(UnicodeDecodeError):
                return value.decode()
        if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
            return self.plain(value.tolist())
        simple = _simple(value)
        return self._number(simple) if isinstance(simple, float) else whole_text(simple) if isinstance(simple, str) else simple

    def _nested(self, value: Any, above: dict[int, int]) -> Any:
        if type(value) is dict or isinstance(value, Mapping):  # the first is much faster
            return self._named(zip(self._keys(value), value.values(), strict=True), above)
        if isinstance(value, list | tuple | deque | ValuesView | ItemsView):
            return [self._at(f"[{place}]", item, above) for place, item in enumerate(value)]
        if isinstance(value, set | frozenset | KeysView):
            return sorted((self._at("{}", item, above) for item in value), key=canonical_json)
        if not self.inside and hasattr(type(value), "__pydantic_serializer__"):
            with contextlib.suppress(Exception):  # it holds what pydantic cannot write: then its attributes are shown
                return self._plain(value.model_dump(mode="json"), above)
        found = attributes(value)
        if found is None:
            raise NotPlain(f"a {type(value).__qualname__}, which is no data")
        if self.inside:
            return {TYPE: type(value).__qualname__, **self._named(found.items(), above)}
        public = {name: item for name, item in found.items() if not name.startswith("_")}
        if found and not public:
            return whole_text(_words(value))
        return self._named(public.items(), above)

    def _keys(self, fields: Mapping[Any, Any]) -> list[str]:
        """Names of an object's fields: in an answer as JSON has them, unless two would be one."""
        if not self.inside:
            names = [_json_key(key) for key in fields]
            if len(set(names)) == len(names):
                return names
        return [_key(key) for key in fields]

    def _named(self, items: Iterable[tuple[str, Any]], above: dict[int, int]) -> dict[str, Any]:
        out = self.leave_out
        return {name: self._at(name, item, above) for name, item in items if not out or not _matches(out, name)}

    def _at(self, name: str, value: Any, above: dict[int, int]) -> Any:
        try:
            return self._plain(value, above)
        except NotPlain as error:
            raise error.under(name if name[:1] in "[{" else f".{name}") from None


@functools.lru_cache(maxsize=65_536)
def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _simple(value: Any) -> Any:
    """The form of values that hold no others; None for all others."""
    if isinstance(value, Decimal):
        return value if value.is_finite() else f"({value})"
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, bool | int | float | str):  # subclasses: the plain value counts
        return next(kind(value) for kind in (int, float, str) if isinstance(value, kind))
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if value is Ellipsis:
        return "..."
    if isinstance(value, bytes | bytearray):
        return f"(bytes {value.hex()})"
    if isinstance(value, PurePath | UUID | Fraction | complex | range):
        return str(value)
    if isinstance(value, Random):
        return f"(random {hashlib.blake2b(repr(value.getstate()).encode(), digest_size=8).hexdigest()})"
    return None


def _words(value: Any) -> str:
    """What an object says of itself whose attributes are all private."""
    kind: Any = type(value)
    if (kind.__str__, kind.__repr__) == (object.__str__, object.__repr__):
        raise NotPlain(f"a {kind.__qualname__}, which shows nothing of itself: no public attribute and no text")
    return str(value)


def _json_key(key: Any) -> str:
    if isinstance(key, str):
        return whole_text(key.value if isinstance(key, enum.Enum) else str(key))
    if isinstance(key, int | float) or key is None:
        return json.dumps(key)
    return _key(key)


def _key(key: Any) -> str:
    """Names stay as they are; other keys, and names that look like them, are put in brackets, so that 1 and "1" differ."""
    if type(key) is str and not key.startswith("("):
        return whole_text(key)
    return f"({canonical_json(View().plain(key))})"


def attributes(value: Any) -> dict[str, Any] | None:
    """Attributes of an object by name, slots included; None when it has none, or is code."""
    if isinstance(value, _NO_VALUES) or callable(getattr(value, "__next__", None)):
        return None
    slots = [name for base in type(value).__mro__ for name in _slots(base)]
    if not slots and not hasattr(value, "__dict__"):
        return None
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    found.pop("__pydantic_fields_set__", None)  # which fields were named when it was made: equal models differ in it
    for more in ("__pydantic_extra__", "__pydantic_private__"):
        found.update(found.pop(more, None) or {})
    return {**found, **getattr(value, "__dict__", {})}


def _slots(base: type) -> Iterator[str]:
    declared = vars(base).get("__slots__", ())
    for name in (declared,) if isinstance(declared, str) else declared:
        if name not in ("__dict__", "__weakref__"):
            yield f"_{base.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name


def text_diff(before: str, after: str, most: int | None = None) -> str:
    """Two canonical JSON texts compared, one line per place: '- ' before, '+ ' after. most: number of lines."""
    return "\n".join(list(_lines(json.loads(before), json.loads(after), ""))[:most]) if before != after else ""


_ABSENT: Any = object()


def _lines(old: Any, new: Any, place: str) -> Iterator[str]:
    if type(old) is type(new) and isinstance(old, dict | list):
        parts = ((f"{place}{name}", one, other) for name, one, other in _pairs(old, new))
        for name, one, other in parts:
            yield from _lines(one, other, name)
    elif old != new or type(old) is not type(new):
        shown = place.lstrip(".") or "state"
        for sign, value in (("-", old), ("+", new)):
            if value is not _ABSENT:
                yield f"{sign} {shown}: {canonical_json(value)}"


def _pairs(old: Any, new: Any) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(old, dict):
        return ((f".{key}", old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in sorted({*old, *new}))
    long = range(max(len(old), len(new)))
    return ((f"[{place}]", *(side[place] if place < len(side) else _ABSENT for side in (old, new))) for place in long)
