"""Checks of states that are no tables: two conversations that go on side by side end as if each were alone, copies row by row miss
nothing, and what differs from one run to the next is named with the declaration to write.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from flows.worlds.report import REMEDIES, RESTLESS, Check, Finding, first_of_each, short
from flows.worlds.sample import Call, Sample
from tasks.contract.params import nearest
from tasks.contract.problem import Action
from tasks.worlds.adapters.unequal_states import declaration
from tasks.worlds.api.runtime import World

PAIRS = 12
"""Pairs of conversations that are played side by side; ours."""


def conversations(sample: Sample) -> Check:
    """Two forks, whose calls are made in turn, answer and end as they do alone."""
    world = sample.world
    writes = [call for call in sample.calls if call.action.kind == "write"]
    alone = {id(call): _played(world, call) for call in writes}
    working = [call for call in writes if alone[id(call)][0][-2][0]]
    pairs = list(pairwise(working[: PAIRS + 1])) + ([(working[0], working[0])] if working else [])
    found = []
    for one, other in pairs:
        for call, seen in zip((one, other), _side_by_side(world, one, other), strict=True):
            if seen != alone[id(call)]:
                what = f"two conversations are not apart: {_apart(call, alone[id(call)], seen)}"
                restless = world.copies and _played(world, call) != alone[id(call)]
                told = RESTLESS if restless else world.foreign.source.kept_apart()
                found.append((call.action.name, Finding(sample.place(call.action.name), f"tool {call.action.name}: {what}", told)))
    said = f"{len(pairs)} pairs of conversations side by side end as each does alone"
    nothing = ("no write of the sample is carried out, so nothing could be compared: give problems",) if writes and not pairs else ()
    return Check("conversations", said, first_of_each(found), nothing)


Seen = tuple[list[tuple[bool, str]], str]
"""(answers, state hash at the end)."""


def _played(world: World, call: Call) -> Seen:
    fork = world.fork()
    return [_answer(fork, action) for action in _actions(call)], fork.state_hash()


def _actions(call: Call) -> list[Action]:
    """A conversation: what led up to the call, and the call twice, so that something is asked of the state that it has left."""
    return [*call.before, call.action, call.action]


def _answer(fork: World, action: Action) -> tuple[bool, str]:
    result = fork.call(action.name, action.arguments)
    return result.ok, result.content


def _side_by_side(world: World, one: Call, other: Call) -> tuple[Seen, Seen]:
    """Both conversations, a call of each in turn; the state of the first is looked at when the second has ended too."""
    talks = [(world.fork(), _actions(call), list[tuple[bool, str]]()) for call in (one, other)]
    for step in range(max(len(actions) for _, actions, _ in talks)):
        for fork, actions, answers in talks:
            if step < len(actions):
                answers.append(_answer(fork, actions[step]))
    first, second = ((answers, fork.state_hash()) for fork, _, answers in talks)
    return first, second


def _apart(call: Call, alone: Seen, seen: Seen) -> str:
    for (_, told), (_, now) in zip(alone[0], seen[0], strict=True):
        if told != now:
            return f"on the way to {call.words} a call answers {short(now)} beside another conversation, {short(told)} alone"
    return f"{call.words} leaves another state beside another conversation than alone"


def copies(sample: Sample) -> Check:
    """How the state is copied, and that every call of the sample leaves what a look at the whole shows."""
    source = sample.world.foreign.source
    audit = getattr(source, "audit", None)
    if audit is None:
        return Check("copies", "the state is no object of this process")
    found = []
    for call in sample.calls:
        fork = sample.world.fork()
        for action in call.before:
            fork.call(action.name, action.arguments)
        if missed := audit(fork.state.saved, call.action.name, sample.world.tools[call.action.name], call.action.arguments):
            what = f"tool {call.action.name} changes the state past the dicts that it was handed: {missed}"
            found.append((call.action.name, Finding(sample.place(call.action.name), what, "Pass by_row=False.")))
    return Check("copies", f"{source.copied()}; {len(sample.calls)} calls compared with a look at the whole", first_of_each(found))


def declared(sample: Sample) -> Check:
    """Every pattern of `leave_out` and `rounded` fits something in the start, or in what the calls left."""
    names = sorted(_names(sample.world.fork().state.value))
    told = "Correct it, or take it out; for what only comes later, give a problem whose solution makes it."
    unmet = [(word, pattern) for word, patterns in sample.world.foreign.source.unmet().items() for pattern in patterns]
    found = []
    for word, pattern in unmet:
        what = f"{word} names {pattern!r}, and nothing in the start or after {len(sample.calls)} calls fits it."
        found.append(Finding("", f"{what}{nearest(pattern.rpartition('.')[2], names)}", told))
    said = f"{len(unmet)} patterns of leave_out and rounded fit nothing"
    if sample.everything:
        return Check("left out", said, tuple(found))
    return Check("left out", said, notes=tuple(f"{one.what} {one.remedy}" for one in found))


def _names(value: Any) -> set[str]:
    """All names in nested JSON."""
    if isinstance(value, dict):
        return {*value, *(name for item in value.values() for name in _names(item))}
    return {name for item in value for name in _names(item)} if isinstance(value, list) else set()


def differs(place: str, what: str, one: str, other: str) -> Iterable[Finding]:
    """What to declare for two differences (`World.diff`) that should be one. what: how messages call that."""
    lines = sorted({*one.splitlines()} ^ {*other.splitlines()})
    yield Finding(place, f"{what} ({short('; '.join(lines[:4]))})", declaration(one, other) if lines else REMEDIES["order"])
