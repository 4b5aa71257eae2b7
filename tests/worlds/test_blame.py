"""Whose failure: planted mistakes of the human are told from those of the agent, and each rule by a hand-made conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from tasks.contract.agent import Turn
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import Trajectory
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.players.trivial.constant import do_nothing, hands_over, refuses
from tasks.worlds.api.blame import blame
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World

RETAIL, AIRLINE = "tasks.worlds.library.retail:Retail", "tasks.worlds.library.airline:Airline"
PROBLEM = Problem(
    problem_id="p",
    world="retail",
    split="train",
    family="one_write",
    lineage=("U1",),
    persona="curt",
    instruction="You are Ann Lee, zip code 12345. You want to have order W17 sent to 5 Bay Drive.",
    intent={},
    actions=(
        Action("find_user", {"name": "Ann Lee", "zip": "12345"}),
        Action("change_address", {"order_id": "W17", "address": "5 Bay Drive"}, "write"),
    ),
)


@cache
def world(address: str = RETAIL) -> World:
    return World.build(world_class(address), 120, 0, address)


def lost(address: str, human: dict[str, float], agent: dict[str, float]) -> list[Trajectory]:
    there = world(address)
    people, desk = scripted.client("human", there, human, 1), scripted.client("agent", there, agent, 1)
    jobs = [(problem, 0) for problem in draw_problems(there, "train", 84, 0)]
    played = play(there, jobs, ClientAgent(desk, {"tools": "none", "policy": "none"}, temperature=0.0), people, seed=3)
    return [talk for talk in played if talk.outcome and not talk.outcome.reward]


@pytest.mark.parametrize("address", [RETAIL, AIRLINE])
@pytest.mark.parametrize("error", ["wrong_detail", "hangs_up"])
def test_planted_mistakes_of_the_human_are_the_humans(address: str, error: str) -> None:
    """The agent makes none, so every failure is the human's; one in twenty may look like the agent's, since doubt counts against it."""
    found = lost(address, {error: 0.3}, {})
    theirs = [talk for talk in found if talk.outcome and talk.outcome.blame == "human"]
    assert len(found) >= 15 and len(theirs) >= 0.95 * len(found)
    assert all(talk.outcome and not talk.outcome.about_agent and talk.outcome.blame_reason for talk in theirs)


@pytest.mark.parametrize("address", [RETAIL, AIRLINE])
def test_planted_mistakes_of_the_agent_are_never_put_on_others(address: str) -> None:
    found = lost(address, {}, dict.fromkeys(world(address).ERRORS, 0.3))
    assert len(found) >= 30
    assert {talk.outcome.blame for talk in found if talk.outcome} == {"agent"}


@dataclass
class Asks:
    """Acts as another agent does for some turns of a conversation; from then on it says the same line, numbered."""

    inner: Any
    line: str
    after: int
    name: str = "asks"
    capacity: int = 64
    owed: dict[str, Turn] = field(default_factory=dict)

    def send(self, conversation: str, messages: Any, world: World, seed: int) -> None:
        turns = sum(message["role"] == "assistant" for message in messages)
        if turns < self.after:
            self.inner.send(conversation, messages, world, seed)
        else:
            self.owed[conversation] = Turn({"role": "assistant", "content": self.line.format(turns)})

    def poll(self) -> list[tuple[str, Turn]]:
        owed, self.owed = list(self.owed.items()), {}
        return owed or self.inner.poll()

    def close(self, conversation: str) -> None:
        self.inner.close(conversation)


LINES = (
    "What is your favourite number besides {}?",
    "Tell me the maiden name of aunt {}.",
    "Which order or booking is it? ({})",
    "Please confirm your name and zip once more, attempt {}.",
    "One moment, step {}.",
    "Done with part {}. Anything else?",
    "",
)


@pytest.mark.parametrize("address", [RETAIL, AIRLINE])
def test_no_agent_escapes_by_what_it_says_last(address: str) -> None:
    """The human makes no mistake, so each lost conversation is the agent's: whoever does nothing, and whoever stops and asks."""
    there, people = world(address), scripted.client("human", world(address), {}, 1)
    jobs = [(problem, 0) for problem in draw_problems(there, "train", 42, 0)]
    desk = ClientAgent(scripted.client("agent", there, {}, 1), {"tools": "none", "policy": "none"})
    asking = [Asks(desk, line, after) for line in LINES for after in (0, 2)]
    found = [talk for agent in (do_nothing(), refuses(), hands_over(), *asking) for talk in play(there, jobs, agent, people, seed=3)]
    reasons = [talk.outcome.blame_reason for talk in found if talk.outcome and talk.outcome.blame == "human"]
    assert not reasons and sum(not talk.outcome.reward for talk in found if talk.outcome) >= 0.9 * len(found)


def test_a_won_conversation_blames_nobody() -> None:
    problem = draw_problems(world(), "train", 1, 0)[0]
    people, desk = scripted.client("human", world(), {}, 1), scripted.client("agent", world(), {}, 1)
    talk = play(world(), [(problem, 0)], ClientAgent(desk, {"tools": "none", "policy": "none"}), people, seed=3)[0]
    assert talk.outcome and talk.outcome.reward and talk.outcome.blame == "" and talk.outcome.about_agent


def conversation(*turns: Any, stop: str = "user_stop", ok: bool = True) -> Trajectory:
    """Turns are lines of the human ("user: ..."), replies ("agent: ...") and calls (an Action)."""
    talk = Trajectory(PROBLEM, 0, stop=stop)
    for turn in turns:
        if isinstance(turn, Action):
            call = {"id": "c", "type": "function", "function": {"name": turn.name, "arguments": turn.arguments}}
            talk.messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            talk.messages.append({"role": "tool", "tool_call_id": "c", "name": turn.name, "content": "{}"})
            talk.calls.append((turn, ToolResult(ok, "{}")))
        else:
            who, _, said = turn.partition(": ")
            talk.messages.append({"role": "user" if who == "user" else "assistant", "content": said})
    return talk


LOOK = Action("find_user", {"name": "Ann Lee", "zip": "12345"})
WHO = "user: I am Ann Lee, zip 12345."
WANT = "user: Send order W17 to 5 Bay Drive."


@pytest.mark.parametrize(
    ("turns", "stop", "who", "why"),
    [
        ((WHO, LOOK), "tool_error", "tool", "find_user"),
        ((), "human_error", "human", "said nothing"),
        (("user: I am Ann Lee, zip 54321.", Action("find_user", {"name": "Ann Lee", "zip": "54321"})), "user_stop", "human", "'54321'"),
        (
            ("user: I am Anna Lee, zip 12345.", Action("find_user", {"name": "Anna Lee", "zip": "12345"})),
            "hand_over",
            "human",
            "'Anna Lee'",
        ),
        ((WHO, LOOK, "agent: What can I do for you?"), "user_stop", "human", "without saying 'W17'"),
        ((WHO, LOOK, "agent: What?", WANT, "agent: Shall I send W17 to 5 Bay Drive?"), "user_stop", "human", "on a question"),
        ((WHO, LOOK, "agent: What?", WANT, "agent: Done. Anything else?"), "user_stop", "agent", "without the wanted end"),
        ((WHO, "agent: Who are you?", WHO, "agent: Who are you?"), "user_stop", "agent", "the same twice"),
        ((WHO, LOOK, "agent: What can I do for you?"), "max_steps", "agent", "max_steps"),
        ((WHO, Action("find_user", {"name": "Ann Lee", "zip": "99999"}), "agent: What is it?"), "user_stop", "agent", "broke"),
        # a question that the human could answer and had not yet, of whatever script
        ((WHO, LOOK, "agent: Which order is it, and where does it go?"), "user_stop", "human", "'W17'"),
        ((WHO, LOOK, "agent: order_id\uff1f"), "user_stop", "human", "'W17'"),
        ((WANT, "agent: Your name?"), "user_stop", "human", "'Ann Lee'"),
        # one that it could not, or has answered
        ((WHO, LOOK, "agent: What is your shoe size?"), "user_stop", "agent", "without the wanted end"),
        ((WHO, LOOK, "agent: Tell me your shoe size."), "user_stop", "agent", "without the wanted end"),
        ((WHO, LOOK, "agent: I see. Your shoe size? It helps."), "user_stop", "agent", "without the wanted end"),
        ((WHO, WANT, LOOK, "agent: Which order is it?"), "user_stop", "agent", "without the wanted end"),
        ((WHO, LOOK, "agent: What?", WANT, "agent: Shall I send W18 to 5 Bay Drive?"), "user_stop", "agent", "without the wanted end"),
        (
            (WHO, LOOK, "agent: What?", WANT, "agent: Send W17 to 5 Bay Drive?", "user: Yes.", "agent: So W17 goes to 5 Bay Drive?"),
            "user_stop",
            "agent",
            "without the wanted end",
        ),
        ((WHO, "agent: What?", WANT, "agent: Who are you?", WHO, "agent: What?"), "user_stop", "agent", "asked the same twice"),
        # it closes, or says nothing, before it has done anything
        ((WANT, "agent: Anything else?"), "user_stop", "agent", "without the wanted end"),
        ((WHO, LOOK, "agent: "), "user_stop", "agent", "said nothing"),
        ((WHO, LOOK, "agent: "), "human_error", "agent", "said nothing"),
        ((WHO, LOOK, "agent: What can I do for you?"), "hand_over", "agent", "hand_over"),
        # what the agent makes up breaks a tool; what the human gave does
        ((WHO, Action("find_user", {"name": "Ann Lee", "zip": "99999"})), "tool_error", "agent", "'99999'"),
        ((WHO, Action("get_order", {"order_id": "W17"})), "tool_error", "tool", "get_order"),
        ((WHO, Action("search", {"query": "a zip near Berlin", "most": 10})), "tool_error", "tool", "search"),
        # the human was asked for what it was never told
        ((WHO, "agent: Your phone?", "user: 555.", Action("call", {"phone": "555"}), "agent: Hm."), "user_stop", "agent", "without"),
        # the human only repeats what the agent brought up
        ((WHO, "agent: Is it W99?", "user: Yes, W99.", Action("get_order", {"order_id": "W99"})), "user_stop", "agent", "broke"),
    ],
)
def test_by_hand(turns: tuple[Any, ...], stop: str, who: str, why: str) -> None:
    broken = ("R1",) if why == "broke" else ()
    found = blame(conversation(*turns, stop=stop), world(), broken)
    assert found[0] == who and why in found[1]


def test_a_refused_call_or_a_wrong_write_excuses_the_human() -> None:
    """The human gave up on an agent that had gone wrong before; without that it would have been the human's doing."""
    turns = (WHO, LOOK, "agent: What can I do for you?")
    assert blame(conversation(*turns), world(), ())[0] == "human"
    assert blame(conversation(*turns, ok=False), world(), ()) == ("agent", "a call of find_user was refused")
    wrong = Action("change_address", {"order_id": "W17", "address": "6 Bay Drive"}, "write")
    found = blame(conversation(WHO, LOOK, wrong, "agent: What can I do for you?"), world(), ())
    assert found == ("agent", "called change_address, which nobody wanted so")
    twice = conversation(WHO, "agent: Who is it?", WHO, "agent: Who is it?")
    assert blame(twice, world(), ())[1] == "said the same twice"
