"""The engine in the real retail world: what ends a conversation, who sees what, what is the same each time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from threading import Event, current_thread
from typing import Any

import pytest

from tasks.contract.agent import Turn
from tasks.contract.client import Message, Request
from tasks.contract.problem import Problem
from tasks.contract.scripts import STOP
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tests.playing import checkpoint_agent
from tests.rollout import tiny

PROMPT = {"tools": "none", "policy": "none"}


@cache
def world() -> World:
    address = "tasks.worlds.library.retail:Retail"
    return World.build(world_class(address), size=60, seed=1, address=address)


@cache
def problems() -> tuple[Problem, ...]:
    return tuple(draw_problems(world(), "train", 2 * len(world().families), seed=3))


def jobs(trials: int = 1) -> list[tuple[Problem, int]]:
    return [(problem, trial) for problem in problems() for trial in range(trials)]


def human() -> Any:
    return scripted.client("human", world(), {}, 0)


def teacher(capacity: int = 64) -> ClientAgent:
    return ClientAgent(scripted.client("agent", world(), {}, 0), PROMPT, capacity=capacity)


class Says:
    """A client that says the same lines in every conversation, chosen by how many it has said; it keeps what it was asked."""

    name, revision = "says", "1"

    def __init__(self, *lines: Any) -> None:
        self.lines = lines
        self.requests: list[Request] = []

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        self.requests += [replace(request, messages=list(request.messages)) for request in requests]
        return [self._say(sum(message["role"] == "assistant" for message in request.messages)) for request in requests]

    def _say(self, number: int) -> Message:
        line = self.lines[min(number, len(self.lines) - 1)]
        if isinstance(line, str):
            return {"role": "assistant", "content": line}
        calls = [
            {"id": f"call_{number}_{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for place, (name, arguments) in enumerate(line)
        ]
        return {"role": "assistant", "content": "", "tool_calls": calls}


def one(agent: Any, person: Any, max_steps: int = 30) -> Any:
    return play(world(), jobs()[:1], ClientAgent(agent, PROMPT), person, seed=1, max_steps=max_steps)[0]


def test_the_scripted_teacher_solves_the_problems() -> None:
    played = play(world(), jobs(2), teacher(), human(), seed=1)
    assert [(talk.problem.problem_id, talk.trial) for talk in played] == [(problem.problem_id, trial) for problem, trial in jobs(2)]
    assert sum(talk.outcome.reward for talk in played if talk.outcome) >= 0.9 * len(played)
    assert {talk.stop for talk in played} <= {"user_stop", "hand_over"}
    assert all(talk.messages[0]["role"] == "user" and talk.human == "scripted-human" for talk in played)


def test_the_order_of_play_changes_nothing() -> None:
    """One conversation at a time, all at once, or backwards: the same conversations, since noise is keyed and worlds are forks."""
    together = play(world(), jobs(), teacher(), human(), seed=1)
    assert together == play(world(), jobs(), teacher(capacity=1), human(), seed=1)
    assert together == play(world(), jobs()[::-1], teacher(), human(), seed=1)[::-1]


def test_a_babbling_checkpoint_is_played_to_an_end_and_its_tokens_are_kept() -> None:
    """Random weights: every conversation ends as it must, and the ids kept are a prefix-free split of one sequence."""
    agent = checkpoint_agent(tiny.model(end=6.0), tiny.tokenizer(), PROMPT, rows=5, temperature=1.0, max_turn_tokens=12)
    played = play(world(), jobs(), agent, human(), seed=2)
    assert played == play(
        world(),
        jobs(),
        checkpoint_agent(tiny.model(end=6.0), tiny.tokenizer(), PROMPT, rows=5, temperature=1.0, max_turn_tokens=12),
        human(),
        seed=2,
    )
    assert {talk.stop for talk in played} <= {"max_tokens", "parse_error", "user_stop", "max_steps"}
    for talk in played:
        assert all(len(turn["ids"]) == len(turn["logprobs"]) > 0 for turn in talk.turns)
        assert tiny.tokenizer().decode(talk.turns[0]["prompt_ids"]).endswith("<|im_start|>assistant\n")


def test_half_a_turn_ends_the_conversation_as_such() -> None:
    """What was cut at its most tokens is neither a reply nor a line: the agent's conversation says max_tokens, the human's
    human_error; a human that had said its stop word has said all."""

    class Cut(Says):
        def _say(self, number: int) -> Message:
            return {**super()._say(number), "finish_reason": "length"}

    agent = one(Cut("Your order is now"), Says("Hello.", STOP))
    assert (agent.stop, agent.messages[-1]) == ("max_tokens", {"role": "assistant", "content": "Your order is now"})
    assert one(Says("Hi."), Cut("Hello, I would like to")).stop == "human_error"
    assert one(Says("Hi."), Cut(f"Thanks {STOP} and")).stop == "human_error"  # before it has asked for anything


def test_the_human_sees_replies_only_and_the_agent_never_sees_the_problem() -> None:
    """By hand: the agent calls a tool, gets its answer, replies; the human has then seen its own line and that reply."""
    agent, person = Says([("no_such_tool", {})], "I cannot help."), Says("Hello.", STOP)
    talk = one(agent, person)
    assert [message["role"] for message in talk.messages] == ["user", "assistant", "tool", "assistant"]
    assert talk.stop == "user_stop" and talk.calls[0][1].ok is False
    view = [(message["role"], message["content"]) for message in person.requests[-1].messages[1:]]
    assert view == [("assistant", "Hello."), ("user", "I cannot help.")]
    seen = json.dumps([request.messages for request in agent.requests])
    assert talk.problem.instruction not in seen and talk.problem.persona not in seen
    assert talk.problem.instruction in person.requests[0].messages[0]["content"]


def test_max_steps_counts_assistant_turns() -> None:
    assert len(one(Says([("no_such_tool", {})]), Says("Hello."), max_steps=4).calls) == 4
    talk = one(Says("Hm."), Says("Hello."), max_steps=3)
    assert talk.stop == "max_steps" and [message["role"] for message in talk.messages].count("assistant") == 3
    assert one(Says("Hm."), Says("Hello.", STOP), max_steps=1).stop == "user_stop"  # the human may still hang up


def test_a_human_that_says_nothing_is_not_the_agents_fault() -> None:
    assert one(Says("Hm."), Says("")).stop == "human_error"
    assert one(Says("Hm."), Says(STOP)).stop == "human_error"


@pytest.mark.parametrize("call", [{"id": 1}, {"id": "a", "function": {"name": "x", "arguments": "{"}}, "text"])
def test_a_malformed_call_is_a_parse_error(call: Any) -> None:
    class Malformed(Says):
        def _say(self, number: int) -> Message:
            return {"role": "assistant", "content": "I", "tool_calls": [call]}

    talk = one(Malformed(), Says("Hello."))
    assert talk.stop == "parse_error" and talk.calls == [] and talk.messages[-1] == {"role": "assistant", "content": "I"}


def test_a_tool_whose_own_code_fails_is_not_the_agents_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = "transfer_to_human"
    agent = Says([(tool, {"reason": "lost"})])
    assert one(agent, Says("Hello.")).stop == "hand_over"

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(world().shared.cls, tool, broken)
    talk = one(agent, Says("Hello."))
    assert talk.stop == "tool_error" and "ZeroDivisionError" in talk.messages[-1]["content"]


def test_turns_without_tokens_are_not_kept() -> None:
    assert one(Says("Hm."), Says("Hello.", STOP)).turns == []
    assert Turn({"role": "assistant", "content": ""}).ids == ()


class Ends:
    """Answers as a server's client does that lost every call, or got half an answer."""

    revision = "1"

    def __init__(self, **answer: Any) -> None:
        self.name, self.answer = "ends", {"role": "assistant", "content": "", **answer}

    def complete(self, requests: Any) -> list[dict[str, Any]]:
        return [dict(self.answer) for _ in requests]


@pytest.mark.parametrize("reason", ["context_length", "content_filter", "not_accepted", "unusable"])
def test_a_turn_that_no_server_gave_loses_its_conversation_for_that_reason(reason: str) -> None:
    lost = Ends(lost=reason, finish_reason="error")
    talk = one(lost, Says("Hello."))
    assert (talk.stop, talk.outcome and talk.outcome.blame, talk.messages[-1]) == (
        reason,
        "agent",
        {"role": "assistant", "content": ""},
    )
    silent = one(Says("Hm."), lost)
    assert (silent.stop, silent.outcome and silent.outcome.blame, silent.messages) == (f"human_{reason}", "human", [])


def test_a_call_that_cannot_be_read_is_told_as_a_failed_call_and_its_neighbours_run() -> None:
    """The good call of two is carried out; the other fails with the reason, whatever the tool would take; nothing is dropped."""
    name = next(iter(world().tools))
    bad = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": {"unreadable": "{"}}, "unreadable": "no JSON"}
    good = {"id": "call_0", "type": "function", "function": {"name": name, "arguments": {}}}
    talk = one(Ends(tool_calls=[good, bad], finish_reason="tool_calls"), Says("Hello."), max_steps=1)
    told = [message for message in talk.messages if message["role"] == "tool"]
    assert [message["tool_call_id"] for message in told] == ["call_0", "call_1"] and len(talk.calls) == 2
    assert json.loads(told[1]["content"]) == {"error": "the call cannot be read: no JSON"} and not talk.calls[1][1].ok
    assert "cannot be read" not in told[0]["content"]


class Waits:
    """A world whose tools answer after a while: the first one asked after the others."""

    def __init__(self, inner: World, begun: list[str], late: Event) -> None:
        self._inner, self._begun, self._late = inner, begun, late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    waits = True

    def fork(self) -> Waits:
        return Waits(self._inner.fork(), self._begun, self._late)

    def call(self, name: str, arguments: Any) -> Any:
        self._begun.append(current_thread().name)
        if len(self._begun) == 1:
            assert self._late.wait(20), "the others never went on"
        return self._inner.call(name, arguments)


def test_a_slow_tool_holds_up_its_own_conversation_alone() -> None:
    """The first tool that is called answers only when all other conversations have ended; what is played is what it is without waiting."""
    late, begun = Event(), list[str]()
    games = jobs()

    def progress(done: int, total: int, _: str) -> None:
        if done == total - 1:
            late.set()

    slow = Waits(world(), begun, late)
    played = play(slow, games, teacher(), human(), seed=1, progress=progress)  # type: ignore[arg-type]
    assert late.is_set() and len(set(begun)) > 1
    assert played == play(world(), games, teacher(), human(), seed=1)
