"""The one engine that plays problems: generate, rl and evaluate play through it, so a conversation is the same thing everywhere.

An agent and a simulated human talk in many conversations at once. Each has its own fork of the world; the human opens; an
assistant turn with tool calls gets the tools' answers, any other turn is a reply and goes to the human, who sees replies
alone. All requests that the human owes at one time are asked as one batch. Tools that wait for something outside this process
(`WAITS` of a world) run side by side, and hold up nobody but their own conversation. Cost: one human request a reply, one agent turn
a step.

`play` plays problems to their end. A `Game` can stop at a turn, go back into a conversation and go on from there with another agent or
human: for data from failed experts (EEF, https://arxiv.org/abs/2504.13145) and tree search (Agent Q, https://arxiv.org/abs/2408.07199).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from tasks.contract.agent import Agent, Turn
from tasks.contract.client import Client, Message, Request
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem
from tasks.contract.scripts import STOP
from tasks.contract.trajectory import Trajectory
from tasks.worlds.api.calls import error as refused
from tasks.worlds.api.conversation import Conversation, forked
from tasks.worlds.api.system_prompt import human_system

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

HUMAN_TOKENS = 128
"""Longest line of a simulated human that is a model: ours, the scripted lines have at most 60 tokens."""

TOOL_FAILURE = '{"error": "tool failure: '
"""How the answer of a tool begins whose own code failed (`World.call`)."""


class Game:
    """Conversations in one world that can be played in parts, gone back into and forked; graded as `play` grades.

    seed, max_steps: as for `play`. snapshots: keep the world's state before each turn of the agent's, so that a fork restores it;
    without, the calls up to there are made again. A state costs the rows that changed. BadInput for fewer steps than a conversation
    may take there (`TURNS` of a world).
    """

    def __init__(self, world: World, *, seed: int, max_steps: int = 30, snapshots: bool = False) -> None:
        self.world, self.seed, self.max_steps, self.snapshots = world, seed, max_steps, snapshots
        if max_steps < world.turns:
            raise BadInput(
                f"world {world.name}: a conversation takes up to {world.turns} turns, and {max_steps} are allowed. Raise what the "
                "step's params say (max_turns, max_steps)."
            )
        self._opened = 0

    def open(self, problem: Problem, trial: int = 0) -> Conversation:
        """A conversation that has yet to begin; the human opens."""
        return self._new(Trajectory(problem=problem, trial=trial, seed=self.seed))

    def take_up(self, played: Trajectory) -> Conversation:
        """A conversation that was played before, at its end, to be forked. Where only some turns have tokens, those are the last."""
        said = sum(message["role"] == "assistant" for message in played.messages)
        talk = self._new(replace(played))
        talk.steps, talk.with_ids = said, [place >= said - len(played.turns) for place in range(said)]
        talk.lines = sum(message["role"] == "user" for message in played.messages)
        return talk

    def _new(self, played: Trajectory) -> Conversation:
        problem = played.problem
        view: list[Message] = [{"role": "system", "content": human_system(problem, self.world.setting)}]
        seeds = (self.seed, problem.problem_id, played.trial, *((played.branch,) if played.branch else ()))
        self._opened += 1
        return Conversation(str(self._opened - 1), played, view, seeds)

    def fork(self, source: Conversation, turn: int | None = None, again: Literal["agent", "human"] = "agent") -> Conversation:
        """A conversation of its own that has in common with `source` what came before the agent's turn `turn` (0 is the first; None:
        all there is). Its noise is keyed by (problem, trial, turn, how many forks were made there), so that no two forks are alike.

        again: who moves first: the agent, or the human, whose last line before that turn is then said anew. The source stays as it is.
        ValueError for a turn that it has not; BadInput where the world cannot be copied, by name.
        """
        return forked(source, self.world, turn, again)

    def play(
        self,
        talks: Sequence[Conversation],
        agent: Agent,
        human: Client,
        *,
        until: int | None = None,
        to_reply: bool = False,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> list[Trajectory]:
        """Play conversations on, to their end or until the agent has had `until` turns in each (those from before a fork count); what
        was played, graded where it ended. They can be played on later, by others too. to_reply: no further than to the agent's next
        reply, which a human answers who is not here."""
        most = min(agent.capacity, self.world.side_by_side or agent.capacity)
        pool = ThreadPoolExecutor(most) if self.world.waits else None
        table = _Table(agent, self.world.human or human, self.max_steps, until, to_reply, self.snapshots, pool)
        todo = [talk for talk in reversed(talks) if not talk.played.stop and (until is None or talk.steps < until)]
        with pool or nullcontext():  # which waits for the grading too
            while todo or table.open:
                while todo and len(table.open) < most:
                    self._begin(table, todo.pop())
                _take_answers(table)
                _ask_human(table)
                if table.owed:
                    for key, turn in agent.poll():
                        table.owed -= 1
                        _take_turn(table, table.open[key], turn)
                _grade(table)
                if progress is not None:
                    progress(len(talks) - len(todo) - len(table.open), len(talks), "conversations")
        for future in table.grading:
            future.result()
        return [talk.played for talk in talks]

    def _begin(self, table: _Table, talk: Conversation) -> None:
        talk.hand_to(table.agent.name, table.human.name)
        if talk.world is None:
            talk.world = self.world.fork()
        table.open[talk.key] = talk
        if talk.to_move == "human":
            table.waiting.append(talk)
        else:
            table.owe_turn(talk)


@dataclass
class _Table:
    """What one `Game.play` holds: who plays, and the conversations that wait for the human.

    pool: threads in which tools run that wait for something; running: their calls; grading: conversations that are graded there, since
    a ground truth is played in the same world. owed: turns that the agent owes.
    """

    agent: Agent
    human: Client
    max_steps: int
    until: int | None = None
    to_reply: bool = False
    snapshots: bool = False
    pool: ThreadPoolExecutor | None = None
    running: dict[Future[str], Conversation] = field(default_factory=dict)
    grading: list[Future[None]] = field(default_factory=list)
    owed: int = 0
    waiting: list[Conversation] = field(default_factory=list)
    open: dict[str, Conversation] = field(default_factory=dict)
    closed: list[Conversation] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    """conversations that the agent has heard of"""

    def owe_turn(self, talk: Conversation) -> None:
        assert talk.world is not None  # it has begun
        if self.snapshots and len(talk.states) == talk.steps:
            talk.states.append(talk.world.snapshot())
        if talk.key not in self.known and talk.steps:
            turns = talk.own_turns()
            last = max(place for place, message in enumerate(talk.played.messages) if message["role"] == "assistant")
            self.agent.resume(talk.key, talk.played.messages[: last + 1], turns)
        self.known.add(talk.key)
        seed = seed_of(*talk.seeds, talk.steps, "agent")
        self.agent.send(talk.key, talk.played.messages, talk.world, seed)
        self.owed += 1

    def leave(self, talk: Conversation) -> None:
        """Play it no further here."""
        del self.open[talk.key]
        if talk.key in self.known:
            self.agent.close(talk.key)

    def close(self, talk: Conversation, stop: str) -> None:
        talk.played.stop = stop
        self.leave(talk)
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
    tool_error (a tool's own code failed). Raises StageFailed when what stands behind the world's tools is down (`World.call`).
    """
    game = Game(world, seed=seed, max_steps=max_steps)
    return game.play([game.open(problem, trial) for problem, trial in jobs], agent, human, progress=progress)


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


def _take_turn(table: _Table, talk: Conversation, turn: Turn) -> None:
    """Record the agent's turn; run its calls or hand its reply to the human."""
    talk.steps += 1
    talk.with_ids.append(bool(turn.ids))
    talk.played.messages.append(dict(turn.message))
    if turn.ids:
        talk.played.turns.append({"prompt_ids": turn.prompt_ids, "ids": turn.ids, "logprobs": turn.logprobs, "first": turn.first})
    if turn.error:
        table.close(talk, turn.error)
    elif turn.message.get("tool_calls"):
        calls = turn.message["tool_calls"]
        if table.pool is not None:
            table.running[table.pool.submit(_run_calls, talk, calls)] = talk
        else:
            _go_on(table, talk, _run_calls(talk, calls))
    else:
        talk.human.append({"role": "user", "content": turn.message["content"]})
        if table.to_reply or talk.steps == table.until:
            table.leave(talk)
        else:
            table.waiting.append(talk)


def _take_answers(table: _Table) -> None:
    """Go on with the conversations whose tools have answered; wait for one only when there is nothing else to do."""
    if not table.running:
        return
    idle = not table.owed and not table.waiting
    done, _ = wait(table.running, timeout=None if idle else 0, return_when=FIRST_COMPLETED)
    for future in [future for future in table.running if future in done]:
        _go_on(table, table.running.pop(future), future.result())


def _go_on(table: _Table, talk: Conversation, stop: str) -> None:
    """After the calls of one turn; stop: why they end the conversation, or ""."""
    if stop:
        table.close(talk, stop)
    elif talk.steps >= table.max_steps:
        table.close(talk, "max_steps")
    elif talk.steps == table.until:
        table.leave(talk)
    else:
        table.owe_turn(talk)


def _run_calls(talk: Conversation, calls: Sequence[dict[str, Any]]) -> str:
    """Run the calls of one turn in order; the reason to stop as soon as one ends the conversation, else ""."""
    assert talk.world is not None  # it has begun
    for call in calls:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        tool = talk.world.tools.get(name)
        action = Action(name, arguments, tool.kind if tool else "read")
        result = refused(f"the call cannot be read: {why}") if (why := call.get("unreadable")) else talk.world.call(name, arguments)
        talk.played.calls.append((action, result))
        message = {"role": "tool", "tool_call_id": call["id"], "name": name, "content": result.content}
        talk.played.messages.append({**message, "images": result.images} if result.images else message)
        if action.kind == "end" and result.ok:
            return "hand_over"
        if not result.ok and result.content.startswith(TOOL_FAILURE):
            return "tool_error"
    return ""


def _grade(table: _Table) -> None:
    """Grade what has ended, or have it graded."""
    for talk in table.closed:
        if table.pool is not None:
            table.grading.append(table.pool.submit(_graded, talk))
        else:
            _graded(talk)
    table.closed.clear()


def _graded(talk: Conversation) -> None:
    assert talk.world is not None
    talk.played.outcome = talk.world.grade(talk.played, talk.world)
