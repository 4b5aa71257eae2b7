"""A recorded conversation against a world: whose tools it calls, whether its calls come out as they did, and what that says of it.

A conversation is *graded* when the log says what should have been done and the world gives the answers that the log has: then the
state it left is known. It is *replayed* when the answers agree and nothing says what was wanted, *ungraded* when they do not, and
*unfinished*, whatever the answers, when nobody answered one of its calls, or it ends in one that cannot be read. Only the first has
a verdict of state, outputs and required calls; of the others these columns are null, `policy` is known where the calls could be
replayed, and `reward` is what people said of it, null when nobody said anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.contract import rows
from tasks.contract.context import seed_of
from tasks.contract.params import nearest
from tasks.contract.problem import ACCEPTED, Action, Problem, ToolResult
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.contract.values import UNREADABLE, canonical
from tasks.generate.parts.imported.masking import Mask, Masks
from tasks.generate.parts.imported.record import Message, Record, calls_of
from tasks.worlds.api import grading
from tasks.worlds.api.problem_making import problem_of

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

STATUSES = ("graded", "replayed", "ungraded", "unfinished")
"""What a conversation that is kept can be."""
CUT_OFF = {"no_answer": "a call that nobody answered", "parse_error": "a call that cannot be read"}
"""Stop of an unfinished conversation -> what its log ends in."""
TEST, VALIDATION = 0.2, 0.3
"""Of customers that the world does not know: the share that is for tests, and the share up to which it is for validation (as 70 / 10 /
20 % of a world's own)."""
LIKED = 0.5
"""Mean rating from which a conversation counts as good."""
GRADED = ("state", "outputs", "required")
"""Columns that need a ground truth."""


class Refused(ValueError):
    """Why a conversation is not taken; the message begins with the kind of reason."""


class Replayed(NamedTuple):
    """calls: with the answers that are kept. fork: the world after them, None when it did not answer as the log says. differs: the
    first call that it answered otherwise: (tool, the world's answer, the log's), or (why it was not asked,)."""

    calls: list[tuple[Action, ToolResult]]
    fork: World | None
    differs: Sequence[str]


@dataclass(frozen=True)
class Taken:
    """What becomes of a conversation: rows of TRAJECTORY, BLUEPRINT and FEEDBACK, its status, the tool that answered otherwise than in
    the log, what was masked by kind, and of CUT_OFF how it ends where it is unfinished."""

    row: dict[str, Any]
    blueprint: dict[str, Any]
    feedback: list[dict[str, Any]]
    status: str
    differs: str
    masked: Mapping[str, int]
    cut_off: str = ""


@dataclass(frozen=True)
class Checker:
    """Takes conversations. rename: the log's name of a tool -> the world's. named: world whose conversations they are, "" to find out
    by tools. system: world name -> the system message that an agent gets there. customer: dotted field of the log that names the
    customer."""

    worlds: Mapping[str, World]
    named: str
    rename: Mapping[str, str]
    masks: Masks
    customer: str
    system: Mapping[str, str]
    seed: int

    def take(self, record: Record, where: str) -> Taken:
        """A conversation's rows. where: "file:line", of which its id is made. Raises Refused."""
        messages = [_renamed(message, self.rename) for message in record.messages]
        world = self._world(record, messages)
        done = _replay(world, messages)
        who, split = self._customer(world, record, done.calls, messages)
        problem, truth = _problem(world, record, done, who, split)
        stop = cut_off = "" if record.without_answers else _cut_off(world, messages)
        if not cut_off:
            stop = "hand_over" if done.calls and done.calls[-1][0].kind == "end" and done.calls[-1][1].ok else "user_stop"
        played = Trajectory(problem, 0, messages, done.calls, [], stop, agent=record.agent or "recorded", human="recorded")
        outcome = _outcome(world, played, done, truth)
        status = "unfinished" if cut_off else "graded" if truth and done.fork else "replayed" if done.fork else "ungraded"
        mask = self.masks.of([message for message in messages if message["role"] != "system"], *_beside(record))
        return self._rows(world, replace(played, outcome=outcome), status, done, record, mask, where)

    # --- which world, whose ------------------------------------------------------------------------------------------------------

    def _world(self, record: Record, messages: Sequence[Message]) -> World:
        used = {call["function"]["name"] for call, _ in calls_of(messages)}
        asked = self.named or (record.world if record.world in self.worlds else "")
        fits = [world for world in ([self.worlds[asked]] if asked else self.worlds.values()) if used <= set(world.tools)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise Refused(f"unknown world: its tools are in {', '.join(world.name for world in fits)}; name one (world)")
        known = self.worlds[asked] if asked else max(self.worlds.values(), key=lambda world: len(used & set(world.tools)))
        strange = sorted(used - set(known.tools))
        raise Refused(f"unknown tools: {', '.join(strange[:3])}.{nearest(strange[0], known.tools)}")

    def _customer(self, world: World, record: Record, calls: Any, messages: Sequence[Message]) -> tuple[str, str]:
        """(who it is about, split). Who is not known is told apart by their first words. No seed has a say: steps of different seeds
        that read the same logs (`generate` and `reserve`, one night and the next) agree on who is held out."""
        who = str(_dotted(record.about, self.customer) or world.conventions.person(calls) or "")
        if who in world.splits:
            return who, world.splits[who]
        key = who or _digest(next(one["content"] for one in messages if one["role"] == "user"))
        rank = seed_of("split", world.name, key) / 2**63
        return "", "test" if rank < TEST else "validation" if rank < VALIDATION else "train"

    # --- rows --------------------------------------------------------------------------------------------------------------------

    def _rows(self, world: World, played: Trajectory, status: str, done: Replayed, record: Record, mask: Mask, where: str) -> Taken:
        messages = [_masked(message, mask) for message in played.messages if message["role"] != "system"]
        if text := self.system[world.name]:
            messages.insert(0, {"role": "system", "content": text})
        calls = [
            (replace(one, arguments=mask.value(one.arguments)), ToolResult(got.ok, mask.text(got.content))) for one, got in done.calls
        ]
        problem = _masked_problem(played.problem, mask)
        row = rows.trajectory_row(replace(played, problem=problem, messages=messages, calls=calls))
        row["traj_id"] = f"{world.name}_{_digest(where)}"
        row["blame_reason"] = mask.text(row["blame_reason"])
        liked = _liked(record)
        if status != "graded":
            row |= {name: None for name in GRADED} | {"reward": liked, "wanted_state_hash": "", "blame": "", "blame_reason": ""}
        if done.fork is None:
            row |= {"policy": None, "broken": [], "final_state_hash": ""}
        differs = _difference(done.differs, mask) if done.fork is None else ""
        blueprint = self._blueprint(played.problem, problem, status, liked, differs)
        feedback = list(_feedback(row["traj_id"], world.name, record, mask))
        cut_off = CUT_OFF.get(played.stop, "")
        return Taken(row, blueprint, feedback, status, done.differs[0] if done.differs else "", mask.found, cut_off)

    def _blueprint(self, own: Problem, masked: Problem, status: str, liked: int | None, differs: str) -> dict[str, Any]:
        """The conversation's problem as a row of BLUEPRINT: accepted where somebody may be asked to solve it."""
        why = ""
        if differs:
            why = f"failed_exec: the world answers otherwise than the log: {differs}"
        elif status == "unfinished":
            why = "failed_gate: the log holds a call that nobody answered, or ends in one that cannot be read"
        elif status == "replayed" and not liked:
            why = "failed_gate: no verdict: nobody said that what was done was right"
        elif masked.actions != own.actions or masked.required != own.required:
            why = "failed_gate: its calls hold personal data, which is masked"
        elif not (own.n_writes or own.outputs or own.required):
            why = "failed_gate: an agent that does nothing would pass"
        status, _, reason = why.partition(": ")
        return {**rows.problem_row(masked), "seed": self.seed, "attempt": 0, "status": status or ACCEPTED, "fail_reason": reason} | {
            "walk": [], "policy_ids": [], "context_hash": "", "source_ids": [], "diff_patch": "", "gt_state_hash": "",
            "judge_scores": [], "avg_score": None, "feedback": "", "generator": "recorded",
        }  # fmt: skip


def _renamed(message: Message, rename: Mapping[str, str]) -> Message:
    if not rename or not message.get("tool_calls"):
        return {**message, "name": rename.get(message["name"], message["name"])} if message.get("name") else message
    calls = [
        {**call, "function": {**call["function"], "name": rename.get(call["function"]["name"], call["function"]["name"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _cut_off(world: World, messages: Sequence[Message]) -> str:
    """Of CUT_OFF how a log breaks off, "" for one that does not: its last calls, and an earlier one without an answer. Who hands over
    needs none."""
    last = max((place for place, one in enumerate(messages) if one["role"] != "tool"), default=0)
    ends = [(call["function"], answer) for call, answer in calls_of(messages[last:])]
    ends = [(function, answer) for function, answer in ends if world.tools[function["name"]].kind != "end"]
    if any(set(function["arguments"]) == {UNREADABLE} for function, _ in ends):
        return "parse_error"
    waiting = [call for call, answer in calls_of(messages) if answer is None and world.tools[call["function"]["name"]].kind != "end"]
    return "no_answer" if waiting else ""


def _replay(world: World, messages: Sequence[Message]) -> Replayed:
    """The calls with their answers, made again on a fresh fork where the world's state can be copied."""
    fork = world.fork() if world.copies else None
    calls: list[tuple[Action, ToolResult]] = []
    differs: tuple[str, ...] = () if fork else ("its state cannot be copied",)
    for call, answer in calls_of(messages):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        kept = ToolResult(not _says_failed(answer), answer["content"] if answer else "")
        if fork is not None:
            got = fork.call(name, arguments)
            if answer is not None and not _alike(got.content, kept.content):
                differs, fork = (name, got.content, kept.content), None
            else:
                kept = ToolResult(got.ok, kept.content if answer else got.content)
        calls.append((Action(name, arguments, world.tools[name].kind), kept))
    return Replayed(calls, fork, differs)


def _difference(differs: Sequence[str], mask: Mask) -> str:
    if len(differs) < 3:
        return differs[0]
    name, *answers = differs
    now, then = (mask.text(one)[:80] for one in answers)  # masked first: half a number would have no form
    return f"{name} answers {now!r}, the log has {then!r}"


def _beside(record: Record) -> Iterator[Any]:
    """What a record holds beside its messages that comes into rows."""
    for choice in record.choices:
        yield from (*choice.chosen, *choice.rejected)
    if record.truth is not None:
        yield from (arguments for _, arguments in (*record.truth.actions, *record.truth.required))


def _says_failed(answer: Message | None) -> bool:
    """Whether an answer of a log says that its call failed."""
    if answer is None or answer.get("failed"):
        return answer is not None
    return answer["content"].lstrip()[:6].lower() == "error:" or answer["content"].lstrip()[:9] == '{"error":'


def _alike(one: str, other: str) -> bool:
    """Whether two answers say the same: equal JSON, or equal words."""
    if one == other:
        return True
    try:
        return bool(canonical(json.loads(one)) == canonical(json.loads(other)))
    except (ValueError, TypeError, RecursionError):
        return " ".join(one.split()) == " ".join(other.split())


def _problem(world: World, record: Record, done: Replayed, who: str, split: str) -> tuple[Problem, bool]:
    """The problem that the conversation is about, and whether the log itself says what solves it."""
    truth = record.truth
    said = "\n".join(message["content"] for message in record.messages if message["role"] == "user" and message["content"])
    draft: dict[str, Any]
    if truth is not None and all(name in world.tools for name, _ in (*truth.actions, *truth.required)):
        draft = {"actions": _drafted(truth.actions), "required": _drafted(truth.required), "outputs": truth.outputs}
        draft |= {"instruction": truth.instruction, "intent": {}}
    else:
        made = [(action.name, action.arguments) for action, got in done.calls if got.ok and set(action.arguments) != {UNREADABLE}]
        truth, draft = None, {"actions": _drafted(made), "outputs": (), "instruction": said, "intent": {}}
    found = problem_of(world, draft, {"user_id": who, "split": split, "persona": world.personas[0]})
    return replace(found, lineage=(who,) if who else ()), truth is not None


def _drafted(calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    return [{"name": name, "arguments": dict(arguments)} for name, arguments in calls]


def _outcome(world: World, played: Trajectory, done: Replayed, truth: bool) -> Outcome:
    """The verdict; where nothing says what was wanted, of the policy alone."""
    if done.fork is None:
        return Outcome(0, 0, 0, 0.0)
    if truth:
        return world.grade(played, done.fork)
    now = done.fork.state_hash()
    return grading.grade(played, world, now, now)


def _liked(record: Record) -> int | None:
    values = [rating.value for rating in record.ratings]
    return int(sum(values) / len(values) >= LIKED) if values else None


def _feedback(traj_id: str, world: str, record: Record, mask: Mask) -> Any:
    for rating in record.ratings:
        yield {"traj_id": traj_id, "world": world, "kind": rating.kind, "value": rating.value, "text": mask.text(rating.text)}
    for choice in record.choices:
        ends = {"chosen": choice.chosen, "rejected": choice.rejected}
        shown = {name: json.dumps([_masked(one, mask) for one in end], ensure_ascii=False) for name, end in ends.items()}
        yield {"traj_id": traj_id, "world": world, "kind": "preference", "text": "", **shown}


def _masked(message: Message, mask: Mask) -> Message:
    found = {key: value for key, value in message.items() if key != "failed"} | {"content": mask.text(message["content"])}
    if message.get("tool_calls"):
        functions = [{**call["function"], "arguments": mask.value(call["function"]["arguments"])} for call in message["tool_calls"]]
        found["tool_calls"] = [{**call, "function": one} for call, one in zip(message["tool_calls"], functions, strict=True)]
    return found


def _masked_problem(problem: Problem, mask: Mask) -> Problem:
    def calls(actions: Sequence[Action]) -> tuple[Action, ...]:
        return tuple(replace(action, arguments=mask.value(action.arguments)) for action in actions)

    return replace(
        problem,
        actions=calls(problem.actions),
        required=calls(problem.required),
        instruction=mask.text(problem.instruction),
        outputs=tuple(map(mask.text, problem.outputs)),
    )


def _dotted(value: Any, path: str) -> Any:
    for part in filter(None, path.split(".")):
        if isinstance(value, str) and value[:1] == "{":
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if isinstance(value, (Mapping, list)) or not path else value


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
