"""Policy predicates that all worlds with people share, over a trajectory or over a blueprint's replay. None means that the rule holds.

A world adds its own rules as one function `check(state, action, person) -> {rule: reason}`, which judges one write in the state
before it. person: the id that was identified, "" for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from tasks.contract.client import Message
from tasks.contract.conventions import Calls, Conventions
from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import Trajectory
from tasks.contract.wording import words
from tasks.worlds.api.scripts.phrases import agrees
from tasks.worlds.api.state import State, canonical_json
from tasks.worlds.api.tools import Refused

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import Replay, World

Check = Callable[[State, Action, str], Mapping[str, str]]
"""Judges one write before it is made: rule id -> why the write breaks it."""
TrajectoryPredicate = Callable[[Trajectory, "World"], str | None]
BlueprintPredicate = Callable[[Problem, "Replay", "World"], str | None]


def authenticated(trajectory: Trajectory, world: World) -> str | None:
    """Nothing is called before a person has been identified, but what is open to all. BadInput in a world that identifies nobody."""
    return _identifies(world).unidentified(trajectory.calls)


def _identifies(world: World) -> Conventions:
    if not world.conventions.identified_by:
        raise BadInput(
            f"world {world.name}: a predicate asks whether a person was identified, and no tool identifies one. Declare it "
            "(CONVENTIONS.identified_by, see tasks/contract/conventions.py), or leave the predicate out."
        )
    return world.conventions


def confirmed(trajectory: Trajectory, world: World) -> str | None:
    """Each write that needs it was confirmed by whoever confirms in this world. BadInput where nobody does."""
    conventions, messages = world.conventions, trajectory.messages
    if conventions.confirmed_by == "nobody":
        raise BadInput(
            f"world {world.name}: a predicate asks for confirmed writes, and CONVENTIONS.confirmed_by is 'nobody'. Leave it out."
        )
    judge = user_agreed if conventions.confirmed_by == "user" else conventions.confirmed_by
    for place, message in enumerate(messages):
        for call in message.get("tool_calls") or ():
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            tool = world.tools.get(name)
            action = Action(name, arguments, tool.kind if tool else "read")
            if conventions.needs_yes(action) and (reason := judge(messages[:place], action)):
                return reason
    return None


def user_agreed(messages: Sequence[Message], action: Action) -> str | None:
    """Right before the write the agent asked, naming an argument, and the user said yes."""
    asked, answer = messages[-2:] if len(messages) >= 2 else ({"role": ""}, {"role": ""})
    if answer["role"] != "user" or not agrees(str(answer["content"])):
        return f"{action.name} without a yes right before it"
    if asked["role"] != "assistant" or asked.get("tool_calls") or not _names(str(asked["content"]), action.arguments):
        return f"{action.name} without saying before what would be done"
    return None


def _names(text: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a question names at least one argument."""
    shown = set(words(text))
    return "?" in text and any(set(words(str(value))) <= shown for value in arguments.values() if words(str(value)))


def one_call_per_turn(trajectory: Trajectory, world: World) -> str | None:
    """A turn is one call or one reply."""
    for message in trajectory.messages:
        calls = message.get("tool_calls") or ()
        if len(calls) > 1:
            return f"{len(calls)} calls in one turn"
        if message["role"] == "assistant" and calls and str(message.get("content") or "").strip():
            return "a call and a reply in one turn"
    return None


def lean(trajectory: Trajectory, world: World) -> str | None:
    """No look-up is repeated while nothing changes."""
    seen: set[str] = set()
    for action, result in trajectory.calls:
        if action.kind == "write" and result.ok:
            seen.clear()
        elif world.conventions.looks_up(action):
            key = action.name + canonical_json(action.arguments)
            if key in seen:
                return f"{action.name} was called twice with the same arguments"
            seen.add(key)
    return None


def looked_up(tool: str) -> TrajectoryPredicate:
    """A hand-over follows a successful call of `tool`."""
    return lambda trajectory, world: _looked_up(tool, trajectory.calls, world)


def truth_looked_up(tool: str) -> BlueprintPredicate:
    """The same for a ground truth."""
    return lambda problem, replay, world: _looked_up(tool, pairs(problem, replay), world)


def _looked_up(tool: str, calls: Calls, world: World) -> str | None:
    looked = False
    for action, result in calls:
        if action.name == world.conventions.hand_over and not looked:
            return f"handed over without {tool}"
        looked = looked or (action.name == tool and result.ok)
    return None


def _steps(world: World, calls: Iterable[tuple[Action, ToolResult]]) -> Iterator[tuple[State, Action]]:
    """Each well-formed write of a conversation with the state before it."""
    fork = world.fork()
    for action, _ in calls:
        tool = world.tools.get(action.name)
        if tool is None or tool.kind != "write":
            continue
        try:
            tool.validate(action.arguments)
        except Refused:  # a malformed call changes nothing and breaks no rule; the world has refused it
            continue
        yield fork.state, action
        fork.call(action.name, action.arguments)


class _Pass:
    """Which rules some calls break, and why: one pass over the writes for all rules, since all are asked about the same calls in turn.
    The last answer is kept; the calls themselves are compared, so that a conversation that went on is looked at anew."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def broken(self, rule: str, calls: Calls, world: World) -> str | None:
        known = _LAST.get(self)  # read once: threads may grade at the same time
        if known is None or known[0]() is not world or len(known[1]) != len(calls) or any(map(_differ, known[1], calls)):
            known = _LAST[self] = (ref(world), list(calls), self._look(calls, world))
        return known[2].get(rule)

    def _look(self, calls: Calls, world: World) -> dict[str, str]:
        person, found = world.conventions.person(calls), dict[str, str]()
        for state, action in _steps(world, calls):
            for rule, reason in self._check(state, action, person).items():
                found.setdefault(rule, f"{action.name}: {reason}")
        return found


_LAST: WeakKeyDictionary[_Pass, tuple[ref[World], list[tuple[Action, ToolResult]], dict[str, str]]] = WeakKeyDictionary()
"""The last answers. Not in the passes: predicates belong to a world's code, in which `cairn world check` allows no memory."""


def _differ(one: tuple[Action, ToolResult], other: tuple[Action, ToolResult]) -> bool:
    return one[0] is not other[0] or one[1] is not other[1]


def trajectory_rules(rules: Iterable[str], check: Check) -> dict[str, TrajectoryPredicate]:
    """The predicate of each rule over all writes that the agent tried, refused ones too."""
    one = _Pass(check)

    def holds(rule: str) -> TrajectoryPredicate:
        return lambda trajectory, world: one.broken(rule, trajectory.calls, world)

    return {rule: holds(rule) for rule in rules}


def blueprint_rules(rules: Iterable[str], check: Check) -> dict[str, BlueprintPredicate]:
    """The predicate of each rule over the writes of a ground truth."""
    one = _Pass(check)

    def holds(rule: str) -> BlueprintPredicate:
        return lambda problem, replay, world: one.broken(rule, pairs(problem, replay), world)

    return {rule: holds(rule) for rule in rules}


def pairs(problem: Problem, replay: Replay) -> Calls:
    """The ground truth with its answers."""
    return list(zip(problem.actions, replay.results, strict=False))


def truth_authenticated(problem: Problem, replay: Replay, world: World) -> str | None:
    """The ground truth identifies somebody before anything else: the problem's own person, where its lineage says who that is."""
    conventions, calls = _identifies(world), pairs(problem, replay)
    if reason := conventions.unidentified(calls):
        return reason
    found = conventions.person(calls)
    if conventions.lineage == "other":
        return None if found else "nobody is identified"
    return None if found == problem.lineage[0] else f"the customer found is {found or 'nobody'}, not {problem.lineage[0]}"


@dataclass(frozen=True)
class Policy:
    """A policy as tests. Each of the first four is the name of the rule that says it, "" where none does.

    identified: nobody is served before being identified. confirmed: writes are confirmed. one_call: a turn is one call or one reply.
    lean: no look-up is repeated. looked_up: rule -> the look-up that a hand-over follows. check, writes: what judges one write, and the
    rules by which it does. held_out, held_out_rules: pairs of write tools, and rules, that test problems alone may have.
    """

    check: Check
    writes: tuple[str, ...]
    identified: str = ""
    confirmed: str = ""
    one_call: str = ""
    lean: str = ""
    looked_up: Mapping[str, str] = field(default_factory=dict)
    held_out: tuple[frozenset[str], ...] = ()
    held_out_rules: tuple[str, ...] = ()

    def blueprint(self) -> dict[str, BlueprintPredicate]:
        """A world's BLUEPRINT_PREDICATES. G1: doing nothing must fail. S1: what is kept for test problems stays out of other splits."""
        found: dict[str, BlueprintPredicate] = {
            self.identified: truth_authenticated,
            **blueprint_rules(self.writes, self.check),
            **{rule: truth_looked_up(tool) for rule, tool in self.looked_up.items()},
            "G1": gated,
        }
        if self.held_out or self.held_out_rules:
            found["S1"] = held_out(self.held_out, self.held_out_rules)
        return {rule: holds for rule, holds in found.items() if rule}

    def trajectory(self) -> dict[str, TrajectoryPredicate]:
        """A world's TRAJECTORY_PREDICATES."""
        found: dict[str, TrajectoryPredicate] = {}
        for rule, holds in ((self.identified, authenticated), (self.confirmed, confirmed), (self.one_call, one_call_per_turn)):
            found[rule] = holds
        found |= trajectory_rules(self.writes, self.check)
        found |= {rule: looked_up(tool) for rule, tool in self.looked_up.items()}
        found[self.lean] = lean
        return {rule: holds for rule, holds in found.items() if rule}


def gated(problem: Problem, replay: Replay, world: World) -> str | None:
    """Doing nothing must fail: something is written, or told, or required. Problems that are known to be passive may."""
    if problem.n_writes or problem.outputs or problem.required or problem.passive:
        return None
    return "an agent that does nothing would pass: there is no write, no output and no required call"


def held_out(compositions: Iterable[frozenset[str]], rules: Iterable[str]) -> BlueprintPredicate:
    """What test problems alone may hold stays out of the other splits."""
    known, kept = tuple(compositions), frozenset(rules)

    def holds(problem: Problem, replay: Replay, world: World) -> str | None:
        if problem.split == "test":
            return None
        if any(pair <= {action.name for action in problem.actions} for pair in known):
            return "these tools together are kept for test problems"
        return "this rule is kept for test problems" if problem.intent.get("rule") in kept else None

    return holds


def tagger(
    compositions: Iterable[frozenset[str]], rules: Iterable[str]
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[str, ...]]:
    """A world's `tags`: what training never saw in a draft (`Problem.tags`), given the pairs of tools and the rules it holds out."""
    known, kept = tuple(compositions), frozenset(rules)

    def tags(draft: Mapping[str, Any], context: Mapping[str, Any]) -> tuple[str, ...]:
        intent = draft.get("intent") or {}
        names = {action["name"] for action in draft["actions"]}
        found = {
            "unseen_user": context["split"] != "train",
            "unseen_phrasing": intent.get("pool") == "reserved",
            "unseen_composition": any(pair <= names for pair in known),
            "unseen_rule": intent.get("rule") in kept,
        }
        return tuple(tag for tag, holds in found.items() if holds)

    return tags
