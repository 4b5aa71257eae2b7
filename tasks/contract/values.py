"""The values that rows hold: JSON, and besides it sets and decimals; frozen for sharing, canonical for hashing, tagged for files.

Frozen: objects are `Row`, arrays are tuples, sets are frozensets; numbers, text, true, false, null and `Decimal` stay what they are.
A world gets back what it stored, in this form.

Canonical: one JSON form per value, which is hashed and compared. Equal numbers are one number: 25, 25.0 and Decimal("25.0") are 25,
and Decimal("0.1") is the float that is written 0.1; true is no number. A set is {"$set": [its members, sorted]}, so it equals no
array; a decimal that no float is written as is {"$decimal": "its digits"}. For plain JSON this is the form it always had.

Tagged: JSON that comes back as the very value (`tagged`, `untagged`): sets and decimals carry the same tags. An object that looks like
a tag by itself is put into {"$object": ...}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, NoReturn

DEPTH = 64
"""Levels of nesting of a row or of a call's arguments; ours: no tool needs more, and Python's own limit is never met."""
BITS = 1024
"""Size of an integer: larger ones lie beyond the range of a double, which is the range that JSON numbers can rely on."""
DIGITS = 308
"""The same bound for decimals, as a power of ten."""
UNREADABLE = "unreadable"
"""The one argument of a call whose arguments a model wrote as something else than a JSON object: it holds what was written."""
TAGS = frozenset({"$set", "$decimal", "$object"})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def no_constant(name: str) -> NoReturn:
    """For json's `parse_constant`: NaN and Infinity, which Python reads, are no JSON."""
    raise ValueError(f"{name} is not JSON")


STRICT_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=no_constant)
"""Reads what a model wrote: ValueError for NaN and Infinity, and for a key that occurs twice."""

_dump = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def whole_text(text: str) -> str:
    """Text that any file can hold: two halves of a character that stand side by side become the character they make, a lone one the
    sign for what is lost."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Row(dict[str, Any]):
    """A JSON object that cannot be changed in place: rows are shared between forks. Change it with `State.update`."""

    __slots__ = ()

    def __init__(self, fields: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        dict.__init__(self, {_name(key): frozen(value) for key, value in pairs})

    def _frozen(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("rows are shared and cannot be changed in place; use State.put or State.update")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _frozen

    def __reduce__(self) -> tuple[Any, ...]:
        return Row, (dict(self),)


def _name(key: Any) -> str:
    if type(key) is not str:
        raise TypeError(f"keys must be strings, got {type(key).__name__}")
    return _text(key)


def _text(value: str) -> str:
    if not value.isascii() and (wrong := half_character(value)):
        raise ValueError(f"text with {wrong}")
    return value


def half_character(text: str) -> str:
    r"""What is wrong with text that no file can hold: "half a character (\ud83d)" for a lone surrogate, else ""."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half a character ({ascii(text[error.start])[1:-1]})"
    return ""


def frozen(value: Any, depth: int = DEPTH) -> Any:
    """The frozen form. Raises TypeError for what is neither JSON nor a set nor a decimal, ValueError for what no JSON file can hold:
    numbers that are not finite or too large, half characters, more than `depth` levels.
    """
    kind = type(value)
    if kind is str:
        return _text(value)
    if value is None or kind is bool:
        return value
    if kind is int or kind is float or kind is Decimal:
        return _finite(value)
    if depth <= 0 or (kind is Row and _deeper(value, depth)):
        raise ValueError(f"nested more than {DEPTH} levels deep")
    if kind is Row:  # the rest was checked when it was made
        return value
    if isinstance(value, Mapping):
        return row_of({_name(key): frozen(item, depth - 1) for key, item in value.items()})
    if kind is list or kind is tuple:
        return tuple([frozen(item, depth - 1) for item in value])
    if kind is set or kind is frozenset:
        return frozenset([frozen(item, depth - 1) for item in value])
    raise TypeError(f"only JSON values, sets and decimals can be kept, got {kind.__name__}")


def row_of(fields: Mapping[str, Any]) -> Row:
    """A row of values that are frozen already."""
    row = Row.__new__(Row)
    dict.__init__(row, fields)
    return row


def _deeper(value: Any, depth: int) -> bool:
    if isinstance(value, Row):
        return depth <= 0 or any(_deeper(item, depth - 1) for item in value.values())
    if isinstance(value, tuple | frozenset):
        return depth <= 0 or any(_deeper(item, depth - 1) for item in value)
    return False


def _finite(value: float | Decimal) -> Any:
    if isinstance(value, float):
        if value - value != 0.0:
            raise ValueError(f"{value!r} is not a JSON number")
    elif isinstance(value, int):
        if value.bit_length() > BITS:
            raise ValueError(f"an integer of {value.bit_length()} bits is larger than JSON numbers can be")
    elif not value.is_finite() or (value and value.adjusted() > DIGITS):
        raise ValueError(f"{value!r} is not a JSON number")
    return value


def canonical(value: Any) -> Any:
    """The canonical form. Raises ValueError for a number that is not finite."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        if value - value != 0.0:
            raise ValueError(f"{value!r} is not a JSON number")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return _escaped({key: canonical(item) for key, item in value.items()})
    if kind is list or kind is tuple:
        return [canonical(item) for item in value]
    if kind is set or kind is frozenset:
        members = {_dump(form): form for form in map(canonical, value)}
        return {"$set": [members[text] for text in sorted(members)]}
    return _number(value) if kind is Decimal else value


def _escaped(fields: dict[str, Any]) -> dict[str, Any]:
    return {"$object": fields} if len(fields) == 1 and not TAGS.isdisjoint(fields) else fields


def _number(value: Decimal) -> Any:
    if not value.is_finite():
        raise ValueError(f"{value!r} is not a JSON number")
    if value == value.to_integral_value():
        return int(value)
    near = float(value)
    if Decimal(repr(near)) == value:
        return near
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    kept = text.rstrip("0")
    return {"$decimal": f"{'-' * sign}{kept}E{int(exponent) + len(text) - len(kept)}"}


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces."""
    return _dump(canonical(value))


def tagged(value: Any) -> Any:
    """A value as JSON from which `untagged` makes it again; members of sets in canonical order."""
    if isinstance(value, Mapping):
        return _escaped({key: tagged(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return [tagged(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"$set": [tagged(item) for item in sorted(value, key=canonical_json)]}
    return {"$decimal": str(value)} if isinstance(value, Decimal) else value


def untagged(value: Any) -> Any:
    """The inverse of `tagged`, in frozen form. Raises ValueError for a tag that holds no such value."""
    if isinstance(value, Mapping):
        name = next(iter(value)) if len(value) == 1 else ""
        if name in TAGS:
            return _of_tag(name, value[name])
        return frozen({key: untagged(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(untagged(item) for item in value)
    return value


def _of_tag(name: str, inner: Any) -> Any:
    if name == "$set" and isinstance(inner, list):
        return frozenset(untagged(item) for item in inner)
    if name == "$object" and isinstance(inner, Mapping):
        return frozen({key: untagged(item) for key, item in inner.items()})
    if name == "$decimal" and isinstance(inner, str):
        with suppress(ArithmeticError):
            return _finite(Decimal(inner))
    raise ValueError(f"{name} holds {inner!r}, which is no value of that kind")


def unfit(arguments: Any) -> str:
    """Why no tool can take these arguments, or ""."""
    if not isinstance(arguments, dict):
        return "arguments must be a JSON object"
    try:
        frozen(arguments)
    except (TypeError, ValueError) as mistake:
        return f"arguments: {mistake}"
    return ""
