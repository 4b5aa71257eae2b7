"""Services as data: a JSON file that says what `services.Services` says in Python, without a line of code in it.

What forbids a service, and which rows it fits, are comparisons of a field with a value. Templates hold names of fields in braces and
nothing else, patterns of ids no groups. So a file may come from a model (`cairn world draft`): reading it runs nothing that it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tasks.contract.conventions import Conventions, Identification
from tasks.contract.params import BadInput, Params, nearest, validate
from tasks.worlds.api.scripts.introductions import Introduction, introduction
from tasks.worlds.api.scripts.phrases import Wish
from tasks.worlds.api.scripts.services import Row, Rule, Service, Services, Slots

_TEMPLATE = re.compile(r"(?:[^{}]|\{[A-Za-z_]\w*\})*")
_SLOT = re.compile(r"\{(\w+)\}")
_PATTERN = re.compile(r"(?:[^()|*+{}\[\]\\]|\\[dw.\-]|\[[^\[\]\\]+\]|\{\d+(?:,\d+)?\}|\+){1,80}")
"""Of what an id looks like: characters, classes and how often they come; no groups, so that no text takes long to compare."""
_VARYING = re.compile(r"\+|\{\d+,\d+\}")
MOST_VARYING = 3
"""Parts of a pattern that may come a varying number of times; ours: a text of 200 letters then is compared in milliseconds."""
_CALLED = re.compile(r"[\w '-]{1,40}")
_KINDS: dict[str, Callable[[str], Any]] = {"text": str, "integer": int, "number": float, "boolean": lambda text: text.lower() == "true"}


class Comparison(Params):
    """One comparison. It does not hold when the field is not there, or the two cannot be compared."""

    field: str = Field(description="a field of the row (a dotted path for one inside it), or a slot of the wish")
    compare: Literal["=", "!=", "<", "<=", ">", ">=", "in", "not in"] = Field(description="how")
    value: Any = Field(description="a text, number, true or false; a list of them for in and not in")

    def holds(self, row: Row, slots: Slots) -> bool:
        """Whether it holds. Numbers in texts count as numbers."""
        found: Any = slots.get(self.field, row)
        for part in self.field.split(".") if self.field not in slots else ():
            if not isinstance(found, Mapping) or part not in found:
                return False
            found = found[part]
        if self.compare in ("in", "not in"):
            listed = self.value if isinstance(self.value, list | tuple) else [self.value]
            return any(_same(found, one) for one in listed) == (self.compare == "in")
        if self.compare in ("=", "!="):
            return _same(found, self.value) == (self.compare == "=")
        one, other = _number(found), _number(self.value)
        if one is None or other is None:
            return False
        return {"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other}[self.compare]


class ForbiddenBy(Params):
    """A rule of the policy that may forbid a service."""

    name: str = Field(description="the rule's name in the policy, such as R5")
    forbids: tuple[Comparison, ...] = Field(min_length=1, description="it forbids the service when all of these hold")
    reason: str = Field(description="how the assistant refuses, lower case, such as: order {order_id} is {status}")
    output: str = Field(description="the words of the reason that must be told at least, such as: {status}")


class Wording(Params):
    """How a wish is said. Every sentence of open and reserved holds all slots in braces: the row's key and those under slots."""

    open: tuple[str, ...] = Field(min_length=3, description="full sentences, 3 or more, all different")
    reserved: tuple[str, ...] = Field(min_length=1, description="full sentences that only test problems use")
    vague: tuple[str, ...] = Field((), description="sentences that leave the slot `ask` out and hold all others")
    task: str = Field(description="the wish after 'You want to', such as: cancel order {order_id}")
    ask: str = Field("", description="the slot that vague sentences leave out: the row's key")


class Offered(Params):
    """One kind of wish about one row."""

    wish: Wording
    table: str = Field(description="the table of the row")
    key: str = Field(description="the argument of `look` that takes the row's key; a slot")
    look: str = Field(description="the tool that looks the row up by its key and answers the row's fields")
    act: str = Field("", description='the tool that serves the wish; "" for a question that the look-up answers')
    slots: dict[str, tuple[str, ...]] = Field({}, description="further details -> their values as texts")
    fits: tuple[Comparison, ...] = Field((), description="which rows allow the wish, besides the rules")
    rules: tuple[ForbiddenBy, ...] = Field((), description="what may forbid it, in the order in which the assistant looks")
    summary: str = Field("", description="what is announced before a write, with the row's key and every slot")
    report: str = Field("Done.", description="what is said at the end: over the write's answer, or for a question over the row")
    output: str = Field("", description="what the report must tell, a template over the row's fields")
    owned: bool = Field(True, description="whether the row is somebody's: its field `owner` holds the person's id")
    arguments: dict[str, str] | None = Field(None, description="argument of act -> slot; by default the slots under their own names")
    person: str = Field("", description='the argument of act that takes the person\'s id, "" for none')
    types: dict[str, Literal["text", "integer", "number", "boolean"]] = Field({}, description="argument -> its type, text by default")
    defaults: dict[str, Any] = Field({}, description="argument -> the value that the tool takes when it is left out")

    def service(self) -> Service:
        """The same with functions in place of comparisons."""
        names = ("table", "key", "look", "act", "summary", "report", "output", "owned", "person")
        return Service(
            Wish(**{name: getattr(self.wish, name) for name in ("open", "reserved", "vague", "task", "ask")}),
            **{name: getattr(self, name) for name in names},
            slots=self.slots,
            arguments=self.arguments,
            defaults=self.defaults,
            types={name: _KINDS[kind] for name, kind in self.types.items()},
            fits=lambda row: all(one.holds(row, {}) for one in self.fits),
            rules=tuple(Rule(rule.name, _forbids(rule), rule.reason, rule.output) for rule in self.rules),
        )


class IdField(Params):
    """A field by which people say who they are."""

    called: str = Field(description="what people call it, such as: birth date")
    pattern: str = Field(description="regular expression of a value without groups")


class Identified(Params):
    """How people are identified."""

    tool: str = Field(description="the look-up that finds the person")
    answer: str = Field(description='dotted path of the person\'s id in its answer, "" for the whole answer')
    fields: dict[str, IdField] = Field(min_length=1, description="its arguments, which are fields of the person's row too")


class ServiceFile(Params):
    """A world's services and conventions."""

    services: dict[str, Offered] = Field(min_length=1, description="kind of wish, one word -> the service")
    patterns: dict[str, str] = Field({}, description="slot -> regular expression of its ids without groups, such as W\\d+")
    lexicon: dict[str, dict[str, str]] = Field({}, description="slot without a pattern -> value -> how people say it")
    hand_overs: tuple[str, ...] = Field((), description="kinds of wishes whose act hands over to a person")
    users: str = Field("users", description="the table of the people")
    owner: str = Field("user_id", description="field of rows and answers that holds the id of the person whose they are")
    people: tuple[Identified, ...] = Field((), description="the ways in which people are identified, [] for nobody")
    hand_over: str = Field("", description="the tool that hands over to a person")
    confirmed_by: Literal["user", "nobody"] = Field("user", description="who says yes to writes")
    identified: str = Field("", description="the policy's rule that people are identified before anything else")
    own: str = Field("", description="the rule that people's requests are about their own rows")
    confirmed: str = Field("", description="the rule that writes need a yes")
    one_call: str = Field("", description="the rule that a turn is one call or one reply")
    lean: str = Field("", description="the rule that no look-up is repeated")
    looked_up: dict[str, str] = Field({}, description="rule -> the look-up that must come before a hand-over")

    def conventions(self) -> Conventions:
        """What it declares of the world."""
        ways = tuple(Identification(one.tool, tuple(one.fields), one.answer) for one in self.people)
        return Conventions(identified_by=ways, owner=self.owner, hand_over=self.hand_over, confirmed_by=self.confirmed_by)

    def made(self, conventions: Conventions) -> Services:
        """The services. conventions: the world's; people introduce themselves by the fields that the file says."""
        told = {one.tool: one.fields for one in self.people}
        return Services(
            services={kind: one.service() for kind, one in self.services.items()},
            patterns=self.patterns,
            lexicon=self.lexicon,
            own=self.own,
            hand_overs=self.hand_overs,
            introductions=tuple(_introduction(way, told[way.tool]) for way in conventions.identified_by if way.tool in told),
            conventions=conventions,
            users=self.users,
        )

    def policy(self) -> dict[str, Any]:
        """Which rule says what, as `served` takes it."""
        return {name: getattr(self, name) for name in ("identified", "confirmed", "one_call", "lean", "looked_up")}


def read(path: Path) -> ServiceFile:
    """Read a file. Raises BadInput with every mistake."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read as JSON ({error}).") from None
    return parse(values, str(path))


def parse(values: Any, where: str) -> ServiceFile:
    """Services from JSON values. Raises BadInput with every mistake, in the words of `where`."""
    if not isinstance(values, dict):
        raise BadInput(f"{where}: must be a JSON object with `services`.")
    made = validate(ServiceFile, values, where)
    if wrong := list(_mistakes(made)):
        raise BadInput("\n".join(f"{where}: {one}" for one in wrong))
    return made


def strangers(made: ServiceFile, tools: Mapping[str, Any], rules: Iterable[str], tables: Iterable[str]) -> Iterator[str]:
    """Names in a file that the world has not: tools (name -> Tool), rules of its policy, tables."""
    of_tools, of_rules, of_tables = tuple(tools), tuple(rules), tuple(tables)
    named = [("users", made.users, of_tables), *(("people.tool", one.tool, of_tools) for one in made.people)]
    for kind, one in made.services.items():
        named += [(f"services.{kind}.look", one.look, of_tools), (f"services.{kind}.table", one.table, of_tables)]
        named += [(f"services.{kind}.rules", rule.name, of_rules) for rule in one.rules]
        named += [(f"services.{kind}.act", one.act, of_tools)] if one.act else []
    for name in ("identified", "own", "confirmed", "one_call", "lean"):
        named += [(name, getattr(made, name), of_rules)] if getattr(made, name) else []
    named += [("looked_up", rule, of_rules) for rule in made.looked_up]
    named += [("looked_up", tool, of_tools) for tool in made.looked_up.values()]
    named += [("hand_over", made.hand_over, of_tools)] if made.hand_over else []
    for where, name, known in named:
        if name not in known:
            yield f"{where} names {name!r}, which the world has not.{nearest(name, known)} It has: {', '.join(known)}."
    for kind, one in made.services.items():
        if one.act in tools:
            yield from _wrong_arguments(kind, one, tools[one.act])


def _wrong_arguments(kind: str, one: Offered, tool: Any) -> Iterator[str]:
    known = tool.parameters.get("properties", {})
    given = {*(one.arguments if one.arguments is not None else (one.key, *one.slots)), *((one.person,) if one.person else ())}
    for name in sorted(given - set(known)):
        yield f"services.{kind}: {one.act} has no argument {name!r}. It has: {', '.join(known)}. See arguments."
    for name in sorted(set(tool.parameters.get("required", ())) - given):
        yield f"services.{kind}: {one.act} needs the argument {name!r}: add a slot, or name it in arguments or person."


def _mistakes(made: ServiceFile) -> Iterator[str]:
    for kind, one in made.services.items():
        where, wanted = f"services.{kind}", {one.key, *one.slots}
        if not kind.isidentifier():
            yield f"{where}: a kind is one word of letters, digits and underscores."
        for sentence in (*one.wish.open, *one.wish.reserved):
            if set(_SLOT.findall(sentence)) != wanted:
                yield f"{where}.wish: {sentence!r} must hold {_braced(wanted)} and nothing else in braces."
        for sentence in one.wish.vague:
            if set(_SLOT.findall(sentence)) != wanted - {one.wish.ask}:
                yield f"{where}.wish.vague: {sentence!r} must hold {_braced(wanted - {one.wish.ask}) or 'nothing'} in braces."
        if one.wish.vague and one.wish.ask != one.key:
            yield f"{where}.wish.ask = {one.wish.ask!r}: must be the row's key, {one.key!r}, where there are vague sentences."
        texts = (*one.wish.open, *one.wish.reserved, *one.wish.vague, one.wish.task, one.summary, one.report, one.output)
        for text in (*texts, *(text for rule in one.rules for text in (rule.reason, rule.output))):
            if not _TEMPLATE.fullmatch(text):
                yield f"{where}: {text!r}: braces hold the name of a field or slot and nothing else."
        if one.key not in made.patterns and one.key not in made.lexicon:
            yield f"{where}: the slot {one.key!r} needs an entry in patterns (or in lexicon)."
        if clash := sorted(set(one.slots) & set(made.patterns)):
            yield f"{where}.slots: {clash[0]!r} has a pattern too; its values are enough."
    for way in made.people:
        for name, told in way.fields.items():
            if not name.isidentifier() or not _CALLED.fullmatch(told.called):
                yield f"people.{way.tool}.{name}: called = {told.called!r}: a few words, without braces or marks."
    fields = [(f"people.{one.tool}.{name}", field.pattern) for one in made.people for name, field in one.fields.items()]
    for where, pattern in (*((f"patterns.{slot}", pattern) for slot, pattern in made.patterns.items()), *fields):
        if not _PATTERN.fullmatch(pattern) or len(_VARYING.findall(pattern)) > MOST_VARYING or not _compiles(pattern):
            yield (
                f"{where} = {pattern!r}: only characters, classes such as \\d or [A-Z], and how often they come (at most "
                f"{MOST_VARYING} of them a varying number of times); no groups."
            )
    for kind in made.hand_overs:
        if kind not in made.services:
            yield f"hand_overs names {kind!r}, which is no service."


def _forbids(rule: ForbiddenBy) -> Callable[[Row, Slots], bool]:
    return lambda row, slots: all(one.holds(row, slots) for one in rule.forbids)


def _introduction(way: Identification, fields: Mapping[str, IdField]) -> Introduction:
    return introduction(way, **{name: (one.called, one.pattern) for name, one in fields.items()})


def _braced(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return str(one).lower() == str(other).lower()
    numbers = _number(one), _number(other)
    return numbers[0] == numbers[1] if None not in numbers else str(one) == str(other)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
