"""Whose failure: planted mistakes of the human are told from those of the agent, and each rule by a hand-made conversation."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from tasks.agents.scripted import ClientAgent
from tasks.llm import scripted
from tasks.rollout import play
from tasks.worlds import Action, Problem, ToolResult, Trajectory
from tasks.worlds.blame import blame
from tasks.worlds.loading import world_class
from tasks.worlds.runtime import World

RETAIL, AIRLINE = "tasks.worlds.retail:Retail", "tasks.worlds.airline:Airline"
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
    jobs = [(problem, 0) for problem in there.problems("train", 84, 0)]
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


def test_a_won_conversation_blames_nobody() -> None:
    problem = world().problems("train", 1, 0)[0]
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
