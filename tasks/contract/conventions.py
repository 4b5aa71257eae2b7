"""A world's conventions, declared: how a person is identified, which tool hands over, what counts as a look-up, who confirms.

    CONVENTIONS = Conventions(
        identified_by=(Identification("find_patient", ("name", "birth_date"), "patient.id"),),
        hand_over="call_reception",
        confirmed_by="nobody",
    )

What a class does not declare is as in the worlds that come along: `find_user(name, zip)` answers a `user_id`, `transfer_to_human`
hands over, every tool of kind read looks up, and the user says yes to every write. A default holds where the world has the tool (in an
adapted API with these arguments); a tool that is declared must be there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tasks.contract.agent import Tool
from tasks.contract.client import Message
from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import Action, ToolResult

Calls = Sequence[tuple[Action, ToolResult]]
"""The calls of a conversation with their answers."""
Confirmation = Callable[[Sequence[Message], Action], str | None]
"""(messages before a write, the write) -> why it may not be made, None when it may."""


@dataclass(frozen=True)
class Identification:
    """One way in which a person is identified.

    tool:   the look-up that finds the person. It answers an id, or refuses.
    fields: its arguments that the person tells; scripted people take their values from the person's row.
    answer: where the id stands in the answer: a dotted path ("patient.id", "0.id"), "" for the whole answer.
    """

    tool: str = "find_user"
    fields: tuple[str, ...] = ("name", "zip")
    answer: str = "user_id"

    def person(self, content: str) -> str:
        """The id in an answer's text, "" for none.

        >>> Identification(answer="patient.id").person('{"patient": {"id": 12}}')
        '12'
        """
        try:
            found: Any = json.loads(content)
        except (ValueError, RecursionError):
            found = content
        for part in filter(None, self.answer.split(".")):
            if isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                found = found.get(part) if isinstance(found, dict) else None
        return "" if found is None or isinstance(found, dict | list) else str(found)


@dataclass(frozen=True)
class Conventions:
    """What a world declares; the module says what holds by default.

    identified_by:  the ways in which a person is identified, () for nobody (an anonymous API).
    open_tools:     tools that may be called before anybody is identified.
    owner:          the field of rows and answers that holds the id of the person whose they are.
    lineage:        what the first entry of a problem's lineage is: the id of its "person", or something "other" that splits go by.
    hand_over:      the tool of kind end that hands over to a person; the first of that kind where there is no tool of this name.
    look_ups:       tools that look something up, which need not be done twice; None for all of kind read.
    confirmed_by:   who confirms writes: the "user" by a yes, "nobody", or a function that judges one write (`Confirmation`).
    confirmed:      the writes that need it; None for all.
    """

    identified_by: tuple[Identification, ...] = (Identification(),)
    open_tools: tuple[str, ...] = ()
    owner: str = "user_id"
    lineage: Literal["person", "other"] = "person"
    hand_over: str = "transfer_to_human"
    look_ups: tuple[str, ...] | None = None
    confirmed_by: Literal["user", "nobody"] | Confirmation = "user"
    confirmed: tuple[str, ...] | None = None

    @property
    def identifying(self) -> tuple[str, ...]:
        """The tools that identify a person."""
        return tuple(way.tool for way in self.identified_by)

    def person(self, calls: Calls) -> str:
        """Id of the person who was identified last, "" for nobody."""
        ways = {way.tool: way for way in self.identified_by}
        found = [ways[action.name].person(result.content) for action, result in calls if result.ok and action.name in ways]
        return next((one for one in reversed(found) if one), "")

    def unidentified(self, calls: Calls) -> str | None:
        """Why the calls break that nobody is served before being identified; None when they do not."""
        for action, result in calls:
            if action.name in self.identifying:
                if result.ok:
                    return None
            elif action.name not in self.open_tools:
                return f"{action.name} before the customer was found"
        return None

    def looks_up(self, action: Action) -> bool:
        """Whether a call is a look-up."""
        return action.kind == "read" if self.look_ups is None else action.name in self.look_ups

    def needs_yes(self, action: Action) -> bool:
        """Whether a call must be confirmed by whoever confirms."""
        return action.kind == "write" and self.confirmed_by != "nobody" and (self.confirmed is None or action.name in self.confirmed)

    def as_json(self) -> dict[str, Any]:
        """What of it is not the default, as JSON, for those who judge a conversation."""
        ways = {way.tool: way.answer for way in self.identified_by}
        plain = {
            "identified_by": ways if ways and self.identified_by != (Identification(),) else None,
            "open_tools": list(self.open_tools) or None,
            "owner": self.owner if self.owner != "user_id" else None,
            "hand_over": self.hand_over if self.hand_over not in ("", "transfer_to_human") else None,
            "look_ups": None if self.look_ups is None else list(self.look_ups),
            "confirmed_by": None if self.confirmed_by == "user" else self.confirmed_by if self.confirmed_by == "nobody" else "a rule",
            "confirmed": None if self.confirmed is None else list(self.confirmed),
        }
        return {key: value for key, value in plain.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Conventions:
        """What `as_json` gives, read again: without the fields of identifications, and with "nobody" for a rule that is not known."""
        given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        if "identified_by" in given:
            given["identified_by"] = tuple(Identification(tool, (), answer) for tool, answer in given["identified_by"].items())
        if "confirmed_by" in given:
            given["confirmed_by"] = "nobody"
        return cls(**given)


def conventions_of(cls: Any, tools: Mapping[str, Tool]) -> Conventions:
    """A world's conventions, of tools that are there. Raises BadInput for a declared tool that is not, or does something else."""
    where, found = f"world {cls.NAME}: CONVENTIONS", getattr(cls, "CONVENTIONS", Conventions())
    if not isinstance(found, Conventions):
        raise BadInput(f"{where} must be a tasks.contract.conventions.Conventions, got {type(found).__name__}.")
    if not getattr(getattr(cls, "FOREIGN", None), "users", "users"):  # splits go by something else than people
        found = replace(found, lineage="other")
    if found.identified_by == Conventions.identified_by and not _has_default(tools, adapted=hasattr(cls, "FOREIGN")):
        found = replace(found, identified_by=())
    if found.hand_over == Conventions.hand_over and found.hand_over not in tools:
        found = replace(found, hand_over=next((tool.name for tool in tools.values() if tool.kind == "end"), ""))
    if found.confirmed_by not in ("user", "nobody") and not callable(found.confirmed_by):
        raise BadInput(f"{where}.confirmed_by = {found.confirmed_by!r}: allowed are 'user', 'nobody' and a function.")
    if found.lineage not in ("person", "other"):
        raise BadInput(f"{where}.lineage = {found.lineage!r}: allowed are 'person' and 'other'.")
    for key, names, kind in (
        ("identified_by", found.identifying, ""),
        ("open_tools", found.open_tools, ""),
        ("hand_over", (found.hand_over,) if found.hand_over else (), "end"),
        ("look_ups", found.look_ups or (), "read"),
        ("confirmed", found.confirmed or (), "write"),
    ):
        _check(f"{where}.{key}", names, kind, tools)
    for way in found.identified_by:
        known = tools[way.tool].parameters.get("properties", {})
        for field in way.fields:
            if field not in known:
                raise BadInput(
                    f"{where}.identified_by: {way.tool} has no argument {field!r}.{nearest(field, known)} It has: {', '.join(known)}."
                )
    return found


def _has_default(tools: Mapping[str, Tool], adapted: bool) -> bool:
    """Whether the default way to identify people is there. A tool of that name of an API that exists may be another one."""
    way = Identification()
    return way.tool in tools and (not adapted or set(way.fields) <= set(tools[way.tool].parameters.get("properties", {})))


def _check(where: str, names: Sequence[str], kind: str, tools: Mapping[str, Tool]) -> None:
    if isinstance(names, str):
        raise BadInput(f"{where} = {names!r} is one text; write ({names!r},).")
    for name in names:
        fit = [tool.name for tool in tools.values() if kind in ("", tool.kind)]
        if name not in fit:
            what = f"is a tool of kind {tools[name].kind}, not {kind}" if name in tools else "is no tool"
            raise BadInput(f"{where} names {name!r}, which {what}.{nearest(name, fit)} Allowed are: {', '.join(fit) or 'none'}.")
