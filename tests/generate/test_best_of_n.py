"""The stabilised human: the best of N lines, scored with the history; a stop is one candidate among others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.contract.client import Message, Request
from tasks.contract.scripts import STOP
from tasks.generate.parts.apigen_mt.best_of_n import BestOfN
from tasks.players.scripts.script import blocks

DESK_ASKS = [
    {"role": "system", "content": "You are Ann Lee, zip 12345."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "What is your zip?"},
]


@dataclass
class _Lines:
    """Says its lines in turn."""

    lines: Sequence[str]
    name: str = "lines"
    revision: str = "1"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        return [{"role": "assistant", "content": self.lines[place % len(self.lines)]} for place in range(len(requests))]


@dataclass
class _Marks:
    """Gives each line its mark, and keeps what it was asked."""

    marks: dict[str, str]
    name: str = "marks"
    revision: str = "2"
    requests: list[Request] = field(default_factory=list)

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        self.requests += requests
        return [{"role": "assistant", "content": self.marks[blocks(request.messages, "candidate")[-1]]} for request in requests]


def _score(value: int) -> str:
    return json.dumps({"score": value})


def test_a_stop_among_the_candidates_does_not_end_the_talk() -> None:
    """Four draws of which one is a stop (worth 2 while the desk waits for an answer): the line worth 10 is said. Ending at any stop
    would end with probability 1 - (1 - p)^4 where one draw ends with p: 0.34 instead of 0.1."""
    critic = _Marks({STOP: _score(2), "12345": _score(10), "99999": _score(6)})
    human = BestOfN(_Lines([STOP, "99999", "12345", "99999"]), critic, 4)
    assert human.complete([Request(DESK_ASKS)])[0]["content"] == "12345"
    assert len(critic.requests) == 3, "equal candidates are asked about once"


def test_a_stop_with_the_best_score_is_said() -> None:
    critic = _Marks({STOP: _score(10), "More?": _score(3)})
    assert BestOfN(_Lines(["More?", STOP]), critic, 2).complete([Request(DESK_ASKS)])[0]["content"] == STOP


def test_candidates_are_scored_with_the_history() -> None:
    critic = _Marks({"a": _score(1), "b": _score(2)})
    BestOfN(_Lines(["a", "b"]), critic, 2).complete([Request(DESK_ASKS)])
    assert blocks(critic.requests[0].messages, "history")[-1] == [
        {"speaker": "user", "line": "Hello."},
        {"speaker": "assistant", "line": "What is your zip?"},
    ]
    assert blocks(critic.requests[0].messages, "description")[-1] == "You are Ann Lee, zip 12345."


def test_one_candidate_is_the_human_itself() -> None:
    """The limit N = 1: the critic is never asked and the line is the human's."""
    critic = _Marks({})
    human = BestOfN(_Lines(["only"]), critic, 1)
    assert human.complete([Request(DESK_ASKS)] * 2) == [{"role": "assistant", "content": "only"}] * 2
    assert not critic.requests and human.name == "lines" and human.revision == "1"


def test_equal_scores_go_to_the_first_and_unreadable_ones_lose() -> None:
    def said(first: str, second: str) -> tuple[str, int]:
        human = BestOfN(_Lines(["a", "b"]), _Marks({"a": first, "b": second}), 2)
        return human.complete([Request(DESK_ASKS)])[0]["content"], human.unreadable

    assert said(_score(5), _score(5)) == ("a", 0)
    assert said("well", _score(1)) == ("b", 1)


def test_several_requests_keep_their_order() -> None:
    critic = _Marks({"a": _score(1), "b": _score(2), "c": _score(3), "d": _score(0)})
    said = BestOfN(_Lines(["a", "b", "c", "d"]), critic, 2).complete([Request(DESK_ASKS)] * 2)
    assert [line["content"] for line in said] == ["b", "c"]


def test_an_empty_line_is_no_candidate_while_there_is_another() -> None:
    """A critic that likes silence cannot end the talk with it; without any words there is nothing else to say."""
    critic = _Marks({"": _score(10), "12345": _score(9), "Hm.": _score(1)})
    assert BestOfN(_Lines(["", "12345", "Hm."]), critic, 3).complete([Request(DESK_ASKS)])[0]["content"] == "12345"
    assert BestOfN(_Lines(["", " "]), critic, 2).complete([Request(DESK_ASKS)])[0]["content"] == ""


@dataclass
class _Drawn:
    """Draws these answers."""

    answers: Sequence[Message]
    name: str = "drawn"
    revision: str = "1"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        return list(self.answers)


def test_a_line_that_is_not_whole_is_no_candidate_as_long_as_another_is_there() -> None:
    """Neither half a line nor one that a server refused is scored; when nothing else was drawn it is handed on with its reason."""
    half: Message = {"role": "assistant", "content": "I wou", "finish_reason": "length"}
    lost: Message = {"role": "assistant", "content": "", "finish_reason": "error", "lost": "content_filter"}
    said: Message = {"role": "assistant", "content": "Hello.", "finish_reason": "stop"}
    critic = _Marks({})
    assert BestOfN(_Drawn([half, lost, said]), critic, 3).complete([Request(DESK_ASKS)]) == [said] and not critic.requests
    assert BestOfN(_Drawn([lost, half]), critic, 2).complete([Request(DESK_ASKS)]) == [lost]
    assert BestOfN(_Drawn([half, half]), critic, 2).complete([Request(DESK_ASKS)]) == [half]
