"""What the built-in worlds share in making problems: wishes become a draft with an intent, an instruction and a ground truth."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tasks.contract.conventions import Conventions
from tasks.worlds.api.scripts.introductions import Introduction
from tasks.worlds.api.scripts.phrases import Phrases

STYLES = ("full", "direct", "vague", "drip")
"""How details are revealed: who and what at once; what, then who; what without its id, then who and the id; a greeting first."""
RESERVED = 0.5
"""Share of test problems in unseen phrasings; ours."""
INSISTS = 0.3
"""Share of refused customers who ask once for an exception; ours."""
TOGETHER = 0.5
"""Share of customers with several wishes who say them all at once; ours."""
HELD_OUT_SHARE = 1 / 3
"""Share of test problems with several writes that hold a pair of writes training never saw; ours."""
TRIES = 20
"""Redraws for one customer, who may have another order or item that fits; ours."""
NUMBER_WORDS = ("one_write", "two_writes", "three_writes")
Fits = Callable[[Mapping[str, Any]], bool]
"""Whether a row will do."""


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    """One drafted action."""
    return {"name": name, "arguments": arguments}


@dataclass(frozen=True)
class Step:
    """One wish with its ground truth. kind, slots: as the human says it. check: details that a summary must show. actions: calls,
    reads first. outputs: what must be told. required: calls without which a reply does not count. rule: the rule that forbids it.
    hear: what the instruction adds, when the customer wants to be told something."""

    kind: str
    slots: Mapping[str, str]
    check: tuple[str, ...] = ()
    actions: tuple[dict[str, Any], ...] = ()
    outputs: tuple[str, ...] = ()
    required: tuple[dict[str, Any], ...] = ()
    rule: str = ""
    hear: str = ""


@dataclass
class Case:
    """One customer's rows while a problem is drafted. used: keys already in use by an earlier wish."""

    context: Mapping[str, Any]
    rng: Random
    used: set[str] = field(default_factory=set)

    @property
    def user(self) -> Mapping[str, Any]:
        """The customer's row."""
        user: Mapping[str, Any] = self.context["user"]
        return user

    @property
    def test(self) -> bool:
        """Whether held-out rules and compositions may be used."""
        return bool(self.context["split"] == "test")

    def choose(self, table: str, fits: Fits) -> tuple[str, Mapping[str, Any]]:
        """A row of the context's table that fits and that no earlier wish uses, with its key; ("", {}) when there is none."""
        found = [key for key, row in self.context[table].items() if fits(row) and key not in self.used]
        key = self.rng.choice(found or [""])
        self.used.add(key)
        return key, self.context[table].get(key, {})


Maker = Callable[[Case], Step | None]
"""One wish of one kind, or None when the customer's rows do not allow it."""
Single = Callable[[Case, Sequence[str]], Step | None]
"""The one wish of a family, of one of the given kinds when some are given."""


def foreign(find: Callable[..., Sequence[str]], table: str, others: Sequence[str], rng: Random, owner: str = "user_id") -> str:
    """The key of a row of somebody else, "" when nobody else has one. find: the state's look-up of keys by fields, `self.db.find`.
    owner: the field that says whose a row is."""
    found = sorted(key for other in others[:50] for key in find(table, **{owner: other}))
    return rng.choice(found) if found else ""


def look_ups(step: Step | None, rule: str, output: str, look: int = 0) -> Step | None:
    """A forbidden wish: its look-ups alone, the reason to be told, and the look-up that shows it (the `look`-th) required."""
    if step is None:
        return None
    return Step(step.kind, step.slots, step.check, step.actions[: look + 1], (output,), (step.actions[look],), rule)


def question(kind: str, slots: Mapping[str, str], look: dict[str, Any], output: object, check: tuple[str, ...] = ()) -> Step:
    """A question that a look-up answers: the look-up is required, and its answer must be told."""
    required = {**look, "arguments": dict(look["arguments"])}  # of its own: who changes a draft's calls changes no requirement
    return Step(kind, slots, check, (look,), (str(output),), (required,))


def handed_over(kind: str, slots: Mapping[str, str], look: dict[str, Any], over: dict[str, Any], check: tuple[str, ...] = ()) -> Step:
    """A wish that only a person can serve: the look-up and the hand-over are required."""
    return Step(kind, slots, check, (look, over), (), (look, over))


def forbidden(case: Case, makers: Mapping[str, Maker], held_out_rules: Sequence[str]) -> Step | None:
    """A wish that a rule forbids (rule -> its maker): in training any rule but the held-out ones; in test, if there are any, a
    held-out one every second time."""
    if case.test and held_out_rules and case.rng.random() < 0.5:
        rule = case.rng.choice(held_out_rules)
    else:
        rule = case.rng.choice([rule for rule in makers if rule not in held_out_rules])
    return makers[rule](case)


def compose(
    case: Case,
    makers: Mapping[str, Maker],
    tool_of: Mapping[str, str],
    held_out: Sequence[frozenset[str]],
    kinds: Sequence[str],
    count: int,
) -> list[Step]:
    """Wishes of different kinds, none in the way of another: the given ones, or `count` at random; [] when the rows allow none.

    Held-out pairs of writes appear in test problems only, where a third of the problems with several writes hold one.
    """
    if count > len(makers):
        return []
    chosen = list(kinds) or case.rng.sample(list(makers), count)
    if not kinds and held_out and case.test and count > 1 and case.rng.random() < HELD_OUT_SHARE:
        pair = case.rng.choice(list(held_out))
        chosen = [kind for kind, tool in tool_of.items() if tool in pair]
        chosen += case.rng.sample([kind for kind in makers if kind not in chosen], count - 2)
        case.rng.shuffle(chosen)
    if not case.test and any(pair <= {tool_of[kind] for kind in chosen} for pair in held_out):
        return []
    steps = [makers[kind](case) for kind in chosen]
    return [step for step in steps if step] if all(steps) else []


def along(
    walk: Sequence[str], tool_of: Mapping[str, str], informs: Mapping[str, Sequence[str]], hand_over: str
) -> tuple[str, Sequence[str]]:
    """The family and the kinds of wishes that a walk of tools asks for: its writes, else a hand-over, else its last look-up."""
    written = dict.fromkeys(name for name in walk if name in tool_of.values())
    kinds = [kind for name in written for kind, tool in tool_of.items() if tool == name][: len(NUMBER_WORDS)]
    if kinds:
        return NUMBER_WORDS[len(kinds) - 1], kinds
    if hand_over in walk:
        return "hand_over", ()
    return "information", next((informs[name] for name in reversed(walk) if name in informs), ())


def proposer(
    phrases: Phrases,
    families: Sequence[str],
    writes: Mapping[str, Maker],
    tool_of: Mapping[str, str],
    singles: Mapping[str, Single],
    informs: Mapping[str, Sequence[str]],
    held_out: Sequence[frozenset[str]],
    conventions: Conventions = Conventions(),
) -> Callable[..., dict[str, Any]]:
    """A world's `propose`. writes: kind of wish -> its maker. tool_of: kind -> the tool that writes it. singles: every family of
    one wish without a number in its name -> its maker. informs: look-up -> the questions that it answers. held_out: pairs of
    tools that test problems alone may combine.

    A draft in a family, or along a walk, whose writes become the wishes in its order. {} when the rows do not allow it.
    """

    def steps(case: Case, family: str, kinds: Sequence[str]) -> list[Step]:
        if family in NUMBER_WORDS:
            return compose(case, writes, tool_of, held_out, kinds, NUMBER_WORDS.index(family) + 1)
        step = singles[family](case, kinds) if family in singles else None
        return [step] if step else []

    def propose(
        context: Mapping[str, Any], rng: Random, walk: Sequence[str] | None = None, family: str | None = None
    ) -> dict[str, Any]:
        kinds: Sequence[str] = ()
        if walk and family is None:
            family, kinds = along(walk, tool_of, informs, conventions.hand_over)
        return draft(context, rng, phrases, family or rng.choice(families), lambda case, family: steps(case, family, kinds))

    return propose


def draft(
    context: Mapping[str, Any], rng: Random, phrases: Phrases, family: str, steps: Callable[[Case, str], list[Step]]
) -> dict[str, Any]:
    """The draft of a problem of a family, {} when the customer's rows allow none in TRIES draws."""
    for _ in range(TRIES):
        case = Case(context, rng)
        if made := steps(case, family):
            return _draft(case, phrases, made, family)
    return {}


def _draft(case: Case, phrases: Phrases, steps: Sequence[Step], family: str) -> dict[str, Any]:
    way = _introduction(case, phrases)
    who = {field: case.user[field] for field in way.by.fields} if way else {}
    actions = [call(way.by.tool, **who)] if way else []
    for step in steps:
        actions += [action for action in step.actions if action not in actions]
    intent = _intent(case, steps, who)
    forbids = f", which {steps[0].rule} forbids" if steps[0].rule else ""
    return {
        "thought": f"{case.context['user_id']} wants {', then '.join(step.kind for step in steps)}{forbids}.",
        "instruction": (f"{way.task.format(**who)} " if way else "") + _instruction(phrases, steps, intent),
        "intent": intent,
        "actions": actions,
        "outputs": [output for step in steps for output in step.outputs],
        "required": [action for step in steps for action in step.required],
        "family": family,
    }


def _introduction(case: Case, phrases: Phrases) -> Introduction | None:
    """The way in which this customer will say who they are; None where nobody has to."""
    ways = [way for way in phrases.introductions if way.fits(case.user)]
    return case.rng.choice(ways) if len(ways) > 1 else next(iter(ways), None)


def _intent(case: Case, steps: Sequence[Step], who: Mapping[str, Any]) -> dict[str, Any]:
    """What the scripted human works from."""
    rng = case.rng
    pool = "reserved" if case.test and rng.random() < RESERVED else "open"
    style = rng.choice([style for style in STYLES if style != "vague" or pool == "open"])  # no vague sentence is reserved
    intent: dict[str, Any] = {
        **who,
        "style": style,
        "manner": str(case.context["persona"]).partition(":")[0],
        "pool": pool,
        "together": len(steps) > 1 and rng.random() < TOGETHER,
        "requests": [{"kind": step.kind, "slots": dict(step.slots), "check": list(step.check)} for step in steps],
    }
    return {**intent, "rule": steps[0].rule, "insist": rng.random() < INSISTS} if steps[0].rule else intent


def _instruction(phrases: Phrases, steps: Sequence[Step], intent: Mapping[str, Any]) -> str:
    wishes = [_to_you(phrases.say(phrases.wishes[step.kind].task, step.slots)) + step.hear for step in steps]
    text = f"You want to {wishes[0]}."
    text += "".join(f" You also want to {wish}." for wish in wishes[1:])
    return text + (" If the agent refuses, ask once for an exception, then accept it." if intent.get("insist") else "")


def _to_you(text: str) -> str:
    """Words that the customer says, as told to the customer."""
    return re.sub(r"\bI\b", "you", re.sub(r"\bmy\b", "your", text))
