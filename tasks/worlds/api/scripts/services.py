"""Services: what the people of a world want, each said once. Phrases, problems, the scripted agent and what the policy says of writes
follow from them, so that an API of simple services needs no other script.

    CANCEL = Service(
        wish("cancel appointment {appointment_id}", vague="cancel an appointment", ask="appointment_id"),
        table="appointments", key="appointment_id", look="get_appointment", act="cancel_appointment",
        summary="I will cancel appointment {appointment_id}.",
        rules=(Rule("R5", lambda row, slots: row["status"] != "booked", "appointment {appointment_id} is {status}", "{status}"),),
    )
    SERVICES = Services({"cancel": CANCEL}, patterns={"appointment_id": r"A\\d+"}, own="R2")

A service is about one row, which is looked up first. Where the answer of a look-up has other fields than the row, or a wish takes
several rows, write makers (`drafting`) and plans (`agent`) as the world retail does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, Protocol

from tasks.contract.conventions import Conventions
from tasks.contract.problem import Action
from tasks.contract.scripts import COMMON_ERRORS, Scripts
from tasks.worlds.api.scripts.agent import VISIBLE, AgentScript, Plan, agent
from tasks.worlds.api.scripts.human import human
from tasks.worlds.api.scripts.introductions import NAME_AND_ZIP, Introduction
from tasks.worlds.api.scripts.phrases import Phrases, Wish, thing

Row = Mapping[str, Any]
Slots = Mapping[str, str]
"""Details of a wish as they stand in the intent: the row's key, then the service's own slots."""


class Reads(Protocol):
    """The state of a world, as far as a service looks at it."""

    def get(self, table: str, key: str, /) -> Any:
        """A row, None when there is none."""
        ...


@dataclass(frozen=True)
class Rule:
    """A rule of the policy that may forbid a service. name: its name there. forbids(row, slots): whether it does. reason: how the agent
    refuses, a template over the row's fields and the slots. output: what of that must be told at least, likewise."""

    name: str
    forbids: Callable[[Row, Slots], bool]
    reason: str
    output: str


@dataclass(frozen=True)
class Service:
    """One kind of wish about one row.

    wish:      how it is said.
    table, key: where the row is, and the slot (and argument) that holds its key.
    look:      the tool that looks the row up by its key and answers its fields.
    act:       the tool that serves it, which writes or hands over; "" for a question, which the look-up answers.
    slots:     further details -> their values.
    fits:      whether a row allows the wish, besides the rules.
    rules:     what may forbid it, in the order in which the agent looks.
    summary:   what the agent announces before a write, a template over row and slots.
    report:    what it says at the end, a template over the write's answer, or over row and slots for a question.
    output:    what the report must tell, a template over the row.
    owned:     whether a row is somebody's: it names its owner in the field that the conventions say.
    arguments: argument of `act` -> slot; all slots under their own names by default.
    person:    the argument of `act` that takes the person's id, "" for none.
    types:     argument -> what makes its value from the slot's text.
    defaults:  argument -> the value that the tool takes when it is left out; ground truths leave it out.
    """

    wish: Wish
    table: str
    key: str
    look: str
    act: str = ""
    slots: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fits: Callable[[Row], bool] = lambda row: True
    rules: tuple[Rule, ...] = ()
    summary: str = ""
    report: str = "Done."
    output: str = ""
    owned: bool = True
    arguments: Mapping[str, str] | None = None
    person: str = ""
    types: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> Mapping[str, str]:
        """Argument of `act` -> slot."""
        return self.arguments if self.arguments is not None else {slot: slot for slot in (self.key, *self.slots)}

    def called_with(self, slots: Slots, person: str) -> dict[str, Any]:
        """The arguments of `act`."""
        made = {name: self.types.get(name, str)(slots[slot]) for name, slot in self.sources.items()}
        return {self.person: person, **made} if self.person else made

    def details(self, key: str) -> list[dict[str, str]]:
        """All slots that a wish about one row can have."""
        return [{self.key: key, **dict(zip(self.slots, values, strict=True))} for values in product(*self.slots.values())]

    def forbidden_by(self, row: Row, slots: Slots) -> list[Rule]:
        """The rules that forbid it."""
        return [rule for rule in self.rules if rule.forbids(row, slots)]


@dataclass(frozen=True)
class Services:
    """A world's services, and what its scripts are made of beside them.

    services:  kind of wish -> service.
    patterns:  slot -> regular expression of what an id looks like. lexicon: slot -> value -> how it is said.
    own:       the rule that keeps people to their own rows, "" for none.
    hand_overs: kinds whose `act` hands over to a person.
    held_out_rules, held_out: rules, and pairs of write tools, that test problems alone have.
    families:  of problems; by default all that the services allow, with up to two writes.
    introductions, conventions: as the world declares them.
    answers, asks: as in `Phrases`, for slots whose own wording is not enough.
    users:     the table of the people.
    """

    services: Mapping[str, Service]
    patterns: Mapping[str, str]
    lexicon: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    own: str = ""
    hand_overs: tuple[str, ...] = ()
    held_out_rules: tuple[str, ...] = ()
    held_out: tuple[frozenset[str], ...] = ()
    families: tuple[str, ...] = ()
    introductions: tuple[Introduction, ...] = (NAME_AND_ZIP,)
    conventions: Conventions = field(default_factory=Conventions)
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    users: str = "users"

    @property
    def writes(self) -> dict[str, Service]:
        """Those that change something."""
        return {kind: one for kind, one in self.services.items() if one.act and kind not in self.hand_overs}

    @property
    def questions(self) -> dict[str, Service]:
        """Those that only want to know."""
        return {kind: one for kind, one in self.services.items() if not one.act}

    # --- what people say ---

    @cached_property
    def phrases(self) -> Phrases:
        """How all of it is said."""
        spoken = {slot: {value: value for value in values} for one in self.services.values() for slot, values in one.slots.items()}
        answers, asks = {}, {}
        for one in self.services.values():
            named = f"{thing(one.key)} {{{one.key}}}" if one.key in self.patterns else f"{{{one.key}}}"
            answers[one.key] = (f"It is {named}.", f"{named[0].upper()}{named[1:]}.", f"The {thing(one.key)} is {{{one.key}}}.")
            asks[one.key] = (f"which {thing(one.key)}", f"{thing(one.key)} id", f"{thing(one.key)} number")
        return Phrases(
            wishes={kind: one.wish for kind, one in self.services.items()},
            lexicon={**{slot: words for slot, words in spoken.items() if slot not in self.patterns}, **self.lexicon},
            patterns=self.patterns,
            answers={**answers, **self.answers},
            asks={**asks, **self.asks},
            introductions=self.introductions,
        )

    def scripts(self) -> Scripts:
        """The scripted people."""
        pointless = {"ignores_price"}  # there is no list of prices to ignore
        pointless |= set() if self.introductions else {"skips_authentication"}
        pointless |= set() if self.conventions.confirmed_by == "user" else {"skips_confirmation"}
        errors = {name: about for name, about in COMMON_ERRORS.items() if name not in pointless}
        plans = {kind: self._plan(kind) for kind in self.services}
        acts = [one.act for one in self.writes.values()]
        return Scripts(
            human(self.phrases), agent(self.phrases, plans, acts, errors, self.conventions), errors, VISIBLE & frozenset(errors)
        )

    def _plan(self, kind: str) -> Plan:
        """What the scripted agent does about a wish: look the row up, mind the rules, act, report."""
        one = self.services[kind]

        def plan(script: AgentScript, slots: dict[str, str]) -> str:
            key, row = script.own(slots, one.key, one.look, one.owned)
            for slot in one.slots:
                script.slot(slots, slot, f"Which {thing(slot)}?")
            known = {**row, **slots, one.key: key}
            for rule in one.rules:
                script.mind(rule.forbids(row, slots), rule.reason.format(**known))
            if kind in self.hand_overs:
                script.hand_over(**one.called_with(slots, ""))
            if not one.act:
                return _report(script, one.report, known)
            person = script.person() if one.person else ""
            answer = script.write(one.act, one.summary.format(**known), **one.called_with(slots, person))
            return _report(script, one.report, answer) if answer else "Done."

        return plan

    # --- what the policy says ---

    def check(self, state: Reads, action: Action, person: str) -> dict[str, str]:
        """The rules that one write would break (`tasks.worlds.api.conduct.Check`). A row that does not exist breaks none."""
        found: dict[str, str] = {}
        for one in (one for one in self.writes.values() if one.act == action.name):
            given = {**one.defaults, **action.arguments}
            slots = {slot: str(given[name]) for name, slot in one.sources.items() if name in given}
            row = state.get(one.table, slots[one.key])
            if one.person and given[one.person] != person:
                found[self.own] = f"{given[one.person]} is another account"
            if row is None:
                continue
            if one.owned and str(row[self.conventions.owner]) != person:
                found[self.own] = f"{thing(one.key)} {slots[one.key]} belongs to another account"
            for rule in one.forbidden_by(row, slots):
                found.setdefault(rule.name, rule.reason.format(**{**row, **slots}))
        found.pop("", None)
        return found

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules that `check` judges by."""
        named = [rule.name for one in self.writes.values() for rule in one.rules]
        return tuple(dict.fromkeys([self.own, *named] if self.own else named))


def _report(script: AgentScript, template: str, values: Mapping[str, Any]) -> str:
    """A report with its amounts as this agent tells them."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    return template.format(**{**values, **{name: script.amount(value) for name, value in numbers.items() if f"{{{name}}}" in template}})
