"""In other words: a player that understands nothing else plays as the plain one does, and the world hears its own words alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tasks.agents.conjugate_prompting import Params, agent, check
from tasks.contract.client import Message, Request
from tasks.contract.conjugation import Conjugation, message_said, tool_said
from tasks.contract.params import BadInput
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.worlds.api.play import play
from tests.playing import NO_PROMPT, checkpoint_agent
from tests.rollout import tiny
from tests.rollout.test_rollout import human, jobs, teacher, world

WORDS = {"find_user": "locate_person", "user_id": "person_key", "name": "called", "order_id": "parcel", "yes": "hai", "type": "sort"}


class Foreign:
    """A client that understands the other words alone: what it is asked is in them, and so is what it answers."""

    name, revision = "foreign", "1"

    def __init__(self, inner: Any, conjugation: Conjugation) -> None:
        self.inner, self.conjugation = inner, conjugation
        self.heard: list[str] = []

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        self.heard += [str(request.messages) + str(request.tools) for request in requests]
        back = self.conjugation.back
        own = [
            replace(
                request,
                messages=[message_said(one, back) for one in request.messages],
                tools=[tool_said(one, back) for one in request.tools],
            )
            for request in requests
        ]
        return [message_said(answer, self.conjugation.there) for answer in self.inner.complete(own)]


def test_a_player_of_the_other_words_plays_as_the_plain_one() -> None:
    """Conversations, calls and grades are the same, message by message: calls are said back before they are made, and the tools' answers
    are told in the other words."""
    foreign = Foreign(scripted.client("agent", world(), {}, 0), Conjugation.of(WORDS))
    played = play(world(), jobs(), agent(ClientAgent(foreign, NO_PROMPT), Params(words=WORDS)), human(), seed=1)
    plain = play(world(), jobs(), teacher(), human(), seed=1)
    assert [one.messages for one in played] == [one.messages for one in plain]
    assert [one.outcome for one in played] == [one.outcome for one in plain] and any(one.outcome.reward for one in played)
    heard = " ".join(foreign.heard)
    assert "locate_person" in heard and "person_key" in heard and "find_user" not in heard and "user_id" not in heard


def test_a_player_of_the_plain_words_calls_tools_that_there_are_not() -> None:
    """Nothing falls back: who does not understand the words fails."""
    act = agent(ClientAgent(scripted.client("agent", world(), {}, 0), NO_PROMPT), Params(words=WORDS))
    played = play(world(), jobs(), act, human(), seed=1)
    called = {call["function"]["name"] for one in played for message in one.messages for call in message.get("tool_calls") or ()}
    assert "locate_person" in called and not any(one.outcome.reward for one in played)


def test_a_checkpoint_reads_the_other_words_and_its_tokens_are_one_sequence() -> None:
    """What it read and produced are the tokens of the other words, in the turns as they were; kept are its messages said back."""
    inner = checkpoint_agent(tiny.model(end=12.0), tiny.tokenizer(), NO_PROMPT, rows=8, temperature=1.0, max_turn_tokens=24)
    played = play(world(), jobs(), agent(inner, Params(words=WORDS)), human(), seed=2, max_steps=3)
    there = Conjugation.of(WORDS).there
    for talk in (one for one in played if one.turns):
        text = tiny.tokenizer().decode([token for turn in talk.turns for token in (*turn["prompt_ids"], *turn["ids"])])
        first = next(message["content"] for message in talk.messages if message["role"] == "user")
        assert there(first) in text
    assert any(len(one.turns) > 1 for one in played) and not any(turn["first"] for one in played for turn in one.turns[1:])


def test_bad_words_are_told() -> None:
    with pytest.raises(BadInput, match=r"rl.agents.conjugate_prompting.words: the dictionary changes no word"):
        check(Params(), "rl.agents.conjugate_prompting")
    with pytest.raises(BadInput, match="'b' stands for 'a' and for 'c'"):
        agent(teacher(), Params(words={"a": "b", "c": "b"}))
