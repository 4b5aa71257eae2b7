"""Rows at the edges of what a policy allows: where a task is hard, and where a random row hardly ever lies.

Three kinds, each with the reason that a prompt gives: a number (or how many rows of a table somebody has) within NEAR of one that the
policy names in a sentence about it; a value that few rows of the table have (a rare status), or that fewer than COMMON have and the
policy names in such a sentence (a status in which an order can no longer be cancelled); a date as far from today as the policy's
days, hours or weeks, or where nothing says what today is, the first and the last one. Beside them pairs of rows, of which one does not
cover the other (`tasks.worlds.adapters.context_cover`). Only rows that belong to one root alone count.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tasks.worlds.adapters.context_cover import uncovered
from tasks.worlds.adapters.context_links import Links, Place
from tasks.worlds.adapters.context_tables import ANY, ITEM, KEY, leaves, words_of

NEAR = 0.1
"""How far from a limit still is at it, as a share of the limit; whole numbers also one away. Ours."""
RARE = 0.05
"""Largest share of a table's rows that have a rare value; ours."""
COMMON = 0.3
"""Share of a column's rows from which being near a limit, or having a status that the policy names, is nothing special; ours."""
VALUES = 12
"""Most different values of a column that counts as a status; ours."""
ROWS = 8
"""Fewest rows of a table in which something can be rare; ours."""
_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBERS = {word: place for place, word in enumerate(_WORDS, 2)}
_ANY_NUMBER = "|".join((r"\d[\d,]*(?:\.\d+)?", *_WORDS))
_UNIT = r"(?:hour|hr|day|week|month|year)"
_NUMBER = re.compile(rf"(?<![\w.-])([$€£]?)({_ANY_NUMBER})(?![\w-]|\.\d)(?!(?:[ -]+[\w-]+){{0,3}}?[ -]+{_UNIT}s?\b)", re.IGNORECASE)
_SPAN = re.compile(rf"(?<![\w.-])({_ANY_NUMBER})[ -]*({_UNIT})s?\b", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?")
_HOURS = {"hour": 1, "hr": 1, "day": 24, "week": 168, "month": 730, "year": 8766}
_MONEY = frozenset({"amount", "total", "price", "balance", "cost", "fee", "payment", "refund", "value"})
_TODAY = frozenset({"now", "today", "current", "clock"})
_QUOTED = 160


@dataclass(frozen=True)
class Edge:
    """Rows at a limit. root: number of the root that they belong to. rows: their own."""

    root: int
    rows: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Limits:
    """All edges of a state, those of one reason together."""

    groups: Sequence[Sequence[Edge]]

    def draw(self, roots: frozenset[int], rng: Random) -> Edge | None:
        """An edge of one of these roots: first the reason is drawn, so that frequent ones hide no others."""
        order = list(range(len(self.groups)))
        rng.shuffle(order)
        for place in order:
            if found := [edge for edge in self.groups[place] if edge.root in roots]:
                return rng.choice(found)
        return None


@dataclass(frozen=True)
class _Rule:
    """A number that the policy names. words: those of its sentence."""

    number: float
    money: bool
    sentence: str
    words: frozenset[str]

    def near(self, value: float) -> bool:
        whole = float(value).is_integer() and self.number.is_integer()
        return abs(value - self.number) <= max(NEAR * abs(self.number), 1.0 if whole else 0.0)


def limits_of(links: Links, settings: Mapping[Place, Any], policy: str) -> Limits:
    """Every row at a limit of this policy."""
    owner = links.owners
    values: dict[tuple[int, Place], list[tuple[int, Any]]] = defaultdict(list)
    for number in owner:
        row = links.rows[number]
        for place, value in leaves(row.value):
            if KEY not in place:
                values[row.table, place].append((number, value))
    rules, today = list(_rules(policy)), _today(settings, policy)
    sentences = [(sentence, frozenset(words_of(sentence))) for sentence in _sentences(policy)]
    spans = [(_number(number) * _HOURS[unit.lower()], f"{number} {unit}s") for number, unit in _SPAN.findall(policy)]
    groups: list[list[Edge]] = []
    for (table, place), found in values.items():
        name = next((part for part in reversed(place) if part not in (KEY, ANY, ITEM)), "")
        said = f"of {links.tables[table].name or 'the state'} has {name or 'the value'}"
        about = frozenset(word for part in (*links.tables[table].path, *place) for word in words_of(part))
        for near in (
            _numbers(found, name, about, rules),
            _rare(found if set(place).isdisjoint((ANY, ITEM)) else [], name, sentences),
            _dates(found, today, spans),
        ):
            groups += [[_edge(links, owner, row, f"{said} {why}") for row, why in group] for group in near]
    groups += [[Edge(owner[row], (row,), why) for row, why in group] for group in _counts(links, owner, rules)]
    groups += [
        [Edge(owner[row], (row, holder), why) for row, holder, why in pairs] for pairs in uncovered(links, owner, values, NEAR, COMMON)
    ]
    return Limits([group for group in groups if group])


def _edge(links: Links, owner: Mapping[int, int], row: int, why: str) -> Edge:
    return Edge(owner[row], (row,), f"the row {links.rows[row].key!r} {why}")


def _rules(policy: str) -> Iterator[_Rule]:
    """The numbers that a policy names, but those of its own numbering, of dates and of times."""
    for sentence in _sentences(policy):
        words = frozenset(words_of(sentence))
        for sign, number in _NUMBER.findall(sentence):
            yield _Rule(_number(number), bool(sign) or "dollar" in words, _quoted(sentence), words)


def _sentences(policy: str) -> Iterator[str]:
    """The sentences of a policy, without its own numbering, dates and times."""
    for line in policy.splitlines():
        text = re.sub(r"^\W*[A-Z]?\d+[.)]\s", "", _DATE.sub("", re.sub(r"\d+:\d\d(:\d\d)?", "", line)))
        yield from re.split(r"(?<=[.;!?])\s", text)


def _quoted(sentence: str) -> str:
    return " ".join(sentence.split())[:_QUOTED]


def _number(text: str) -> float:
    return float(_NUMBERS.get(text.lower()) or text.replace(",", ""))


Near = Iterator[list[tuple[int, str]]]
"""Groups of (row, why), each of one reason."""


def _numbers(found: Sequence[tuple[int, Any]], name: str, about: frozenset[str], rules: Iterable[_Rule]) -> Near:
    """Numbers near one in a sentence with a word of the field's name, or about money of such a row. about: words of table and place."""
    numbers = [(row, value) for row, value in found if isinstance(value, int | float) and not isinstance(value, bool)]
    words = {word for word in words_of(name) if len(word) > 2}
    for rule in rules:
        if words & rule.words or (rule.money and words & _MONEY and about & rule.words):
            near = [(row, f"{value}, and the policy says: {rule.sentence}") for row, value in numbers if rule.near(value)]
            if len(near) <= COMMON * len(numbers):
                yield near


def _rare(found: Sequence[tuple[int, Any]], name: str, sentences: Iterable[tuple[str, frozenset[str]]]) -> Near:
    """Values that few rows have, and of those of less than COMMON the ones that a sentence with a word of the field's name names."""
    texts = [
        (row, value) for row, value in found if isinstance(value, str | bool) and not (isinstance(value, str) and _DATE.match(value))
    ]
    count = Counter(value for _, value in texts)
    if len(texts) == len(found) >= ROWS and 1 < len(count) <= VALUES:
        about = [sentence for sentence, words in sentences if words & set(words_of(name))]
        for value, times in count.items():
            why = f"{value!r}, which {times} of {len(texts)} have"
            if times > max(1, RARE * len(texts)):
                if times > COMMON * len(texts) or not (sentence := next((one for one in about if _names(one, value)), "")):
                    continue
                why += f", and the policy says: {_quoted(sentence)}"
            yield [(row, why) for row, one in texts if one == value]


def _names(sentence: str, value: str | bool) -> bool:
    """Whether a sentence names a status, as words of its own."""
    said = re.escape(str(value).replace("_", " ").strip())
    return isinstance(value, str) and bool(said) and bool(re.search(rf"(?<!\w){said}(?!\w)", sentence.replace("_", " "), re.IGNORECASE))


def _dates(found: Sequence[tuple[int, Any]], today: datetime.datetime | None, spans: Iterable[tuple[float, str]]) -> Near:
    dates = [(row, moment) for row, value in found if isinstance(value, str) and (moment := _moment(value))]
    if len(dates) < len(found) or len(dates) < ROWS:
        return
    if today is None:
        for word, chosen in (("first", min), ("last", max)):
            row, moment = chosen(dates, key=lambda one: (one[1], one[0]))
            yield [(row, f"{moment.isoformat(sep=' ')}, the {word} of {len(dates)}")]
        return
    for hours, said in spans:
        room = max(NEAR * hours, 24 if hours > 48 else 2)
        away = [(row, moment, abs((moment - today).total_seconds()) / 3600) for row, moment in dates]
        near = [
            (row, f"{moment.isoformat(sep=' ')}, and the policy speaks of {said}")
            for row, moment, gap in away
            if abs(gap - hours) <= room
        ]
        if len(near) <= COMMON * len(dates):
            yield near


def _counts(links: Links, owner: Mapping[int, int], rules: Iterable[_Rule]) -> Near:
    """Roots that have as many rows of a table as a rule about them says."""
    held = Counter((root, links.rows[row].table) for row, root in owner.items() if row != root)
    for rule in rules:
        for place, table in enumerate(links.tables):
            words = words_of(table.path[-1]) if table.path else []
            near = [(root, count) for (root, at), count in held.items() if at == place and rule.near(count)]
            if words and words[-1] in rule.words and len(near) <= COMMON * len(links.people):
                yield [(root, f"has {count} rows of {table.name}, and the policy says: {rule.sentence}") for root, count in near]


def _today(settings: Mapping[Place, Any], policy: str) -> datetime.datetime | None:
    """What the state or the policy says that the time is."""
    for place, value in settings.items():
        for name, one in value.items() if isinstance(value, dict) else [(place[-1] if place else "", value)]:
            if isinstance(one, str) and (set(words_of(name)) & _TODAY or words_of(name) == ["date"]) and (moment := _moment(one)):
                return moment
    for sentence in re.split(r"\n|(?<=[.;!?])\s", policy):
        if set(words_of(sentence)) & _TODAY and (found := _DATE.search(sentence)):
            return _moment(found[0])
    return None


def _moment(text: str) -> datetime.datetime | None:
    """A date with or without a time, as ISO writes it; zones are left out."""
    if not (found := _DATE.match(text)):
        return None
    try:
        return datetime.datetime.fromisoformat(found[0])
    except ValueError:
        return None
