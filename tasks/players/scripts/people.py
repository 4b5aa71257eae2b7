"""Scripts of those who talk: the human, the critic of a human's lines, the agent. Human and agent speak as the world's scripts do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.contract.client import Client, Message, Request
from tasks.contract.params import BadInput
from tasks.contract.scripts import COMMON_ERRORS, STOP, Scripts
from tasks.players.scripts.script import Scripted, block, known_world, other_digits, rates_of

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

AGENTS = ("agent", "contender")
"""Roles that the world's own agent plays."""
_DETAIL = re.compile(r"[\w#-]*\d[\w-]*")

CATALOGUE: dict[str, dict[str, str]] = {
    "human": {
        "wrong_detail": "says other digits than its description holds",
        "hangs_up": "stops although something remains to be said",
    },
    **{role: dict(COMMON_ERRORS) for role in AGENTS},
    "human_critic": {
        "misses_wrong_detail": "takes no points off for details that nobody gave",
        "likes_hanging_up": "gives a stop full marks even when the agent waits for an answer",
    },
}
"""role -> error name -> what it is. An agent's are those that every built-in world's agent knows; a world may have more."""


def client(role: str, world: World | None, errors: Mapping[str, float], seed: int) -> Client:
    """The script of one of these roles. errors: error name -> rate in [0, 1]. BadInput for a world without scripts of its own."""
    if role in ("human", *AGENTS) and world is not None:
        _scripts(role, world)
    if role not in AGENTS:
        return Scripted(role, world, dict(errors), seed, _PLAYERS[role])
    if world is None:
        raise LookupError(f"the scripted agent needs a world; ask for role({role!r}, world)")
    return ScriptedAgent(world, {error: rate for error, rate in errors.items() if error in world.ERRORS})


def _scripts(role: str, world: World) -> Scripts:
    if world.scripts is None:
        raise BadInput(
            f"roles.{role}.backend = scripted: world {world.name!r} has no scripted {role}; worlds made by an adapter have none. "
            "Give the role a model (backend: local), or the world's class SCRIPTS (tasks.contract.scripts.Scripts)."
        )
    return world.scripts


def _human(me: Scripted, requests: Sequence[Request]) -> list[str]:
    scripts = _scripts(me.role, known_world(me))
    lines = []
    for request in requests:
        line = str(scripts.human(request)["content"])
        begun = any(message["role"] == "assistant" for message in request.messages)
        if begun and me.errs(request, "hangs_up"):
            line = STOP
        elif me.errs(request, "wrong_detail") and (details := _DETAIL.findall(line)):
            rng = me.rng(request, "detail")
            detail = rng.choice(details)
            line = line.replace(detail, other_digits(detail, rng))
        lines.append(line)
    return lines


def _human_critic(me: Scripted, requests: Sequence[Request]) -> list[str]:
    return [json.dumps({"score": _faithfulness(me, request)}) for request in requests]


def _faithfulness(me: Scripted, request: Request) -> int:
    """10, less 4 for each detail that nobody gave, 4 for a repeated line, 8 for hanging up on a question."""
    description, history = str(block(request, "description")), block(request, "history")
    line = str(block(request, "candidate"))
    if line == STOP:
        asked = bool(history) and str(history[-1]["line"]).rstrip().endswith("?")
        return 2 if asked and not me.errs(request, "likes_hanging_up") else 10
    told = description + "\n".join(str(turn["line"]) for turn in history if turn["speaker"] == "assistant")
    invented = [detail for detail in _DETAIL.findall(line) if detail not in told]
    if me.errs(request, "misses_wrong_detail"):
        invented = []
    repeated = any(turn["line"] == line for turn in history if turn["speaker"] == "user")
    return max(0, 10 - 4 * len(invented) - 4 * repeated)


@dataclass
class ScriptedAgent:
    """The world's own rule-based agent as a Client; unlike the other roles it answers with tool calls too."""

    world: World
    errors: Mapping[str, float]
    name: str = "scripted-agent"
    revision: str = field(init=False)

    def __post_init__(self) -> None:
        self.revision = rates_of(self.errors)

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One turn per request, in order."""
        scripts = _scripts("agent", self.world)
        return [scripts.agent(request, self.errors) for request in requests]


_PLAYERS: dict[str, Callable[[Scripted, Sequence[Request]], list[str]]] = {"human": _human, "human_critic": _human_critic}
