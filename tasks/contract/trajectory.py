"""What comes of a problem: one played conversation, and the one grading of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.contract.problem import Action, Problem, ToolResult

GRADING = {"state": 1, "outputs": 3, "required": 1, "policy": 2}
"""Part of the grading -> its version (`tasks.worlds.api.grading`), kept with frozen worlds and graded rows. Who changes what a
part says of some conversation counts its version up; `cairn regrade` shows the difference on stored conversations."""


Party = Literal["agent", "human", "tool"]
ENDED = ("user_stop", "hand_over")
"""Stops by which a conversation came to its end; by any other (see `Trajectory`) it was broken off."""
PARTIES: tuple[Party, ...] = ("agent", "human", "tool")
"""Whose failure a lost conversation can be (`tasks.worlds.api.blame`)."""


@dataclass(frozen=True)
class Outcome:
    """The one grading of a conversation in its parts (`GRADING`). Each is 0 or 1; `reward` is their product, without `policy`, or
    `value` where there is one.

    state:    the final state hash equals that of the replayed ground truth.
    outputs:  every expected output appears in an agent reply (both sides normalised).
    required: every required call succeeded.
    policy:   share of the trajectory predicates that hold; reported apart (the paper's verifier does not see it).
    broken:   names of the trajectory predicates that do not hold.
    final_state_hash, wanted_state_hash: for the report; "" in a world whose state is not compared (then `state` is 1).
    blame, blame_reason: of a lost conversation, whose failure it is (`tasks.worlds.api.blame`): agent, human or tool. "" when it
    was won.
    value: what it brought, in a world that grades by a real number (the sum of an episode's rewards); else None. rewards, subgoals: of
    each step of such an episode: its reward, and how many subgoals it reached for the first time.
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
    value: float | None = None
    rewards: tuple[float, ...] = ()
    subgoals: tuple[int, ...] = ()

    @property
    def solved(self) -> bool:
        """Whether all that was wanted was done."""
        return bool(self.state * self.outputs * self.required)

    @property
    def reward(self) -> float:
        """1 when the problem is solved, else 0; or what it brought, in a world that grades so."""
        return self.state * self.outputs * self.required if self.value is None else self.value

    @property
    def about_agent(self) -> bool:
        """Whether it says something about the agent: training learns nothing from what human or tool did wrong (law 6)."""
        return self.blame in ("", "agent")


@dataclass
class Trajectory:
    """One played conversation.

    messages:  OpenAI-shaped chat messages (system prompt first when there is one); tool calls carry arguments as a dict.
    calls:     every tool call with its answer, in order: (Action, ToolResult).
    turns:     for a checkpoint agent, one entry per assistant turn: ids the model saw (prompt_ids: what came since its last turn or,
               where `first` is true, a whole prompt, as in every turn of a chat format by turn) and produced (ids), with the
               log-probability of each produced id (logprobs). Empty for scripted agents. Tokens are never re-rendered.
    branch:    "" or, for one that was forked off another conversation, where: before which of the agent's turns, and the fork's number
               there ("3.0"; of a fork of it "3.0/5.1").
    stop:      user_stop, hand_over, max_steps, max_tokens, parse_error, or why a server gave no turn (`tasks.contract.losses.GONE`);
               human_error, human_ and such a reason, and tool_error, which are not the agent's doing; no_answer: a recorded one
               that ends in a call without an answer.
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
    branch: str = ""
