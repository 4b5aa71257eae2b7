"""Conversations that ended before their time: by which cap, and when there are too many of them.

By hand, for an agent whose turns have at most 4 produced ids: see the table.
"""

from __future__ import annotations

from typing import Any

import pytest

from tasks.contract.early_ends import EPISODE, NO_ROOM, REMEDIES, TURN, counted, lost_by, too_many, unheard
from tasks.contract.problem import Problem
from tasks.contract.trajectory import Trajectory


def talk(stop: str, *roles: str, turns: tuple[int, ...] = ()) -> Trajectory:
    """roles: of the messages; turns: produced ids of each turn that was begun."""
    problem = Problem("p", "shop", "train", "f", ("u",), "plain", "do it", {}, ())
    messages: list[dict[str, Any]] = [{"role": role, "content": ""} for role in roles]
    made = [{"prompt_ids": [1], "ids": [2] * count, "logprobs": [0.0] * count} for count in turns]
    return Trajectory(problem, 0, messages=messages, turns=made, stop=stop)


@pytest.mark.parametrize(
    ("played", "lost", "not_heard"),
    [
        (talk("max_tokens", "user", "assistant"), NO_ROOM, NO_ROOM),
        (talk("max_tokens", "user", "assistant", turns=(3,)), EPISODE, EPISODE),
        (talk("max_tokens", "user", "assistant", turns=(4,)), TURN, ""),
        (talk("max_tokens", "user", "assistant", "user", "assistant", turns=(2, 4)), TURN, ""),
        (talk("max_tokens", "user", "assistant", "user", "assistant", turns=(4, 2)), EPISODE, ""),
        (talk("max_tokens", "user", "assistant", "tool", "assistant", turns=(4,)), EPISODE, ""),
        (talk("parse_error", "user", "assistant", turns=(2,)), "parse_error", ""),
        (talk("human_error"), "human_error", "human_error"),
        (talk("human_context_length", "user", "assistant", turns=(2,)), "human_context_length", "human_context_length"),
        (talk("tool_error", "user", "assistant", "tool", turns=(2,)), "tool_error", "tool_error"),
        (talk("user_stop", "user", "assistant", turns=(4,)), "", ""),
        (talk("max_steps", "user", "assistant", turns=(2,)), "", ""),
    ],
)
def test_each_end_has_its_reason(played: Trajectory, lost: str, not_heard: str) -> None:
    assert (lost_by(played, 4), unheard(played, 4)) == (lost, not_heard)


def test_one_cap_is_one_reason() -> None:
    """A prompt as long as the cap leaves some conversations no room, and others a few words of it: none of them was heard."""
    said = too_many({NO_ROOM: 40, EPISODE: 60}, 100, 0.9)
    assert said.startswith("100 of 100") and "max_episode_tokens" in said and "prompt.tools" in said
    assert not too_many({NO_ROOM: 40, EPISODE: 50}, 100, 0.9) and not too_many({TURN: 50, EPISODE: 50}, 100, 0.9)


def test_too_many_is_a_larger_share_for_one_reason() -> None:
    """By hand: 9 of 10 are not more than 0.9; 5 and 5 for two reasons are not one reason; reasons without a remedy do not exist."""
    assert too_many({NO_ROOM: 9}, 10, 0.9) == "" == too_many({}, 0, 0.9) == too_many({NO_ROOM: 5, TURN: 5}, 10, 0.5)
    assert too_many({TURN: 10}, 10, 1.0) == "" != too_many({NO_ROOM: 10}, 10, 1.0)  # nobody wants to play without a word
    assert too_many({NO_ROOM: 1, TURN: 9}, 10, 0.8).startswith("9 of 10 conversations ended before their time: a turn was cut")
    assert counted(["", TURN, NO_ROOM, TURN, ""]) == {TURN: 2, NO_ROOM: 1}
    others = ("human_error", "tool_error", "human_context_length")
    assert all("max_lost = 0" in too_many({reason: 1}, 1, 0.0) for reason in (*REMEDIES, *others))
    assert all(f"time: {reason}" not in too_many({reason: 1}, 1, 0.0) for reason in others)  # each has words of its own
