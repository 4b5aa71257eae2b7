"""What foreign state looks like as JSON: plain data out of any Python values.

Objects become their fields (`tasks.worlds.adapters.declared_fields`) with their type's name, sets sorted lists, enum members and times
text, NumPy's values Python's; numbers, decimals included, are left to the canonical form of `tasks.contract.values`. An object that
holds one of its own holders (a folder with its parent) is shown there as the number of levels up, so that cycles end. What has no
attributes and no value (a function, a lock, an open file) is refused by its place: a state that is compared must be made of values.

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
from collections.abc import Collection, ItemsView, Iterable, KeysView, Mapping, ValuesView
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import PurePath
from random import Random
from typing import Any
from uuid import UUID

from tasks.contract.params import BadInput
from tasks.contract.values import whole_text
from tasks.worlds.adapters.answers import clear
from tasks.worlds.adapters.declared_fields import attributes
from tasks.worlds.adapters.state_content import DEPTH, Path
from tasks.worlds.adapters.tracked_rows import Rows
from tasks.worlds.api.state import canonical_json

TYPE, UP = "(type)", "(up)"


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


class _Walk:
    """One walk through values. above: the holders of the present value -> how many are above them. lists: how many of them are lists.
    tables: ids of dicts that are shown as places -> their numbers; with_rest: (number, key) of the rows that stay in them; places:
    where they were found; inline: those that were found where they cannot stand as a place, and are shown there."""

    __slots__ = ("above", "inline", "lists", "places", "tables", "with_rest")

    def __init__(self, tables: Mapping[int, int], with_rest: Collection[tuple[int, Any]]) -> None:
        self.above: dict[int, int] = {}
        self.lists, self.tables, self.with_rest = 0, tables, with_rest
        self.places: dict[int, Path] = {}
        self.inline: set[int] = set()


@dataclass(frozen=True)
class View:
    """How values are shown.

    leave_out: patterns (`*`, `?`) of what is not: of names of attributes and keys, wherever they are ("*_at"), or of dotted paths as a
    difference shows them, where a list adds nothing ("orders.*.history.at").
    rounded: (pattern of the same two kinds, step): numbers there are shown as the nearest multiple of the step.
    inside: whether an object shows its type and its private attributes too.
    fitted: the patterns that something has fitted so far.
    """

    leave_out: tuple[str, ...] = ()
    inside: bool = True
    rounded: tuple[tuple[str, float], ...] = ()
    fitted: set[str] = field(default_factory=set, compare=False, repr=False)

    def plain(self, value: Any, path: Path = ()) -> Any:
        """The value as JSON (and decimals). path: the names above it. Raises NotPlain for what is no data, or lies deeper than Python
        can follow."""
        return self._whole(value, _Walk({}, ()), path)

    def frame(
        self, parts: Mapping[str, Any], tables: Mapping[int, int], with_rest: Collection[tuple[int, Any]]
    ) -> tuple[Any, dict[int, Path]]:
        """Objects by name ("" for one alone) as JSON, without the rows of the tables (id -> number) that names alone lead to, but for
        those in with_rest; and where each table stands that is found once, there. Raises NotPlain."""
        walk = _Walk(tables, with_rest)
        found = {name: self._whole(value, walk, (name,) if name else ()) for name, value in parts.items()}
        shown = {
            name: {key: item for key, item in one.items() if key != TYPE} if type(one) is dict else one for name, one in found.items()
        }
        return shown.get("", shown), {number: path for number, path in walk.places.items() if number not in walk.inline}

    def _whole(self, value: Any, walk: _Walk, path: Path) -> Any:
        try:
            return self._plain(value, walk, path)
        except RecursionError:
            raise NotPlain("more levels than can be compared") from None

    def _plain(self, value: Any, walk: _Walk, path: Path) -> Any:
        kind = type(value)
        if kind is str:
            return whole_text(value)
        if value is None or kind is bool or (kind is int and not self.rounded):
            return value
        if kind is float or kind is int:
            return self._number(value, path)
        if kind not in (dict, list) and (simple := self._simple(value, path)) is not None:
            return simple
        above = walk.above
        if id(value) in above:
            return {UP: len(above) - above[id(value)]}
        above[id(value)] = len(above)
        try:
            return self._nested(value, walk, path)
        finally:
            del above[id(value)]

    def _number(self, value: Any, path: Path) -> Any:
        if value - value != 0:
            return f"({value})" if self.inside else clear(value)
        for pattern, step in self.rounded:
            if _matches(pattern, path):
                self.fitted.add(pattern)
                return _nearest(value, step)
        return value

    def _simple(self, value: Any, path: Path) -> Any:
        """The form of values that hold no others; None for all others."""
        if isinstance(value, enum.Enum) and not self.inside:
            return self.plain(value.value)  # what the tools that take one are given
        if isinstance(value, bytes | bytearray) and not self.inside:
            with contextlib.suppress(UnicodeDecodeError):
                return value.decode()
        if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
            return self.plain(value.tolist(), path)
        simple = _simple(value)
        if isinstance(simple, float | Decimal):
            return self._number(simple, path)
        return whole_text(simple) if isinstance(simple, str) else simple

    def _nested(self, value: Any, walk: _Walk, path: Path) -> Any:
        kind = type(value)
        if kind is Rows or (kind is dict and walk.tables):
            return self._table(value, walk, path)
        if kind is dict or isinstance(value, Mapping):  # the first is much faster
            return self._named(zip(self._keys(value), value.values(), strict=True), walk, path)
        if isinstance(value, list | tuple | deque | ValuesView | ItemsView | set | frozenset | KeysView):
            walk.lists += 1
            try:
                if isinstance(value, set | frozenset | KeysView):
                    return sorted((self._at("{}", item, walk, path) for item in value), key=canonical_json)
                return [self._at(f"[{place}]", item, walk, path) for place, item in enumerate(value)]
            finally:
                walk.lists -= 1
        return self._object(value, walk, path)

    def _table(self, value: dict[Any, Any], walk: _Walk, path: Path) -> Any:
        """A dict, looked into past what counts its look-ups; one that is shown as a place holds its rows only by what is with the
        rest."""
        number = walk.tables.get(id(value))
        if number is None or walk.lists or not 0 < len(path) < DEPTH or number in walk.places:
            if number is not None:
                walk.inline.add(number)
            return self._named(zip(self._keys(value), dict.values(value), strict=True), walk, path)
        walk.places[number] = path
        kept = {key: item for key, item in dict.items(value) if (number, key) in walk.with_rest} if walk.with_rest else {}
        return self._named(zip(self._keys(kept), kept.values(), strict=True), walk, path)

    def _object(self, value: Any, walk: _Walk, path: Path) -> Any:
        if not self.inside and hasattr(type(value), "__pydantic_serializer__"):
            with contextlib.suppress(Exception):  # it holds what pydantic cannot write: then its attributes are shown
                return self._plain(value.model_dump(mode="json"), walk, path)
        found = attributes(value, every=not self.inside)
        if found is None:
            raise NotPlain(f"a {type(value).__qualname__}, which is no data")
        if self.inside:
            return {TYPE: type(value).__qualname__, **self._named(found.items(), walk, path)}
        public = {name: item for name, item in found.items() if not name.startswith("_")}
        if found and not public:
            return whole_text(_words(value))
        return self._named(public.items(), walk, path)

    def _keys(self, fields: Mapping[Any, Any]) -> list[str]:
        """Names of an object's fields: in an answer as JSON has them, unless two would be one."""
        if not self.inside:
            names = [_json_key(key) for key in fields]
            if len(set(names)) == len(names):
                return names
        return [key_text(key) for key in fields]

    def _named(self, items: Iterable[tuple[str, Any]], walk: _Walk, path: Path) -> dict[str, Any]:
        return {name: self._at(name, item, walk, (*path, name)) for name, item in items if not self.leaves_out((*path, name))}

    def leaves_out(self, path: Path) -> bool:
        """Whether what is at a path is not shown."""
        fits = [pattern for pattern in self.leave_out if _matches(pattern, path)]
        self.fitted.update(fits)
        return bool(fits)

    def unmet(self) -> dict[str, tuple[str, ...]]:
        """The patterns that nothing has fitted so far, by where they are declared: leave_out, rounded."""
        declared = {"leave_out": self.leave_out, "rounded": tuple(pattern for pattern, _ in self.rounded)}
        found = {word: tuple(one for one in patterns if one not in self.fitted) for word, patterns in declared.items()}
        return {word: patterns for word, patterns in found.items() if patterns}

    def _at(self, name: str, value: Any, walk: _Walk, path: Path) -> Any:
        try:
            return self._plain(value, walk, path)
        except NotPlain as error:
            raise error.under(name if name[:1] in "[{" else f".{name}") from None


def _matches(pattern: str, path: Path) -> bool:
    """Whether a pattern fits the last name of a path, or with dots all of its names."""
    if "." not in pattern:
        return bool(path) and _fits(pattern, path[-1])
    parts = pattern.split(".")
    return len(parts) == len(path) and all(map(_fits, parts, path))


@functools.lru_cache(maxsize=65_536)
def _fits(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern)


def _nearest(value: Any, step: float) -> Any:
    """The multiple of a step that is nearest to a number, written as the step is."""
    exact = Decimal(str(step))
    near = (Decimal(str(value)) / exact).to_integral_value() * exact
    return int(near) if near == near.to_integral_value() else float(near)


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
    return key_text(key)


def key_text(key: Any) -> str:
    """A dict's key as a name. Names stay as they are; other keys, and names that look like them, are put in brackets, so that 1 and "1"
    differ."""
    if type(key) is str and not key.startswith("("):
        return whole_text(key)
    return f"({canonical_json(View().plain(key))})"


def steps_of(where: str, rounded: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """`View.rounded` of what a world declares. Raises BadInput, which begins with `where`, for a step that is none."""
    for pattern, step in rounded.items():
        if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < float("inf"):
            raise BadInput(f"{where}: rounded[{pattern!r}] = {step!r} must be a number above 0: the step to which numbers there count.")
    return tuple(rounded.items())
