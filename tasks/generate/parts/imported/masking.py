"""Personal data in conversations, replaced by what it was and a number: "<email 1>".

The same value has the same number through the whole of a conversation, in what is said, in arguments and in answers, so that what an
agent copies it copies still. Patterns find what has a form of its own; `fields` masks the values of named arguments and of named keys
in answers, for names, streets and whatever else only its field tells. A mask is no proof: look at what came out.

A value of one or two letters is masked where its field stands, in arguments and in answers that are JSON, and stays where it is said:
as a word it would be found in every line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

PATTERNS = {
    "email": r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}",
    "card": r"\b(?:\d[ -]?){12,18}\d\b",
    "iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
    "ssn": r"\b\d{3}-\d{2}-\d{4}\b",
    "ip": r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
    "phone": r"(?<![\w#+])(?!\d{4}-\d\d-\d\d\b|\d{1,2}[./]\d{1,2}[./]\d{2,4}\b)"
    r"(?:\+\d{1,3}[ ./-]?(?:\(\d{1,5}\)[ ./-]?)?\d{2,5}|\(\d{2,5}\)|\d{2,5}(?=[ ./-]))(?:[ ./-]?\d{2,5}){1,4}(?!\w)",
}
"""Kind -> what has the form of it, in the order in which they are looked for. Each looks a bounded way ahead, and begins where a word
does: the time that a text takes grows with its length alone. (64, 63: the longest name and label of an address, RFC 5321.)"""
_MAYBE = re.compile(r"\d[\d ()./-]{5}|[A-Z]{2}\d\d")
"""What is in every text in which a pattern but the first finds anything; most texts have none of it."""
_QUOTED = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|\Z))', re.DOTALL)
_BREAK = re.compile(r"(\\[nrt])")
SHORTEST = 3
"""Length of the shortest value of a field that is masked wherever it is said, counted in bytes; a shorter one, such as initials, is
masked under its field alone; ours."""
PHONE = 7
"""Digits of the shortest phone number; ours."""


class Masks:
    """What is masked. kinds: of PATTERNS. fields: names of arguments and of keys in answers."""

    def __init__(self, kinds: Iterable[str], fields: Iterable[str] = ()) -> None:
        self._fields = {name.lower() for name in fields}
        chosen = [kind for kind in PATTERNS if kind in set(kinds)]
        self._pattern = re.compile("|".join(f"(?P<{kind}>{PATTERNS[kind]})" for kind in chosen)) if chosen else None

    def __bool__(self) -> bool:
        return bool(self._fields or self._pattern)

    def of(self, *values: Any) -> Mask:
        """The mask of one conversation. values: all JSON of it, in which fields are looked for."""
        return Mask(self._pattern, dict(self._named(values)) if self._fields else {}, self._fields)

    def _named(self, value: Any, field: str = "") -> Iterator[tuple[str, str]]:
        """(text, field) of every value that stands under one of the names."""
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from self._named(item, str(key).lower() if str(key).lower() in self._fields else field)
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from self._named(item, field)
        elif field and _tells(value):
            yield str(value), field
        elif (inside := _json_in(value)) is not None:
            yield from self._named(inside)


class Mask:
    """The mask of one conversation. found: how many different values of each kind it has replaced."""

    def __init__(self, pattern: re.Pattern[str] | None, named: Mapping[str, str], fields: Set[str]) -> None:
        self._pattern, self._fields = pattern, fields
        words = [_word(text) for text in sorted(named, key=len, reverse=True) if not _is_short(text)]
        self._has_short = any(map(_is_short, named))
        self._words = re.compile("|".join(words), re.IGNORECASE) if words else None
        self._known: dict[str, str] = {}
        self._by_case = {text.lower(): field for text, field in named.items() if not _is_short(text)}
        self.found: dict[str, int] = {}

    def text(self, text: str) -> str:
        """A text with its personal data replaced. What stands in quotes with escapes, as texts in JSON do, is read as it is meant:
        the n of a new line begins no word."""
        text = self._under_fields(text)
        if "\\" not in text:
            return self._plain(text)
        parts = _QUOTED.split(text)
        parts[1::2] = [self._quoted(part) for part in parts[1::2]]
        for place in range(0, len(parts), 2):
            parts[place] = "".join(self._plain(part) for part in _BREAK.split(parts[place]))
        return "".join(parts)

    def _quoted(self, literal: str) -> str:
        if "\\" not in literal:
            return self._plain(literal)
        try:
            said = json.loads(literal)
        except ValueError:
            return "".join(self._plain(part) for part in _BREAK.split(literal))
        shown = self.text(said)
        return literal if shown == said else json.dumps(shown, ensure_ascii=literal.isascii())

    def _plain(self, text: str) -> str:
        if self._words:
            text = self._words.sub(lambda match: self._name(match[0].lower(), self._by_case[match[0].lower()]), text)
        return self._formed(text)

    def _formed(self, text: str) -> str:
        if self._pattern and ("@" in text or _MAYBE.search(text)):
            return self._pattern.sub(self._replaced, text)
        return text

    def value(self, value: Any) -> Any:
        """JSON with the personal data in its texts replaced; of keys only what has a form of its own. A number that is masked becomes
        text."""
        return self._masked(self._under_fields(value))

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self._formed(str(key)): self._masked(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._masked(item) for item in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and str(value).lower() in self._by_case:
            return self.text(str(value))
        return value

    def _under_fields(self, value: Any, field: str = "") -> Any:
        """JSON, or a text that is JSON, with the short values under one of the fields replaced; itself where there are none."""
        if not self._has_short:
            return value
        if isinstance(value, Mapping):
            return {
                key: self._under_fields(item, str(key).lower() if str(key).lower() in self._fields else field)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self._under_fields(item, field) for item in value]
        if field and _tells(value):
            return self._name(str(value).lower(), field) if _is_short(str(value)) else value
        if (inside := _json_in(value)) is not None and (shown := self._under_fields(inside)) != inside:
            return json.dumps(shown, ensure_ascii=value.isascii())
        return value

    def _replaced(self, match: re.Match[str]) -> str:
        kind = str(match.lastgroup)
        if (kind == "card" and not _luhn(match[0])) or (kind == "phone" and sum(map(str.isdigit, match[0])) < PHONE):
            return match[0]
        return self._name(match[0], kind)

    def _name(self, text: str, kind: str) -> str:
        if text not in self._known:
            self.found[kind] = self.found.get(kind, 0) + 1
            self._known[text] = f"<{kind} {self.found[kind]}>"
        return self._known[text]


def _tells(value: Any) -> bool:
    """Whether what stands under a field can tell whose it is."""
    return value is not None and not isinstance(value, (bool, Mapping, list, tuple)) and str(value) != ""


def _is_short(text: str) -> bool:
    return len(text.encode()) < SHORTEST


def _json_in(value: Any) -> Any:
    """What a text says that is JSON; None for any other value, and for JSON that nests without end."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{", '"'):
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _word(text: str) -> str:
    """What a text is found by: whole words, but in scripts that have no spaces between them."""
    spaced = text.lower() != text.upper() or text.isascii()
    return rf"(?<!\w){re.escape(text)}(?!\w)" if spaced else re.escape(text)


def _luhn(text: str) -> bool:
    """Whether digits are a card's number: its last one is a checksum (ISO/IEC 7812)."""
    digits = [int(one) for one in reversed(text) if one.isdigit()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0
