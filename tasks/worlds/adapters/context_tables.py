"""The tables in a state of unknown shape: mappings and lists of rows, wherever they stand, without what a framework keeps in them.

A mapping is a table when its keys look like ids, when its rows repeat their keys, or when three rows or more have a field in common
that is no table itself; a list is one when it holds objects with a field in common. What is larger than a context may be is looked
into rather than taken as a row. Cost: linear in the state.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BYTES_PER_TOKEN = 3
"""Bytes of JSON that a token stands for; ours, on the careful side: tokenizers need one for 3 to 4."""
LONGEST_ID = 80
"""Characters of the longest text that may be an id; ours."""
_MOST = 0.8
"""Share of keys that must look like ids for a mapping to be a table; ours."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d|\d{1,2}:\d\d")
_NUMBER = re.compile(r"[\d.,:+\s-]+")
_FRAMEWORK = re.compile(r"__.*__|\(type\)|\(up\)")


@dataclass(frozen=True)
class Table:
    """Rows of one kind. path: names from the state to it. rows: key -> row, in the state's order. listed: whether the state has a
    list here. id: field of a listed row that its key was taken from, "" for its place in the list."""

    path: tuple[str, ...]
    rows: Mapping[str, Any]
    listed: bool = False
    id: str = ""

    @property
    def name(self) -> str:
        """The path with dots."""
        return ".".join(self.path)


def looks_like_id(value: str) -> bool:
    """Whether a text could hardly be anything but an id: letters with digits, a long number, an address with @."""
    if not 2 <= len(value) <= LONGEST_ID or _TIME.match(value):
        return False
    if _NUMBER.fullmatch(value):
        return sum(letter.isdigit() for letter in value) >= 5 and "." not in value
    return "@" in value or any(letter.isdigit() for letter in value)


def size(value: Any) -> int:
    """Bytes of a value as JSON."""
    return len(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))


def cleaned(value: Any) -> Any:
    """The value without what a framework keeps in it (`__pydantic_fields_set__`, types), and keys that are no text as plain words."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not _FRAMEWORK.fullmatch(key)}
        names = {key: plain_key(key) for key in kept}
        unique = len(set(names.values())) == len(names)
        return {names[key] if unique else key: cleaned(item) for key, item in kept.items()}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    return value


def plain_key(key: str) -> str:
    """A key as people write it: `plain_data` puts keys that are no text in brackets."""
    if not (key.startswith("(") and key.endswith(")")):
        return key
    try:
        inside = json.loads(key[1:-1])
    except ValueError:
        return key
    return inside if isinstance(inside, str) else json.dumps(inside, ensure_ascii=False)


def tables_of(state: Any, longest_row: int, forced: tuple[str, ...] | None = None) -> tuple[list[Table], dict[tuple[str, ...], Any]]:
    """(the tables of a cleaned state, the values outside of them by path). longest_row: bytes that rows have at most on average.
    forced: path of a mapping or list that is a table whatever it looks like."""
    tables: list[Table] = []
    loose: dict[tuple[str, ...], Any] = {}
    _find(state, (), longest_row, forced, tables, loose)
    known = {key for table in tables if not table.listed for key in table.rows}
    for path, value in list(loose.items()):  # such as scores by user
        if isinstance(value, dict) and len(value) > 2 and sum(key in known for key in value) >= _MOST * len(value):
            tables.append(Table(path, loose.pop(path)))
    return tables, loose


def _find(
    value: Any,
    path: tuple[str, ...],
    longest: int,
    forced: tuple[str, ...] | None,
    tables: list[Table],
    loose: dict[tuple[str, ...], Any],
) -> None:
    above = forced is not None and len(path) < len(forced) and forced[: len(path)] == path
    if value and (path == forced or (not above and is_table(value) and size(value) / len(value) <= longest)):
        tables.append(_table(path, value))
    elif isinstance(value, dict) and (above or any(isinstance(item, dict | list) for item in value.values())):
        for key, item in value.items():
            _find(item, (*path, key), longest, forced, tables, loose)
    else:
        loose[path] = value


def rows_at(state: Any, path: tuple[str, ...]) -> dict[str, Any]:
    """The rows of the table at a path of a state, by key, as `tables_of` gives them; {} when there is none."""
    found = cleaned(state)
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return dict(_table(path, found).rows) if isinstance(found, dict | list) else {}


def _table(path: tuple[str, ...], value: Any) -> Table:
    if isinstance(value, dict):
        return Table(path, value)
    named = _id_field(value, words_of(path[-1]) if path else [])
    return Table(path, {str(row[named]) if named else str(place): row for place, row in enumerate(value)}, True, named)


def _id_field(rows: Sequence[Any], table: Sequence[str]) -> str:
    """The field whose value names each of the rows, "" for none: called id, or after the table, or as ids are. table: its words."""
    if not all(isinstance(row, dict) for row in rows):
        return ""
    found = [field for field in rows[0] if _names_all(rows, field)] if rows else []
    return min(
        found, key=lambda field: (field.lower() != "id", not set(words_of(field)) & set(table), not is_id_name(field)), default=""
    )


def _names_all(rows: Sequence[Mapping[str, Any]], field: str) -> bool:
    values = [row.get(field) for row in rows]
    if any(not isinstance(value, str | int) or isinstance(value, bool) or value == "" for value in values):
        return False
    names = {str(value) for value in values}
    return len(names) == len(rows) and (is_id_name(field) or sum(map(looks_like_id, names)) >= _MOST * len(names))


def is_table(value: Any) -> bool:
    """Whether a mapping or list holds rows of one kind."""
    if not isinstance(value, dict | list) or not value:
        return False
    rows = list(value.values()) if isinstance(value, dict) else value
    if isinstance(value, dict):
        if sum(map(looks_like_id, value)) >= _MOST * len(value):
            return True
        if all(isinstance(row, dict) and key in _texts(row.values()) for key, row in value.items()):
            return True
        if len(rows) < 3:
            return False
    if not all(isinstance(row, dict) for row in rows):
        return False
    fields = Counter(field for row in rows for field in row)
    common = [field for field, count in fields.items() if count == len(rows) and not looks_like_id(field)]
    return any(not all(_holds_rows(row[field]) for row in rows) for field in common)


def _holds_rows(value: Any) -> bool:
    """Whether a value is a collection of objects: what only holds such is a folder of tables."""
    return isinstance(value, dict | list) and all(
        isinstance(item, dict | list) for item in (value.values() if isinstance(value, dict) else value)
    )


def _texts(values: Iterable[Any]) -> set[str]:
    return {str(value) for value in values if isinstance(value, str | int)}


def words_of(name: str) -> list[str]:
    """The words of a name in snake or camel case, in lower case, each in the singular."""
    parts = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    return [singular(part.lower()) for part in parts]


def singular(word: str) -> str:
    """An English noun without its plural's ending."""
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("ss", "ss"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + instead
    return word


_ID_WORDS = frozenset({"id", "key", "code", "number", "no", "uuid", "guid", "ref", "reference", "email", "username", "badge", "sku"})


def is_id_name(name: str) -> bool:
    """Whether a field of this name holds an id by custom."""
    return bool(words := words_of(name)) and words[-1] in _ID_WORDS


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of a row that holds no others, with its place; keys that look like ids are values at KEY and stand as ANY in the
    places below, entries of lists as ITEM."""
    if isinstance(value, dict):
        for key, item in value.items():
            if looks_like_id(key):
                yield (*path, KEY), key
                yield from leaves(item, (*path, ANY))
            else:
                yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, (*path, ITEM))
    else:
        yield path, value


KEY, ANY, ITEM = "(key)", "(any)", "[]"
