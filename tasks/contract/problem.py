"""What is solved in a world: problems with their grading, tool calls and answers, and what models are told of a world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]
Kind = Literal["read", "write", "end"]
"""What a tool does: read the state, change it, or end the conversation (hand over to a person)."""


@dataclass(frozen=True)
class Action:
    """One tool call. `kind` is the tool's."""

    name: str
    arguments: dict[str, Any]
    kind: Kind = "read"


@dataclass(frozen=True)
class Problem:
    """One thing to solve in a world, with its grading. A blueprint is a problem that was proven.

    problem_id:  stable, derived from the content.        split: by lineage, decided before anything is trained.
    family:      one_write, two_writes, three_writes, lookup, forbidden, information ...
    lineage:     what it shares with other problems (user ids, parent blueprints): problems with a common entry share a split.
    persona:     how the human talks.                      instruction: what the human wants, in prose (q of APIGen-MT).
    intent:      what the scripted human works from: requests with their slots, reveal style, phrasing ids. Human and oracle only.
    actions:     ground truth calls (a_gt), in an order that works; its writes define the state that should have been.
    outputs:     strings (o_gt) that must each appear in some agent reply.
    required:    calls that must have succeeded during the conversation (the required act of a refusal).
    tags:        what training never saw: unseen_user, unseen_phrasing, unseen_composition, unseen_rule; and PASSIVE.
    """

    problem_id: str
    world: str
    split: Split
    family: str
    lineage: tuple[str, ...]
    persona: str
    instruction: str
    intent: dict[str, Any]
    actions: tuple[Action, ...]
    outputs: tuple[str, ...] = ()
    required: tuple[Action, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def n_writes(self) -> int:
        """How many ground truth actions change the state."""
        return sum(action.kind == "write" for action in self.actions)

    @property
    def passive(self) -> bool:
        """Whether doing nothing solves it: nothing is learned from it, and no model is chosen by it."""
        return PASSIVE in self.tags


PASSIVE = "passive"
"""The tag of a problem that doing nothing solves. Only problems that somebody gives can be; they are counted apart."""


@dataclass(frozen=True)
class Setting:
    """What models are told of a world. about: what it is and who its user is, in the author's words ("" for nothing: models read of a
    user and of an assistant with tools in any case). policy: its whole text."""

    name: str = ""
    about: str = ""
    policy: str = ""


class Image(NamedTuple):
    """A picture in a tool's answer. media_type: image/png, jpeg, gif or webp. data: base64. It reaches models that can take it while
    its conversation is played; rows keep the answer's text alone, which names it by type, size and hash.
    """

    media_type: str
    data: str


class ToolResult(NamedTuple):
    """What a tool answered: `ok` is False when the call was refused (unknown tool, bad arguments, a rule of the API)."""

    ok: bool
    content: str
    images: tuple[Image, ...] = ()


class Illustrated(NamedTuple):
    """What a tool returns whose answer has pictures. answer: text or JSON, as any other tool returns."""

    answer: Any
    images: tuple[Image, ...]


ACCEPTED = "accepted"
"""Status of an attempt at a blueprint that every check let through."""
