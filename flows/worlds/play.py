"""`cairn world play`: a person takes the agent's or the user's seat, in plain lines, and sees how the conversation is graded.

The other seat is the world's script, and the engine is the one that generate, rl and evaluate use, so what is played here is what
they play. Works on a terminal and with piped lines.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from flows.worlds.report import tool_lines
from tasks.contract.agent import Agent, Turn
from tasks.contract.client import Client, Message, Request
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import Action, Problem
from tasks.contract.scripts import STOP
from tasks.contract.trajectory import Trajectory
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.worlds.api.arguments import arguments_of
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import Tool

PROMPT = {"tools": "none", "policy": "none"}
"""What a scripted agent is told: it knows its policy."""
HELP = {
    "agent": (
        "A call:   tool name=value ...    such as  get_order order_id=W12   (quotes around spaces)\n"
        '          or JSON:  {"name": "get_order", "arguments": {"order_id": "W12"}}\n'
        "A reply:  any other line; /say TEXT for one that looks like a call.\n"
        "/tools /policy /state (what has changed) /help /quit (grade what was played)"
    ),
    "user": "Say a line to the agent. /problem (what you want) /tools /policy /state (what has changed) /help /quit (hang up)",
}
Read = Callable[[str], str]
Write = Callable[[str], None]


class Seat:
    """The terminal of one seat: asks for lines, and answers the commands that begin with a slash."""

    def __init__(self, name: str, world: World, problem: Problem, read: Read, write: Write) -> None:
        self.name, self.world, self.problem = name, world, problem
        self.write = write
        self._read = read

    def line(self, prompt: str) -> str | None:
        """The next line that is no command; None at the end of the input, and for /quit."""
        while True:
            try:
                text = self._read(prompt).strip()
            except EOFError:
                return None
            if text == "/quit":
                return None
            if text.startswith("/say "):
                return text
            if text.startswith("/"):
                self.write(self._command(text[1:]))
            elif text:
                return text

    def _command(self, name: str) -> str:
        answers = {
            "help": lambda: HELP[self.name],
            "tools": lambda: "\n".join(line for tool in self.world.tools.values() for line in tool_lines(tool)),
            "policy": lambda: self.world.policy.strip(),
            "state": lambda: self.world.diff() or "nothing has changed",
            "problem": lambda: wish(self.problem) if self.name == "user" else "the agent is not told; ask the user",
        }
        if name not in answers:
            known = [*(f"/{one}" for one in answers), "/quit"]
            return f"no command /{name}.{nearest(f'/{name}', known)} Known: {', '.join(known)}."
        return answers[name]()


class Printer:
    """Prints what has been said and called since the last time."""

    def __init__(self, write: Write) -> None:
        self._write, self._done = write, 0

    def __call__(self, messages: Sequence[Message], *, user: bool) -> None:
        """user: print the user's lines too."""
        for message in messages[self._done :]:
            if message["role"] == "user" and user:
                self._write(f"user>  {message['content']}")
            elif message["role"] == "tool":
                self._write(f"  {message['name']} answers {message['content']}")
            for call in message.get("tool_calls") or ():
                if not user:
                    self._write(f"  the agent calls {call['function']['name']} {json.dumps(call['function']['arguments'])}")
        self._done = len(messages)


class Person:
    """A person in the agent's seat, as an agent of the rollout engine."""

    name = "person"
    capacity = 1

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._print_new = Printer(seat.write)
        self._owed: list[tuple[str, int]] = []

    def send(self, conversation: str, messages: Sequence[Message], world: Any, seed: int) -> None:
        """Show what is new; a turn is owed."""
        self._seat.world = world
        self._print_new(messages, user=True)
        self._owed.append((conversation, len(messages)))

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Nothing: a person reads what is printed."""

    def poll(self) -> list[tuple[str, Turn]]:
        """One turn for each conversation that is owed one, typed by the person."""
        owed, self._owed = self._owed, []
        return [(conversation, self._turn(place)) for conversation, place in owed]

    def _turn(self, place: int) -> Turn:
        while True:
            line = self._seat.line("agent> ")
            if line is None:
                return Turn({"role": "assistant", "content": ""}, error="quit")
            try:
                called = None if line.startswith("/say ") else call_of(line, self._seat.world.tools)
            except BadInput as error:
                self._seat.write(str(error))
                continue
            if called is None:
                return Turn({"role": "assistant", "content": line.removeprefix("/say ")})
            function = {"name": called[0], "arguments": called[1]}
            return Turn(
                {"role": "assistant", "content": "", "tool_calls": [{"id": f"call_{place}", "type": "function", "function": function}]}
            )

    def close(self, conversation: str) -> None:
        """The conversation is over; of a person nothing is kept."""


class Customer:
    """A person in the user's seat, as a client that plays the human."""

    name, revision = "person", "1"

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """The person's line after the agent's last reply; hanging up when there is none."""
        return [{"role": "assistant", "content": self._line(request.messages)} for request in requests]

    def _line(self, messages: Sequence[Message]) -> str:
        if messages[-1]["role"] == "user":
            self._seat.write(f"agent>  {messages[-1]['content']}")
        line = self._seat.line("you>  ")
        return STOP if line is None else line.removeprefix("/say ")


class Watched:
    """An agent whose calls are shown, and whose world the person can look into."""

    def __init__(self, agent: Agent, seat: Seat) -> None:
        self.name, self.capacity = agent.name, 1
        self._agent, self._seat = agent, seat
        self._print_new = Printer(seat.write)

    def send(self, conversation: str, messages: Sequence[Message], world: Any, seed: int) -> None:
        """Show the calls since the last turn, and hand over."""
        self._seat.world = world
        self._print_new(messages, user=False)
        self._agent.send(conversation, messages, world, seed)

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Go on where another conversation stands, as the watched agent does."""
        self._agent.resume(conversation, messages, turns)

    def poll(self) -> list[tuple[str, Turn]]:
        """The turns that the watched agent has ready."""
        return self._agent.poll()

    def close(self, conversation: str) -> None:
        """The conversation is over."""
        self._agent.close(conversation)


def call_of(line: str, tools: Mapping[str, Tool]) -> tuple[str, dict[str, Any]] | None:
    """A typed call as (name, arguments), None for a reply. Raises BadInput for a call that cannot be read."""
    if line.startswith("{"):
        try:
            called = json.loads(line)
            return str(called["name"]), dict(called["arguments"])
        except (ValueError, KeyError, TypeError):
            raise BadInput('not a call: write {"name": ..., "arguments": {...}}, or /say TEXT for a reply.') from None
    name, _, rest = line.partition(" ")
    pairs = re.fullmatch(r"(\s*\w+=('[^']*'|\"[^\"]*\"|[^\s'\"]*))*\s*", rest) is not None
    if name not in tools:
        if rest and pairs and re.fullmatch(r"\w+", name):
            raise BadInput(f"no tool {name!r}.{nearest(name, tools)} Tools: {', '.join(tools)}; /say TEXT for a reply.")
        return None
    if not pairs:
        raise BadInput(f"not a call of {name}: write {name} argument=value ..., with quotes around spaces; or /say TEXT for a reply.")
    properties = arguments_of(tools[name].parameters)
    given = dict(word.split("=", 1) for word in shlex.split(rest))
    return name, {key: value_of(properties.get(key, {}), text) for key, text in given.items()}


def value_of(schema: Mapping[str, Any], text: str) -> Any:
    """A typed value as its schema means it; text that is no such value stays text, which the tool then refuses."""
    if "enum" in schema:
        return next((value for value in schema["enum"] if str(value) == text), text)
    if "anyOf" in schema:
        return None if text in ("null", "none", "None") else value_of(schema["anyOf"][0], text)
    if schema.get("type", "string") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


# --- one conversation ---


def play_one(world: World, seat: str, split: str, family: str, seed: int, read: Read, write: Write) -> Trajectory:
    """Play one problem of the world and show its grading. seat: agent or user; family: "" for one that the seed draws."""
    if not world.scripts:
        raise BadInput(
            f"world {world.name} has no SCRIPTS, so nobody plays the other seat. See tasks/worlds/library/library/ for an example."
        )
    if not family and world.families:
        family = Random(seed_of("play", seed)).choice(world.families)
    problem = draw_problems(world, split, 1, seed, [family])[0]
    here = Seat(seat, world.fork(), problem, read, write)
    write(f"World {world.name}, problem {problem.problem_id} (family {problem.family}), you are the {seat}.\n{HELP[seat]}\n")
    if seat == "agent":
        write(f"{world.policy.strip()}\n")
        write("\n".join(line for tool in world.tools.values() for line in tool_lines(tool)) + "\n")
    else:
        write(f"{wish(problem)}\n")
    agent, human = _players(world, here, seed)
    played = play(world, [(problem, 0)], agent, human, seed=seed)[0]
    write(f"\n{grading(played, here.world, world)}")
    return played


def _players(world: World, seat: Seat, seed: int) -> tuple[Agent, Client]:
    """The person in their seat, and the world's script in the other one."""
    if seat.name == "agent":
        return Person(seat), scripted.client("human", world, {}, seed)
    return Watched(ClientAgent(scripted.client("agent", world, {}, seed), PROMPT), seat), Customer(seat)


def wish(problem: Problem) -> str:
    """What the person in the user's seat wants."""
    return f"{problem.instruction}\nYou are {problem.persona.partition(': ')[2] or problem.persona}."


def grading(played: Trajectory, final: World, start: World) -> str:
    """The outcome in its parts, with what was wanted, and what changed. final: the fork that was played in."""
    problem, outcome = played.problem, played.outcome
    assert outcome is not None  # `play` grades every conversation
    wanted = start.replay(problem.actions).diff
    lines = [f"ended by  {played.stop}"]
    lines.append(f"state     {outcome.state}" + ("" if outcome.state else "  not what the ground truth makes"))
    lines.append(f"outputs   {outcome.outputs}" + _expected(problem.outputs))
    lines.append(f"required  {outcome.required}" + _expected([_call(action) for action in problem.required]))
    lines.append(f"policy    {outcome.policy:.2f}" + (f"  broken: {', '.join(outcome.broken)}" if outcome.broken else ""))
    lines += [f"  {rule}: {start.rules[rule]}" for rule in outcome.broken if rule in start.rules]
    lines.append(f"reward    {outcome.reward}  (state x outputs x required)")
    lines += ["changed:", *_indented(final.diff())]
    if not outcome.state:
        lines += ["wanted:", *_indented(wanted)]
    return "\n".join(lines)


def _expected(things: Sequence[str]) -> str:
    return f"  wanted: {', '.join(things)}" if things else ""


def _call(action: Action) -> str:
    return f"{action.name}({', '.join(f'{name}={value!r}' for name, value in action.arguments.items())})"


def _indented(diff: str) -> list[str]:
    return [f"  {line}" for line in diff.splitlines() or ["nothing"]]
