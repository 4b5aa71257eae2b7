"""Conversations that ended before their time, counted by reason. When nearly all do, whoever plays to learn or to measure stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from tasks.contract.losses import remedy
from tasks.contract.trajectory import ENDED, Trajectory

NO_ROOM, EPISODE, TURN = "no_room", "max_episode_tokens", "max_turn_tokens"
"""How a conversation ran out of tokens: the prompt left no room for a word, the conversation was too long, a turn was."""

REMEDIES: Mapping[str, str] = {
    NO_ROOM: "the prompt alone fills max_episode_tokens. Raise it, or shorten the prompt (prompt.tools, prompt.policy)",
    EPISODE: "they reached max_episode_tokens. Raise it, or shorten the prompt (prompt.tools, prompt.policy)",
    TURN: "a turn was cut at max_turn_tokens. Raise it; if the model does not know how to end a turn, train it longer before (sft)",
    "parse_error": "the agent's turns cannot be read (calls that are none, empty turns). Train it longer before (sft)",
}
"""What to do about the agent's own reasons; what human, tools and servers may do stands in `tasks.contract.losses`."""


def lost_by(played: Trajectory, max_turn_tokens: int) -> str:
    """The technical reason for which a conversation ended before its time: one of the three above, or how it stopped (parse_error,
    tool_error, human_...); "" when it ended by itself.

    max_turn_tokens: most produced ids of one turn of the agent that played.
    """
    if played.stop != "max_tokens":
        return "" if played.stop in (*ENDED, "max_steps") else played.stop
    if not played.turns:
        return NO_ROOM
    spoke = _turns(played) == len(played.turns)  # the last turn was begun, and cut
    return TURN if spoke and len(played.turns[-1]["ids"]) >= max_turn_tokens else EPISODE


def unheard(played: Trajectory, max_turn_tokens: int) -> str:
    """`lost_by`, of the reasons that are no answer of the model's: the cap ended it before its first turn was complete, or human or
    tools failed."""
    reason = lost_by(played, max_turn_tokens)
    return "" if reason in (TURN, "parse_error") or (reason == EPISODE and _turns(played) > 1) else reason


def broken(played: Trajectory) -> str:
    """`unheard` for an agent that answers in text and counts no tokens: how a conversation stopped that did not end by itself, nor for
    a turn that cannot be read. Cut turns are among them: their cap is the role's."""
    return "" if played.stop in (*ENDED, "max_steps", "parse_error") else played.stop


def counted(reasons: Iterable[str]) -> dict[str, int]:
    """How many conversations were lost by each reason, sorted by name."""
    return dict(sorted((reason, count) for reason, count in Counter(reasons).items() if reason))


def too_many(lost: Mapping[str, int], total: int, most: float, role: str = "agent") -> str:
    """When more than a share `most` of `total` conversations was lost for one reason, or all for want of any room: how many, why,
    and what to do; else "". role: of whoever acts. No room for a word and too little for the rest are one reason: the same cap."""
    if 0 < lost.get(NO_ROOM, 0) < total and lost.get(EPISODE):
        lost = {**lost, NO_ROOM: 0, EPISODE: lost[EPISODE] + lost[NO_ROOM]}
    reason = max(lost, key=lambda name: lost[name], default="")
    if not reason or (lost[reason] <= most * total and lost.get(NO_ROOM, 0) < total):
        return ""
    player = "human" if reason.startswith("human_") else role
    why = REMEDIES.get(reason) or remedy(reason, player) or remedy(reason.removeprefix("human_"), player) or reason
    return f"{lost[reason]} of {total} conversations ended before their time: {why}. (max_lost = {most:g})"


def _turns(played: Trajectory) -> int:
    return sum(message["role"] == "assistant" for message in played.messages)
