"""What a server is asked first: for each way in which a role will ask it one small question with the role's own settings, and what
came of it.

The questions: a tool to call, an answer after a call without words, a form to fill in, a conversation as the simulated human sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from tasks.chat.answers import read_json
from tasks.contract.client import Message, Request
from tasks.engine.shared_params import Role
from tasks.players.openai_compatible import Dialect
from tasks.players.openai_compatible.wire import Reply, read

ITEM = "A7"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up_item",
        "description": "Look an item up by its id.",
        "parameters": {"type": "object", "properties": {"item_id": {"type": "string"}}, "required": ["item_id"]},
    },
}
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 10}},
    "required": ["score"],
}
_WANT: Message = {"role": "user", "content": f"Which colour has item {ITEM}? Look it up with the tool."}
_CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call_0", "type": "function", "function": {"name": TOOL["function"]["name"], "arguments": {"item_id": ITEM}}}
    ],
}
_RESULT: Message = {"role": "tool", "tool_call_id": "call_0", "name": TOOL["function"]["name"], "content": '{"colour": "green"}'}
_USER: Message = {"role": "system", "content": "You are the user of an assistant and want to borrow a lamp. Write your next line."}
QUESTIONS: Mapping[str, Request] = {
    "call": Request([_WANT], tools=[TOOL]),
    "after a call": Request([_WANT, _CALL, _RESULT], tools=[TOOL]),
    "form": Request([{"role": "user", "content": "How warm is the colour red, from 0 to 10?"}], schema=FORM),
    "opening": Request([_USER]),
    "talk": Request([_USER, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "What can I do for you?"}]),
}
"""Name -> question. Each is put as the role will put its own: with its seed, temperature, way of asking for forms and limits."""
LIMITS: Mapping[str, int] = {
    **dict.fromkeys(("generator", "recombiner"), 2048),
    **dict.fromkeys(("critic", "meta_critic", "aggregator"), 1024),
    **dict.fromkeys(("judge", "feedback"), 512),
    **dict.fromkeys(("agent", "contender"), 256),
    "human": 128,
    "human_critic": 32,
}
"""role -> most tokens of an answer as its room asks by default: with less room than in the run, a model that thinks first would be
refused here that does well there. A role's own max_tokens goes before."""
ROOM = 4
"""Times the room that an answer gets which was cut before it said anything, as in the run."""
NEEDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("agent", "contender"), ("call", "after a call")),
    "human": ("opening", "talk"),
}
"""role -> the questions that are like its own; all other roles fill in forms."""
UNPAID = -1
"""In place of a status: not asked, for lack of budget."""


@dataclass(frozen=True)
class Player:
    """Who plays a role at a server. name: judge, judge/2. where: its place in the params, for messages."""

    name: str
    where: str
    role: Role

    @property
    def dialect(self) -> Dialect:
        """How it is asked."""
        return Dialect(**{field.name: getattr(self.role, field.name) for field in fields(Dialect)})

    def question(self, name: str) -> Request:
        """A question with the room that the role's own have."""
        return replace(QUESTIONS[name], max_tokens=LIMITS[self.name.partition("/")[0]])

    @property
    def url(self) -> str:
        """Where it is asked."""
        return self.role.base_url.rstrip("/")


@dataclass(frozen=True)
class ServerAnswer:
    """What came of one question. status: of HTTP, 0 without any answer, UNPAID. words: of an error. kept: the answer, if it is one;
    body: the whole of what came. offered: a tool was offered. there: false when nothing took the connection."""

    status: int
    words: str = ""
    kept: Mapping[str, Any] | None = None
    body: Mapping[str, Any] | None = None
    offered: bool = False
    there: bool = True

    @property
    def reply(self) -> Reply:
        """The answer as the client would read it."""
        assert self.kept is not None
        return read(self.kept, 0, self.offered)


def cut(answer: ServerAnswer) -> bool:
    """Whether an answer ended before it had said or called anything."""
    return answer.reply.truncated and answer.reply.empty


def unfit(answer: ServerAnswer) -> str:
    """What is wrong with an answer as a filled-in form; "" when nothing is."""
    return read_json(answer.reply.message, FORM)[1]
