"""The one engine that plays problems: generate, rl and evaluate call `play`, so a conversation is the same thing everywhere.

An agent and a simulated human talk in many conversations at once. Each has its own fork of the world; the human opens; an
assistant turn with tool calls gets the tools' answers, any other turn is a reply and goes to the human, who sees replies
alone. All requests that the human owes at one time are asked as one batch. Cost: one human request a reply, one agent turn
a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.contract.agent import Agent, Turn
from tasks.contract.client import Client, Message, Request
from tasks.contract.context import seed_of
from tasks.contract.problem import Action, Problem
from tasks.contract.trajectory import Trajectory
from tasks.worlds.api.calls import error as refused
from tasks.worlds.api.scripts.human import STOP, human_system

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

HUMAN_TOKENS = 128
"""Longest line of a simulated human that is a model: ours, the scripted lines have at most 60 tokens."""

TOOL_FAILURE = '{"error": "tool failure: '
"""How the answer of a tool begins whose own code failed (`World.call`)."""


@dataclass
class _Open:
    """A conversation in play. `human` is the human's view: its system message, its own lines, the agent's replies."""

    key: str
    played: Trajectory
    world: World
    human: list[Message]
    steps: int = 0
    lines: int = 0
    seeds: tuple[object, ...] = field(default=())


@dataclass
class _Table:
    """What one `play` holds: who plays, and the conversations that wait for the human."""

    agent: Agent
    human: Client
    max_steps: int
    waiting: list[_Open] = field(default_factory=list)
    open: dict[str, _Open] = field(default_factory=dict)
    closed: list[_Open] = field(default_factory=list)

    def owe_turn(self, talk: _Open) -> None:
        seed = seed_of(*talk.seeds, talk.steps, "agent")
        self.agent.send(talk.key, talk.played.messages, talk.world, seed)

    def close(self, talk: _Open, stop: str) -> None:
        talk.played.stop = stop
        del self.open[talk.key]
        if talk.lines:  # without a line of the human's the agent has never heard of it
            self.agent.close(talk.key)
        self.closed.append(talk)


def play(
    world: World,
    jobs: Sequence[tuple[Problem, int]],
    agent: Agent,
    human: Client,
    *,
    seed: int,
    max_steps: int = 30,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Trajectory]:
    """Play every job (problem, trial) and grade it; the answer is in the order of `jobs`.

    The noise of agent and human is keyed by (seed, problem, trial, turn, role). max_steps counts assistant turns (30:
    tau-bench's `max_num_steps`). Stop reasons: user_stop, hand_over (a tool of kind "end" succeeded), max_steps,
    max_tokens, parse_error; and human_error (the human said nothing or half a line, or hung up before it had asked for anything) and
    tool_error (a tool's own code failed).
    """
    table = _Table(agent, human, max_steps)
    todo = [_start(world, index, job, agent, human, seed) for index, job in reversed(list(enumerate(jobs)))]
    everyone = list(reversed(todo))
    while todo or table.open:
        while todo and len(table.open) < agent.capacity:
            talk = todo.pop()
            talk.world = world.fork()
            table.open[talk.key] = talk
            table.waiting.append(talk)
        _ask_human(table)
        if table.open and not table.waiting:
            for key, turn in agent.poll():
                _take_turn(table, table.open[key], turn)
        _grade(table)
        if progress is not None:
            progress(len(everyone) - len(todo) - len(table.open), len(everyone), "conversations")
    return [talk.played for talk in everyone]


def _start(world: World, index: int, job: tuple[Problem, int], agent: Agent, human: Client, seed: int) -> _Open:
    problem, trial = job
    played = Trajectory(problem=problem, trial=trial, agent=agent.name, human=human.name, seed=seed)
    view: list[Message] = [{"role": "system", "content": human_system(problem, world.setting)}]
    return _Open(str(index), played, world, view, seeds=(seed, problem.problem_id, trial))


def _ask_human(table: _Table) -> None:
    """One batch of questions to the human; every line goes to the agent, or ends its conversation."""
    talks, table.waiting = table.waiting, []
    if not talks:
        return
    requests = [
        Request(
            messages=talk.human,
            seed=seed_of(*talk.seeds, talk.lines, "human"),
            intent=talk.played.problem.intent,
            max_tokens=HUMAN_TOKENS,
            labels={"role": "human", "problem": talk.played.problem.problem_id},
        )
        for talk in talks
    ]
    for talk, line in zip(talks, table.human.complete(requests), strict=True):
        content = str(line.get("content") or "").strip()
        if lost := line.get("lost"):
            table.close(talk, f"human_{lost}")
        elif not content or (STOP in content and not talk.lines):
            table.close(talk, "human_error")
        elif STOP in content:
            table.close(talk, "user_stop")
        elif line.get("finish_reason") == "length":  # nobody says half a line
            table.close(talk, "human_error")
        elif talk.steps >= table.max_steps:
            table.close(talk, "max_steps")
        else:
            talk.lines += 1
            talk.human.append({"role": "assistant", "content": content})
            talk.played.messages.append({"role": "user", "content": content})
            table.owe_turn(talk)


def _take_turn(table: _Table, talk: _Open, turn: Turn) -> None:
    """Record the agent's turn; run its calls or hand its reply to the human."""
    talk.steps += 1
    talk.played.messages.append(dict(turn.message))
    if turn.ids:
        talk.played.rewritten |= turn.first and bool(talk.played.turns)
        talk.played.turns.append({"prompt_ids": turn.prompt_ids, "ids": turn.ids, "logprobs": turn.logprobs})
    if turn.error:
        table.close(talk, turn.error)
    elif turn.message.get("tool_calls"):
        if stop := _run_calls(talk, turn.message["tool_calls"]):
            table.close(talk, stop)
        elif talk.steps >= table.max_steps:
            table.close(talk, "max_steps")
        else:
            table.owe_turn(talk)
    else:
        talk.human.append({"role": "user", "content": turn.message["content"]})
        table.waiting.append(talk)


def _run_calls(talk: _Open, calls: Sequence[dict[str, Any]]) -> str:
    """Run the calls of one turn in order; the reason to stop as soon as one ends the conversation, else ""."""
    for call in calls:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        tool = talk.world.tools.get(name)
        action = Action(name, arguments, tool.kind if tool else "read")
        result = refused(f"the call cannot be read: {why}") if (why := call.get("unreadable")) else talk.world.call(name, arguments)
        talk.played.calls.append((action, result))
        talk.played.messages.append({"role": "tool", "tool_call_id": call["id"], "name": name, "content": result.content})
        if action.kind == "end" and result.ok:
            return "hand_over"
        if not result.ok and result.content.startswith(TOOL_FAILURE):
            return "tool_error"
    return ""


def _grade(table: _Table) -> None:
    """Grade what has ended, and let go of its world."""
    for talk in table.closed:
        talk.played.outcome = talk.world.grade(talk.played, talk.world)
    table.closed.clear()
