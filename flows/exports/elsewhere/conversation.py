"""What the environments of other frameworks share: the exported folder, and one conversation with the world's user, tools and grading.

The turns are those of `tasks.worlds.api.play`: the user opens, calls are answered, replies go to the user, a tool of kind "end" that
succeeds or a tool whose own code fails ends it. A world without scripted people has its instruction as the only line, and the agent's
first reply ends the conversation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.exports.calling import call
from tasks.contract.client import Message, Request
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.rows import problem_of, problem_row
from tasks.contract.scripts import STOP
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.play import HUMAN_TOKENS
from tasks.worlds.api.system_prompt import human_system, system_message

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

WORLD, PROBLEMS, SETTINGS = "world", "problems.jsonl", "export.json"
"""Of an exported folder: the frozen world, its problems in lines, and {seed, max_steps}."""
PARTS = ("state", "outputs", "required", "policy")


@dataclass(frozen=True)
class Exported:
    """What an exported folder holds. problems: by id, in the order of the file. max_steps: turns of the agent."""

    world: World
    problems: Mapping[str, Problem]
    seed: int
    max_steps: int

    def problem(self, name: str) -> Problem:
        """The problem of this id; BadInput when there is none."""
        if name not in self.problems:
            raise BadInput(f"problem {name!r} is not among the {len(self.problems)} of {PROBLEMS}.")
        return self.problems[name]

    def begin(self, name: str) -> Conversation:
        """A conversation about a problem, in a fork of the world."""
        return Conversation(self.world.fork(), self.problem(name), self.seed, self.max_steps)


def write(folder: Path, world: World, problems: Iterable[Problem], seed: int, max_steps: int, allow: Sequence[str] = ()) -> None:
    """Write what `read` reads. allow: packages outside the project that the world's class may be imported from."""
    freeze_world(world, folder / WORLD, allow)
    lines = [json.dumps(problem_row(problem), ensure_ascii=False) for problem in problems]
    (folder / PROBLEMS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / SETTINGS).write_text(json.dumps({"max_steps": max_steps, "seed": seed}) + "\n", encoding="utf-8")


@cache
def read(folder: str) -> Exported:
    """The exported folder, opened once in a process. BadInput when the world's code has changed since it was exported."""
    place = Path(folder)
    with (place / PROBLEMS).open(encoding="utf-8") as lines:
        problems = [problem_of(json.loads(line)) for line in lines if line.strip()]
    settings = json.loads((place / SETTINGS).read_text(encoding="utf-8"))
    return Exported(load(place / WORLD), {one.problem_id: one for one in problems}, settings["seed"], settings["max_steps"])


@dataclass
class Conversation:
    """One conversation in a fork of a world. stop: why it is over, as in `Trajectory`; "" while it goes on."""

    world: World
    problem: Problem
    seed: int = 0
    max_steps: int = 30
    messages: list[Message] = field(default_factory=list)
    calls: list[tuple[Action, ToolResult]] = field(default_factory=list)
    stop: str = ""

    def __post_init__(self) -> None:
        self.messages = self.messages or [{"role": "system", "content": agent_system(self.world)}]

    def line(self) -> str:
        """The user's next line; "" when the user has no more to say, and the conversation is over."""
        spoken = sum(message["role"] == "user" for message in self.messages)
        if self.world.scripts is None:
            said = STOP if spoken else self.problem.instruction
        else:
            noise = seed_of(self.seed, self.problem.problem_id, 0, spoken, "human")
            asked = Request(self._as_the_user_sees_it(), seed=noise, max_tokens=HUMAN_TOKENS, intent=self.problem.intent)
            said = str(self.world.scripts.human(asked).get("content") or "").strip()
        if not said or STOP in said:
            self.stop = "user_stop" if spoken and said else "human_error"
            return ""
        if self._turns() >= self.max_steps:
            self.stop = "max_steps"
            return ""
        self.messages.append({"role": "user", "content": said})
        return said

    def turn(self, content: str, calls: Sequence[Mapping[str, Any]] = ()) -> list[Message]:
        """Take a turn of the agent's and return the tools' answers as messages; a reply has none, and `line` is what follows it.

        calls: {id, name, arguments}; arguments are an object or, where a model wrote none, whatever it wrote.
        """
        asked = [{"id": one["id"], "type": "function", "function": {k: one[k] for k in ("name", "arguments")}} for one in calls]
        self.messages.append({"role": "assistant", "content": content, **({"tool_calls": asked} if asked else {})})
        answers: list[Message] = []
        for one in calls:
            said = self.call(one["name"], one["arguments"])
            answers.append({"role": "tool", "tool_call_id": one["id"], "name": one["name"], "content": said})
        self.messages += answers
        if calls and not self.stop and self._turns() >= self.max_steps:
            self.stop = "max_steps"
        return answers

    def call(self, name: str, arguments: Any) -> str:
        """The answer of a tool, in the words of `World.call`; once the conversation is over every call is refused, and counts not."""
        return call(self, name, arguments)

    def outcome(self) -> Outcome:
        """The world's grading of what was played."""
        stop = self.stop or "max_steps"  # who falls silent in a conversation that goes no further is cut off
        return self.world.grade(Trajectory(self.problem, 0, list(self.messages), list(self.calls), stop=stop), self.world)

    def _turns(self) -> int:
        return sum(message["role"] == "assistant" for message in self.messages)

    def _as_the_user_sees_it(self) -> list[Message]:
        """The conversation as the user hears it, who is the assistant there: replies, and no calls."""
        seen: list[Message] = [{"role": "system", "content": human_system(self.problem, self.world.setting)}]
        for message in self.messages:
            if message["role"] == "user":
                seen.append({"role": "assistant", "content": message["content"]})
            elif message["role"] == "assistant" and not message.get("tool_calls"):
                seen.append({"role": "user", "content": message["content"]})
        return seen


def agent_system(world: World) -> str:
    """The agent's system prompt: the policy; a framework shows the tools its own way."""
    return system_message(world, {"tools": "none", "policy": "full"})


def replayed(exported: Exported, name: str, messages: Iterable[Message]) -> Conversation:
    """A conversation that a framework has recorded, with its calls made once more, up to what ended it.

    messages: with calls as `Conversation.turn` takes them. How many turns there may be, the framework has decided.
    """
    played = replace(exported.begin(name), max_steps=sys.maxsize)
    for message in messages:
        if played.stop:
            break
        if message["role"] == "user":
            played.messages.append({"role": "user", "content": message["content"]})
        elif message["role"] == "assistant":
            played.turn(str(message.get("content") or ""), message.get("tool_calls") or ())
    return played


def arguments_of(text: str) -> Any:
    """A call's arguments out of the text of a model; the text itself where it is no JSON, which every world refuses."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
