"""The door to worlds: what a world is, and the one runtime that resets, calls, snapshots, hashes and grades it.

A world is a plain class whose decorated methods are tools (`tasks.worlds.tools`), with a policy text, tables and a way to make
problems. `World` (in `tasks.worlds.runtime`) wraps such a class; generate, rl and evaluate all play and grade through it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
    tags:        what training never saw: unseen_user, unseen_phrasing, unseen_composition, unseen_rule.
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


@dataclass(frozen=True)
class Setting:
    """What models are told of a world. about: what it is and who its user is, in the author's words ("" for nothing: models read of a
    user and of an assistant with tools in any case). policy: its whole text."""

    name: str = ""
    about: str = ""
    policy: str = ""


class ToolResult(NamedTuple):
    """What a tool answered: `ok` is False when the call was refused (unknown tool, bad arguments, a rule of the API)."""

    ok: bool
    content: str


GRADING = {"state": 1, "outputs": 3, "required": 1, "policy": 2}
"""Part of the grading -> its version (`tasks.worlds.grading`), kept with frozen worlds and graded rows. Who changes what a part says
of some conversation counts its version up; `cairn regrade` shows the difference on stored conversations."""


Party = Literal["agent", "human", "tool"]
ENDED = ("user_stop", "hand_over")
"""Stops by which a conversation came to its end; by any other (see `Trajectory`) it was broken off."""
PARTIES: tuple[Party, ...] = ("agent", "human", "tool")
"""Whose failure a lost conversation can be (`tasks.worlds.blame`)."""


@dataclass(frozen=True)
class Outcome:
    """The one grading of a conversation in its parts (`GRADING`). Each is 0 or 1; `reward` is their product, without `policy`.

    state:    the final state hash equals that of the replayed ground truth.
    outputs:  every expected output appears in an agent reply (both sides normalised).
    required: every required call succeeded.
    policy:   share of the trajectory predicates that hold; reported apart (the paper's verifier does not see it).
    broken:   names of the trajectory predicates that do not hold.
    final_state_hash, wanted_state_hash: for the report.
    blame, blame_reason: of a lost conversation, whose failure it is (`tasks.worlds.blame`): agent, human or tool. "" when it was won.
    """

    state: int
    outputs: int
    required: int
    policy: float
    broken: tuple[str, ...] = ()
    final_state_hash: str = ""
    wanted_state_hash: str = ""
    blame: Party | Literal[""] = ""
    blame_reason: str = ""

    @property
    def reward(self) -> int:
        """1 when the problem is solved, else 0."""
        return self.state * self.outputs * self.required

    @property
    def about_agent(self) -> bool:
        """Whether it says something about the agent: training learns nothing from what human or tool did wrong (law 6)."""
        return self.blame in ("", "agent")


@dataclass
class Trajectory:
    """One played conversation.

    messages:  OpenAI-shaped chat messages (system prompt first when there is one); tool calls carry arguments as a dict.
    calls:     every tool call with its answer, in order: (Action, ToolResult).
    turns:     for a checkpoint agent, one entry per assistant turn: ids the model saw (prompt suffix) and produced, with the
               log-probability of each produced id. Empty for scripted agents. Tokens are never re-rendered.
    stop:      user_stop, hand_over, max_steps, max_tokens, parse_error, or why a server gave no turn (`tasks.llm.losses.GONE`);
               human_error, human_ and such a reason, and tool_error, which are not the agent's doing.
    """

    problem: Problem
    trial: int
    messages: list[dict[str, Any]] = field(default_factory=list)
    calls: list[tuple[Action, ToolResult]] = field(default_factory=list)
    turns: list[dict[str, Any]] = field(default_factory=list)
    stop: str = ""
    outcome: Outcome | None = None
    agent: str = ""
    human: str = ""
    seed: int = 0
